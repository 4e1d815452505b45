"""The workflow `ImportJob`: decides what runs next, from nothing but what activities told it.

Deterministic: no clock, no file, no driver. A sliding window of chunks, like the local engine's; what
stops a job, how large a chunk is and how progress is counted are the same pure modules.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from batchimport.engines.temporal import messages as m
from batchimport.engines.temporal.failures import attempts_of, is_silence, meaning_of
from batchimport.engines.temporal.fleet import Fleet
from batchimport.errors import (
    BatchImportError,
    JobInterrupted,
    Stop,
)
from batchimport.model import Chunk, Position, Progress, Summary
from batchimport.policy.events import (
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    JobFinished,
    RecordsCounted,
)
from batchimport.policy.progress import Tally
from batchimport.policy.sizing import choose_sizer
from batchimport.policy.stop_rules import StopRule, verdict

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

_Kind = TypeVar("_Kind")

GRACE_SECONDS = 30.0
LOST_WORKERS = 3
"""So many times over, an activity may use up its attempts because its workers went silent."""
OPEN_SECONDS = COUNT_SECONDS = FINISH_SECONDS = 24 * 3600.0
"""As long as the largest file may take; that a worker is alive, its heartbeats say."""


@workflow.defn(name=m.WORKFLOW)
class ImportJob:
    """One job, from its claim to its accounts."""

    @workflow.init
    def __init__(self, begin: m.Begin) -> None:
        spec, so_far = begin.spec, begin.so_far
        self._spec, self._options = spec, spec.options
        self._tally = Tally(workflow.time, lambda: workflow.now().isoformat())
        self._fleet = Fleet()
        self._began_at = so_far.began_at if so_far else workflow.time()
        self._peak_bytes = so_far.peak_bytes if so_far else 0
        self._at = so_far.at if so_far else Position()
        self._is_cut = so_far is not None and so_far.is_cut
        self._is_paused = so_far is not None and so_far.is_paused
        self._cut: deque[Chunk] = deque()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._is_cutting = self._is_counting = self._is_renewing = self._is_finishing = False
        self._reason: BatchImportError | None = None
        self._happened = 0
        self._mistake: BaseException | None = None

    # -- asked and told from outside ----------------------------------------------------------

    @workflow.query(name=m.PROGRESS)
    def progress(self) -> Progress:
        """Return the moment, as `status --json` prints it."""
        return replace(self._tally.progress(), job_id=self._spec.job_id)

    @workflow.query(name=m.ACCOUNT)
    def account(self) -> m.Account:
        """Return what a display needs."""
        return m.Account(self._tally.job, self._tally.advanced())

    @workflow.signal(name=m.PAUSE)
    def pause(self) -> None:
        """Start no more chunks until `resume`."""
        self._is_paused = True
        self._tell_stage()

    @workflow.signal(name=m.RESUME)
    def resume(self) -> None:
        """Go on after `pause`."""
        self._is_paused = False
        self._tell_stage()

    # -- the way of a job ---------------------------------------------------------------------

    @workflow.run
    async def run(self, begin: m.Begin) -> m.Ended:
        """Import all that the ledger does not cover; a cancelled job drains."""
        so_far = begin.so_far
        claimed = so_far.claimed if so_far else await self._open()
        if claimed is None:
            return self._end(None, {})
        self._begin(claimed, so_far)
        if self._tally.total is None:
            self._help(self._count(claimed.ref))
        while not self._is_over():
            self._fill(claimed)
            await self._something_happens()
        await self._drain()
        if self._is_renewing and self._reason is None:
            workflow.continue_as_new(m.Begin(self._spec, self._so_far(claimed)))
        return self._end(claimed, await self._finish(claimed.ref))

    async def _open(self) -> m.Claimed | None:
        """Claim the job; None if that was refused, or the job cancelled meanwhile."""
        opening: list[m.Claimed] = []

        async def open_job() -> None:
            opening.append(
                await self._activity(m.OPEN, self._spec, m.Claimed, seconds=OPEN_SECONDS)
            )

        task = self._help(open_job())
        while not task.done():
            await self._something_happens()
        return opening[0] if opening else None

    def _begin(self, claimed: m.Claimed, so_far: m.SoFar | None) -> None:
        self._tally(claimed.started)
        if so_far is not None:
            self._tally(so_far.advanced)
        self._hear(claimed.reading)
        totals = self._tally.totals
        failures = so_far.failures_in_a_row if so_far else 0
        self._stop_rule = StopRule(
            self._options,
            totals.failed,
            totals.processed,
            failures,
            given_up=self._tally.chunks.failed,
            last_failure=so_far.last_failure if so_far else "",
        )
        self._sizer = choose_sizer(
            self._options,
            preferred=claimed.preferred_records,
            writers=claimed.writers,
            bytes_per_record=claimed.bytes_per_record,
        )
        self._tell_stage()

    def _fill(self, claimed: m.Claimed) -> None:
        """Start as many chunks as the window has room for, and cut more before they run out."""
        if self._is_paused or self._reason or self._is_renewing:
            return
        if workflow.info().is_continue_as_new_suggested() and not self._is_counting:
            self._is_renewing = True
            return
        decision = self._sizer.decide(self._fleet.load(workflow.time()))
        room = min(decision.in_flight, self._options.max_parallel)
        if claimed.writers == 1:  # a chunk must not wait in a slot for one that has none
            room = min(room, self._fleet.slots(workflow.time()))
        room = max(1, room)
        while self._cut and len(self._running) < room:
            self._start(claimed, self._cut.popleft())
        if not self._is_cut and not self._is_cutting and len(self._cut) < room:
            self._tally(decision)
            self._is_cutting = True
            chunk_bytes = self._options.chunk_bytes
            start = self._cut[-1].end if self._cut else self._at
            request = m.CutRequest(claimed.ref, start, decision.limit, chunk_bytes, room)
            self._help(self._cut_page(request))

    def _is_over(self) -> bool:
        """Say whether nothing is left to start; what was started is left to `_drain`."""
        if self._reason or self._is_renewing:
            return True
        return self._is_cut and not self._cut and not self._running and not self._helpers

    async def _drain(self) -> None:
        """Wait for what is in flight: to its end, or once stopped for the grace period."""
        until: float | None = None
        while self._running or self._helpers:
            if self._reason and until is None:
                until = workflow.time() + GRACE_SECONDS
                self._tell_stage()
                _cancel(self._helpers)
            if until is not None and workflow.time() >= until:
                _cancel(self._running.values())
            await self._something_happens(until)

    async def _finish(self, ref: m.JobRef) -> dict[str, int]:
        """Have the accounts checked and the end recorded; return the rejects by their code."""
        self._is_finishing = True
        self._tally.stage = "finishing"
        is_whole = self._reason is None and not self._stop_rule.given_up
        request = m.FinishRequest(ref, is_whole, self._tally.total)
        found: dict[str, int] = {}

        async def finish_job() -> None:
            finished = await self._activity(m.FINISH, request, m.Finished, seconds=FINISH_SECONDS)
            found.update(finished.rejects_by_code)

        task = self._help(finish_job())
        while not task.done():
            await self._something_happens()
        return found

    def _end(self, claimed: m.Claimed | None, codes: dict[str, int]) -> m.Ended:
        error, tally, facts = self._reason, self._tally, self._spec.facts()
        if claimed is not None:
            error = error or self._stop_rule.incomplete()
        status, code = verdict(tally.totals.failed, error)
        job_id = self._spec.job_id
        resumable = status in ("interrupted", "stopped", "failed")
        base = Summary(
            job_id=job_id,
            status=status,
            sources=tuple(facts["sources"]),
            destination=self._spec.destination,
            table=facts["table"],
            engine="temporal",
            peak_memory_bytes=self._peak_bytes,
            rejects_by_code=codes,
            resume_command=f"batchimport resume {job_id}" if resumable else None,
            error=str(error) if error else None,
        )
        if claimed is not None:
            base = replace(base, delivery=claimed.delivery, resumed=claimed.resumed)
        summary = tally.fill(base, workflow.time() - self._began_at)
        tally(JobFinished(summary))
        failure = m.Failure.of(error) if error else None
        ended = m.Ended(summary, code, failure, tally.advanced())
        if status in ("failed", "refused"):
            kind = type(error).__name__
            raise ApplicationError(str(error), ended, type=kind, non_retryable=True)
        return ended

    # -- chunks -------------------------------------------------------------------------------

    def _start(self, claimed: m.Claimed, chunk: Chunk) -> None:
        before = list(self._running)[-1] if self._running and claimed.writers == 1 else None
        self._at = chunk.end
        self._tally(ChunkStarted(chunk))
        task = asyncio.create_task(self._import(claimed.ref, chunk, before))
        self._running[chunk.lo] = task
        task.add_done_callback(lambda task: self._ended(chunk, task))

    def _ended(self, chunk: Chunk, task: asyncio.Task[None]) -> None:
        del self._running[chunk.lo]
        self._see_end(task)

    async def _import(self, ref: m.JobRef, chunk: Chunk, before: int | None) -> None:
        """Bring a chunk to its end; never raises, for one chunk must not stop the others."""
        try:
            done = await self._attempts(ref, chunk, before)
        except (ActivityError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                return
            self._count_retries(chunk, attempts_of(error, self._options.max_attempts))
            why = meaning_of(error)
            self._tally(ChunkFailed(chunk, str(why)))
            self._stop(self._stop_rule.failed(why))
            return
        assert done.result is not None  # noqa: S101 - else it was started again
        self._count_retries(chunk, done.attempt)
        self._tally(ChunkFinished(done.result, done.seconds))
        self._stop(self._stop_rule.finished(done.result))

    async def _attempts(self, ref: m.JobRef, chunk: Chunk, before: int | None) -> m.ChunkDone:
        """Start a chunk until it need not wait for the one before it."""
        seconds = self._options.chunk_timeout_seconds + m.TURN_SECONDS
        while True:
            task = m.ChunkTask(ref, chunk, before if before in self._running else None)
            done = await self._activity(m.PROCESS, task, m.ChunkDone, seconds=seconds)
            self._hear(done.reading)
            if done.result is not None:
                return done

    def _count_retries(self, chunk: Chunk, attempts: int) -> None:
        for attempt in range(1, attempts):
            self._tally(ChunkRetried(chunk, attempt, ""))

    # -- helpers ------------------------------------------------------------------------------

    async def _count(self, ref: m.JobRef) -> None:
        self._is_counting = True
        total = await self._activity(m.COUNT, ref, int, seconds=COUNT_SECONDS)
        self._is_counting = False
        self._tally(RecordsCounted(total))

    async def _cut_page(self, request: m.CutRequest) -> None:
        page = await self._activity(m.CUT, request, m.Page, seconds=OPEN_SECONDS)
        self._cut.extend(page.chunks)
        self._is_cut, self._is_cutting = page.is_last, False

    async def _activity(
        self, name: str, argument: Any, kind: type[_Kind], *, seconds: float
    ) -> _Kind:
        """Have something done; that workers went silent over it says little of the thing itself."""
        for _ in range(LOST_WORKERS):
            try:
                return await self._attempted(name, argument, kind, seconds)
            except ActivityError as error:
                if self._reason or not is_silence(error):
                    raise
        return await self._attempted(name, argument, kind, seconds)

    async def _attempted(
        self, name: str, argument: Any, kind: type[_Kind], seconds: float
    ) -> _Kind:
        options = self._options
        found: _Kind = await workflow.execute_activity(
            name,
            argument,
            result_type=kind,
            start_to_close_timeout=timedelta(seconds=seconds),
            heartbeat_timeout=timedelta(seconds=self._spec.heartbeat_seconds),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=options.retry_initial_seconds),
                backoff_coefficient=options.retry_backoff,
                maximum_interval=timedelta(seconds=options.retry_max_seconds),
                maximum_attempts=options.max_attempts,
            ),
        )
        return found

    def _help(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the chunks; if it fails, the job stops."""

        async def guarded() -> None:
            try:
                await work
            except (ActivityError, asyncio.CancelledError) as error:
                if not is_cancelled_exception(error):
                    self._stop(meaning_of(error))

        task = asyncio.create_task(guarded())
        self._helpers.add(task)
        task.add_done_callback(self._helped)
        return task

    def _helped(self, task: asyncio.Task[None]) -> None:
        self._helpers.discard(task)
        self._see_end(task)

    def _see_end(self, task: asyncio.Task[None]) -> None:
        self._happened += 1
        if not task.cancelled():
            self._mistake = self._mistake or task.exception()

    async def _something_happens(self, until: float | None = None) -> None:
        """Wait for the end of an activity, a signal, or the time; a cancelled job stops."""
        if self._mistake:
            raise self._mistake  # in this program: the task fails, and is tried again when mended
        seen = self._happened
        timeout = None if until is None else max(1.0, until - workflow.time())
        try:
            await workflow.wait_condition(lambda: self._happened != seen, timeout=timeout)
        except TimeoutError:
            return
        except asyncio.CancelledError:
            if not self._is_finishing:
                self._stop(JobInterrupted("cancelled"))

    def _stop(self, reason: BatchImportError | None) -> None:
        if reason is not None and (self._reason is None or isinstance(self._reason, Stop)):
            self._reason = reason

    def _hear(self, reading: m.Reading) -> None:
        self._fleet.hear(reading, workflow.time())
        self._peak_bytes = max(self._peak_bytes, reading.peak_bytes)

    def _tell_stage(self) -> None:
        self._happened += 1
        stage = "draining" if self._reason else "paused" if self._is_paused else "importing"
        self._tally.stage = stage if self._tally.job else "planning"

    def _so_far(self, claimed: m.Claimed) -> m.SoFar:
        return m.SoFar(
            claimed=claimed,
            advanced=self._tally.advanced(),
            at=self._at,
            is_cut=self._is_cut and not self._cut,
            failures_in_a_row=self._stop_rule.failures_in_a_row,
            last_failure=self._stop_rule.last_failure,
            began_at=self._began_at,
            peak_bytes=self._peak_bytes,
            is_paused=self._is_paused,
        )


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
