"""Import a file: the use case behind the command line and the Python API.

The story of a job: it is identified (`jobs.identify`) and claimed (`jobs.start`); an engine runs its
chunks (`engines`); its accounts are checked (`jobs.finish`) and its rejects exported (`jobs.export`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from batchimport.display.log import RunLog
from batchimport.display.telemetry import open_telemetry
from batchimport.display.units import counted
from batchimport.engines import event_loop
from batchimport.engines.local import LocalEngine, engine_for_rejects
from batchimport.engines.lookup import has_ended
from batchimport.engines.signals import draining_signals, held_signals, stopping_signals
from batchimport.errors import (
    BatchImportError,
    NoSuchDestinationError,
    RowsGoneError,
    UsageError,
    from_system,
    without_panics,
)
from batchimport.jobs.export import Exported, export_rejects
from batchimport.jobs.finish import (
    Outcome,
    count_records,
    finish_job,
    rejects_path,
    summary_of,
)
from batchimport.jobs.identify import (
    identify,
    lock_of,
    new_job_id,
    refuse_if_owned,
    remembered_rows,
    state_of,
    verify_unchanged,
)
from batchimport.jobs.outputs import refuse_overwriting
from batchimport.jobs.recorder import Recorder, committed_counts, record_failure, started
from batchimport.jobs.replaying import orphans
from batchimport.jobs.start import (
    Parts,
    begin_job,
    bytes_per_record,
    doubtful,
    refuse_few_records,
    refuse_large_blocks,
)
from batchimport.pipeline.transform import LazyTransform
from batchimport.policy.events import JobFinished, Noted, Preparing, RecordsCounted
from batchimport.policy.plan import Plan
from batchimport.policy.preparing import watched_by
from batchimport.policy.sizing import choose_sizer
from batchimport.policy.stop_rules import StopRule, verdict
from batchimport.schema.diagnose import likely_mistakes
from batchimport.sinks import open_sink
from batchimport.sinks.base import SinkOptions
from batchimport.sinks.waiting import DestinationWait, open_patiently
from batchimport.sources.bytes.spool import Spool
from batchimport.sources.opening import open_source
from batchimport.sources.paths import is_kept, name_of
from batchimport.system import (
    LoadReader,
    memory_limit,
    owner_id,
    peak_memory_bytes,
    refuse_few_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchimport.display.spans import Telemetry
    from batchimport.jobs.identify import Request
    from batchimport.jobs.start import Opened
    from batchimport.model import Committed, Summary
    from batchimport.pipeline.chunk import Work
    from batchimport.policy.events import Event, JobStarted, Observer
    from batchimport.sinks.base import JobRecord, Sink
    from batchimport.state.directory import StateDirectory

COMPLETED = ("completed", "completed_with_rejects", "already_completed")


def import_file(request: Request, observer: Observer = lambda _: None) -> Outcome:
    """Import a source, or resume its job if it was interrupted.

    Blocks until the run has ended; may be called where an event loop is running, as in a notebook.
    The outcome tells how the run ended: errors of this package are in it, not raised.

    Args:
        observer: Called with every event of the run, from several threads; the logger `batchimport`
            gets the same events.
    """
    return outcome_of(lambda observe: _Call(request, observe), observer)


class Call(Protocol):
    """Work on a job that ends with an outcome."""

    def run(self) -> Outcome:
        """Do the work."""
        ...

    def not_begun(self, error: BatchImportError) -> Outcome:
        """Return the outcome of work that ended before the job was claimed."""
        ...


def outcome_of(make_call: Callable[[Observer], Call], observer: Observer) -> Outcome:
    """Return the outcome of a call, whose events the observer and the logger get; raise nothing."""
    log = RunLog()

    def observe(event: Event) -> None:
        log(event)
        if telemetry is not None:
            telemetry(event)
        observer(event)

    telemetry: Telemetry | None = None
    telemetry = open_telemetry(lambda text: observe(Noted(text)))
    if telemetry is not None:
        telemetry.begin()
    outcome = _run(make_call(observe), observe)
    log(JobFinished(outcome.summary))  # a run that did not begin has no event
    if telemetry is not None:
        telemetry.finish(outcome.summary)
    return outcome


def _run(call: Call, observer: Observer) -> Outcome:
    try:
        refuse_few_files()
        with watched_by(observer):
            return call.run()
    except BatchImportError as error:
        return call.not_begun(error)
    except OSError as error:
        return call.not_begun(from_system(error))


class _Call:
    """One call of `import_file`: opens what the job works with, and chooses the engine."""

    def __init__(self, request: Request, observer: Observer) -> None:
        self._began = time.monotonic()
        self._request, self.observer = request, observer
        self._job_id = request.job_id or ""

    def run(self) -> Outcome:
        """Import with the engine that was asked for."""
        return self._import_here() if self._request.temporal is None else self._import_on_temporal()

    def _import_here(self) -> Outcome:
        with self._opened() as run:
            return run.execute()

    def _import_on_temporal(self) -> Outcome:
        """Follow the job's workflow, or start one if something is left to do.

        What can be refused is refused here, where the user is, not on a worker.
        """
        from batchimport.engines.temporal.client import attach, follow  # noqa: PLC0415 - an extra

        outcome = attach(self._request, self.observer)
        if outcome is None:
            with self._opened() as run:
                outcome, known_id = run.before_temporal()
            self._job_id = known_id or self._job_id
        return outcome or follow(self._request, self._job_id, self.observer)

    def not_begun(self, error: BatchImportError) -> Outcome:
        """Return the outcome of a run that ended before its job was claimed."""
        status, code = verdict(0, error)
        record_failure(self._request, self._job_id, error)
        summary = summary_of(self._request, self._job_id, status, error)
        summary = replace(
            summary,
            resume_command=None,  # there may be no job yet
            peak_memory_bytes=peak_memory_bytes(),
        )
        return Outcome(summary, code, error=error)

    @contextmanager
    def _opened(self) -> Iterator[_Run]:
        """Open source, transform and sink; lock the target unless workers are going to write."""
        request, job = self._request, self._request.job
        with without_panics(), ExitStack() as stack:
            refuse_overwriting(job, {"--rejects": request.options.rejects_path})
            state = stack.enter_context(state_of(request))
            spool = self._spool(stack, state) if any(map(is_kept, job.sources)) else None
            with stopping_signals() if request.handle_signals else nullcontext():
                folder = state.path / "spool"
                source = open_source(job.sources, job.options, spool, unpack_into=folder)
            stack.callback(source.close)
            refuse_large_blocks(source, memory_limit(request.options.max_memory_bytes))
            self._request = request = doubtful(request, source)
            self._job_id = self._job_id or new_job_id(job, source)
            transform = LazyTransform(job, request.objects.transform)
            if request.temporal is None:
                stack.enter_context(state.lock(lock_of(job)))
            wait = DestinationWait(request.options.destination_wait_seconds, self.observer)
            with stopping_signals() if request.handle_signals else nullcontext():
                sink = stack.enter_context(open_patiently(self._open_sink, wait))
            seconds = request.options.chunk_timeout_seconds
            model = request.objects.model
            parts = Parts(job, source, transform, sink, seconds, model)
            yield _Run(request, parts, self.observer, spool, wait, self._began)

    def _open_sink(self) -> Sink:
        """Open the destination; one that is gone, with a job's rows in it, is not made again."""
        request, job = self._request, self._request.job
        stored = 0 if request.restart else remembered_rows(request, self._job_id)
        options = SinkOptions(
            not stored,
            job.ledger_schema,
            request.options.dry_run,
            request.options.max_memory_bytes,
        )
        try:
            return open_sink(job.destination, options)
        except NoSuchDestinationError as error:
            raise RowsGoneError(
                f"is gone, though job {self._job_id} stored {counted(stored, 'row')} in it",
                where=error.where,
                hint="--restart imports it again",
            ) from error

    def _spool(self, stack: ExitStack, state: StateDirectory) -> Spool:
        """Read standard input or what a program gives, or find what an earlier run of the job read."""
        request = self._request
        if request.temporal is not None:
            raise UsageError(
                f"{name_of(request.job.sources[0])} cannot be read by workers",
                where="--engine temporal",
                hint="write it to a file that every worker can read",
            )
        if request.must_exist and request.job_id:
            return Spool.of_job(state, request.job_id)
        if request.objects.write is not None:
            spool = Spool.of_records(state, request.objects.write)
            stack.callback(spool.close)
            return spool
        with stopping_signals() if request.handle_signals else nullcontext():
            spool = Spool.of_standard_input(state)
        stack.callback(spool.close)
        return spool


