"""The workflow `ImportJob`: decides what runs next, from the results of activities alone.

Deterministic, as Temporal demands: it reads no clock, file or database. It keeps a sliding window of
chunks like the local engine, and shares with it the pure rules of `policy`: when a job stops, how
large a chunk is, how progress is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

from batchimport.engines.temporal import messages as m
from batchimport.errors import BatchImportError, JobInterrupted, Stop, TransientError
from batchimport.model import Chunk, Position, Progress, Summary
from batchimport.policy.events import (
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    JobFinished,
    RecordsCounted,
)
from batchimport.policy.progress import Tally, is_resumable
from batchimport.policy.sizing import LoadReading, choose_sizer
from batchimport.policy.stop_rules import StopRule, verdict

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

_Result = TypeVar("_Result")

GRACE_SECONDS = 30.0
LOST_WORKERS = 3
"""An activity whose workers all went silent is given a new set of attempts this many times."""
OPEN_SECONDS = COUNT_SECONDS = FINISH_SECONDS = 24 * 3600.0
"""Generous enough for the largest file; heartbeats detect dead workers."""
FORGET_AFTER_SECONDS = 30.0
"""The load of a worker that was silent for longer no longer counts."""


@workflow.defn(name=m.WORKFLOW)
class ImportJob:
    """One job, from its claim to the check of its accounts.

    All state that must survive `continue_as_new` is in `messages.SoFar`.
    """

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
        self._has_gap = False
        self._happened = 0
        self._mistake: BaseException | None = None

    # -- queries and signals ------------------------------------------------------------------

    @workflow.query(name=m.PROGRESS)
    def progress(self) -> Progress:
        """Return the present state as `status --json` prints it."""
        return replace(self._tally.progress(), job_id=self._spec.job_id)

    @workflow.query(name=m.ACCOUNT)
    def account(self) -> m.Account:
        """Return what a display needs to show the job."""
        return m.Account(self._tally.job, self._tally.advanced())

    @workflow.signal(name=m.PAUSE)
    def pause(self) -> None:
        """Start no more chunks until `resume`."""
        self._is_paused = True
        self._set_stage()

    @workflow.signal(name=m.RESUME)
    def resume(self) -> None:
        """Go on after `pause`."""
        self._is_paused = False
        self._set_stage()

    # -- the job ------------------------------------------------------------------------------

    @workflow.run
    async def run(self, begin: m.Begin) -> m.Ended:
        """Import what the ledger does not cover; a cancelled job drains.

        Raises:
            ApplicationError: If the job failed or was refused; its details are an `Ended`.
        """
        so_far = begin.so_far
        claimed = so_far.claimed if so_far else await self._open()
        if claimed is None:
            return self._end(None, None)
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
        return await self._alone(
            self._activity(m.OPEN, self._spec, m.Claimed, seconds=OPEN_SECONDS)
        )

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
            block_bytes=claimed.block_bytes,
        )
        self._set_stage()

    def _fill(self, claimed: m.Claimed) -> None:
        """Start as many chunks as there is room for, and have more cut before they run out."""
        if self._is_paused or self._reason or self._is_renewing:
            return
        if workflow.info().is_continue_as_new_suggested() and not self._is_counting:
            self._is_renewing = True
            return
        decision = self._sizer.decide(self._fleet.load(workflow.time()))
        room = min(decision.in_flight, self._options.max_parallel)
        if claimed.writers == 1:  # a waiting chunk must not take the slot of the one it waits for
            room = min(room, self._fleet.slots(workflow.time()))
        room = max(1, room)
        while self._cut and len(self._running) < room:
            self._start(claimed, self._cut.popleft())
        if not self._is_cut and not self._is_cutting and len(self._cut) < room:
            self._tally(decision)
            self._is_cutting = True
            chunk_bytes = decision.chunk_bytes or self._options.chunk_bytes
            start = self._cut[-1].end if self._cut else self._at
            request = m.CutRequest(claimed.ref, start, decision.limit, chunk_bytes, room)
            self._help(self._cut_page(request))

    def _is_over(self) -> bool:
        """Say whether no chunk is left to start; `_drain` waits for those that were started."""
        if self._reason or self._is_renewing:
            return True
        return self._is_cut and not self._cut and not self._running and not self._helpers

    async def _drain(self) -> None:
        """Wait for what is in flight to end; once the job is stopped, for the grace period only."""
        until: float | None = None
        while self._running or self._helpers:
            if self._reason and until is None:
                until = workflow.time() + GRACE_SECONDS
                self._set_stage()
                _cancel(self._helpers)
            if until is not None and workflow.time() >= until:
                _cancel(self._running.values())
            await self._something_happens(until)

    async def _finish(self, ref: m.JobRef) -> m.Finished | None:
        """Have the accounts checked and the end recorded; return what it came to."""
        self._is_finishing = True
        self._tally.stage = "finishing"
        is_whole = self._reason is None and not self._stop_rule.given_up
        request = m.FinishRequest(ref, is_whole, self._tally.total)
        return await self._alone(
            self._activity(m.FINISH, request, m.Finished, seconds=FINISH_SECONDS)
        )

    def _end(self, claimed: m.Claimed | None, finished: m.Finished | None) -> m.Ended:
        error, tally, facts = self._reason, self._tally, self._spec.facts()
        if finished is not None and finished.totals is not None:
            tally.settle(finished.totals)
        if claimed is not None:
            error = error or self._stop_rule.incomplete()
        status, code = verdict(tally.totals.failed, error)
        job_id = self._spec.job_id
        summary = Summary(
            job_id=job_id,
            status=status,
            sources=tuple(facts["sources"]),
            destination=self._spec.destination,
            table=facts["table"],
            engine="temporal",
            peak_memory_bytes=self._peak_bytes,
            rejects_by_code=finished.rejects_by_code if finished else {},
            resume_command=f"batchimport resume {job_id}" if is_resumable(status) else None,
            error=str(error) if error else None,
        )
        if claimed is not None:
            summary = replace(summary, delivery=claimed.delivery, resumed=claimed.resumed)
        if finished is not None:
            summary = replace(summary, **finished.outcomes)
        summary = tally.fill(summary, workflow.time() - self._began_at)
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
        task = asyncio.create_task(self._import(claimed, chunk, before))
        self._running[chunk.lo] = task
        task.add_done_callback(lambda task: self._ended(chunk, task))

    def _ended(self, chunk: Chunk, task: asyncio.Task[None]) -> None:
        del self._running[chunk.lo]
        self._see_end(task)

    async def _import(self, claimed: m.Claimed, chunk: Chunk, before: int | None) -> None:
        """Import a chunk or give it up; never raises, since one chunk must not stop the others."""
        try:
            done = await self._in_turn(claimed.ref, chunk, before)
        except (ActivityError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                return
            self._count_retries(chunk, _attempts_of(error, self._options.max_attempts))
            why = _meaning_of(error)
            self._tally(ChunkFailed(chunk, str(why)))
            self._stop(self._stop_rule.failed(why))
            if claimed.keeps_order:
                self._has_gap = True
                self._stop(self._stop_rule.incomplete())
            return
        if done is None:
            self._tally(ChunkFailed(chunk, "an earlier chunk was given up, whose keys come first"))
            return
        assert done.result is not None  # noqa: S101 - else it was started again
        self._count_retries(chunk, done.attempt)
        self._tally(ChunkFinished(done.result, done.seconds))
        self._stop(self._stop_rule.finished(done.result))

    async def _in_turn(self, ref: m.JobRef, chunk: Chunk, before: int | None) -> m.ChunkDone | None:
        """Start a chunk again until it no longer has to wait for the one before it.

        Returns:
            None if an earlier chunk was given up that must not be passed.
        """
        options = self._options
        seconds = options.chunk_timeout_seconds + options.destination_wait_seconds + m.TURN_SECONDS
        while not self._has_gap:
            task = m.ChunkTask(ref, chunk, before if before in self._running else None)
            done = await self._activity(m.PROCESS, task, m.ChunkDone, seconds=seconds)
            self._hear(done.reading)
            self._tally.waited_seconds = max(self._tally.waited_seconds, done.waited_seconds)
            if done.result is not None:
                return done
        return None

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
        self, name: str, argument: Any, kind: type[_Result], *, seconds: float
    ) -> _Result:
        """Run an activity, again with new attempts if its workers went silent: not its own fault."""
        for _ in range(LOST_WORKERS):
            try:
                return await self._with_retries(name, argument, kind, seconds)
            except ActivityError as error:
                if self._reason or not _is_silence(error):
                    raise
        return await self._with_retries(name, argument, kind, seconds)

    async def _with_retries(
        self, name: str, argument: Any, kind: type[_Result], seconds: float
    ) -> _Result:
        options = self._options
        result: _Result = await workflow.execute_activity(
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
        return result

    async def _alone(self, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """Return the result of an activity that nothing else waits for; None if it failed."""
        results: list[_Result] = []

        async def keep() -> None:
            results.append(await work)

        task = self._help(keep())
        while not task.done():
            await self._something_happens()
        return results[0] if results else None

    def _help(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the chunks; if it fails, the job stops."""

        async def guarded() -> None:
            try:
                await work
            except (ActivityError, asyncio.CancelledError) as error:
                if not is_cancelled_exception(error):
                    self._stop(_meaning_of(error))

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
        """Wait for the end of an activity, for a signal or until a time; stop if cancelled."""
        if self._mistake:
            raise self._mistake  # a bug here: the workflow task fails and is retried once fixed
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

    def _set_stage(self) -> None:
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


