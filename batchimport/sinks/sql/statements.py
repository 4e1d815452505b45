"""The ledger in SQL: its tables, and its rows as jobs, chunks and rejects.

One row per job, one per committed chunk, one per reject. The Parquet sink keeps the same rows in
footers. Names and order of the columns are a file format: jobs of earlier versions are continued.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import FatalError
from batchimport.model import (
    Chunk,
    ChunkResult,
    Committed,
    FieldError,
    Position,
    Reject,
)
from batchimport.schema import Column
from batchimport.schema.columns import DTYPES
from batchimport.sinks.base import FORGOTTEN, JobRecord, StoreSeparatelyError
from batchimport.state.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from batchimport.sinks.base import StoreRequest

FORMAT_VERSION = 1
STATES = {"running", "interrupted", "completed", "abandoned", FORGOTTEN}
LEDGER_TABLES = ("_batchimport_jobs", "_batchimport_chunks", "_batchimport_rejects")


def create_ledger(
    jobs: str, chunks: str, rejects: str, *, text: str, key_text: str
) -> tuple[str, ...]:
    """Return the statements that create the tables of the ledger.

    Args:
        jobs: Name as SQL, as are `chunks` and `rejects`.
        text: Type of strings.
        key_text: Type of strings in a primary key.
    """
    return (
        f"""CREATE TABLE IF NOT EXISTS {jobs} (
        job_id {key_text} NOT NULL PRIMARY KEY,
        target_hash {text} NOT NULL, table_name {text} NOT NULL,
        source_fingerprint {text} NOT NULL, source_modified {text} NOT NULL,
        config_hash {text} NOT NULL, configuration {text} NOT NULL, schema {text} NOT NULL,
        columns {text} NOT NULL, size BIGINT NOT NULL, total_items BIGINT,
        rows_before BIGINT, state {text} NOT NULL, epoch BIGINT NOT NULL, owner {text} NOT NULL,
        created_at {text} NOT NULL, heartbeat_at {text} NOT NULL, format_version BIGINT NOT NULL,
        made_table BIGINT)""",
        f"""CREATE TABLE IF NOT EXISTS {chunks} (
        job_id {key_text} NOT NULL, lo BIGINT NOT NULL, hi BIGINT NOT NULL,
        first_record BIGINT NOT NULL, records BIGINT NOT NULL,
        first_line BIGINT NOT NULL, next_line BIGINT NOT NULL,
        successful BIGINT NOT NULL, failed BIGINT NOT NULL, filtered BIGINT NOT NULL,
        digest {text} NOT NULL, epoch BIGINT NOT NULL, attempt BIGINT NOT NULL,
        committed_at {text} NOT NULL, updated BIGINT, ignored BIGINT,
        skipped BIGINT, PRIMARY KEY (job_id, lo))""",
        f"""CREATE TABLE IF NOT EXISTS {rejects} (
        job_id {key_text} NOT NULL, record BIGINT NOT NULL, source {text} NOT NULL, line BIGINT,
        byte_offset BIGINT NOT NULL, stage {text} NOT NULL, errors {text} NOT NULL,
        raw {text} NOT NULL, raw_is_base64 BIGINT NOT NULL, PRIMARY KEY (job_id, record))""",
    )


JOB_COLUMNS = (
    "job_id, target_hash, table_name, source_fingerprint, source_modified, config_hash, "
    "configuration, schema, columns, size, total_items, rows_before, state, epoch, owner, "
    "created_at, heartbeat_at, format_version"
)
CHUNK_COLUMNS = (
    "job_id, lo, hi, first_record, records, first_line, next_line, successful, failed, filtered, "
    "digest, epoch, attempt, committed_at"
)
_CHUNK_NAMES = CHUNK_COLUMNS.split(", ")
OUTCOME_COLUMNS = ("updated", "ignored", "skipped")
ADDED_COLUMNS = {LEDGER_TABLES[0]: ("made_table",), LEDGER_TABLES[1]: OUTCOME_COLUMNS}
"""What a ledger that an earlier version created gets when a job is claimed: null for its rows.
`made_table` is 1 if the job's table was created by batchimport."""
REJECT_COLUMNS = "job_id, record, source, line, byte_offset, stage, errors, raw, raw_is_base64"
_REJECT_NUMBERS = ("record", "line", "byte_offset", "raw_is_base64")
REJECT_SCHEMA = {
    name: pl.Int64() if name in _REJECT_NUMBERS else pl.String()
    for name in REJECT_COLUMNS.split(", ")
}
_field_errors = msgspec.json.Decoder(tuple[FieldError, ...]).decode


