"""A destination that is away or locked: one wait of the job, whatever it wanted there."""

from __future__ import annotations

import functools
import threading
import time
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from batchimport.errors import (
    BatchImportError,
    DestinationAwayError,
    DestinationLockedError,
    DestinationNotUpError,
    FatalError,
)
from batchimport.policy.events import WaitEnded, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

    from batchimport.model import Chunk, Reject
    from batchimport.policy.events import Observer
    from batchimport.sinks.base import Sink

Result = TypeVar("Result")

SAID_AFTER_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
NOT_YET_OPEN = (DestinationLockedError, DestinationNotUpError)
"""What opening a destination waits for: an address that is wrong would be waited for in vain."""
MOST_LOSSES = 2
"""Connections that an attempt may lose in its middle: a chunk that ends its session each time would
otherwise be tried for ever."""


class DestinationWait:
    """Calls again what failed because the destination was away, until a limit is reached.

    The time counts from the first failure to the next call that succeeds, in whatever thread. Once
    the limit is reached, everything fails at once.

    Args:
        limit_seconds: 0 does not wait: the error is the caller's.
        tell: Called with events once a wait has lasted for two seconds, and at its end.

    Attributes:
        is_claimed: The job is this process's: a lock then does not mean that it runs elsewhere.
    """

    def __init__(
        self,
        limit_seconds: float,
        tell: Observer = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tell = tell
        self.is_claimed = False
        self._limit, self._clock = limit_seconds, clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.local()
        self._since: float | None = None
        self._ended_seconds = 0.0
        self._over: BatchImportError | None = None

    @property
    def seconds(self) -> float:
        """How long the job has waited, the present wait included."""
        since = self._since
        return self._ended_seconds + (self._clock() - since if since is not None else 0.0)

    def stop(self) -> None:
        """End all waits: the run is stopping."""
        self._stopped.set()

    def call(
        self,
        work: Callable[[], Result],
        on: type[DestinationAwayError]
        | tuple[type[DestinationAwayError], ...] = DestinationAwayError,
    ) -> Result:
        """Return the result of `work`, which must be safe to call again.

        Raises:
            FatalError: If the destination was away for longer than the limit.
            DestinationAwayError: If the run is stopping, or does not wait.
        """
        if getattr(self._thread, "is_calling", False):
            return (
                work()
            )  # a part of what is called, such as a claim: only the whole can be repeated
        losses, pause = 0, FIRST_PAUSE_SECONDS
        while True:
            if self._over is not None:
                raise self._over
            try:
                result = self._guarded(work)
            except on as error:
                losses += error.was_connected
                if losses > MOST_LOSSES:
                    raise
                self.pause(error, pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._end(is_back=True)
                return result

    def _guarded(self, work: Callable[[], Result]) -> Result:
        self._thread.is_calling = True
        try:
            return work()
        finally:
            self._thread.is_calling = False

    def pause(self, error: DestinationAwayError, seconds: float) -> None:
        """Wait before the next call.

        Raises:
            BatchImportError: If there is to be none.
        """
        with self._lock:
            if self._over is not None or not self._limit or self._stopped.is_set():
                raise self._over or error
            now = self._clock()
            self._since = now if self._since is None else self._since
            waited = now - self._since
            is_over = waited >= self._limit
            if is_over:
                self._over = self._given_up(error)
        if is_over:
            self._end(is_back=False)
            raise self._over or error
        if waited >= SAID_AFTER_SECONDS:
            self.tell(Waiting(error.where or "the destination", error.message, waited))
        self._stopped.wait(min(seconds, self._limit - waited))

    def _end(self, *, is_back: bool) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._since is None:
                return
            waited = self._clock() - self._since
            self._ended_seconds += waited
            self._since = None
        self.tell(WaitEnded(waited, is_back))

    def _given_up(self, error: DestinationAwayError) -> BatchImportError:
        """Return why the job ends: a lock before the claim means that another program has the place."""
        if isinstance(error, DestinationLockedError) and not self.is_claimed:
            return error
        return FatalError(
            f"{error.message}; waited {self._limit:g} s for it (--destination-wait)",
            where=error.where,
            hint="run the same command again: it imports only what is missing",
        )


class _Patient:
    """A sink or a claim whose methods wait: each of them may be called again after any failure."""

    def __init__(self, inner: Any, wait: DestinationWait) -> None:
        self._inner, self._wait = inner, wait

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return functools.partial(self._call, value) if callable(value) else value

    def _call(self, method: Callable[..., Any], *values: Any, **named: Any) -> Any:
        return self._wait.call(lambda: method(*values, **named))


class _PatientSink(_Patient):
    def claim(self, *values: Any, **named: Any) -> _Patient:
        return _Patient(self._call(self._inner.claim, *values, **named), self._wait)

    def join(self, *values: Any, **named: Any) -> _Patient:
        return _Patient(self._call(self._inner.join, *values, **named), self._wait)

    def rejects(self, job_id: str, within: Chunk | None = None) -> Iterator[Reject]:
        return self._each(lambda: self._inner.rejects(job_id, within))

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        return self._each(lambda: self._inner.reject_frames(job_id, within))

    def _each(self, begin: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        done = 0
        while True:
            try:
                for item in islice(begin(), done, None):
                    yield item
                    done += 1
            except DestinationAwayError as error:
                self._wait.pause(error, LONGEST_PAUSE_SECONDS)
            else:
                return

    def close(self) -> None:
        self._inner.close()


@contextmanager
def open_patiently(open_it: Callable[[], Sink], wait: DestinationWait) -> Iterator[Sink]:
    """Open a destination as soon as that is possible, wait for it from then on, and close it in the end."""
    with closing(wait.call(open_it, on=NOT_YET_OPEN)) as sink:
        yield patient(sink, wait)


def patient(sink: Sink, wait: DestinationWait) -> Sink:
    """Return a sink that waits where the given one fails because the destination is away."""
    return cast("Sink", _PatientSink(sink, wait))
