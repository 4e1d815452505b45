"""Replay the rejects of a job: the use case behind the command `replay`.

The story: the rejects are chosen, and what is in force for them is prepared (`jobs.replaying`); the
job is claimed; the local engine imports them like the chunks of a source; what passes is stored and
leaves the rejects in one transaction. The job keeps its state, so that a replay may be killed.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchimport import failpoints
from batchimport.engines import event_loop
from batchimport.engines.local import engine_for_rejects
from batchimport.engines.lookup import find_record, has_ended
from batchimport.engines.signals import draining_signals
from batchimport.errors import (
    AccountsError,
    BatchImportError,
    JobInterrupted,
    JobRunningElsewhereError,
    without_panics,
)
from batchimport.importer import outcome_of
from batchimport.jobs.export import Exported, export_rejects
from batchimport.jobs.finish import (
    Outcome,
    end_claim,
    rejects_path,
    resume_command,
    summary_of,
)
from batchimport.jobs.identify import lock_of, refuse_if_owned, state_of
from batchimport.jobs.recorder import Recorder, committed_counts
from batchimport.jobs.replaying import RejectSource, ReplayClaim, prepare
from batchimport.jobs.selecting import Corrections, RejectFilter, choose, notes_on
from batchimport.jobs.start import LOADED_AT, LOOKS
from batchimport.jobs.stored import missing_rows, refuse_missing, refuse_stored_rejects
from batchimport.model import Counts
from batchimport.pipeline.additions import additions
from batchimport.pipeline.chunk import Work
from batchimport.policy.events import JobFinished, JobStarted
from batchimport.policy.stop_rules import verdict
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions
from batchimport.sinks.waiting import DestinationWait, open_patiently
from batchimport.system import owner_id, peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.jobs.identify import Request
    from batchimport.jobs.selecting import Choice
    from batchimport.model import Committed, Job, Summary
    from batchimport.policy.events import Observer
    from batchimport.sinks.base import Claim, JobRecord, Sink
    from batchimport.sources.base import Source


@dataclass(frozen=True, slots=True)
class Mending:
    """What is different about the records since they were rejected.

    Attributes:
        job: The job as it is for the replayed records.
        changes: What of it was changed: `schema`, `transform`, `sql`, `new_columns`; recorded.
        corrections: Path of a rejects file in which the records were edited; `-` for standard input.
        conditions: Which rejects are meant.
        function: The transform, if it cannot be imported by its name.
    """

    job: Job
    changes: dict[str, Any] = field(default_factory=dict)
    corrections: str | None = None
    conditions: RejectFilter = field(default_factory=RejectFilter)
    function: Callable[..., Any] | None = None


def replay_rejects(
    request: Request, mending: Mending, observer: Observer = lambda _: None
) -> Outcome:
    """Process the rejects of a job again, in the same job, exactly once.

    The outcome tells how it ended: errors of this package are in it, not raised. Its exit code is 0 if
    the job has no reject any more.

    Args:
        request: The job as it was begun, and its id.
    """
    return outcome_of(lambda observe: _Call(request, mending, observe), observer)


class _Call:
    """One call of `replay_rejects`: opens what it works with."""

    def __init__(self, request: Request, mending: Mending, observer: Observer) -> None:
        self._request, self._mending, self._observer = request, mending, observer
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Replay."""
        request, job = self._request, self._request.job
        with without_panics(), ExitStack() as stack:
            request = replace(request, state=stack.enter_context(state_of(request)))
            if request.options.dry_run:
                request = replace(request, options=replace(request.options, rejects_path=None))
            stack.enter_context(request.state.lock(lock_of(job)))
            corrections = None
            if self._mending.corrections is not None:
                corrections = Corrections(self._mending.corrections)
                stack.callback(corrections.close)
            wait = DestinationWait(request.options.destination_wait_seconds, self._observer)
            options = SinkOptions(
                create=False, ledger_schema=job.ledger_schema, dry_run=request.options.dry_run
            )
            sink = stack.enter_context(
                open_patiently(lambda: open_sink(job.destination, options), wait)
            )
            recorder = Recorder(request, self._observer, owner_id(), self._began)
            recorder.only_at_end, wait.tell = True, recorder
            replay = _Replay(request, self._mending, corrections, sink, recorder, wait)
            return replay.execute()

    def not_begun(self, error: BatchImportError) -> Outcome:
        """Return the outcome of a replay that ended before the job was claimed."""
        status, code = verdict(0, error)
        job_id = str(self._request.job_id)
        summary = summary_of(self._request, job_id, status, error)
        summary = replace(
            summary, engine="local", resume_command=None, peak_memory_bytes=peak_memory_bytes()
        )
        return Outcome(summary, code, error=error)


