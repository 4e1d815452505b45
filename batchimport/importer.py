"""The use cases, and the Python API: import a file, continue a job, tell how far it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.checkpoint import StateDirectory, write_atomically
from batchimport.chunk import Work, judge
from batchimport.engines.local import Allowance, LocalEngine
from batchimport.errors import (
    AccountsError,
    BatchImportError,
    ConfigurationChangedError,
    FatalError,
    JobInterrupted,
    JobRunningElsewhereError,
    RefusedError,
    SourceChangedError,
    TooManyRejects,
    UsageError,
)
from batchimport.events import Event, JobFinished, JobStarted, Observer, RecordsCounted
from batchimport.job import Chunk, Counts, Job, Mark, RunOptions, SourceOptions, Summary
from batchimport.load import LoadReader, owner_id, owner_is_gone, peak_memory_bytes
from batchimport.planner import Plan, find_gaps
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import JobRecord
from batchimport.sizing import choose_sizer
from batchimport.sources import open_source
from batchimport.tally import Tally, utc_now
from batchimport.transform import load_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.job import Committed, Reject
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


@dataclass(frozen=True, slots=True)
class Request:
    """All that one call of `import_file` is asked to do."""

    job: Job
    options: RunOptions = RunOptions()
    state: StateDirectory = StateDirectory(Path(".batchimport"))
    job_id: str | None = None
    restart: bool = False
    allow_duplicates: bool = False
    must_exist: bool = False
    handle_signals: bool = False


def import_file(request: Request, observer: Observer = lambda _: None) -> Outcome:
    """Import a source, or continue the job if it was interrupted.

    Raises:
        BatchImportError: If nothing was begun: bad usage, or refused.
    """
    job = request.job
    with ExitStack() as stack:
        source = open_source(job.sources[0], job.options)
        stack.callback(source.close)
        transform = load_transform(job)
        lock = f"{job.target_hash()}-{_hash_of(job.destination)}"
        stack.enter_context(request.state.lock(lock))
        sink = open_sink(job.destination)
        stack.callback(sink.close)
        run = _Run(request, source, transform, sink, observer)
        return run.execute()


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
            _verify_unchanged(self._source, committed)
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
        if not columns and source.size:
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
            configuration=_without_address(job),
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
                "another process is running this job", where=f"job {record.job_id}",
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
        if self._record is None:
            return
        self._request.state.save(
            self._record.job_id,
            {
                "job_id": self._record.job_id,
                "saved_at": utc_now(),
                "destination": redact(self._job.destination),
                "job": _without_address(self._job) | {"destination": redact(self._job.destination)},
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
                work, Plan(self._source.size, chunks, self._job.limit), sizer,
                Allowance(options, totals.failed, totals.processed),
            )
        )
        counter.join()

    async def _engine(self, work: Work, plan: Plan, sizer: Any, allowance: Allowance) -> None:
        reader = LoadReader(self._request.options.max_memory_bytes)
        engine = LocalEngine(
            work, plan, sizer, self._request.options, allowance,
            observer=self._tell, read_load=reader.read,
        )
        with _signals(engine) if self._request.handle_signals else suppress():
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
                self._reconcile(record)
                state = "completed"
            self._finish(record, state)
        except BatchImportError as raised:
            error = error or raised
        rejects_file, examples = None, ()
        try:
            rejects_file, examples = self._export_rejects(record)
        except BatchImportError as raised:
            error = error or raised
        status, code = _verdict(self._tally, error)
        summary = self._summary(record, status, error, rejects_file)
        self._tell(JobFinished(summary))
        return Outcome(summary, code, examples, error)

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

    def _reconcile(self, record: JobRecord) -> None:
        """Check that the ledger tiles the source and that every record has one outcome.

        Raises:
            AccountsError: If not.
        """
        committed = self._sink.committed(record.job_id)
        gaps = find_gaps(self._source.size, [row.chunk for row in committed])
        records = sum(row.chunk.records for row in committed)
        outcomes = sum(row.successful + row.failed + row.filtered for row in committed)
        limited = self._job.limit is not None and records == self._job.limit
        hint = "nothing is lost: run the same command again, and report this"
        if gaps and not limited:
            raise AccountsError(f"{len(gaps)} parts of the source are not committed", hint=hint)
        if not records == outcomes == self._total:
            raise AccountsError(
                f"the source has {self._total} records, the ledger {records}, outcomes {outcomes}",
                hint=hint,
            )

    def _export_rejects(self, record: JobRecord) -> tuple[str | None, tuple[Reject, ...]]:
        """Write the rejects file; without rejects there is none."""
        default = self._request.state.folder(record.job_id) / "rejects.jsonl"
        path = Path(self._request.options.rejects_path or default)
        examples: list[Reject] = []

        def lines() -> Iterator[bytes]:
            for reject in self._sink.rejects(record.job_id):
                if len(examples) < EXAMPLES:
                    examples.append(reject)
                yield json.dumps(reject.to_dict(), ensure_ascii=False).encode(errors="replace") + b"\n"

        if not self._tally.totals.failed and not self._request.options.rejects_path:
            return None, ()
        write_atomically(path, lines())
        return str(path), tuple(examples)

    def _summary(
        self, record: JobRecord, status: str, error: BatchImportError | None, rejects: str | None
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
            rejects_by_code=_count_codes(self._sink, record.job_id) if totals.failed else {},
            rejects_file=rejects,
            resume_command=f"batchimport resume {record.job_id}" if resumable else None,
            error=str(error) if error else None,
        )

    def _already_completed(self, record: JobRecord) -> Outcome:
        self._record, self._total = record, record.total_items
        committed = self._sink.committed(record.job_id)
        if record.modified != self._source.modified:
            _verify_unchanged(self._source, committed)
        self._resumed = True
        self._tell_start(record, committed)
        rejects, examples = self._export_rejects(record)
        summary = self._summary(record, "already_completed", None, rejects)
        self._tell(JobFinished(summary))
        return Outcome(summary, 3 if summary.failed else 0, examples)


def identify(request: Request, source: Source, sink: Sink) -> JobRecord | None:
    """Find the job that this call continues; None if it begins a new one.

    Raises:
        RefusedError: If an unfinished job stands in the way.
        UsageError: If there is nothing to continue, or a restart would duplicate rows.
    """
    job, wanted = request.job, request.job_id
    records = sink.jobs() if wanted else sink.jobs(job.target_hash())
    if wanted:
        records = [record for record in records if record.job_id == wanted]
    unfinished = [record for record in records if record.state != "completed"]
    same = [record for record in records if _is_same(record, job, source, sink)]
    found = unfinished[-1] if unfinished else same[-1] if same else None
    if request.restart:
        for record in [*unfinished, *same]:
            _check_restart(request, record, sink)
            sink.abandon(record.job_id)
        return None
    if found is None:
        if request.must_exist:
            raise UsageError("nothing to continue", hint="see `batchimport jobs`")
        if wanted and records:
            raise SourceChangedError(
                "the source is not the file that this job imported", where=f"job {wanted}",
                hint="choose another --job-id, or start over with --restart",
            )
        return None
    if found.state != "completed":
        _check_unchanged(found, job, source)
    return found


def _is_same(record: JobRecord, job: Job, source: Source, sink: Sink) -> bool:
    if (record.fingerprint, record.configuration_hash) != (source.fingerprint, job.configuration_hash()):
        return False
    if record.modified == source.modified:
        return True
    try:
        _verify_unchanged(source, sink.committed(record.job_id))
    except SourceChangedError:
        return False
    return True


def _check_unchanged(record: JobRecord, job: Job, source: Source) -> None:
    where = f"job {record.job_id}"
    if record.fingerprint != source.fingerprint:
        raise SourceChangedError(
            "the source has changed since this unfinished job began", where=where,
            hint="finish it with the old file, or start over with --restart",
        )
    if record.configuration_hash != job.configuration_hash():
        raise ConfigurationChangedError(
            "schema, transform, table or format options differ from those this unfinished job "
            "began with",
            where=where,
            hint=f"continue it as it was with `batchimport resume {record.job_id}`, "
            "or start over with --restart",
        )


def _check_restart(request: Request, record: JobRecord, sink: Sink) -> None:
    stored = any(row.successful for row in sink.committed(record.job_id))
    if stored and request.job.if_exists in ("append", "fail") and not request.allow_duplicates:
        raise UsageError(
            "--restart would store again what this job has stored", where=f"job {record.job_id}",
            hint="add --if-exists truncate or replace, or --allow-duplicates if you want that",
        )


def _verify_unchanged(source: Source, committed: Sequence[Committed]) -> None:
    """Hash again what is committed, since the file's times differ."""
    for row in committed:
        if source.digest(row.chunk) != row.digest:
            raise SourceChangedError(
                "records that are already stored have changed in the source",
                where=f"{source.name} line {row.chunk.start.line}",
                hint="finish the job with the old file, or start over with --restart",
            )


