"""How a job begins: its schema and columns, and the claim that lets this program work on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport import failpoints
from batchimport.display.units import data_size
from batchimport.errors import (
    JobRunningElsewhereError,
    RefusedError,
    UsageError,
    did_you_mean,
)
from batchimport.jobs.beside import beside_table
from batchimport.jobs.identify import (
    identify,
    new_job_id,
    refuse_if_owned,
    verify_unchanged,
    without_address,
)
from batchimport.jobs.stored import facts_of, same_table
from batchimport.model import EXTRA_COLUMN, Position, hash_of
from batchimport.pipeline.additions import additions
from batchimport.pipeline.chunk import Work, judge
from batchimport.pipeline.transform import Identity
from batchimport.policy.preparing import announce, note
from batchimport.policy.sizing import BASE_BYTES
from batchimport.schema import Column, Inference, RecordSchema
from batchimport.schema.infer import notes_about
from batchimport.schema.moments import date_formats
from batchimport.schema.pydantic import load_model
from batchimport.sinks.base import MADE_WITH, JobRecord
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.flat import without_outer
from batchimport.sources.paths import stem_of
from batchimport.sources.registry import FORMATS
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchimport.jobs.identify import Found, Request
    from batchimport.model import Chunk, Committed, Job, SourceOptions
    from batchimport.pipeline.transform import BoundTransform, Transform
    from batchimport.schema.pydantic import RecordModel
    from batchimport.sinks.base import Claim, Sink
    from batchimport.sources.base import Source
    from batchimport.sources.shape import ShapedSource

LOOKS = 100
"""How often a claim looks again: each time another program has claimed a job on the table."""
HOPELESS_AFTER = 10_000
"""Records after which a guessed schema or delimiter is wrong, if it has fitted none of them."""
SAMPLE_FOR_TRANSFORM = 1000
SAMPLE_BYTES = 4 << 20
LOADED_AT, DETECTED = "loaded_at", "detected"
"""Facts of a job in its configuration: when it began, and how its files are written."""
UNKNOWN_BEFORE = {"numbers": {"decimal": ".", "thousands": ""}, "trails": False}
"""What versions that kept no such facts did not look for."""
_LEDGER = "_batchimport_"
_NO_DIGITS = str.maketrans("", "", "0123456789")
MAX_NAMES = 5
"""How many names of columns an error shows."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a job works with, open.

    Attributes:
        store_seconds: How long a statement of the destination may take.
        model: The job's model, if it is not to be loaded by its name.
    """

    job: Job
    source: ShapedSource
    transform: Transform
    sink: Sink
    store_seconds: float | None = None
    model: RecordModel | None = None


@dataclass(frozen=True, slots=True)
class Inferred:
    """The schema of a source that nobody gave.

    Attributes:
        notes: What users should know about it.
        report: A line for each column: name, type, why; empty if the source declares its types.
        records: Number of records that were looked at.
    """

    document: dict[str, Any]
    notes: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    records: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A job that may be worked on.

    Attributes:
        committed: What earlier runs have committed.
        resumed: Whether there was an earlier run.
        inferred: How its schema was inferred; None if it was given, or known before.
    """

    record: JobRecord
    work: Work
    committed: list[Committed]
    resumed: bool
    inferred: Inferred | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know of the table that the job has just made."""
        demands = () if self.resumed else self.record.configuration.get(MADE_WITH)
        table = self.record.configuration["table"]
        return (f"table {table} is made with {'; '.join(demands)}",) if demands else ()


def doubtful(request: Request, source: Source) -> Request:
    """Return the request, which ends early if no record fits what was only guessed."""
    guesses = request.job.schema is None
    if source.format == "csv" and request.job.options.delimiter is None:
        guesses = True
    if not guesses:
        return request
    return replace(request, options=replace(request.options, hopeless_after=HOPELESS_AFTER))


def begin_job(
    request: Request,
    parts: Parts,
    owner: str,
    has_ended: Callable[[str], bool | None] = owner_is_gone,
    *,
    reopen: bool = False,
) -> tuple[Found, Opened | None]:
    """Identify the job and claim it: together one atomic action in the destination.

    What was identified may have changed until the claim is the only one that looks at the ledger.
    So the claim looks again, and if anything has changed, all of it is done once more.

    Args:
        has_ended: Says whether another owner has ended; None where that cannot be known.
        reopen: Claim a job even if it is completed.

    Returns:
        What was found; and the job, unless it is completed.

    Raises:
        RefusedError: If another program works on it, the source has changed, the table has its
            content already, or its rows are gone.
        UsageError: If the table cannot take the records.
    """
    refuse_few_records(request, parts.source)
    for _ in range(LOOKS):
        found = identify(request, parts.source, parts.sink, owner, has_ended)
        if found.completed is not None and not reopen:
            return found, None
        try:
            return found, _open(request, found, parts, owner, has_ended)
        except _LedgerChangedError:
            continue
    raise JobRunningElsewhereError(
        "other programs keep beginning jobs on this table",
        where=parts.job.table,
        hint="run the same command again when they are done",
    )


class _LedgerChangedError(Exception):
    """Another program has claimed or ended a job on the table since the job was identified."""


def _open(
    request: Request,
    found: Found,
    parts: Parts,
    owner: str,
    has_ended: Callable[[str], bool | None],
) -> Opened:
    """Claim the job that was found, or a new one.

    Raises:
        _LedgerChangedError: If the ledger is not as it was when the job was found.
    """
    known = found.known
    bound: BoundTransform | None = None
    if known:
        record, bound, inferred = known, None, None
    else:
        with parts.sink.previewed(parts.job):
            record, bound, inferred = _describe(request, parts)
    _read_as_recorded(parts, record)
    if record.job_id not in {each.job_id for each in found.instead_of}:
        refuse_if_owned(record, parts.sink, owner, has_ended)
    schema = recorded_schema(record, parts.job, parts.model)
    bound = bound or _bind(parts, schema)

    def check() -> None:
        if _seen(parts, record, parts.sink.jobs()) != _seen(parts, record, found.jobs):
            raise _LedgerChangedError

    if not request.options.dry_run:
        for (
            replaced
        ) in found.instead_of:  # else a kill as its files go would look like a lost ledger
            request.state.forget(replaced.job_id)
    failpoints.reach("before-claim")
    claim = parts.sink.claim(parts.job, record, owner, found.instead_of, check)
    failpoints.reach("after-claim")
    record = claim.record
    committed = parts.sink.committed(record.job_id)
    if record.modified != parts.source.modified:
        verify_unchanged(parts.source, committed)
    work = _work(parts, schema, bound, claim)
    return Opened(record, work, committed, known is not None, inferred)


def _seen(parts: Parts, own: JobRecord, jobs: Sequence[JobRecord]) -> set[tuple[Any, ...]]:
    """Return what matters about the jobs on the table, and about the one that is to be claimed."""
    others = same_table(parts.job.table, parts.sink, jobs)
    return {
        (record.job_id, record.epoch, record.state, record.fingerprint)
        for record in [*others, *(each for each in jobs if each.job_id == own.job_id)]
    }


def join_job(record: JobRecord, parts: Parts) -> Work:
    """Return the work of a job that was claimed elsewhere."""
    _read_as_recorded(parts, record)
    schema = recorded_schema(record, parts.job, parts.model)
    bound = _bind(parts, schema)
    return _work(parts, schema, bound, parts.sink.join(parts.job, record))


def _read_as_recorded(parts: Parts, record: JobRecord) -> None:
    """Read the source in the way that was detected when the job began, whatever would be detected now."""
    forms, source = record.configuration.get(DETECTED), parts.source
    if forms is None:
        source.adopt({name: facts | UNKNOWN_BEFORE for name, facts in source.detected.items()})
    else:
        source.adopt({name: facts for facts, names in forms for name in names})


def _by_form(detected: Mapping[str, dict[str, Any]]) -> list[tuple[dict[str, Any], list[str]]]:
    """Return each way in which files are written once, with the names of the files."""
    forms: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, facts in detected.items():
        forms.setdefault(hash_of(facts), (facts, []))[1].append(name)
    return list(forms.values())


def refuse_few_records(request: Request, source: Source) -> None:
    """Refuse a source that has fewer records than the job must have; reads no more than those.

    Raises:
        RefusedError: If so.
    """
    wanted, at = request.options.min_records or 0, Position()
    while at.record < wanted:
        chunk = source.cut(at, wanted - at.record, SAMPLE_BYTES)
        if chunk is None:
            found = f"{at.record:,} records" if at.record else "no record"
            raise RefusedError(
                f"the source has {found}, fewer than --min-records {wanted}",
                where=source.name,
                hint="nothing was changed; get the whole file, or lower --min-records",
            )
        at = chunk.end


def refuse_large_blocks(source: Source, limit_bytes: int) -> None:
    """Refuse a source whose records cannot be read within the memory limit.

    Raises:
        UsageError: If so.
    """
    if limit_bytes < BASE_BYTES:
        raise UsageError(
            f"{data_size(limit_bytes)} is less than Python and its libraries take",
            where="--max-memory",
            hint=f"raise it to {data_size(2 * BASE_BYTES)}",
        )
    if source.block_bytes + BASE_BYTES > limit_bytes:
        raise UsageError(
            f"has a page of {data_size(source.block_bytes)} when it is decompressed, and"
            f" --max-memory is {data_size(limit_bytes)}",
            where=source.name,
            hint=f"raise it to {data_size(source.block_bytes + 2 * BASE_BYTES)}, or write the file"
            " with smaller pages",
        )


def has_records(source: Source) -> bool:
    """Say whether the source has any record."""
    return _first_chunk(source) is not None


def bytes_per_record(source: Source) -> float:
    """Return the width of the records at the head of the source; 0 where there are none."""
    chunk = _first_chunk(source)
    return (chunk.hi - chunk.lo) / chunk.records if chunk and chunk.records else 0.0


def _first_chunk(source: Source) -> Chunk | None:
    """Return a chunk of the first records; files that have none may come before them."""
    chunk = source.cut(Position(), SAMPLE_FOR_TRANSFORM, SAMPLE_BYTES)
    while chunk is not None and not chunk.records:
        chunk = source.cut(chunk.end, SAMPLE_FOR_TRANSFORM, SAMPLE_BYTES)
    return chunk


def _work(parts: Parts, schema: RecordSchema, bound: BoundTransform, claim: Claim) -> Work:
    transform = bound.with_columns(claim.record.columns)
    began = str(claim.record.configuration.get(LOADED_AT, ""))
    added = additions(parts.job.options, claim.record.job_id, began)
    return Work(parts.source, schema, transform, claim, parts.store_seconds, added)


def recorded_schema(record: JobRecord, job: Job, model: RecordModel | None = None) -> RecordSchema:
    """Return the schema that is in force for a job."""
    exact = (column.name.lower() for column in record.columns if column.kind == "json")
    return schema_of(record.schema, frozenset(exact if _keeps_text(job) else ()), job, model)


def schema_of(
    document: dict[str, Any], exact: frozenset[str], job: Job, model: RecordModel | None = None
) -> RecordSchema:
    """Return a document as the schema of a job's records.

    Args:
        exact: Columns, in lower case, whose numbers are kept as they are written.
    """
    if model is None and job.model:
        model = load_model(job.model)
    return RecordSchema(document, exact, inferred=job.schema is None, model=model)


def exact_columns(job: Job, sink: Sink) -> frozenset[str]:
    """Return the columns of the table whose numbers must not go through a double on their way."""
    stays = _keeps_text(job) and job.if_exists != "replace"
    return sink.exact_columns(job.table) if stays else frozenset()


def _keeps_text(job: Job) -> bool:
    return job.transform is None and job.sql is None


def _describe(request: Request, parts: Parts) -> tuple[JobRecord, BoundTransform, Inferred | None]:
    """Describe a new job by its id, schema and columns; return its transform and what was inferred."""
    job, source = parts.job, parts.source
    document, inferred = _document(job, source, parts.sink)
    schema = schema_of(document, exact_columns(job, parts.sink), job, parts.model)
    is_given = job.schema is not None or source.declared is not None
    there = parts.sink.columns_of(job.table)
    if not there:
        _suggest_table(job, parts.sink)
    _refuse_other_header(job, source, schema, there)
    bound = _bind(parts, schema)
    columns = bound.columns
    if there and not is_given and not has_records(source):
        columns = ()  # only a header, which says nothing of types: the table's own stay
    if not columns and source.count():
        if schema.columns and (job.sql or job.transform):
            raise UsageError(
                "leaves no column of the records",
                where="--sql" if job.sql else "--transform",
                hint="return the records with their columns, such as SELECT * FROM records",
            )
        if job.schema is None:
            raise UsageError(
                f"no record with a key was found{_first_error(source, schema)}",
                where=source.name,
                hint="check --format, or describe the records with --schema",
            )
        columns = (Column(EXTRA_COLUMN, "json"),)
    if there and job.if_exists != "replace" and job.new_columns is None:
        _say_missing(job.table, columns, there)
    record = JobRecord(
        job_id=request.job_id or new_job_id(job, source),
        target_hash=job.target_hash(),
        fingerprint=source.fingerprint,
        modified=source.modified,
        configuration_hash=job.configuration_hash(),
        schema=document,
        columns=columns,
        size=source.size,
        configuration=without_address(job)
        | facts_of(source, allow_duplicates=request.allow_duplicates)
        | {
            LOADED_AT: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            DETECTED: _by_form(source.detected),
        },
    )
    return record, bound, inferred


def _document(job: Job, source: ShapedSource, sink: Sink) -> tuple[dict[str, Any], Inferred | None]:
    """Return the schema of a new job: as it was given, or as it is inferred."""
    if job.schema is not None:
        return source.shape.order(job.schema), None
    # A column that is added gets its type from all records, whatever the chunks are.
    records = None if job.new_columns == "add" else job.infer_records
    inferred = infer(source, records, job.options)
    document = inferred.document
    if _keeps_text(job):
        document = beside_table(document, job, sink, is_text=source.format in ("csv", "tsv"))
    return document, inferred


def _say_missing(table: str, columns: Sequence[Column], there: frozenset[str]) -> None:
    """Say which columns an existing table does not have, and what was probably meant."""
    missing = [column.name for column in columns if column.name.lower() not in there]
    missing = [name for name in missing if name != EXTRA_COLUMN]
    if missing and len(missing) < len(columns):
        near = did_you_mean(missing[0], sorted(there))
        meant = f" (did you mean {near}?)" if near else ""
        note(f"table {table} has no column {_some(missing)}{meant}: see --new-columns")


def _suggest_table(job: Job, sink: Sink) -> None:
    """Say that a table whose name the user typed is made, if another one has nearly that name.

    Names that differ in digits only are meant: `sales_2024`, `sales_2025`.
    """
    if job.if_exists != "append" or job.table == stem_of(job.sources[0]):
        return
    own = job.table.translate(_NO_DIGITS)
    names = [name for name in sink.table_names() if not name.startswith(_LEDGER)]
    near = did_you_mean(job.table, [name for name in names if name.translate(_NO_DIGITS) != own])
    if near is not None:
        note(f"table {job.table} is new; did you mean --table {near}?")


def _refuse_other_header(
    job: Job, source: Source, schema: RecordSchema, there: frozenset[str]
) -> None:
    """Refuse a file whose header has no name that is known: it is probably none, or another file.

    Args:
        there: Columns of the existing table, in lower case.

    Raises:
        UsageError: If so, unless `--format` says how to read it.
    """
    if job.options.format is not None:
        return
    names = {column.name for column in schema.columns} if job.schema is not None else set()
    for file, header in source.headers.items():
        wanted, what, given = names, "the schema", set(header)
        if not names and _keeps_text(job) and job.if_exists != "replace":
            wanted, what = set(there), f"table {job.table}"
            given = set(map(str.lower, header))
        if wanted and wanted.isdisjoint(given):
            raise UsageError(
                f"no name in its header ({_some(header)}) is in {what} ({_some(sorted(wanted))})",
                where=file,
                hint="is it the file that was meant? If its first line is a record: --no-header; to "
                f"import it as it is: --format {source.format}",
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")


def _first_error(source: Source, schema: RecordSchema) -> str:
    """Return what is wrong with the first record, to be put after a message."""
    chunk = _first_chunk(source)
    if chunk is None:
        return ""
    records = source.read(chunk, schema).raw_records
    try:
        records.values(0)
    except UnreadableRecordError as error:
        reject = records.reject(0, "parse", error.errors)
        start = reject.raw[:40].decode(errors="replace")
        place = f"line {reject.line}" if reject.line else "the first record"
        return f": {place} ({start!r}): {error.errors[0].message}"
    return ": the first record is empty"


def infer(source: ShapedSource, records: int | None, options: SourceOptions) -> Inferred:
    """Return the JSON Schema that fits about that many records of a source; all of them for None.

    Raises:
        UsageError: If its files are of several formats.
    """
    types, formats = source.shape.types, date_formats(options.date_formats)
    if source.declared is not None:
        if formats or not {"date", "date-time"} & set(types.values()):
            return Inferred(source.declared)
        inference = Inference(source.sample(records), typed=types)
        document = inference.with_dates(source.declared)
        return Inferred(document, notes_about(document))
    if source.format == "mixed":
        raise UsageError(
            "the files are of several formats, whose types cannot be inferred together",
            where=source.name,
            hint="describe the records with --schema",
        )
    announce(f"inferring a schema of {source.name}")
    untyped = FORMATS[source.format].is_untyped
    inference = Inference(source.sample(records), text=untyped, formats=formats, typed=types)
    document = inference.document
    if options.flatten:
        document = without_outer(document)
    document = inference.with_dates(source.shape.describe(document, source.seen))
    document = inference.marked(document, types)
    return Inferred(
        document, inference.notes(document), inference.report(document), inference.records
    )


def _bind(parts: Parts, schema: RecordSchema) -> BoundTransform:
    """Bind the transform to the first records, which are the same in every run of a job."""
    added = additions(parts.job.options)
    added.refuse_known(schema.columns)
    columns = (*schema.columns, *added.columns)
    chunk = _first_chunk(parts.source)
    if chunk is None:  # there is nothing to transform
        return Identity().bind(pl.DataFrame(), columns)
    batch = parts.source.read(chunk, schema)
    frame, _ = judge(batch, schema)
    return parts.transform.bind(added.add_to(frame, batch), columns)
