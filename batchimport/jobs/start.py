"""How a job begins: its schema and columns, and the claim that lets this program work on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport import failpoints
from batchimport.errors import UsageError
from batchimport.jobs.identify import new_job_id, refuse_if_owned, verify_unchanged, without_address
from batchimport.model import EXTRA_COLUMN, Position
from batchimport.pipeline.chunk import Work, judge
from batchimport.pipeline.transform import Identity
from batchimport.schema import Column, RecordSchema, infer_schema
from batchimport.schema.pydantic import load_model
from batchimport.sinks.base import JobRecord
from batchimport.sources.base import UnreadableRecordError
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.jobs.identify import Found, Request
    from batchimport.model import Chunk, Committed, Job
    from batchimport.pipeline.transform import BoundTransform, Transform
    from batchimport.sinks.base import Claim, Sink
    from batchimport.sources.base import Source

SAMPLE_FOR_TRANSFORM = 1000
SAMPLE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What a job works with, open.

    Attributes:
        store_seconds: How long a statement of the destination may take.
    """

    job: Job
    source: Source
    transform: Transform
    sink: Sink
    store_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A job that may be worked on.

    Attributes:
        committed: What earlier runs have committed.
        resumed: Whether there was an earlier run.
    """

    record: JobRecord
    work: Work
    committed: list[Committed]
    resumed: bool


def open_job(
    request: Request,
    found: Found,
    parts: Parts,
    owner: str,
    has_ended: Callable[[str], bool | None] = owner_is_gone,
) -> Opened:
    """Claim the job that was found, or a new one.

    Args:
        has_ended: Says whether another owner has ended; None where that cannot be known.

    Raises:
        RefusedError: If another program works on it, or the source has changed.
        UsageError: If the table cannot take the records.
    """
    known = found.known
    record, bound = (known, None) if known else _describe(request, parts)
    if record.job_id not in {each.job_id for each in found.instead_of}:
        refuse_if_owned(record, parts.sink, owner, has_ended)
    schema = _recorded_schema(record, parts.job)
    bound = bound or _bind(parts, schema)
    failpoints.reach("before-claim")
    claim = parts.sink.claim(parts.job, record, owner, found.instead_of)
    failpoints.reach("after-claim")
    record = claim.record
    committed = parts.sink.committed(record.job_id)
    if record.modified != parts.source.modified:
        verify_unchanged(parts.source, committed)
    return Opened(record, _work(parts, schema, bound, claim), committed, known is not None)


def join_job(record: JobRecord, parts: Parts) -> Work:
    """Return the work of a job that was claimed elsewhere."""
    schema = _recorded_schema(record, parts.job)
    bound = _bind(parts, schema)
    return _work(parts, schema, bound, parts.sink.join(parts.job, record))


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
    return Work(parts.source, schema, transform, claim, parts.store_seconds)


def _recorded_schema(record: JobRecord, job: Job) -> RecordSchema:
    exact = (column.name.lower() for column in record.columns if column.kind == "json")
    return _schema(record.schema, frozenset(exact if _keeps_text(job) else ()), job)


def _schema(document: dict[str, Any], exact: frozenset[str], job: Job) -> RecordSchema:
    model = load_model(job.model) if job.model else None
    return RecordSchema(document, exact, inferred=job.schema is None, model=model)


def _exact_columns(job: Job, sink: Sink) -> frozenset[str]:
    """Return the columns of the table whose numbers must not go through a double on their way."""
    stays = _keeps_text(job) and job.if_exists != "replace"
    return sink.exact_columns(job.table) if stays else frozenset()


def _keeps_text(job: Job) -> bool:
    return job.transform is None and job.sql is None


def _describe(request: Request, parts: Parts) -> tuple[JobRecord, BoundTransform]:
    """Describe a new job by its id, schema and columns; return its transform besides."""
    job, source = parts.job, parts.source
    document = job.schema
    if document is None:
        document = infer(source, job.infer_records)
    schema = _schema(document, _exact_columns(job, parts.sink), job)
    bound = _bind(parts, schema)
    columns = bound.columns
    if not columns and source.count():
        if job.schema is None:
            raise UsageError(
                f"no record with a key was found{_first_error(source, schema)}",
                where=source.name,
                hint="check --format, or describe the records with --schema",
            )
        columns = (Column(EXTRA_COLUMN, "json"),)
    record = JobRecord(
        job_id=request.job_id or new_job_id(job, source),
        target_hash=job.target_hash(),
        fingerprint=source.fingerprint,
        modified=source.modified,
        configuration_hash=job.configuration_hash(),
        schema=document,
        columns=columns,
        size=source.size,
        configuration=without_address(job),
    )
    return record, bound


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


def infer(source: Source, records: int | None) -> dict[str, Any]:
    """Return the JSON Schema that fits about that many records of a source; all of them for None.

    Raises:
        UsageError: If its files are of several formats.
    """
    if source.declared is not None:
        return source.declared
    if source.format == "mixed":
        raise UsageError(
            "the files are of several formats, whose types cannot be inferred together",
            where=source.name,
            hint="describe the records with --schema",
        )
    text = source.format in ("csv", "tsv")
    return infer_schema(source.sample(records), text=text)


def _bind(parts: Parts, schema: RecordSchema) -> BoundTransform:
    """Bind the transform to the first records, which are the same in every run of a job."""
    chunk = _first_chunk(parts.source)
    if chunk is None:  # there is nothing to transform
        return Identity().bind(pl.DataFrame(), schema)
    frame, _ = judge(parts.source.read(chunk, schema), schema)
    return parts.transform.bind(frame, schema)