def new_job_id(job: Job, source: Source) -> str:
    """Return the id of a new job: the source's stem and a hash of all that makes its identity."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(job.sources[0]).stem).strip("-._") or "job"
    facts = [
        job.sources, source.fingerprint, source.modified, redact(job.destination), job.table,
        job.configuration_hash(),
    ]
    return f"{stem[:80]}-{_hash_of(facts)[:8]}"


@contextmanager
def _signals(engine: LocalEngine) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM drain; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, _leave_at_once)
        engine.interrupt(f"interrupted by {number.name}")

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, first, each)
    try:
        yield
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)


def _leave_at_once(number: int, _frame: object) -> None:
    os._exit(128 + number)


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


def _count_codes(sink: Sink, job_id: str) -> dict[str, int]:
    codes: dict[str, int] = {}
    for reject in sink.rejects(job_id):
        code = reject.errors[0].code
        codes[code] = codes.get(code, 0) + 1
    return dict(sorted(codes.items()))


def _bytes_per_record(source: Source) -> float:
    chunk: Chunk | None = source.cut(Mark(), 1000, 4 << 20)
    return (chunk.hi - chunk.lo) / chunk.records if chunk and chunk.records else 0.0


def _without_address(job: Job) -> dict[str, Any]:
    facts = asdict(job)
    del facts["destination"]
    return facts


def job_from(facts: dict[str, Any], destination: str) -> Job:
    """Return the job that a checkpoint recorded.

    Raises:
        FatalError: If the record is not one.
    """
    try:
        options = SourceOptions(**facts["options"])
        rest = {key: value for key, value in facts.items() if key not in ("options", "destination")}
        rest["sources"], rest["key"] = tuple(rest["sources"]), tuple(rest["key"])
        return replace(Job(**rest, destination=destination), options=options)
    except (KeyError, TypeError) as error:
        raise FatalError(
            "the job's checkpoint cannot be read", hint="use the `run` command again"
        ) from error


def _hash_of(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
