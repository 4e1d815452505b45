"""The use cases, and the Python API: import a file, continue a job, tell how far it is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.accounts import reconcile
from batchimport.checkpoint import write_atomically
from batchimport.chunk import Work, judge
from batchimport.engines.interrupt import draining_signals
from batchimport.engines.local import Allowance, LocalEngine
from batchimport.errors import (
    AccountsError,
    BatchImportError,
    FatalError,
    JobInterrupted,
    JobRunningElsewhereError,
    RefusedError,
    TooManyRejects,
    UsageError,
)
from batchimport.events import Event, JobFinished, JobStarted, Observer, RecordsCounted
from batchimport.identity import (
    Request,
    hash_of,
    identify,
    new_job_id,
    verify_unchanged,
    without_address,
)
from batchimport.job import Chunk, Counts, Mark, Summary
from batchimport.load import LoadReader, owner_id, owner_is_gone, peak_memory_bytes
from batchimport.planner import Plan
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import JobRecord
from batchimport.sizing import choose_sizer
from batchimport.sources import open_source
from batchimport.tally import Tally, utc_now
from batchimport.transform import load_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.job import Committed, Job, Reject
    from batchimport.schema import Column
    from batchimport.sinks.base import Sink
    from batchimport.sources.base import Source
    from batchimport.transform import Transform

SECONDS_BETWEEN_CHECKPOINTS = 1.0
EXAMPLES = 5
SAMPLE_FOR_TRANSFORM = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        examples: The first rejects, to show.
        error: Why it did not end well, if so.
    """

    summary: Summary
    exit_code: int
    examples: tuple[Reject, ...] = ()
    error: BatchImportError | None = None


def import_file(request: Request, observer: Observer = lambda _: None) -> Outcome:
    """Import a source, or continue the job if it was interrupted.

    What goes wrong is told by the outcome: its summary, exit code and error.
    """
    job_id = request.job_id or ""
    try:
        with ExitStack() as stack:
            source = open_source(request.job.sources[0], request.job.options)
            stack.callback(source.close)
            job_id = job_id or new_job_id(request.job, source)
            transform = load_transform(request.job)
            lock = f"{request.job.target_hash()}-{hash_of(redact(request.job.destination))}"
            stack.enter_context(request.state.lock(lock))
            sink = open_sink(request.job.destination)
            stack.callback(sink.close)
            return _Run(request, source, transform, sink, observer).execute()
    except BatchImportError as error:
        return _not_begun(request.job, job_id, error)


def _not_begun(job: Job, job_id: str, error: BatchImportError) -> Outcome:
    summary = Summary(
        job_id=job_id,
        status="refused" if isinstance(error, RefusedError) else "failed",
        sources=job.sources,
        destination=redact(job.destination),
        table=job.table,
        peak_memory_bytes=peak_memory_bytes(),
        error=str(error),
    )
    return Outcome(summary, error.exit_code, error=error)


@dataclass(frozen=True, slots=True)
class _Exported:
    path: str | None = None
    examples: tuple[Reject, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)


