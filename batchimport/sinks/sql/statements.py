"""The ledger in SQL: its tables, its statements, and its rows as our nouns. No driver here.

Three tables, documented in the README: one row a job, one row a committed chunk, one row a reject.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchimport.errors import FatalError, UsageError
from batchimport.model import (
    Chunk,
    ChunkResult,
    Committed,
    FieldError,
    Position,
    Reject,
)
from batchimport.schema import Column
from batchimport.sinks.base import JobRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.sinks.base import StoreRequest

FORMAT_VERSION = 1
LEDGER_TABLES = ("_batchimport_jobs", "_batchimport_chunks", "_batchimport_rejects")


def create_ledger(jobs: str, chunks: str, rejects: str) -> tuple[str, ...]:
    """Return the statements that make the tables of the ledger, given their names as SQL."""
    return (
        f"""CREATE TABLE IF NOT EXISTS {jobs} (
        job_id TEXT NOT NULL PRIMARY KEY, target_hash TEXT NOT NULL, table_name TEXT NOT NULL,
        source_fingerprint TEXT NOT NULL, source_modified TEXT NOT NULL,
        config_hash TEXT NOT NULL, configuration TEXT NOT NULL, schema TEXT NOT NULL,
        columns TEXT NOT NULL, size BIGINT NOT NULL, total_items BIGINT,
        rows_before BIGINT, state TEXT NOT NULL, epoch BIGINT NOT NULL, owner TEXT NOT NULL,
        created_at TEXT NOT NULL, heartbeat_at TEXT NOT NULL, format_version BIGINT NOT NULL)""",
        f"""CREATE TABLE IF NOT EXISTS {chunks} (
        job_id TEXT NOT NULL, lo BIGINT NOT NULL, hi BIGINT NOT NULL,
        first_record BIGINT NOT NULL, records BIGINT NOT NULL,
        first_line BIGINT NOT NULL, next_line BIGINT NOT NULL,
        successful BIGINT NOT NULL, failed BIGINT NOT NULL, filtered BIGINT NOT NULL,
        digest TEXT NOT NULL, epoch BIGINT NOT NULL, attempt BIGINT NOT NULL,
        committed_at TEXT NOT NULL, PRIMARY KEY (job_id, lo))""",
        f"""CREATE TABLE IF NOT EXISTS {rejects} (
        job_id TEXT NOT NULL, record BIGINT NOT NULL, source TEXT NOT NULL, line BIGINT,
        byte_offset BIGINT NOT NULL, stage TEXT NOT NULL, errors TEXT NOT NULL,
        raw TEXT NOT NULL, raw_is_base64 BIGINT NOT NULL, PRIMARY KEY (job_id, record))""",
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
REJECT_COLUMNS = "job_id, record, source, line, byte_offset, stage, errors, raw, raw_is_base64"


def quote(name: str) -> str:
    """Quote an identifier, as SQL says: in double quotes, those inside doubled.

    Raises:
        FatalError: If it holds NUL, which no database takes.
    """
    if "\0" in name:
        raise FatalError("a name with a NUL character cannot be a table or column")
    return '"' + name.replace('"', '""') + '"'


def clash(names: Sequence[str]) -> str:
    """Return two names that differ only in case, which SQLite and DuckDB ignore; empty if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            return f"{seen[name.lower()]}, {name}"
        seen[name.lower()] = name
    return ""


def refuse_missing(table: str, missing: Sequence[str]) -> None:
    """Refuse a table that lacks columns of the job.

    Raises:
        UsageError: If it lacks any.
    """
    if missing:
        raise UsageError(
            f"the table has no column {', '.join(missing)}",
            where=table,
            hint="add the columns, choose another --table, or drop the keys with --sql",
        )


def refuse_unfilled(table: str, unfilled: Sequence[str]) -> None:
    """Refuse a table with columns that must have a value and that no record fills.

    Raises:
        UsageError: If it has any.
    """
    if unfilled:
        raise UsageError(
            f"the table's column {', '.join(unfilled)} may not be null and no record has it",
            where=table,
            hint="give it a default, or make it with --transform or --sql",
        )


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


def job_record(row: Sequence[Any]) -> JobRecord:
    """Return the job of a row that was selected by `JOB_COLUMNS`.

    Raises:
        FatalError: If a later version of batchimport wrote it.
    """
    if row[17] != FORMAT_VERSION:
        raise FatalError(
            f"the ledger has format {row[17]}, this version knows {FORMAT_VERSION}",
            where=f"job {row[0]}",
            hint="use the version of batchimport that began the job",
        )
    names = {each.name for each in fields(Column)}
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
    )


def chunk_values(
    job_id: str, request: StoreRequest, result: ChunkResult, epoch: int
) -> tuple[Any, ...]:
    """Return the ledger row of a chunk, in the order of `CHUNK_COLUMNS`."""
    chunk = request.chunk
    return (
        job_id,
        chunk.lo,
        chunk.hi,
        chunk.offset,
        chunk.records,
        chunk.start.line,
        chunk.end.line,
        *result.counts,
        request.digest,
        epoch,
        request.attempt,
        now(),
    )


def committed(row: Sequence[Any]) -> Committed:
    """Return what a row selected by `CHUNK_COLUMNS` says is committed."""
    start = Position(row[1], row[3], row[5])
    end = Position(row[2], row[3] + row[4], row[6])
    return Committed(Chunk(start, end), row[7], row[8], row[9], row[10])


def reject_values(job_id: str, reject: Reject) -> tuple[Any, ...]:
    """Return the row of a reject, in the order of `REJECT_COLUMNS`."""
    try:
        raw, encoded = reject.raw.decode(), "\0" in reject.raw.decode()
    except UnicodeDecodeError:
        raw, encoded = "", True
    if encoded:
        raw = base64.b64encode(reject.raw).decode()
    errors = json.dumps([error.to_dict() for error in reject.errors])
    return (
        job_id,
        reject.record,
        reject.source,
        reject.line,
        reject.byte_offset,
        reject.stage,
        errors,
        raw,
        int(encoded),
    )


def reject(row: Sequence[Any]) -> Reject:
    """Return the reject of a row that was selected by `REJECT_COLUMNS`."""
    raw = base64.b64decode(row[7]) if row[8] else row[7].encode()
    errors = tuple(FieldError(**error) for error in json.loads(row[6]))
    return Reject(row[1], row[2], row[3], row[4], row[5], errors, raw)


def outcome(
    request: StoreRequest, rejects: Sequence[Reject], refused: int = 0, ignored: int = 0
) -> ChunkResult:
    """Return what became of a chunk.

    Args:
        rejects: All of them.
        refused: How many of its rows the table refused.
        ignored: How many of its rows `--on-conflict ignore` left out; they count as filtered.
    """
    return ChunkResult(
        request.chunk,
        request.frame.height - refused - ignored,
        len(rejects),
        request.filtered + ignored,
        request.digest,
        bool(refused),
    )


def already_committed(chunk: Chunk, known: Sequence[Committed]) -> ChunkResult:
    """Return the result of a chunk that an earlier attempt has committed.

    Raises:
        FatalError: If the ledger cut the source otherwise.
    """
    if len(known) == 1 and known[0].chunk == chunk:
        one = known[0]
        return ChunkResult(
            chunk, one.successful, one.failed, one.filtered, one.digest, already_committed=True
        )
    raise FatalError(
        "the ledger has an overlapping chunk",
        where=f"positions {chunk.lo} to {chunk.hi}",
        hint="run the same command again: it continues from the ledger",
    )


def now() -> str:
    """Return the time, as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
