"""The use cases, and the Python API: import a file, continue a job, tell how far it is."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport.engines.local import LocalEngine
from batchimport.engines.remote import attach, follow, has_ended
from batchimport.engines.signals import draining_signals, stopping_signals
from batchimport.errors import BatchImportError, UsageError, from_system, without_panics
from batchimport.jobs.finish import Exported, Outcome, complete, export_rejects
from batchimport.jobs.identify import (
    hash_of,
    identify,
    new_job_id,
    refuse_if_owned,
    verify_unchanged,
)
from batchimport.jobs.recorder import Recorder
from batchimport.jobs.start import Parts, bytes_per_record, open_job
from batchimport.model import Counts, Summary
from batchimport.pipeline.transform import load_transform
from batchimport.policy.events import JobFinished, JobStarted, RecordsCounted
from batchimport.policy.plan import Plan
from batchimport.policy.sizing import choose_sizer
from batchimport.policy.stop_rules import StopRule, verdict
from batchimport.schema.doubts import doubts
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions
from batchimport.sources import open_source
from batchimport.sources.bytes.spool import Spool
from batchimport.sources.paths import STANDARD_INPUT
from batchimport.system import LoadReader, owner_id, peak_memory_bytes, refuse_few_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.jobs.identify import Request
    from batchimport.model import Committed, Job
    from batchimport.pipeline.chunk import Work
    from batchimport.policy.events import Observer
    from batchimport.policy.sizing import Sizer
    from batchimport.sinks.base import JobRecord

COMPLETED = ("completed", "completed_with_rejects", "already_completed")


def import_file(request: Request, observer: Observer = lambda _: None) -> Outcome:
    """Import a source, or continue the job if it was interrupted.

    What goes wrong is told by the outcome: its summary, exit code and error.
    """
    job_id = request.job_id or ""
    try:
        refuse_few_files()
        followed = attach(request, observer)
        if followed is not None:
            return followed
        with without_panics(), ExitStack() as stack:
            spool = _spool(request, stack) if STANDARD_INPUT in request.job.sources else None
            with stopping_signals() if request.handle_signals else nullcontext():
                source = open_source(
                    request.job.sources,
                    request.job.options,
                    spool,
                    unpack_into=request.state.path / "spool",
                )
            stack.callback(source.close)
            job_id = job_id or new_job_id(request.job, source)
            transform = load_transform(request.job)
            if request.temporal is None:
                lock = f"{request.job.target_hash()}-{hash_of(redact(request.job.destination))}"
                stack.enter_context(request.state.lock(lock))
            options = SinkOptions(
                ledger_schema=request.job.ledger_schema, dry_run=request.options.dry_run
            )
            sink = open_sink(request.job.destination, options)
            stack.callback(sink.close)
            seconds = request.options.chunk_timeout_seconds
            run = _Run(
                request, Parts(request.job, source, transform, sink, seconds), observer, spool
            )
            if request.temporal is None:
                return run.execute()
            outcome, job_id = run.before_temporal(job_id)
        return outcome or follow(request, job_id, observer)
    except BatchImportError as error:
        return _not_begun(request.job, job_id, error)
    except OSError as error:
        return _not_begun(request.job, job_id, from_system(error))


def _spool(request: Request, stack: ExitStack) -> Spool:
    """Read standard input, or find what was read by the run that is to be continued."""
    if request.temporal is not None:
        raise UsageError(
            "standard input cannot be read by workers",
            where="--engine temporal",
            hint="write it to a file that every worker can read",
        )
    if request.must_exist and request.job_id:
        return Spool.of_job(request.state, request.job_id)
    with stopping_signals() if request.handle_signals else nullcontext():
        spool = Spool.of_standard_input(request.state)
    stack.callback(spool.close)
    return spool


def _not_begun(job: Job, job_id: str, error: BatchImportError) -> Outcome:
    status, _ = verdict(0, 0, error)
    summary = Summary(
        job_id=job_id,
        status=status,
        sources=job.sources,
        destination=redact(job.destination),
        table=job.table,
        peak_memory_bytes=peak_memory_bytes(),
        error=str(error),
    )
    return Outcome(summary, error.exit_code, error=error)


class _Run:
    """One process's execution of a job: identify, claim, run the engine, reconcile."""

    def __init__(
        self, request: Request, parts: Parts, observer: Observer, spool: Spool | None
    ) -> None:
        self._request, self._job, self._parts = request, request.job, parts
        self._source, self._sink = parts.source, parts.sink
        self._tell, self._spool = Recorder(request, observer, owner_id()), spool
        self._tally = self._tell.tally
        self._began = time.monotonic()
        self._resumed = False

    def execute(self) -> Outcome:
        """Run the job to an outcome."""
        outcome = self._execute()
        is_over = outcome.summary.status in COMPLETED and not self._request.options.dry_run
        if self._spool is not None and is_over:
            self._spool.discard()
        return outcome

    def _execute(self) -> Outcome:
        owner = self._tell.owner
        found = identify(self._request, self._source, self._sink, owner, has_ended)
        if found.known is not None and found.known.state == "completed":
            return self.already_completed(found.known)
        opened = open_job(self._request, found, self._parts, owner, has_ended)
        self._resumed = opened.resumed
        if self._spool is not None:
            self._spool.keep(opened.record.job_id)
        self._tell_start(opened.record, opened.committed)
        error: BatchImportError | None = None
        try:
            with without_panics():
                self._run_engine(opened.work, opened.committed)
        except BatchImportError as raised:
            error = raised
        return self._conclude(opened.record, error)

    def before_temporal(self, job_id: str) -> tuple[Outcome | None, str]:
        """Return the outcome if there is nothing to do; and the id of the job.

        What can be refused is refused here already, where the user is.

        Raises:
            BatchImportError: If it is.
        """
        if self._request.restart:
            return None, job_id
        known = identify(self._request, self._source, self._sink, self._tell.owner).known
        if known is None:
            return None, job_id
        if known.state == "completed":
            return self.already_completed(known), known.job_id
        refuse_if_owned(known, self._sink, self._tell.owner)
        return None, known.job_id

    # -- during -------------------------------------------------------------------------------

    def _tell_start(
        self, record: JobRecord, committed: Sequence[Committed], total: int | None = None
    ) -> None:
        done = Counts()
        for row in committed:
            done = done.plus(row.successful, row.failed, row.filtered)
        positions = sum(row.chunk.hi - row.chunk.lo for row in committed)
        self._tell(
            JobStarted(
                record.job_id,
                self._job.sources,
                redact(self._job.destination),
                self._job.table,
                self._source.size,
                total,
                done=done,
                done_positions=positions,
                notes=self._notes(),
            )
        )

    def _notes(self) -> tuple[str, ...]:
        kept = self._spool.note if self._spool is not None else ""
        said = doubts(self._job.schema) if self._job.model is None else ()
        return (*self._source.notes, *filter(None, [kept]), *said)

    def _run_engine(self, work: Work, committed: Sequence[Committed]) -> None:
        options, totals = self._request.options, self._tally.totals
        chunks = [row.chunk for row in committed]
        hints = self._sink.hints
        sizer = choose_sizer(
            options,
            preferred=hints.preferred_records,
            writers=hints.writers,
            bytes_per_record=bytes_per_record(self._source),
        )
        counter = threading.Thread(target=self._count, name="count", daemon=True)
        counter.start()
        asyncio.run(
            self._engine(
                work,
                Plan(self._source.size, chunks, self._job.limit),
                sizer,
                StopRule(options, totals.failed, totals.processed),
            )
        )
        counter.join()

    async def _engine(self, work: Work, plan: Plan, sizer: Sizer, stop_rule: StopRule) -> None:
        reader = LoadReader(self._request.options.max_memory_bytes)
        engine = LocalEngine(
            work,
            plan,
            sizer,
            self._request.options,
            stop_rule,
            observer=self._tell,
            read_load=reader.read,
        )
        with draining_signals(engine.interrupt) if self._request.handle_signals else nullcontext():
            await engine.run()

    def _count(self) -> None:
        with suppress(BatchImportError, OSError):
            total = self._source.count()
            limit = self._job.limit
            self._tell(RecordsCounted(total if limit is None else min(total, limit)))

    # -- after --------------------------------------------------------------------------------

    def _conclude(self, record: JobRecord, error: BatchImportError | None) -> Outcome:
        """Check the accounts, export the rejects, say how it ended."""
        try:
            if error is None and not self._tally.chunks.failed:
                complete(self._sink, self._job, record, self._source.size, self._tally.total)
            else:
                self._sink.finish(record.job_id, "interrupted", self._tally.total)
        except BatchImportError as raised:
            error = error or raised
        rejects = Exported()
        try:
            rejects = self._export_rejects(record)
        except BatchImportError as raised:
            error = error or raised
        status, code = verdict(self._tally.totals.failed, self._tally.chunks.failed, error)
        summary = self._summary(record, status, error, rejects)
        self._tell(JobFinished(summary))
        return Outcome(summary, code, rejects.examples, error)

    def _export_rejects(self, record: JobRecord) -> Exported:
        """Write the rejects file; without rejects there is none, unless it was asked for."""
        wanted = self._request.options.rejects_path
        if not self._tally.totals.failed and not wanted:
            return Exported()
        default = self._request.state.folder(record.job_id) / "rejects.jsonl"
        return export_rejects(self._sink, record.job_id, Path(wanted or default))

    def _summary(
        self, record: JobRecord, status: str, error: BatchImportError | None, rejects: Exported
    ) -> Summary:
        resumable = status in ("interrupted", "stopped", "failed")
        summary = Summary(
            job_id=record.job_id,
            status=status,
            sources=self._job.sources,
            destination=redact(self._job.destination),
            table=self._job.table,
            delivery=self._sink.hints.delivery,
            resumed=self._resumed,
            peak_memory_bytes=peak_memory_bytes(),
            rejects_by_code=rejects.codes,
            rejects_file=rejects.path,
            resume_command=f"batchimport resume {record.job_id}" if resumable else None,
            error=str(error) if error else None,
        )
        return self._tally.fill(summary, time.monotonic() - self._began)

    def already_completed(self, record: JobRecord) -> Outcome:
        """Say how the job ended, and export its rejects again."""
        committed = self._sink.committed(record.job_id)
        if record.modified != self._source.modified:
            verify_unchanged(self._source, committed)
        self._resumed = True
        self._tell_start(record, committed, record.total_items)
        rejects = self._export_rejects(record)
        summary = self._summary(record, "already_completed", None, rejects)
        self._tell(JobFinished(summary))
        return Outcome(summary, 3 if summary.failed else 0, rejects.examples)
