"""What the workflow has others do: open, count, cut, import and finish; each in a thread.

While a thread works, the event loop sends heartbeats: they say that this process is alive, and bring
back whether the attempt was cancelled. The ledger, never a heartbeat's details, says what is done.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from batchimport.engines.temporal import messages as m
from batchimport.engines.temporal.jobs import (
    OpenJobs,
    naming_this_host,
    open_parts,
    refuse_other_host,
)
from batchimport.errors import BatchImportError, TransientError
from batchimport.jobs.finish import complete
from batchimport.jobs.identify import Request, identify, job_from
from batchimport.jobs.start import bytes_per_record, open_job
from batchimport.model import Counts
from batchimport.pipeline.chunk import process_chunk
from batchimport.policy.events import JobStarted
from batchimport.policy.plan import Plan
from batchimport.policy.retry import is_retryable
from batchimport.sinks import open_sink
from batchimport.sinks.base import SinkOptions
from batchimport.state.directory import StateDirectory
from batchimport.system import peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from batchimport.jobs.start import Opened
    from batchimport.model import Chunk, ChunkResult, Job
    from batchimport.system import LoadReader

_Result = TypeVar("_Result")

HEARTBEATS_PER_TIMEOUT = 4


class _NotItsTurnError(Exception):
    """The chunk before this one is not committed yet."""


class WorkerReader:
    """Says how loaded this worker is."""

    def __init__(self, load: LoadReader, slots: int) -> None:
        self._load, self._slots = load, slots
        self._host = os.uname().nodename
        self._name = f"{self._host}/{os.getpid()}"

    def read(self) -> m.Reading:
        """Return the latest reading."""
        load = self._load.read()
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
    ) -> None:
        self._jobs, self._pool, self._reader = jobs, pool, reader
        self._address, self._tell = address, tell

    def all(self) -> list[Callable[..., Any]]:
        """Return what a worker registers."""
        return [self.open, self.count, self.cut, self.process, self.finish]

    @activity.defn(name=m.OPEN)
    async def open(self, spec: m.JobSpec) -> m.Claimed:
        """Claim the job: it is ours from now on, whoever had it before."""
        info = activity.info()
        owner = m.Owner(self._address, info.namespace, info.workflow_id or spec.job_id)
        return await self._threaded(lambda _: self._claim(spec, owner))

    @activity.defn(name=m.COUNT)
    async def count(self, ref: m.JobRef) -> int:
        """Count the records of the job, independently of how they are cut."""

        def counted(_: threading.Event) -> int:
            with self._jobs.use(ref) as job:
                total, limit = job.work.source.count(), job.parts.job.limit
            return total if limit is None else min(total, limit)

        return await self._threaded(counted)

    @activity.defn(name=m.CUT)
    async def cut(self, request: m.CutRequest) -> m.Page:
        """Cut the next chunks."""

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
        """Import one chunk, as the local engine does."""
        began, attempt = time.monotonic(), activity.info().attempt
        try:
            result = await self._threaded(lambda cancelled: self._import(task, attempt, cancelled))
        except _NotItsTurnError:
            result = None
        return m.ChunkDone(result, self._reader.read(), attempt, time.monotonic() - began)

    @activity.defn(name=m.FINISH)
    async def finish(self, request: m.FinishRequest) -> m.Finished:
        """Check the accounts and record how the job ended."""

        def finished(_: threading.Event) -> m.Finished:
            with self._jobs.use(request.ref) as job:
                sink, claim = job.parts.sink, job.work.claim
                if request.is_whole:
                    size = job.work.source.size
                    complete(sink, claim, job.parts.job, size, request.total)
                else:
                    claim.finish("interrupted", request.total)
                rejects = sink.rejects(claim.record.job_id)
                codes = Counter(reject.errors[0].code for reject in rejects)
            self._jobs.close()
            return m.Finished(dict(sorted(codes.items())))

        return await self._threaded(finished)

    # -- in a thread --------------------------------------------------------------------------

    def _claim(self, spec: m.JobSpec, owner: m.Owner) -> m.Claimed:
        with naming_this_host(), ExitStack() as stack:
            refuse_other_host(spec.destination, spec.starter_host)
            address = self._jobs.address(spec.destination)
            job = job_from(spec.facts(), address)
            sink = open_sink(address, SinkOptions(ledger_schema=job.ledger_schema))
            stack.callback(sink.close)
            parts = open_parts(job, sink, spec.options.chunk_timeout_seconds, stack)
            request = Request(
                job,
                spec.options,
                StateDirectory(Path()),  # a worker keeps none
                spec.job_id,
                spec.restart,
                spec.allow_duplicates,
                spec.must_exist,
                spec.append,
            )
            found = identify(request, parts.source, sink, str(owner))
            opened = open_job(request, found, parts, str(owner))
            return self._describe(spec, job, opened)

    def _describe(self, spec: m.JobSpec, job: Job, opened: Opened) -> m.Claimed:
        record, work = opened.record, opened.work
        hints, done = work.claim.hints, Counts()
        for row in opened.committed:
            done = done.plus(row.successful, row.failed, row.filtered)
        started = JobStarted(
            record.job_id,
            job.sources,
            spec.destination,
            job.table,
            work.source.size,
            done=done,
            done_positions=sum(row.chunk.hi - row.chunk.lo for row in opened.committed),
            notes=work.source.notes,
        )
        return m.Claimed(
            m.JobRef(
                record.job_id,
                record.epoch,
                spec.destination,
                spec.starter_host,
                job.ledger_schema,
                spec.options.chunk_timeout_seconds,
            ),
            started,
            self._reader.read(),
            opened.resumed,
            hints.delivery,
            hints.writers,
            hints.preferred_records,
            bytes_per_record(work.source),
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

            result = process_chunk(job.work, task.chunk, attempt, before_store)
            job.tell_end()
            return result

    async def _threaded(self, work: Callable[[threading.Event], _Result]) -> _Result:
        """Run in a thread, with heartbeats; our errors become the server's."""
        cancelled = threading.Event()
        timeout = activity.info().heartbeat_timeout
        pause = timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT if timeout else 1.0
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, functools.partial(work, cancelled))
        future.add_done_callback(_look_at)
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


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of how a thread ended that nobody waits for any more: its attempt was cancelled."""
    if not future.cancelled():
        future.exception()
