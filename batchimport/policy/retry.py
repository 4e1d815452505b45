"""The retry policy of a chunk. The only module that uses tenacity, whose defaults retry for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tenacity

from batchimport.errors import BatchImportError, TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchimport.model import RunOptions

JITTER_SECONDS = 0.25


def is_retryable(error: BaseException) -> bool:
    """Return whether another attempt may succeed.

    The class of a `BatchImportError` decides. Errors that no adapter classified are retried, too:
    if the failed attempt was committed after all, the ledger makes the next one harmless.
    """
    if isinstance(error, BatchImportError):
        return isinstance(error, TransientError)
    return isinstance(error, Exception)


def attempts(
    options: RunOptions,
    *,
    sleep: Callable[[float], Awaitable[None]],
    before_sleep: Callable[[tenacity.RetryCallState], None],
) -> tenacity.AsyncRetrying:
    """Return an iterator of attempts: a fixed number, with exponential waits and jitter between them."""
    return tenacity.AsyncRetrying(
        sleep=sleep,
        stop=tenacity.stop_after_attempt(options.max_attempts),
        wait=tenacity.wait_exponential_jitter(
            initial=options.retry_initial_seconds,
            max=options.retry_max_seconds,
            exp_base=options.retry_backoff,
            jitter=min(JITTER_SECONDS, options.retry_initial_seconds),
        ),
        retry=tenacity.retry_if_exception(is_retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