class _Run:
    """The run of a job in this process: identify, claim, run the engine, check the accounts."""

    def __init__(
        self,
        request: Request,
        parts: Parts,
        observer: Observer,
        spool: Spool | None,
        wait: DestinationWait,
        began: float,
    ) -> None:
        self._request, self._job, self._parts = request, request.job, parts
        self._source, self._sink, self._spool = parts.source, parts.sink, spool
        self._recorder = Recorder(request, observer, owner_id(), began)
        self._tally = self._recorder.tally
        self._wait = wait
        wait.tell = self._recorder
        self._began = began
        self._reasons: list[str] = []

    def execute(self) -> Outcome:
        """Run the job to its end."""
        if not self._request.options.dry_run:
            own_id = self._request.job_id or new_job_id(self._job, self._source)
            self._request.state.check(own_id)
        found, opened = begin_job(self._request, self._parts, self._recorder.owner, has_ended)
        if opened is not None:
            outcome = self._import(opened)
        else:
            assert found.completed is not None  # noqa: S101 - a mistake in this program
            outcome = self._already_completed(found.completed)
        is_over = outcome.summary.status in COMPLETED and not self._request.options.dry_run
        if self._spool is not None and is_over:
            self._spool.discard()
        return outcome

    def before_temporal(self) -> tuple[Outcome | None, str | None]:
        """Return the outcome if nothing is left to do, and the id of the job if it is known.

        Raises:
            RefusedError: If a process is running the job, or the source has changed.
        """
        refuse_few_records(self._request, self._source)
        if self._request.restart:
            return None, None
        owner = self._recorder.owner
        found = identify(self._request, self._source, self._sink, owner, has_ended)
        if found.completed is not None:
            return self._already_completed(found.completed), found.completed.job_id
        if found.known is None:
            return None, None
        refuse_if_owned(found.known, self._sink, owner)
        return None, found.known.job_id

    def _import(self, opened: Opened) -> Outcome:
        record = opened.record
        self._wait.is_claimed = True
        if self._spool is not None and not self._request.options.dry_run:
            self._spool.keep(record.job_id)
        error: BatchImportError | None = None
        try:
            with self._held(), without_panics():
                self._announce(opened)
                self._run_engine(opened.work, opened.committed)
        except BatchImportError as raised:
            error = raised
        except KeyboardInterrupt:  # a second one: the engine is not waited for
            with suppress(BatchImportError):
                opened.work.claim.finish("interrupted", self._tally.total)
            raise
        return self._conclude(opened, error)

    # -- during -------------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep a signal for the engine from the first line that is shown."""
        if not self._request.handle_signals:
            yield
            return
        with held_signals() as self._reasons:
            yield

    def _started(self, record: JobRecord, committed: Sequence[Committed]) -> JobStarted:
        return started(record.job_id, self._job, self._source, committed)

    def _announce(self, opened: Opened) -> None:
        record = opened.record
        event = started(
            record.job_id,
            self._job,
            self._source,
            opened.committed,
            opened.inferred,
            opened.notes,
        )
        kept = (self._spool.note,) if self._spool is not None and self._spool.note else ()
        suspicious = likely_mistakes(self._job.schema) if self._job.model is None else ()
        notes = (*event.notes, *kept, *suspicious)
        self._recorder(replace(event, notes=notes))

    def _run_engine(self, work: Work, committed: Sequence[Committed]) -> None:
        """Run the chunks that are not committed; count the source's records beside them."""
        options, totals, hints = self._request.options, self._tally.totals, work.claim.hints
        plan = Plan(self._source.size, [row.chunk for row in committed], self._job.limit)
        sizer = choose_sizer(
            options,
            preferred=hints.preferred_records,
            writers=hints.writers,
            bytes_per_record=bytes_per_record(self._source),
            block_bytes=self._source.block_bytes,
        )
        stop_rule = StopRule(options, totals.failed, totals.processed)
        counter = threading.Thread(target=self._count, name="count", daemon=True)
        counter.start()
        reader = LoadReader(options.max_memory_bytes)
        self._drive(
            LocalEngine(
                work,
                plan,
                sizer,
                options,
                stop_rule,
                observer=self._recorder,
                read_load=reader.read,
                wait=self._wait,
            )
        )
        self._run_orphans(work)
        if counter.is_alive():
            self._recorder(Preparing("counting the records, to check the accounts"))
        counter.join()

    def _run_orphans(self, work: Work) -> None:
        """Process once more what foreign keys refused: what it refers to may be stored by now."""
        tally, options, job_id = self._tally, self._request.options, work.claim.record.job_id
        is_resumed = tally.this_run.processed < tally.totals.processed
        if not (tally.chunks.bisected or tally.chunks.retried or is_resumed):
            return  # the destination has refused nothing: no need to look through the rejects
        for again, count in orphans(work, self._job, self._sink):
            records = counted(count, "record")
            self._recorder(Preparing(f"trying {records} again that foreign keys refused"))
            try:
                self._drive(engine_for_rejects(again, count, options, lambda _: None, self._wait))
            finally:
                with suppress(BatchImportError):
                    tally.settle(committed_counts(self._sink.committed(job_id))[0])

    def _drive(self, engine: LocalEngine) -> None:
        """Run an engine to its end, or until it is interrupted."""
        interrupter = self._request.interrupter
        interrupt = interrupter.interrupt if interrupter is not None else None
        event_loop.run(self._interruptible(engine), interrupt)

    async def _interruptible(self, engine: LocalEngine) -> None:
        loop, interrupter = asyncio.get_running_loop(), self._request.interrupter

        def stop(reason: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: the engine has ended
                loop.call_soon_threadsafe(engine.interrupt, reason)

        with ExitStack() as stack:
            if self._request.handle_signals:
                stack.enter_context(draining_signals(engine.interrupt))
                for reason in self._reasons:
                    engine.interrupt(reason)
            if interrupter is not None:
                stack.enter_context(interrupter.connected(stop))
            await engine.run()

    def _count(self) -> None:
        with suppress(BatchImportError, OSError):  # without a total, the accounts do not balance
            self._recorder(RecordsCounted(count_records(self._source, self._job)))

    # -- after --------------------------------------------------------------------------------

    def _conclude(self, opened: Opened, error: BatchImportError | None) -> Outcome:
        """Record the end, export the rejects, return the outcome."""
        record, tally = opened.record, self._tally
        try:
            finish_job(self._parts, opened.work.claim, tally.total, is_whole=error is None)
        except BatchImportError as raised:
            error = error or raised
        rejects = Exported()
        try:
            rejects = self._export_rejects(record)
        except BatchImportError as raised:
            error = error or raised
        status, code = verdict(tally.totals.failed, error)
        summary = summary_of(self._request, record.job_id, status, error)
        return self._finished(replace(summary, resumed=opened.resumed), code, rejects, error)

    def _already_completed(self, record: JobRecord) -> Outcome:
        """Return how the job ended, and export its rejects again."""
        committed = self._sink.committed(record.job_id)
        if record.modified != self._source.modified:
            verify_unchanged(self._source, committed)
        self._tally(replace(self._started(record, committed), total=record.total_items))
        self._recorder.complete(record)
        summary = summary_of(self._request, record.job_id, "already_completed")
        code = 3 if self._tally.totals.failed else 0
        rejects = self._export_rejects(record)
        outcome = self._finished(replace(summary, resumed=True), code, rejects)
        return replace(outcome, ended_at=record.updated_at)

    def _export_rejects(self, record: JobRecord) -> Exported:
        path = rejects_path(self._request, record.job_id, self._tally.totals.failed)
        return export_rejects(self._sink, record.job_id, path)

    def _finished(
        self, summary: Summary, code: int, rejects: Exported, error: BatchImportError | None = None
    ) -> Outcome:
        summary = rejects.fill(replace(summary, delivery=self._sink.hints.delivery))
        summary = replace(summary, peak_memory_bytes=peak_memory_bytes())
        summary = self._tally.fill(summary, time.monotonic() - self._began)
        self._recorder(JobFinished(summary))
        return Outcome(summary, code, rejects.examples, error)
