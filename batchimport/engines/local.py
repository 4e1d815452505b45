"""The engine in this process: a sliding window of asyncio tasks, whose work is done in threads.

Polars and the drivers release the GIL. The event loop only decides, waits and tells observers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport.errors import (
    BatchImportError,
    BehindGapError,
    JobInterrupted,
    Stop,
    TransientError,
)
from batchimport.pipeline.chunk import process_chunk
from batchimport.policy.events import (
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    Draining,
    Observer,
)
from batchimport.policy.plan import Plan
from batchimport.policy.retry import attempts
from batchimport.policy.sizing import choose_sizer
from batchimport.policy.stop_rules import StopRule
from batchimport.sinks.base import StoreSeparatelyError
from batchimport.sinks.waiting import DestinationWait
from batchimport.sources.joined import whole_of
from batchimport.system import LoadReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tenacity import RetryCallState

    from batchimport.model import Chunk, ChunkResult, RunOptions
    from batchimport.pipeline.chunk import Work
    from batchimport.policy.sizing import LoadReading, Sizer

GRACE_SECONDS = 30.0
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_TIMERS = 1.0
"""The timer of an attempt is looked at this often: it may have been stopped since."""


class _Turn:
    """A place in the queue for a sink with one writer, so that rows are stored in source order.

    Of two records with the same unique key, the earlier one then wins in every run. A chunk that is
    retried keeps its place: what stopped it would most often stop those behind it, too.

    Args:
        before: The turn of the chunk before; None if nothing is waited for.
        keeps_order: A chunk must not pass an earlier one that was given up.
    """

    def __init__(self, before: _Turn | None, *, keeps_order: bool) -> None:
        self._before, self._keeps_order = before, keeps_order
        self.ended = threading.Event()
        self.is_given_up = False

    def wait(self, is_cancelled: Callable[[], bool]) -> None:
        """Wait until the chunk before this one has ended.

        Raises:
            TransientError: If the attempt was cancelled.
            BehindGapError: If the chunk before was given up, and must not be passed.
        """
        while self._before is not None and not self._before.ended.wait(SECONDS_BETWEEN_LOOKS):
            if is_cancelled():
                break
        if is_cancelled():
            raise TransientError("the attempt was cancelled")
        if self._keeps_order and self._before is not None and self._before.is_given_up:
            raise BehindGapError("an earlier chunk was given up, whose keys come first")
        self._before = None  # a chain of all turns would be kept

    def end(self, *, is_given_up: bool) -> None:
        """Let the next chunk in."""
        self.is_given_up = is_given_up
        self.ended.set()


class LocalEngine:
    """Runs the chunks of a plan, until it is done or the run is stopped."""

    def __init__(  # noqa: PLR0913 - everything that varies is injected
        self,
        work: Work,
        plan: Plan,
        sizer: Sizer,
        options: RunOptions,
        stop_rule: StopRule,
        *,
        observer: Observer,
        read_load: Callable[[], LoadReading],
        wait: DestinationWait | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._work, self._plan, self._sizer, self._options = work, plan, sizer, options
        self._stop_rule, self._observer = stop_rule, observer
        self._read_load, self._sleep = read_load, sleep
        self._wait = wait or DestinationWait(0)
        self._pool = ThreadPoolExecutor(options.max_parallel + 2, thread_name_prefix="chunk")
        self._running: set[asyncio.Task[None]] = set()
        self._last: _Turn | None = None
        self._reason: BatchImportError | None = None
        self._given_up = threading.Event()
        self._stopping = asyncio.Event()

    def interrupt(self, reason: str) -> None:
        """Start no more chunks, and let those in flight end."""
        self._stop(JobInterrupted(reason))

    async def run(self) -> None:
        """Import all chunks of the plan.

        Raises:
            Stop: If the run was interrupted, or too many records were rejected.
            BatchImportError: If the job cannot continue, or chunks were given up.
        """
        try:
            while not self._stopping.is_set():
                decision = self._sizer.decide(self._read_load())
                if len(self._running) >= max(1, decision.in_flight):
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                    continue
                parts = await asyncio.to_thread(
                    self._next_parts,
                    decision.limit,
                    decision.chunk_bytes or self._options.chunk_bytes,
                )
                if not parts:
                    break
                chunk = whole_of(parts)
                self._observer(decision)
                self._observer(ChunkStarted(chunk, self._work.source.file_at(chunk.lo)))
                task = asyncio.create_task(self._import(chunk, parts, self._next_turn()))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await self._drain()
        finally:
            self._given_up.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
        reason = self._reason or self._stop_rule.incomplete()
        if reason is not None:
            raise reason

    def _next_parts(self, limit: int, max_bytes: int) -> Sequence[Chunk]:
        """Return the next chunk, or its parts if it spans several files; empty when nothing is left."""
        work, cut = self._work, self._work.source.cut
        if getattr(work.source, "reads_together", False) and work.claim.hints.stores_parts:
            return self._plan.take_together(cut, limit, max_bytes)
        chunk = self._plan.take(cut, limit, max_bytes)
        return [] if chunk is None else [chunk]

    async def _drain(self) -> None:
        """Wait for the chunks in flight to end; once the run is stopped, for the grace period only."""
        stopped = asyncio.create_task(self._stopping.wait())
        while self._running and not self._stopping.is_set():
            await asyncio.wait({stopped, *self._running}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=GRACE_SECONDS)
            self._given_up.set()
            for task in late:
                task.cancel()

    def _next_turn(self) -> _Turn:
        """Queue up behind the last chunk if the sink has one writer."""
        hints = self._work.claim.hints
        self._last = _Turn(
            self._last if hints.writers == 1 else None, keeps_order=hints.keeps_order
        )
        return self._last

    async def _import(self, chunk: Chunk, parts: Sequence[Chunk], turn: _Turn) -> None:
        """Import a chunk. If it spans several files and that fails, each part is a chunk by itself.

        So a file that cannot be read takes none with it.
        """
        is_stored = False
        try:
            is_stored = len(parts) > 1 and await self._import_together(chunk, parts, turn)
            if not is_stored:
                is_stored = await self._import_each(parts, turn)
        finally:
            turn.end(is_given_up=not is_stored)

    async def _import_together(self, chunk: Chunk, parts: Sequence[Chunk], turn: _Turn) -> bool:
        began = time.monotonic()
        try:
            result = await self._attempt(chunk, parts, 1, turn, is_last=True)
        except StoreSeparatelyError:
            return False
        except Exception as error:  # noqa: BLE001 - what it means, the attempts of the parts decide
            self._observer(ChunkRetried(chunk, 1, str(error), 0.0))
            return False
        self._finished(result, began)
        return True

    async def _import_each(self, chunks: Sequence[Chunk], turn: _Turn) -> bool:
        """Import chunks or give them up; never raises, since one chunk must not stop the others."""
        are_stored = True
        for at, chunk in enumerate(chunks):
            if at:
                self._observer(ChunkStarted(chunk, self._work.source.file_at(chunk.lo)))
            began = time.monotonic()
            try:
                is_last = are_stored and chunk is chunks[-1]
                self._finished(await self._with_retries(chunk, turn, is_last=is_last), began)
            except Exception as error:  # noqa: BLE001 - the stop rule decides what an error means
                self._failed(chunk, error)
                are_stored = False
        return are_stored

    def _finished(self, result: ChunkResult, began: float) -> None:
        self._observer(ChunkFinished(result, time.monotonic() - began))
        self._stop(self._stop_rule.finished(result))

    async def _with_retries(self, chunk: Chunk, turn: _Turn, *, is_last: bool) -> ChunkResult:
        def announce(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0.0
            self._observer(ChunkRetried(chunk, state.attempt_number, str(error), seconds))

        async for attempt in attempts(self._options, sleep=self._pause, before_sleep=announce):
            with attempt:
                number = attempt.retry_state.attempt_number
                return await self._attempt(chunk, (chunk,), number, turn, is_last=is_last)
        raise TransientError("no attempt was made")  # tenacity returns or raises before

    async def _attempt(
        self, chunk: Chunk, parts: Sequence[Chunk], number: int, turn: _Turn, *, is_last: bool
    ) -> ChunkResult:
        """Run one attempt; after a timeout, its thread stops before it stores.

        The time that it waits for its turn does not count: else one slow chunk would time out those
        behind it.

        Args:
            is_last: Nothing else comes in this turn: once it is committed, the thread lets the next
                one in by itself, for the event loop would take a while to hear of it.
        """
        cancelled = threading.Event()
        limit = self._options.chunk_timeout_seconds
        timer = _Timer(limit, lambda: self._wait.seconds)

        def before_store() -> None:
            timer.stop()
            turn.wait(lambda: cancelled.is_set() or self._given_up.is_set())
            timer.start()

        def process() -> ChunkResult:
            result = process_chunk(self._work, chunk, number, before_store, parts)
            if is_last:
                turn.end(is_given_up=False)
            return result

        work = asyncio.get_running_loop().run_in_executor(self._pool, process)
        try:
            while (left := timer.left()) > 0:
                await asyncio.wait({work}, timeout=min(left, SECONDS_BETWEEN_TIMERS))
                if work.done():
                    return work.result()
            raise TransientError(f"took longer than --chunk-timeout {limit:g} s")
        finally:
            cancelled.set()
            work.add_done_callback(_retrieve)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, unless the run is stopping.

        Raises:
            TransientError: If the run is stopping, so that there is no next attempt.
        """
        if self._stopping.is_set():
            raise TransientError("stopped before another attempt")
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        stopped.cancel()

    def _failed(self, chunk: Chunk, error: Exception) -> None:
        self._observer(ChunkFailed(chunk, str(error)))
        if isinstance(error, BehindGapError):  # the chunk itself is in order
            return
        if self._stopping.is_set() and isinstance(error, TransientError):
            return  # it had no more attempts because the run ends, which has its reason
        self._stop(self._stop_rule.failed(error))
        if self._work.claim.hints.keeps_order:
            self._stop(self._stop_rule.incomplete())

    def _stop(self, reason: BatchImportError | None) -> None:
        if reason is None:
            return
        if self._reason is None or isinstance(self._reason, Stop):
            self._reason = reason
        if not self._stopping.is_set():
            self._observer(Draining(reason.message))
            self._stopping.set()
            self._wait.stop()