class _Run:
    """One process's execution of a job: identify, claim, run the engine, reconcile."""

    def __init__(
        self, request: Request, source: Source, transform: Transform, sink: Sink, observer: Observer
    ) -> None:
        self._request, self._job = request, request.job
        self._source, self._transform, self._sink = source, transform, sink
        self._tally = Tally()
        self._observer = observer
        self._began = time.monotonic()
        self._saved_at = 0.0
        self._total: int | None = None
        self._record: JobRecord | None = None
        self._resumed = False

    def execute(self) -> Outcome:
        """Run the job to an outcome."""
        known = identify(self._request, self._source, self._sink)
        if known is not None and known.state == "completed":
            return self._already_completed(known)
        self._resumed = known is not None
        record = known or self._begin()
        self._refuse_if_owned(record)
        schema = RecordSchema(record.schema)
        columns = record.columns
        if known is not None:  # the transform learns its columns from the same sample as before
            self._decide_columns(schema)
        record = self._record = self._sink.claim(self._job, record, owner_id())
        committed = self._sink.committed(record.job_id)
        if record.modified != self._source.modified:
            verify_unchanged(self._source, committed)
        work = Work(self._source, schema, self._transform, columns, self._sink)
        self._tell_start(record, committed)
        error: BatchImportError | None = None
        try:
            self._run_engine(work, committed)
        except BatchImportError as raised:
            error = raised
        return self._conclude(record, error)

    # -- before -------------------------------------------------------------------------------

    def _begin(self) -> JobRecord:
        """Describe a new job: its id, schema and columns."""
        job, source = self._job, self._source
        document = job.schema
        if document is None:
            text = source.format in ("csv", "tsv")
            document = infer_schema(source.sample(job.infer_records), text=text)
        schema = RecordSchema(document)
        columns = self._decide_columns(schema)
        if not columns and source.count():
            raise UsageError(
                "no record with a key was found, so no table can be made",
                where=source.name,
                hint="check --format, or describe the records with --schema",
            )
        return JobRecord(
            job_id=self._request.job_id or new_job_id(job, source),
            target_hash=job.target_hash(),
            fingerprint=source.fingerprint,
            modified=source.modified,
            configuration_hash=job.configuration_hash(),
            schema=document,
            columns=columns,
            size=source.size,
            configuration=without_address(job),
        )

    def _decide_columns(self, schema: RecordSchema) -> tuple[Column, ...]:
        chunk = self._source.cut(Mark(), SAMPLE_FOR_TRANSFORM, self._request.options.chunk_bytes)
        if chunk is None:
            return schema.columns
        frame, _ = judge(self._source.read(chunk, schema), schema)
        return self._transform.columns(frame, schema)

    def _refuse_if_owned(self, record: JobRecord) -> None:
        owner = self._sink.owner(record.job_id)
        if record.state != "running" or owner in (None, owner_id()):
            return
        if owner_is_gone(str(owner)) is False:
            raise JobRunningElsewhereError(
                "another process is running this job",
                where=f"job {record.job_id}",
                hint=f"watch it with: batchimport status {record.job_id} --watch",
            )

    # -- during -------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._tally(event)
        self._observer(event)
        now = time.monotonic()
        if now - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS or isinstance(event, JobFinished):
            self._saved_at = now
            self._save()

    def _save(self) -> None:
        """Write the checkpoint; it is a mirror, so that the import goes on without it."""
        if self._record is None:
            return
        with suppress(FatalError):
            self._request.state.save(
                self._record.job_id,
                {
                    "job_id": self._record.job_id,
                    "saved_at": utc_now(),
                    "owner": owner_id(),
                    "destination": redact(self._job.destination),
                    "job": without_address(self._job)
                    | {"destination": redact(self._job.destination)},
                    "options": asdict(self._request.options),
                    "progress": asdict(self._tally.progress()),
                },
            )

    def _tell_start(self, record: JobRecord, committed: Sequence[Committed]) -> None:
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
                done=done,
                done_positions=positions,
                notes=self._source.notes,
            )
        )

    def _run_engine(self, work: Work, committed: Sequence[Committed]) -> None:
        options, totals = self._request.options, self._tally.totals
        chunks = [row.chunk for row in committed]
        hints = self._sink.hints
        sizer = choose_sizer(
            options,
            preferred=hints.preferred_records,
            writers=hints.writers,
            bytes_per_record=_bytes_per_record(self._source),
        )
        counter = threading.Thread(target=self._count, name="count", daemon=True)
        counter.start()
        asyncio.run(
            self._engine(
                work,
                Plan(self._source.size, chunks, self._job.limit),
                sizer,
                Allowance(options, totals.failed, totals.processed),
            )
        )
        counter.join()

    async def _engine(self, work: Work, plan: Plan, sizer: Any, allowance: Allowance) -> None:
        reader = LoadReader(self._request.options.max_memory_bytes)
        engine = LocalEngine(
            work,
            plan,
            sizer,
            self._request.options,
            allowance,
            observer=self._tell,
            read_load=reader.read,
        )
        with draining_signals(engine.interrupt) if self._request.handle_signals else nullcontext():
            await engine.run()

    def _count(self) -> None:
        with suppress(BatchImportError, OSError):
            total = self._source.count()
            self._total = total if self._job.limit is None else min(total, self._job.limit)
            self._tell(RecordsCounted(self._total))

    # -- after --------------------------------------------------------------------------------

    def _conclude(self, record: JobRecord, error: BatchImportError | None) -> Outcome:
        """Check the accounts, export the rejects, say how it ended."""
        state = "interrupted"
        try:
            if error is None and not self._tally.chunks.failed:
                committed = self._sink.committed(record.job_id)
                reconcile(committed, self._source.size, self._total, self._job.limit)
                state = "completed"
            self._finish(record, state)
        except BatchImportError as raised:
            error = error or raised
        rejects = _Exported()
        try:
            rejects = self._export_rejects(record)
        except BatchImportError as raised:
            error = error or raised
        status, code = _verdict(self._tally, error)
        summary = self._summary(record, status, error, rejects)
        self._tell(JobFinished(summary))
        return Outcome(summary, code, rejects.examples, error)

    def _finish(self, record: JobRecord, state: str) -> None:
        surplus = self._sink.finish(record.job_id, state, self._total)
        if state == "completed" and surplus:
            self._sink.finish(record.job_id, "interrupted", self._total)
            word = "more" if surplus > 0 else "fewer"
            raise AccountsError(
                f"the table has {abs(surplus):,} rows {word} than were stored",
                where=self._job.table,
                hint="did another program write to it while the job ran?",
            )

    def _export_rejects(self, record: JobRecord) -> _Exported:
        """Write the rejects file; without rejects there is none, unless it was asked for."""
        options = self._request.options
        if not self._tally.totals.failed and not options.rejects_path:
            return _Exported()
        default = self._request.state.folder(record.job_id) / "rejects.jsonl"
        path = Path(options.rejects_path or default)
        examples: list[Reject] = []
        codes: Counter[str] = Counter()

        def lines() -> Iterator[bytes]:
            for reject in self._sink.rejects(record.job_id):
                if len(examples) < EXAMPLES:
                    examples.append(reject)
                codes[reject.errors[0].code] += 1
                text = json.dumps(reject.to_dict(), ensure_ascii=False)
                yield text.encode(errors="replace") + b"\n"

        write_atomically(path, lines())
        return _Exported(str(path), tuple(examples), dict(sorted(codes.items())))

    def _summary(
        self, record: JobRecord, status: str, error: BatchImportError | None, rejects: _Exported
    ) -> Summary:
        tally, seconds = self._tally, time.monotonic() - self._began
        totals = tally.totals
        resumable = status in ("interrupted", "stopped", "failed")
        return Summary(
            job_id=record.job_id,
            status=status,
            sources=self._job.sources,
            destination=redact(self._job.destination),
            table=self._job.table,
            delivery=self._sink.hints.delivery,
            resumed=self._resumed,
            total_items=self._total if self._total is not None else record.total_items,
            total_processed=totals.processed,
            successful=totals.successful,
            failed=totals.failed,
            filtered=totals.filtered,
            this_run=tally.this_run,
            duration_seconds=round(seconds, 3),
            records_per_second=round(tally.this_run.processed / seconds, 1) if seconds else 0.0,
            bytes_read=tally.positions - tally.positions_before,
            peak_memory_bytes=peak_memory_bytes(),
            chunks=tally.chunks,
            chunk_size=tally.sizes,
            rejects_by_code=rejects.codes,
            rejects_file=rejects.path,
            resume_command=f"batchimport resume {record.job_id}" if resumable else None,
            error=str(error) if error else None,
        )

    def _already_completed(self, record: JobRecord) -> Outcome:
        self._record, self._total = record, record.total_items
        committed = self._sink.committed(record.job_id)
        if record.modified != self._source.modified:
            verify_unchanged(self._source, committed)
        self._resumed = True
        self._tell_start(record, committed)
        rejects = self._export_rejects(record)
        summary = self._summary(record, "already_completed", None, rejects)
        self._tell(JobFinished(summary))
        return Outcome(summary, 3 if summary.failed else 0, rejects.examples)


def _verdict(tally: Tally, error: BatchImportError | None) -> tuple[str, int]:
    if isinstance(error, JobInterrupted):
        return "interrupted", error.exit_code
    if isinstance(error, TooManyRejects):
        return "stopped", error.exit_code
    if isinstance(error, RefusedError):
        return "refused", error.exit_code
    if error is not None:
        return "failed", error.exit_code
    if tally.chunks.failed:
        return "failed", 3
    return ("completed_with_rejects", 3) if tally.totals.failed else ("completed", 0)


def _bytes_per_record(source: Source) -> float:
    chunk: Chunk | None = source.cut(Mark(), 1000, 4 << 20)
    return (chunk.hi - chunk.lo) / chunk.records if chunk and chunk.records else 0.0