class Fleet:
    """The workers: remembers the latest reading of each, and forgets those that are silent."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[float, m.Reading]] = {}

    def hear(self, reading: m.Reading, now: float) -> None:
        """Take a reading into account.

        Args:
            now: Seconds of any monotonic clock.
        """
        self._latest[reading.worker] = (now, reading)

    def load(self, now: float) -> LoadReading:
        """Return the mean load of the hosts, all of their processors, and the tightest memory."""
        hosts: dict[str, list[LoadReading]] = {}
        for reading in self._recent(now):
            hosts.setdefault(reading.host, []).append(reading.load)
        loads = [_load_of_host(readings) for readings in hosts.values()]
        tightest = _tightest(loads)
        return LoadReading(
            cpu=sum(load.cpu for load in loads) / len(loads),
            own_cpu=sum(load.own_cpu for load in loads) / len(loads),
            memory=max(load.memory for load in loads),
            process_bytes=tightest.process_bytes,
            limit_bytes=tightest.limit_bytes,
            cpus=sum(load.cpus for load in loads),
        )

    def slots(self, now: float) -> int:
        """Return how many chunks the workers take at once."""
        return sum(reading.slots for reading in self._recent(now))

    def _recent(self, now: float) -> list[m.Reading]:
        since = now - FORGET_AFTER_SECONDS
        latest = list(self._latest.values())
        return [reading for heard_at, reading in latest if heard_at >= since] or [latest[-1][1]]


def _load_of_host(readings: list[LoadReading]) -> LoadReading:
    """Add up the workers of one host: the load that one causes is not another program's load."""
    tightest = _tightest(readings)
    cpu = max(load.cpu for load in readings)
    return LoadReading(
        cpu=cpu,
        own_cpu=min(cpu, sum(load.own_cpu for load in readings)),
        memory=max(load.memory for load in readings),
        process_bytes=tightest.process_bytes,
        limit_bytes=tightest.limit_bytes,
        cpus=max(load.cpus for load in readings),
    )


def _tightest(loads: list[LoadReading]) -> LoadReading:
    return max(loads, key=lambda load: load.process_bytes / max(1, load.limit_bytes))


def _meaning_of(error: BaseException) -> BatchImportError:
    """Return our own error for one that an activity ended with."""
    cause = error.__cause__
    if isinstance(cause, ApplicationError):
        if cause.details and isinstance(cause.details[0], dict):
            return m.Failure(**cause.details[0]).revive()
        return TransientError(cause.message)
    if isinstance(cause, ActivityTimeoutError):
        is_silent = cause.type == TimeoutType.HEARTBEAT
        return TransientError(
            "its worker went silent" if is_silent else "took longer than --chunk-timeout"
        )
    return TransientError(str(cause or error))


def _is_silence(error: ActivityError) -> bool:
    """Say whether the last attempt ended because its worker sent no heartbeat."""
    cause = error.cause
    return isinstance(cause, ActivityTimeoutError) and cause.type == TimeoutType.HEARTBEAT


def _attempts_of(error: BaseException, max_attempts: int) -> int:
    """Return how many attempts were made before the activity was given up."""
    is_final = isinstance(error.__cause__, ApplicationError) and error.__cause__.non_retryable
    return 1 if is_final else max_attempts
