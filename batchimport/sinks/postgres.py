"""PostgreSQL: COPY, ledger row and rejects of a chunk in one transaction; several of them at once."""

from __future__ import annotations

import hashlib
import queue
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg

from batchimport import failpoints
from batchimport.errors import DataError, JobRunningElsewhereError, TransientError, UsageError
from batchimport.job import EXTRA_COLUMN, ChunkResult, FieldError, count_codes
from batchimport.sinks import redact, sql
from batchimport.sinks.base import SinkHints
from batchimport.sinks.ledger import Ledger, column_list
from batchimport.sinks.postgres_dialect import (
    CATALOGUE,
    TYPES,
    field_error,
    line_of,
    match_columns,
    opening,
    table_column,
    translate,
)
from batchimport.sinks.sql import CHUNKS, JOBS, REJECTS, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.job import Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord, StoreRequest

WRITERS = 2
SMALL_WINDOW = 64
LOCK_WAIT_SECONDS = 5
"""So long may the server need to notice that a killed client is gone."""

_Refused = list[tuple[int, FieldError]]


class PostgresSink(Ledger):
    """One database; a connection for the job, and one for each chunk that is being stored."""

    def __init__(self, address: str, *, create: bool = True) -> None:
        del create  # a database is never made
        super().__init__()
        self.hints = SinkHints(writers=WRITERS, preferred_records=20_000)
        self._address, self._where = address, redact(address)
        self._columns: list[tuple[str, str]] = []
        self._lock = threading.RLock()
        self._idle: queue.SimpleQueue[psycopg.Connection] = queue.SimpleQueue()
        try:
            self._main = self._connect()
        except psycopg.Error as error:
            raise opening(error, self._where) from error

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self._address, autocommit=True, application_name="batchimport", client_encoding="utf8"
        )

    # -- the job ------------------------------------------------------------------------------

    def claim(self, job: Job, record: JobRecord, owner: str) -> JobRecord:
        """Make ledger and table ready and take the job with a new epoch."""
        self._take_lock(job)
        return super().claim(job, record, owner)

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record; without a lock, for others may join, too."""
        super().join(job, record)
        known = {
            each.name: each
            for each in map(table_column, self._rows(CATALOGUE, (self._name(job.table),)))
        }
        names = match_columns(job.table, list(known.values()), record.columns) if known else {}
        self._columns = list(names.items())
        if known and self._has_unique_index(job.table):
            self.hints = SinkHints(writers=1, preferred_records=self.hints.preferred_records)

    def _take_lock(self, job: Job) -> None:
        """Take the target for this process; the server lets go of it when the connection ends."""
        digest = hashlib.sha256(f"batchimport {job.target_hash()}".encode()).digest()
        key = int.from_bytes(digest[:8], signed=True)
        self._run(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
        try:
            self._rows("SELECT pg_advisory_lock(?)", (key,))
        except TransientError as error:
            raise JobRunningElsewhereError(
                "another process is running this job",
                where=self._where,
                hint="wait for it, or stop it",
            ) from error
        self._run("SET lock_timeout = 0")

    def _has_unique_index(self, table: str) -> bool:
        return bool(
            self._rows(
                "SELECT 1 FROM pg_index WHERE indrelid = to_regclass(?) "
                "AND (indisunique OR indisexclusion)",
                (self._name(table),),
            )
        )

    def _make_table(self, job: Job, columns: Sequence[Column]) -> bool:
        if not columns:  # an empty source
            return False
        exists = self._exists(job.table)
        if exists and job.if_exists == "fail":
            raise UsageError(
                "the table exists", where=job.table, hint="--if-exists append, truncate or replace"
            )
        name = self._name(job.table)
        if exists and job.if_exists == "replace":
            self._run(f"DROP TABLE {name}")
            exists = False
        if exists:
            known = list(map(table_column, self._rows(CATALOGUE, (name,))))
            match_columns(job.table, known, columns)
            if job.if_exists == "truncate":
                self._run(f"TRUNCATE {name}")
            return job.if_exists == "truncate"
        lines = [f"{quote(column.name)} {TYPES[column.kind]}" for column in columns]
        if job.key:
            unknown = [key for key in job.key if key not in {each.name for each in columns}]
            if unknown:
                raise UsageError(f"no such column: {', '.join(unknown)}", where="--key")
            lines.append(f"UNIQUE ({column_list(job.key)})")
        self._run(f"CREATE TABLE {name} ({', '.join(lines)})")
        return True

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        with self._connection() as connection:
            try:
                with connection.transaction():
                    return self._store(_Writer(connection, self._where), request)
            except _AlreadyCommittedError:
                return sql.already_committed(request.chunk, self._known(request))

    def _store(self, writer: _Writer, request: StoreRequest) -> ChunkResult:
        job = self._fence_by(writer)
        expected = (request.frame.height, len(request.rejects), request.filtered)
        values = sql.chunk_values(job.job_id, request, expected, job.epoch, sql.now())
        marks = ", ".join("?" * len(values))
        # Waits for another attempt that is in doubt, and then learns the truth.
        ours = writer.rows(
            f"INSERT INTO {CHUNKS} ({sql.CHUNK_COLUMNS}) SELECT {marks} WHERE NOT EXISTS "
            f"(SELECT 1 FROM {CHUNKS} WHERE job_id = ? AND lo < ? AND hi > ?) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            (*values, job.job_id, request.chunk.hi, request.chunk.lo),
        )
        if not ours:
            raise _AlreadyCommittedError
        failpoints.reach("after-ledger-row")
        refused = self._copy_rows(writer, request.frame)
        failpoints.reach("after-rows")
        rejects = [*request.rejects, *(request.rejecter(at, [why]) for at, why in refused)]
        if rejects:
            rows = [sql.reject_values(job.job_id, reject) for reject in rejects]
            names = sql.REJECT_COLUMNS.split(", ")
            frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
            writer.copy(f"COPY {REJECTS} ({sql.REJECT_COLUMNS})", frame)
        stored = request.frame.height - len(refused)
        if refused:
            writer.rows(
                f"UPDATE {CHUNKS} SET successful = ?, failed = ? WHERE job_id = ? AND lo = ? "
                "RETURNING 1",
                (stored, len(rejects), job.job_id, request.chunk.lo),
            )
        failpoints.reach("before-commit")
        return ChunkResult(
            request.chunk,
            stored,
            len(rejects),
            request.filtered,
            request.digest,
            bool(refused),
            rejects_by_code=count_codes(rejects),
        )

    def _copy_rows(self, writer: _Writer, frame: pl.DataFrame) -> _Refused:
        names = dict(self._columns)
        if EXTRA_COLUMN in frame.columns:
            names[EXTRA_COLUMN] = EXTRA_COLUMN
            self._ensure_extra_column()
        frame = frame.select(list(names))
        kept, refused = _without_nul(frame)
        statement = f"COPY {self._name(self._table)} ({column_list(list(names.values()))})"
        more = _copy_isolated(writer, statement, frame if kept is None else frame[kept])
        place = range(frame.height) if kept is None else kept
        return sorted([*refused, *((place[at], why) for at, why in more)], key=lambda one: one[0])

    def _ensure_extra_column(self) -> None:
        """Add the column by the connection of the job: it must not wait for a chunk's rows."""
        with self._lock:
            names = {row[0] for row in self._rows(CATALOGUE, (self._name(self._table),))}
            if EXTRA_COLUMN not in names:
                self._run(
                    f"ALTER TABLE {self._name(self._table)} ADD COLUMN IF NOT EXISTS "
                    f"{quote(EXTRA_COLUMN)} jsonb"
                )

    def _known(self, request: StoreRequest) -> list[Any]:
        chunk, job_id = request.chunk, self._job.job_id if self._job else ""
        return [
            row
            for row in self.committed(job_id)
            if row.chunk.lo < chunk.hi and row.chunk.hi > chunk.lo
        ]

    def _fence_by(self, writer: _Writer) -> JobRecord:
        """Share-lock the job's row, so that no other process can take the job before the commit."""
        job = self._job
        assert job is not None, "claim comes first"  # noqa: S101 - a mistake in this program
        if not writer.rows(
            f"SELECT 1 FROM {JOBS} WHERE job_id = ? AND epoch = ? FOR SHARE",
            (job.job_id, job.epoch),
        ):
            raise JobRunningElsewhereError(
                "another process has taken over this job", where=f"job {job.job_id}"
            )
        return job

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection]:
        """Lend a connection; one that broke is not lent again."""
        connection: psycopg.Connection | None = None
        with suppress(queue.Empty):
            connection = self._idle.get_nowait()
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except psycopg.Error as error:
            raise translate(error, self._where) from error
        finally:
            if connection is not None and not connection.closed:
                self._idle.put(connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._translated(), self._main.transaction():
            yield

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        with self._lock, self._translated():
            self._main.execute(_with_marks(statement), tuple(values) or None)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            cursor = self._main.execute(_with_marks(statement), tuple(values) or None)
            return cursor.fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise translate(error, self._where) from error

    def _is_ours(self, job_id: str, epoch: int) -> bool:
        return bool(
            self._rows(
                f"UPDATE {JOBS} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? RETURNING 1",
                (sql.now(), job_id, epoch),
            )
        )

    def _exists(self, table: str) -> bool:
        return self._rows("SELECT to_regclass(?) IS NOT NULL", (self._name(table),))[0][0] is True

    def _name(self, table: str) -> str:
        """Return a table's name as SQL; a dot parts it from its schema."""
        schema, dot, name = table.partition(".")
        return f"{quote(schema)}.{quote(name)}" if dot and schema and name else quote(table)

    def close(self) -> None:
        """Close all connections that are not in use."""
        while not self._idle.empty():
            self._idle.get().close()
        self._main.close()


class _AlreadyCommittedError(Exception):
    """The ledger has the chunk: roll back, nothing is to be done."""


class _Writer:
    """One connection inside of one transaction."""

    def __init__(self, connection: psycopg.Connection, where: str) -> None:
        self.connection, self._where = connection, where

    def rows(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return self.connection.execute(_with_marks(statement), tuple(values)).fetchall()

    def copy(self, statement: str, frame: pl.DataFrame) -> None:
        """Copy a frame; null is an unquoted nothing, an empty string a quoted one."""
        text = frame.write_csv(include_header=False, quote_style="non_numeric")
        with self.connection.cursor().copy(f"{statement} FROM STDIN (FORMAT csv)") as copy:
            copy.write(text)


def _copy_isolated(writer: _Writer, statement: str, frame: pl.DataFrame) -> _Refused:
    """Copy all rows that the table takes; return the others with PostgreSQL's reason.

    Each step is a savepoint. PostgreSQL tells most often at which row it stopped; where it does not
    (a foreign key is checked at the end), the window is halved. After a refused row the window
    starts small and doubles, so that a chunk of bad rows only takes time in proportion to its size.
    """
    refused: _Refused = []
    at, window = 0, frame.height
    while at < frame.height:
        piece = frame.slice(at, window)
        try:
            with writer.connection.transaction():
                writer.copy(statement, piece)
        except psycopg.Error as error:
            if not isinstance(translate(error, ""), DataError):
                raise
            if piece.height == 1:
                refused.append((at, field_error(error)))
                at, window = at + 1, SMALL_WINDOW
            else:
                good = (line_of(error) or piece.height // 2 + 1) - 1
                window = max(1, min(good, piece.height - 1))
        else:
            at, window = at + piece.height, window * 2
    return refused


def _without_nul(frame: pl.DataFrame) -> tuple[list[int] | None, _Refused]:
    """Find rows with a NUL character, which PostgreSQL takes in no text."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    found: dict[int, FieldError] = {}
    for name in texts:
        bad = frame.get_column(name).str.contains("\0", literal=True).fill_null(value=False)
        for at in bad.arg_true().to_list():
            message = "PostgreSQL takes no NUL characters"
            found.setdefault(at, FieldError("nul_character", name, message))
    if not found:
        return None, []
    return [at for at in range(frame.height) if at not in found], list(found.items())


def _with_marks(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")
