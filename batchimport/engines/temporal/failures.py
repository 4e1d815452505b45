"""What the end of an activity means, in our own errors. Pure."""

from __future__ import annotations

from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

from batchimport.engines.temporal.messages import Failure
from batchimport.errors import BatchImportError, TransientError


def meaning_of(error: BaseException) -> BatchImportError:
    """Return our error that an activity ended with."""
    cause = error.__cause__
    if isinstance(cause, ApplicationError):
        if cause.details and isinstance(cause.details[0], dict):
            return Failure(**cause.details[0]).revive()
        return TransientError(cause.message)
    if isinstance(cause, ActivityTimeoutError):
        return TransientError(_timeout_in_words(cause))
    return TransientError(str(cause or error))


def is_silence(error: ActivityError) -> bool:
    """Say whether the last attempt ended because its worker sent no heartbeat."""
    cause = error.cause
    return isinstance(cause, ActivityTimeoutError) and cause.type == TimeoutType.HEARTBEAT


def _timeout_in_words(error: ActivityTimeoutError) -> str:
    if error.type == TimeoutType.HEARTBEAT:
        return "its worker went silent"
    return "took longer than --chunk-timeout"


def attempts_of(error: BaseException, most: int) -> int:
    """Return how many attempts were made before giving up."""
    is_final = isinstance(error.__cause__, ApplicationError) and error.__cause__.non_retryable
    return 1 if is_final else most