def quote(name: str) -> str:
    """Quote an identifier as standard SQL does: in double quotes, those inside doubled.

    Raises:
        FatalError: If it contains NUL, which no database takes.
    """
    if "\0" in name:
        raise FatalError("a name with a NUL character cannot be a table or column")
    return '"' + name.replace('"', '""') + '"'


def column_list(names: Sequence[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(map(quote, names))


def marks(values: Sequence[Any]) -> str:
    """Return a `?` for each value, separated by commas."""
    return ", ".join("?" * len(values))


def overlapping(
    chunks: str, job_id: str, chunk: Chunk, columns: str = CHUNK_COLUMNS
) -> tuple[str, tuple[Any, ...]]:
    """Return the query, and its values, for the ledger rows that share positions with a chunk.

    Chunks of a job do not overlap, so none before the last one that begins at `chunk.lo` or earlier
    can reach into it. Starting there, the primary key finds the rows: the time does not grow with the
    ledger.
    """
    query = (
        f"SELECT {columns} FROM {chunks} WHERE job_id = ? AND lo < ? AND hi > ? AND lo >= coalesce("
        f"(SELECT lo FROM {chunks} WHERE job_id = ? AND lo <= ? ORDER BY lo DESC LIMIT 1), ?)"
    )
    return query, (job_id, chunk.hi, chunk.lo, job_id, chunk.lo, chunk.lo)


def job_values(record: JobRecord, table: str, owner: str, now: str) -> tuple[Any, ...]:
    """Return the row of a job, in the order of `JOB_COLUMNS`."""
    return (
        record.job_id,
        record.target_hash,
        table,
        record.fingerprint,
        record.modified,
        record.configuration_hash,
        json.dumps(record.configuration),
        json.dumps(record.schema),
        json.dumps([asdict(column) for column in record.columns]),
        record.size,
        record.total_items,
        record.rows_before,
        record.state,
        record.epoch,
        owner,
        record.created_at or now,
        now,
        FORMAT_VERSION,
    )


_UNREADABLE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    OverflowError,
    pl.exceptions.PolarsError,
)


@contextmanager
def _reading(row: Sequence[Any], table: str) -> Iterator[None]:
    """Turn what a row that was changed by hand or is damaged leads to into an error.

    Raises:
        FatalError: If the row cannot be read.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise FatalError(
            f"a row of {table} cannot be read: it was damaged or changed by hand",
            where=f"job {row[0]}",
            hint="restore it from a backup; or delete the job's rows there and in the table, "
            "and import again",
        ) from error


def job_record(row: Sequence[Any]) -> JobRecord:
    """Return the job of a row that was selected by `JOB_COLUMNS`.

    Raises:
        FatalError: If a later version of batchimport wrote it, or if it cannot be read.
    """
    with _reading(row, LEDGER_TABLES[0]):
        return _checked(_job_record(row))


def _checked(record: JobRecord) -> JobRecord:
    """Check the types of what decides on a job.

    Raises:
        ValueError: If one is wrong.
    """
    optional = [each for each in (record.total_items, record.rows_before) if each is not None]
    facts: dict[type, list[object]] = {
        int: [record.epoch, record.size, *optional],
        str: [record.job_id, record.target_hash, record.fingerprint, record.modified],
        dict: [record.configuration, record.schema],
    }
    are_typed = all(isinstance(fact, kind) for kind, values in facts.items() for fact in values)
    are_kinds = all(column.kind in DTYPES for column in record.columns)
    if not (are_typed and are_kinds and record.state in STATES):
        raise ValueError(record.job_id)
    return record


def _job_record(row: Sequence[Any]) -> JobRecord:
    if row[17] != FORMAT_VERSION:
        raise FatalError(
            f"the ledger has format {row[17]}, this version knows {FORMAT_VERSION}",
            where=f"job {row[0]}",
            hint="use the version of batchimport that began the job",
        )
    names = {field.name for field in fields(Column)}  # a later version may record more
    columns = [
        {key: value for key, value in column.items() if key in names}
        for column in json.loads(row[8])
    ]
    return JobRecord(
        job_id=row[0],
        target_hash=row[1],
        fingerprint=row[3],
        modified=row[4],
        configuration_hash=row[5],
        configuration=json.loads(row[6]),
        schema=json.loads(row[7]),
        columns=tuple(Column(**column) for column in columns),
        size=row[9],
        total_items=row[10],
        rows_before=row[11],
        state=row[12],
        epoch=row[13],
        created_at=row[15],
        updated_at=row[16],
    )


def chunk_values(
    job_id: str, request: StoreRequest, result: ChunkResult, epoch: int
) -> tuple[Any, ...]:
    """Return the ledger row of a chunk, or of the part that a result is of, as `CHUNK_COLUMNS` has it."""
    chunk = result.chunk
    return (
        job_id,
        chunk.lo,
        chunk.hi,
        chunk.offset,
        chunk.records,
        chunk.start.line,
        chunk.end.line,
        *result.counts,
        result.digest,
        epoch,
        request.attempt,
        now(),
    )


def chunks_frame(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """Return ledger rows of chunks as a frame with the columns of `CHUNK_COLUMNS`."""
    return pl.DataFrame(
        [
            pl.Series(name, values)
            for name, values in zip(_CHUNK_NAMES, zip(*rows, strict=True), strict=True)
        ]
    )


def committed(row: Sequence[Any]) -> Committed:
    """Return the committed chunk of a row: of `CHUNK_COLUMNS`, and of `OUTCOME_COLUMNS` if any.

    Raises:
        FatalError: If it cannot be read.
    """
    with _reading(row, LEDGER_TABLES[1]):
        return _committed(row)


def all_committed(rows: Sequence[Sequence[Any]]) -> list[Committed]:
    """Return the committed chunks of some rows, of which there may be a hundred thousand.

    Raises:
        FatalError: If one cannot be read.
    """
    try:
        return [_committed(row) for row in rows]
    except _UNREADABLE:
        return [committed(row) for row in rows]  # which one is it?


def _committed(row: Sequence[Any]) -> Committed:
    _, *counts, digest, epoch, attempt, at = row[: len(_CHUNK_NAMES)]
    lo, hi, first, records, line, next_line, *results = counts
    if {*map(type, counts), type(epoch), type(attempt)} != {int}:
        raise ValueError(row)
    chunk = Chunk(Position(lo, first, line), Position(hi, first + records, next_line))
    outcomes = [count or 0 for count in row[len(_CHUNK_NAMES) :]] or (0, 0, 0)
    facts = (*results, digest, *outcomes, epoch, attempt, str(at))
    return Committed(chunk, *facts)


def rejects_frame(job_id: str, rejects: Sequence[Reject]) -> pl.DataFrame:
    """Return the rows of rejects as a frame with the columns of `REJECT_COLUMNS`.

    Raw bytes that are no text, or that not every database can hold, are in base64.
    """
    raw = pl.Series([reject.raw for reject in rejects], dtype=pl.Binary)
    try:
        texts = raw.cast(pl.String)
    except pl.exceptions.PolarsError:  # some are no text
        texts = pl.Series(map(_text, raw), dtype=pl.String)
    encoded = texts.is_null() | texts.str.contains("\0", literal=True)
    if encoded.any():
        texts = texts.zip_with(~encoded, raw.bin.encode("base64"))
    columns: list[Any] = [
        [job_id] * len(rejects),
        [reject.record for reject in rejects],
        [reject.source for reject in rejects],
        [reject.line for reject in rejects],
        [reject.byte_offset for reject in rejects],
        [reject.stage for reject in rejects],
        _errors_texts(rejects),
        texts,
        encoded.cast(pl.Int64),
    ]
    return pl.DataFrame(dict(zip(REJECT_SCHEMA, columns, strict=True)), schema=REJECT_SCHEMA)


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


_HEAD, _TAIL = '[{"code": ', "}]"


def _errors_texts(rejects: Sequence[Reject]) -> list[str]:
    """Return the errors of each reject as JSON in ASCII: not every database can hold more.

    All of them are encoded at once, and separated where only the border of two lists can be: a string
    has no quote in it that is not escaped. A value that is a list itself may have one.
    """
    whole = json_text([reject.errors for reject in rejects])
    parts = whole[1 + len(_HEAD) : -len(_TAIL) - 1].split(f"{_TAIL}, {_HEAD}")
    if whole.isascii() and len(parts) == len(rejects):
        return [_HEAD + part + _TAIL for part in parts]
    return list(map(_errors_text, rejects))


def _errors_text(reject: Reject) -> str:
    text = json_text(reject.errors)
    return text if text.isascii() else json.dumps([error.to_dict() for error in reject.errors])


def reject_rows(job_id: str, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return the rows of a job's rejects as a frame, whatever they were read from.

    Raises:
        FatalError: If they cannot be read.
    """
    with _reading((job_id,), LEDGER_TABLES[2]):
        columns = zip(*rows, strict=True) if rows else [()] * len(REJECT_SCHEMA)
        return pl.DataFrame(
            [
                pl.Series(name, values, dtype=REJECT_SCHEMA[name])
                for name, values in zip(REJECT_SCHEMA, columns, strict=True)
            ]
        )


def checked_rejects(job_id: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame of the rows of a job's rejects, with the types that these have.

    Raises:
        FatalError: If they have others.
    """
    with _reading((job_id,), LEDGER_TABLES[2]):
        return frame.cast(REJECT_SCHEMA)  # type: ignore[arg-type]  # a dict of names is one


class KeepsRejects(ABC):
    """A sink whose rejects are such rows."""

    @abstractmethod
    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""

    def rejects(self, job_id: str, within: Chunk | None = None) -> Iterator[Reject]:
        """Yield the rejects of a job, or of one of its committed chunks, in order of record."""
        for frame in self.reject_frames(job_id, within):
            yield from rejects(frame.rows())


def rejects(rows: Sequence[Sequence[Any]]) -> list[Reject]:
    """Return the rejects of rows that were selected by `REJECT_COLUMNS`, all of one job.

    Raises:
        FatalError: If one cannot be read.
    """
    if not rows:
        return []
    with _reading(rows[0], LEDGER_TABLES[2]):
        return list(map(_reject, rows))


def _reject(row: Sequence[Any]) -> Reject:
    _, record, source, line, byte_offset, stage, text, raw, is_base64 = row
    try:
        errors = _field_errors(text)
    except msgspec.DecodeError:  # NaN, or half of a surrogate pair; or it is damaged
        errors = tuple(FieldError(**error) for error in json.loads(text))
    if not errors:
        raise ValueError(row)
    raw = base64.b64decode(raw) if is_base64 else raw.encode()
    return Reject(record, source, line, byte_offset, stage, errors, raw)


def outcome(
    request: StoreRequest, rejects: Sequence[Reject], refused: int = 0, left_out: int = 0
) -> ChunkResult:
    """Return the result of a chunk.

    Args:
        rejects: Those of all stages.
        refused: Number of rows that the table refused.
        left_out: Number of rows that were left out without an error; they count as filtered.
    """
    return ChunkResult(
        request.chunk,
        request.frame.height - refused - left_out,
        len(rejects),
        request.filtered + left_out,
        request.digest,
        bool(refused),
    )


def outcomes_of_parts(
    request: StoreRequest, rejects: Sequence[Reject], refused: Collection[int] = ()
) -> list[ChunkResult]:
    """Return the result of each part of a chunk that has a row in the ledger.

    Args:
        rejects: Those of all stages.
        refused: Rows that the table refused.
    """
    numbers = request.numbers
    if numbers is None:
        return [outcome(request, rejects, len(refused))]
    borders = [part.offset for part, _ in request.parts] + [request.chunk.end.record]
    bad = sorted(reject.record for reject in rejects)
    out = sorted(numbers.gather(sorted(refused)).to_list())
    stored, failed, gone = (
        [bisect_left(each, border) for border in borders] for each in (numbers, bad, out)
    )
    results = []
    for at, (part, digest) in enumerate(request.parts):
        kept, lost, left = (ends[at + 1] - ends[at] for ends in (stored, failed, gone))
        successful = kept - left
        results.append(
            ChunkResult(part, successful, lost, part.records - successful - lost, digest)
        )
    return results


def already_committed(
    chunk: Chunk, known: Sequence[Committed], parts: Sequence[Chunk] = ()
) -> ChunkResult:
    """Return the result of a chunk that an earlier attempt has committed.

    Args:
        known: What the ledger has of the chunk's positions.
        parts: Those that have rows of their own.

    Raises:
        FatalError: If the ledger has a chunk with other borders there.
        StoreSeparatelyError: If it has some of the chunk's parts.
    """
    if sorted((row.chunk for row in known), key=lambda each: each.start) == list(parts or [chunk]):
        successful, failed, filtered = (
            sum(counts)
            for counts in zip(
                *((row.successful, row.failed, row.filtered) for row in known), strict=True
            )
        )
        digest = known[0].digest
        return ChunkResult(chunk, successful, failed, filtered, digest, already_committed=True)
    if parts and {row.chunk for row in known} <= set(parts):
        raise StoreSeparatelyError
    raise FatalError(
        "the ledger has an overlapping chunk",
        where=f"positions {chunk.lo} to {chunk.hi}",
        hint="run the same command again: it continues from the ledger",
    )


def now() -> str:
    """Return the time as the ledger writes it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