@dataclass(frozen=True, slots=True)
class _Ready:
    """Rejects that may be worked on.

    Attributes:
        claim: The job's, or None where nothing is to be done.
    """

    record: JobRecord
    choice: Choice
    source: RejectSource
    committed: list[Committed]
    claim: Claim | None = None
    work: Work | None = None


class _Changed(Exception):  # noqa: N818 - not an error: look again
    """Another program has claimed the job since it was looked at."""


class _Replay:
    """The replay of a job in this process: choose, claim, run the engine, check the accounts."""

    def __init__(
        self,
        request: Request,
        mending: Mending,
        corrections: Corrections | None,
        sink: Sink,
        recorder: Recorder,
        wait: DestinationWait,
    ) -> None:
        self._request, self._mending, self._corrections = request, mending, corrections
        self._sink, self._recorder, self._wait = sink, recorder, wait
        self._job_id = str(request.job_id)

    def execute(self) -> Outcome:
        """Replay to the end.

        Raises:
            BatchImportError: If the job cannot be claimed, or the table does not take the records.
        """
        ready = self._begin()
        self._announce(ready)
        error: BatchImportError | None = None
        if ready.work is not None:
            self._wait.is_claimed = True
            try:
                with without_panics():
                    event_loop.run(self._engine(ready.work, ready.source.size))
            except BatchImportError as raised:
                error = raised
        return self._conclude(ready, error)

    # -- before -------------------------------------------------------------------------------

    def _begin(self) -> _Ready:
        """Choose the rejects and claim the job: what was chosen is what the claim finds."""
        for _ in range(LOOKS):
            try:
                return self._claim(find_record(self._sink, self._job_id))
            except _Changed:
                continue
        raise JobRunningElsewhereError(
            "other programs keep claiming this job",
            where=f"job {self._job_id}",
            hint="run the same command again when they are done",
        )

    def _claim(self, record: JobRecord) -> _Ready:
        """Claim a job at the epoch after this one.

        Raises:
            _Changed: If another program has claimed it meanwhile.
        """
        mending, sink, owner = self._mending, self._sink, self._recorder.owner
        job = mending.job
        refuse_if_owned(record, sink, owner, lambda name: bool(has_ended(name)))
        choice = choose(sink.rejects(record.job_id), mending.conditions, self._corrections)
        source = RejectSource(sink, record, job, choice, self._corrections)
        committed = sink.committed(record.job_id)
        if not choice.records:
            return _Ready(record, choice, source, committed)
        missing = missing_rows(record, committed, sink, sink.jobs())
        refuse_missing(missing if missing and missing.are_all else None, job.table)
        refuse_stored_rejects(record, job, sink)
        in_force, schema, transform = prepare(
            record, job, sink, source, mending.changes, mending.function
        )
        sink.join(job, in_force)  # refuses columns that the table does not take

        def check() -> None:
            if find_record(sink, record.job_id).epoch != record.epoch:
                raise _Changed

        failpoints.reach("before-claim")
        claim = sink.claim(self._request.job, record, owner, check=check, replay=mending.changes)
        failpoints.reach("after-claim")
        in_force = replace(claim.record, columns=in_force.columns)
        work = Work(
            cast("Source", source),
            schema,
            transform,
            ReplayClaim(sink.join(job, in_force), source),
            self._request.options.chunk_timeout_seconds,
            additions(job.options, record.job_id, str(record.configuration.get(LOADED_AT, ""))),
        )
        return _Ready(claim.record, choice, source, committed, claim, work)

    # -- during -------------------------------------------------------------------------------

    def _announce(self, ready: _Ready) -> None:
        """Tell what is done already: all but the rejects that are replayed."""
        done, positions = committed_counts(ready.committed)
        count, job = ready.source.size, self._request.job
        left = Counts(done.processed - count, done.successful, done.failed - count, done.filtered)
        self._recorder(
            JobStarted(
                self._job_id,
                job.sources,
                redact(job.destination),
                job.table,
                ready.record.size,
                ready.record.total_items,
                done=left,
                done_positions=positions - count,
                notes=tuple(notes_on(ready.choice, self._mending.conditions, ready.committed)),
                unit="rows",
            )
        )

    async def _engine(self, work: Work, size: int) -> None:
        """Run the chunks of rejects."""
        engine = engine_for_rejects(work, size, self._request.options, self._recorder, self._wait)
        with draining_signals(engine.interrupt) if self._request.handle_signals else nullcontext():
            await engine.run()

    # -- after --------------------------------------------------------------------------------

    def _conclude(self, ready: _Ready, error: BatchImportError | None) -> Outcome:
        """Check the accounts, write the rejects file again, return the outcome."""
        rejects, is_completed = Exported(), ready.record.state == "completed"
        tally = self._recorder.tally
        try:
            if ready.claim is not None:
                end_claim(
                    ready.claim,
                    "completed" if is_completed else "interrupted",
                    None,
                    self._request.job.table,
                    "the rejects were replayed",
                )
        except BatchImportError as raised:
            error = error or raised
            is_completed &= not isinstance(raised, AccountsError)  # as the ledger has it then
        try:
            tally.totals, _ = committed_counts(self._sink.committed(self._job_id))
            rejects = self._export(tally.totals.failed, is_whole=error is None)
        except BatchImportError as raised:
            error = error or raised
        self._recorder.job_status = (
            verdict(tally.totals.failed, None)[0] if is_completed else "interrupted"
        )
        if isinstance(error, JobInterrupted) and is_completed:
            error.hint = "run the same command again: it replays what is left"
        status, code = verdict(tally.totals.failed, error)
        status = self._recorder.job_status if error is None else status
        summary = summary_of(self._request, self._job_id, status, error)
        resume = resume_command(self._request, self._job_id) if not is_completed else None
        summary = replace(summary, engine="local", resumed=True, resume_command=resume)
        return self._finished(summary, code, rejects, ready.source.bytes_read, error)

    def _export(self, failed: int, *, is_whole: bool) -> Exported:
        """Write the rejects file again, and remove the one that has none any more.

        A file with corrections stays as it is unless all of them have been dealt with.
        """
        path = rejects_path(self._request, self._job_id, failed)
        known = path or self._request.state.folder(self._job_id) / "rejects.jsonl"
        keeps = not is_whole or bool(self._mending.conditions)
        if keeps and self._is_corrections(known):
            return replace(export_rejects(self._sink, self._job_id, None), path=str(known))
        if path is None:
            with suppress(OSError):
                known.unlink(missing_ok=True)
        return export_rejects(self._sink, self._job_id, path)

    def _is_corrections(self, path: Path) -> bool:
        given = self._mending.corrections
        try:
            return given is not None and Path(given).samefile(path)
        except OSError:
            return False

    def _finished(
        self,
        summary: Summary,
        code: int,
        rejects: Exported,
        bytes_read: int,
        error: BatchImportError | None,
    ) -> Outcome:
        tally = self._recorder.tally
        summary = rejects.fill(replace(summary, delivery=self._sink.hints.delivery))
        summary = tally.fill(summary, tally.elapsed())
        summary = replace(summary, bytes_read=bytes_read, peak_memory_bytes=peak_memory_bytes())
        self._recorder(JobFinished(summary))
        return Outcome(summary, code, rejects.examples, error)