class _Timer:
    """The time that an attempt has left; waits for its turn and for the destination do not count."""

    def __init__(self, limit: float, waited: Callable[[], float]) -> None:
        self._limit, self._waited = limit, waited
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._end: float | None = time.monotonic() - self._waited() + self._limit

    def stop(self) -> None:
        """Let the time stand still."""
        self._end = None

    def left(self) -> float:
        """Return the seconds that are left."""
        end = self._end
        return self._limit if end is None else end + self._waited() - time.monotonic()


def _retrieve(work: asyncio.Future[ChunkResult]) -> None:
    """Retrieve the result of an abandoned attempt, so that asyncio does not warn about it."""
    if not work.cancelled():
        work.exception()


def engine_for_rejects(
    work: Work, count: int, options: RunOptions, observer: Observer, wait: DestinationWait
) -> LocalEngine:
    """Return an engine that processes rejects again.

    What stops a run for its rejects does not stop it.

    Args:
        count: Number of rejects.
    """
    options = replace(options, max_errors=None, max_errors_share=None, hopeless_after=None)
    hints = work.claim.hints
    return LocalEngine(
        work,
        Plan(count, []),
        choose_sizer(
            options,
            preferred=hints.preferred_records,
            writers=hints.writers,
            bytes_per_record=0.0,
        ),
        options,
        StopRule(options, 0, 0),
        observer=observer,
        read_load=LoadReader(options.max_memory_bytes).read,
        wait=wait,
    )
