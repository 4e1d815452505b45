"""SQLite: rows, ledger and rejects of a chunk in one transaction of one file.

Only ADBC opens the file here. Its driver brings an SQLite of its own, and a second one in the same
process (Python's `sqlite3`) would drop the first one's POSIX locks when it closes the file.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as url_quote
from urllib.parse import unquote

import polars as pl
from adbc_driver_manager import Error as DriverError
from adbc_driver_sqlite import dbapi

from batchimport import failpoints
from batchimport.errors import (
    BatchImportError,
    DataError,
    FatalError,
    TransientError,
    UsageError,
)
from batchimport.job import EXTRA_COLUMN, ChunkResult, FieldError, count_codes
from batchimport.sinks import sql
from batchimport.sinks.base import SinkHints
from batchimport.sinks.ledger import Ledger
from batchimport.sinks.sql import CHUNKS, JOBS, REJECTS, quote
from batchimport.sinks.sqlite_dialect import (
    TYPES,
    check_table,
    field_error,
    opening,
    text_literal,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.job import Chunk, Committed, Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord, StoreRequest

BUSY_SECONDS = 30
PREFIX = "sqlite:///"
_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)


class SqliteSink(Ledger):
    """One SQLite file, one writing connection, shared by the threads of this process."""

    hints = SinkHints(writers=1, preferred_records=20_000)

    def __init__(self, address: str, *, create: bool = True) -> None:
        if not address.startswith(PREFIX) or len(address) == len(PREFIX):
            raise UsageError(
                "an SQLite address has three slashes and a path",
                where=f"--to {address}",
                hint="relative: sqlite:///users.db, absolute: sqlite:////data/users.db",
            )
        super().__init__()
        self.path = Path(unquote(address.removeprefix(PREFIX)))
        self._lock = threading.RLock()
        self._names: list[str] = []
        self._has_triggers = False
        if not create and not self.path.exists():
            raise UsageError("no such database", where=str(self.path))
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise UsageError(
                "is a directory" if self.path.is_dir() else "its directory does not exist",
                where=str(self.path),
                hint="name a file in a directory that exists",
            )
        try:
            mode = "rwc" if create else "rw"
            self._connection = dbapi.connect(
                f"file:{url_quote(str(self.path))}?mode={mode}", autocommit=True
            )
            for pragma in _PRAGMAS:
                self._run(pragma)
        except DriverError as error:
            raise opening(error, self.path) from error
        except (FatalError, TransientError, DataError) as error:
            self.close()
            raise opening(error, self.path) from error

    # -- the job ------------------------------------------------------------------------------

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record."""
        super().join(job, record)
        self._names = [column.name for column in record.columns]
        self._has_triggers = bool(
            self._rows(
                "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)",
                (job.table,),
            )
        )

    def _make_table(self, job: Job, columns: Sequence[Column]) -> bool:
        """Make or check the table; return whether no row was in it that no job accounts for."""
        if not columns:  # an empty source
            return False
        exists = self._exists(job.table)
        if exists and job.if_exists == "fail":
            raise UsageError(
                "the table exists", where=job.table, hint="--if-exists append, truncate or replace"
            )
        if exists and job.if_exists == "replace":
            self._run(f"DROP TABLE {quote(job.table)}")
            exists = False
        if exists:
            info = self._rows(
                'SELECT name, type, "notnull", dflt_value '
                f"FROM pragma_table_info({text_literal(job.table)})"
            )
            check_table(job.table, info, columns)
            if job.if_exists == "truncate":
                self._run(f"DELETE FROM {quote(job.table)}")
            return job.if_exists == "truncate"
        same = sql.clash([column.name for column in columns])
        if same:
            raise UsageError(
                f"SQLite holds these keys to be one column: {same}",
                where=job.table,
                hint="rename one of them with --transform or --sql",
            )
        lines = [f"{quote(column.name)} {TYPES.get(column.kind, 'TEXT')}" for column in columns]
        if job.key:
            unknown = [name for name in job.key if name not in {each.name for each in columns}]
            if unknown:
                raise UsageError(f"no such column: {', '.join(unknown)}", where="--key")
            lines.append(f"UNIQUE ({', '.join(map(quote, job.key))})")
        self._run(f"CREATE TABLE {quote(job.table)} ({', '.join(lines)})")
        return True

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        chunk = request.chunk
        with self._lock, self._transaction():
            job = self._fence()
            job_id = job.job_id
            changes, known = self._overlaps(job_id, chunk)
            if known:
                return sql.already_committed(chunk, known)
            expected = (request.frame.height, len(request.rejects), request.filtered)
            values = sql.chunk_values(job_id, request, expected, job.epoch, sql.now())
            self._insert(CHUNKS, sql.CHUNK_COLUMNS, [values])
            failpoints.reach("after-ledger-row")
            refused = self._insert_rows(request.frame, changes + 1)
            failpoints.reach("after-rows")
            rejects = [*request.rejects, *(request.rejecter(at, [why]) for at, why in refused)]
            if rejects:
                rows = [sql.reject_values(job_id, reject) for reject in rejects]
                self._insert(REJECTS, sql.REJECT_COLUMNS, rows)
            stored = request.frame.height - len(refused)
            if refused:
                self._run(
                    f"UPDATE {CHUNKS} SET successful = ?, failed = ? WHERE job_id = ? AND lo = ?",
                    (stored, len(rejects), job_id, chunk.lo),
                )
            failpoints.reach("before-commit")
        return ChunkResult(
            chunk,
            stored,
            len(rejects),
            request.filtered,
            request.digest,
            bool(refused),
            rejects_by_code=count_codes(rejects),
        )

    def _overlaps(self, job_id: str, chunk: Chunk) -> tuple[int, list[Committed]]:
        """Return SQLite's count of changes, and the ledger rows that share positions."""
        rows = self._rows(
            f"SELECT total_changes(), {sql.CHUNK_COLUMNS} FROM (SELECT 1) LEFT JOIN {CHUNKS} "
            "ON job_id = ? AND lo < ? AND hi > ?",
            (job_id, chunk.hi, chunk.lo),
        )
        known = [sql.committed(row[1:]) for row in rows if row[1] is not None]
        return int(rows[0][0]), known

    def _insert_rows(self, frame: pl.DataFrame, before: int) -> list[tuple[int, FieldError]]:
        """Insert all rows that the table takes; return the others with the database's reason.

        The driver runs one statement a row, so those before a refused row are in, and
        `total_changes` says how many they are. Triggers would blur that count: then row by row.
        """
        names = list(self._names)
        if EXTRA_COLUMN in frame.columns:
            names.append(EXTRA_COLUMN)
            self._ensure_extra_column()
            before = self._changes()
        frame = frame.select(names)
        columns = ", ".join(map(quote, names))
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {quote(self._table)} ({columns}) VALUES ({marks})"
        refused: list[tuple[int, FieldError]] = []
        step = 1 if self._has_triggers else max(1, frame.height)
        at = 0
        while at < frame.height:
            piece = frame.slice(at, step)
            try:
                self._run_many(statement, piece)
                at += piece.height
            except DataError as error:
                after = self._changes()
                at += 0 if self._has_triggers else after - before
                before = after
                refused.append((at, field_error(error)))
                at += 1
        return refused

    def _ensure_extra_column(self) -> None:
        info = self._rows(f"SELECT name FROM pragma_table_info({text_literal(self._table)})")
        if EXTRA_COLUMN not in {name.lower() for (name,) in info}:
            self._run(f"ALTER TABLE {quote(self._table)} ADD COLUMN {quote(EXTRA_COLUMN)} TEXT")

    def _is_ours(self, job_id: str, epoch: int) -> bool:
        """Say whether the epoch is the job's, and show that we are alive."""
        return bool(
            self._rows(
                f"UPDATE {JOBS} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? RETURNING 1",
                (sql.now(), job_id, epoch),
            )
        )

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._run("BEGIN IMMEDIATE")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        try:
            self._run("ROLLBACK")
        except BatchImportError:
            return  # SQLite has rolled back by itself

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        if None in values:
            self._run_many(statement, _frame([values], [f"v{at}" for at in range(len(values))]))
            return
        with self._lock, _translated(self.path), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) if values else None)

    def _run_many(self, statement: str, frame: pl.DataFrame) -> None:
        with self._lock, _translated(self.path), self._connection.cursor() as cursor:
            cursor.executemany(statement, frame)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _translated(self.path), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) if values else None)
            return pl.DataFrame(cursor.fetch_arrow()).rows()

    def _insert(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        names = columns.split(", ")
        frame = _frame(rows, names)
        marks = ", ".join("?" * len(names))
        self._run_many(f"INSERT INTO {table} ({columns}) VALUES ({marks})", frame)

    def _exists(self, table: str) -> bool:
        found = self._rows(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (table,)
        )
        return bool(found)

    def _name(self, table: str) -> str:
        return quote(table)

    def _changes(self) -> int:
        return int(self._rows("SELECT total_changes()")[0][0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _frame(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    return frame.with_columns(pl.col(pl.Null).cast(pl.Int64))  # the driver has no null type


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise translate(error, path) from error
