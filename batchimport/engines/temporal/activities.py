"""The activities that the workflow calls: open, count, cut, process, finish; each in a thread.

While a thread works, the event loop sends heartbeats, which show that this process is alive, and
learns from them whether the attempt was cancelled. What is done is read from the ledger alone.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from batchimport.display.log import committed
from batchimport.engines.temporal import messages as m
from batchimport.engines.temporal.open_jobs import (
    OpenJobs,
    naming_this_host,
    open_parts,
    refuse_other_host,
)
from batchimport.errors import BatchImportError, TransientError
from batchimport.jobs.finish import count_records, finish_job, outcome_counts
from batchimport.jobs.identify import Request, job_from
from batchimport.jobs.recorder import committed_counts, started, unit_of
from batchimport.jobs.replaying import orphans
from batchimport.jobs.start import begin_job, bytes_per_record
from batchimport.pipeline.chunk import process_chunk
from batchimport.policy.events import ChunkFailed, ChunkFinished, ChunkStarted
from batchimport.policy.plan import Plan
from batchimport.policy.retry import is_retryable
from batchimport.sinks import open_sink
from batchimport.sinks.base import SinkOptions
from batchimport.sinks.waiting import DestinationWait, open_patiently
from batchimport.state.directory import StateDirectory
from batchimport.system import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from batchimport.display.spans import Telemetry
    from batchimport.engines.temporal.open_jobs import OpenJob
    from batchimport.jobs.start import Opened
    from batchimport.model import Chunk, ChunkResult, Job
    from batchimport.policy.events import Observer
    from batchimport.system import LoadReader

_Result = TypeVar("_Result")

HEARTBEATS_PER_TIMEOUT = 4


class _NotItsTurnError(Exception):
    """The chunk before this one is still not committed."""


WORKER_BYTES = 64 * 1024 * 1024
"""Memory of a worker beyond that of a process which imports alone: Temporal's client, and what the
allocator keeps for each of its threads. Measured."""


class WorkerReader:
    """Reads the load of this worker."""

    def __init__(self, load: LoadReader, slots: int) -> None:
        self._load, self._slots = load, slots
        self._host = os.uname().nodename
        self._name = f"{self._host}/{os.getpid()}"

    def read(self) -> m.Reading:
        """Return the latest reading."""
        load = self._load.read()
        load = replace(load, limit_bytes=max(1, load.limit_bytes - WORKER_BYTES))
        return m.Reading(self._name, self._host, load, self._slots, peak_memory_bytes())


class Activities:
    """The activities of one worker."""

    def __init__(
        self,
        jobs: OpenJobs,
        pool: Executor,
        reader: WorkerReader,
        address: str,
        tell: Callable[[str], None],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._jobs, self._pool, self._reader = jobs, pool, reader
        self._address, self._tell, self._telemetry = address, tell, telemetry

    def all(self) -> list[Callable[..., Any]]:
        """Return what a worker registers."""
        return [self.open, self.count, self.cut, self.process, self.finish]

    @activity.defn(name=m.OPEN)
    async def open(self, spec: m.JobSpec) -> m.Claimed:
        """Claim the job, whoever owned it before."""
        info = activity.info()
        owner = m.Owner(self._address, info.namespace, info.workflow_id or spec.job_id)
        return await self._threaded(lambda _: self._claim(spec, owner))

    @activity.defn(name=m.COUNT)
    async def count(self, ref: m.JobRef) -> int:
        """Count the records of the job, independently of how they are cut."""

        def count(_: threading.Event) -> int:
            with self._jobs.use(ref) as job:
                return count_records(job.parts.source, job.parts.job)

        return await self._threaded(count)

    @activity.defn(name=m.CUT)
    async def cut(self, request: m.CutRequest) -> m.Page:
        """Cut the next chunks that the ledger does not cover."""

        def page(_: threading.Event) -> m.Page:
            with self._jobs.use(request.ref) as job:
                source = job.work.source
                plan = Plan(source.size, job.committed, job.parts.job.limit)
                plan.skip_to(request.start)
                chunks: list[Chunk] = []
                while len(chunks) < request.chunks:
                    chunk = plan.take(source.cut, request.limit, request.max_bytes)
                    if chunk is None:
                        return m.Page(chunks, is_last=True)
                    chunks.append(chunk)
            return m.Page(chunks, is_last=False)

        return await self._threaded(page)

    @activity.defn(name=m.PROCESS)
    async def process(self, task: m.ChunkTask) -> m.ChunkDone:
        """Import one chunk, by the same function as the local engine."""
        began, attempt = time.monotonic(), activity.info().attempt
        try:
            result = await self._threaded(lambda cancelled: self._import(task, attempt, cancelled))
        except _NotItsTurnError:
            result = None
        seconds = time.monotonic() - began
        if result is not None:
            self._tell(f"job {task.ref.job_id}: {committed(ChunkFinished(result, seconds))}")
        waited = self._jobs.waited(task.ref)
        return m.ChunkDone(result, self._reader.read(), attempt, seconds, waited)

    @activity.defn(name=m.FINISH)
    async def finish(self, request: m.FinishRequest) -> m.Finished:
        """Check the accounts and record how the job ended."""
        attempt = activity.info().attempt

        def finish(cancelled: threading.Event) -> m.Finished:
            with self._jobs.use(request.ref) as job:
                claim = job.work.claim
                if request.is_whole:
                    _import_orphans(job, attempt, cancelled)
                finish_job(job.parts, claim, request.total, is_whole=request.is_whole)
                rejects = job.parts.sink.rejects(claim.record.job_id)
                codes = Counter(reject.errors[0].code for reject in rejects)
                committed = job.parts.sink.committed(claim.record.job_id)
            self._jobs.close()
            totals, _ = committed_counts(committed)
            return m.Finished(dict(sorted(codes.items())), outcome_counts(committed), totals)

        return await self._threaded(finish)

    # -- in a thread --------------------------------------------------------------------------

    def _claim(self, spec: m.JobSpec, owner: m.Owner) -> m.Claimed:
        with naming_this_host(), ExitStack() as stack:
            refuse_other_host(spec.destination, spec.starter_host)
            address = self._jobs.address(spec.destination)
            job = job_from(spec.facts(), address)
            wait = DestinationWait(spec.options.destination_wait_seconds)
            options = SinkOptions(ledger_schema=job.ledger_schema)
            sink = stack.enter_context(open_patiently(lambda: open_sink(address, options), wait))
            parts = open_parts(job, sink, spec.options.chunk_timeout_seconds, stack)
            request = Request(
                job,
                spec.options,
                StateDirectory(Path()),  # a worker writes no checkpoints
                spec.job_id,
                spec.restart,
                spec.allow_duplicates,
                spec.must_exist,
                spec.append,
            )
            _, opened = begin_job(request, parts, str(owner), reopen=True)
            assert opened is not None  # noqa: S101 - a completed job is opened again
            return self._claimed(spec, job, opened)

    def _claimed(self, spec: m.JobSpec, job: Job, opened: Opened) -> m.Claimed:
        record, source, hints = opened.record, opened.work.source, opened.work.claim.hints
        return m.Claimed(
            m.JobRef(
                record.job_id,
                record.epoch,
                spec.destination,
                spec.starter_host,
                job.ledger_schema,
                spec.options.chunk_timeout_seconds,
                spec.options.destination_wait_seconds,
            ),
            started(record.job_id, job, source, opened.committed, opened.inferred, opened.notes),
            self._reader.read(),
            opened.resumed,
            hints.delivery,
            hints.writers,
            hints.preferred_records,
            bytes_per_record(source),
            hints.keeps_order,
            source.block_bytes,
        )

    def _import(self, task: m.ChunkTask, attempt: int, cancelled: threading.Event) -> ChunkResult:
        with self._jobs.use(task.ref) as job:

            def before_store() -> None:
                if cancelled.is_set():
                    raise TransientError("the attempt was cancelled")
                if task.after is not None and not job.wait_for(
                    task.after, m.TURN_SECONDS, cancelled.is_set
                ):
                    raise _NotItsTurnError

            began, observe = time.monotonic(), self._observer(job, attempt)
            observe(ChunkStarted(task.chunk, job.work.source.file_at(task.chunk.lo)))
            try:
                result = process_chunk(job.work, task.chunk, attempt, before_store)
            except BatchImportError as error:
                observe(ChunkFailed(task.chunk, str(error)))
                raise
            observe(ChunkFinished(result, time.monotonic() - began))
            job.wake_waiting()
            return result

    def _observer(self, job: OpenJob, attempt: int) -> Observer:
        if self._telemetry is None:
            return lambda _: None
        unit = unit_of(job.work.source)
        return self._telemetry.attempt_of(job.record.job_id, job.parts.job.table, unit, attempt)

    async def _threaded(self, work: Callable[[threading.Event], _Result]) -> _Result:
        """Run in a thread, with heartbeats; our errors become errors of Temporal."""
        cancelled = threading.Event()
        timeout = activity.info().heartbeat_timeout
        pause = timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT if timeout else 1.0
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, functools.partial(work, cancelled))
        future.add_done_callback(_retrieve)
        try:
            while not future.done():
                await asyncio.wait({future}, timeout=pause)
                activity.heartbeat()
            return future.result()
        except BatchImportError as error:
            info = activity.info()
            self._tell(
                f"job {info.workflow_id}: {info.activity_type}, attempt {info.attempt}: {error}"
            )
            raise ApplicationError(
                str(error),
                m.Failure.of(error),
                type=type(error).__name__,
                non_retryable=not is_retryable(error),
            ) from error
        finally:
            cancelled.set()


def _import_orphans(job: OpenJob, attempt: int, cancelled: threading.Event) -> None:
    """Process once more what foreign keys refused: what it refers to may be stored by now."""

    def before_store() -> None:
        if cancelled.is_set():
            raise TransientError("the attempt was cancelled")

    for work, count in orphans(job.work, job.parts.job, job.parts.sink):
        plan = Plan(count, [])
        while (chunk := plan.take(work.source.cut, 1, 1)) is not None:
            process_chunk(work, chunk, attempt, before_store)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve the result of an abandoned attempt, so that asyncio does not warn about it."""
    if not future.cancelled():
        future.exception()
