"""The retry policy of a chunk; the only place that knows tenacity, whose defaults are traps."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import tenacity

from batchimport.errors import BatchImportError, TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchimport.model import RunOptions

JITTER_SECONDS = 0.25
Result = TypeVar("Result")


def is_retryable(error: BaseException) -> bool:
    """Say whether another attempt may succeed.

    Our own errors say so by their class. What no adapter classified is retried as well: the ledger
    makes an attempt that was in fact committed harmless.
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
    """Return the attempts of one chunk: exponential waits with jitter, a fixed number of them."""
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


def until_it_works(call: Callable[[], Result], on: type[Exception], seconds: float) -> Result:
    """Call again after an error of this class, with growing waits, for that long at most."""
    patient = tenacity.Retrying(
        stop=tenacity.stop_after_delay(seconds),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2),
        retry=tenacity.retry_if_exception_type(on),
        reraise=True,
    )
    return patient(call)
