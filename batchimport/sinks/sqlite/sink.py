"""SQLite: rows, ledger and rejects of a chunk in one transaction of one file.

Only ADBC opens the file here. Its driver brings an SQLite of its own, and a second one in the same
process (Python's `sqlite3`) would drop the first one's POSIX locks when it closes the file.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from batchimport.model import DRY_RUN, EXTRA_COLUMN
from batchimport.sinks.base import SinkHints, SinkOptions
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.ledger import RECORD, Ledger, column_list
from batchimport.sinks.sql.statements import quote
from batchimport.sinks.sqlite.dialect import (
    TYPES,
    UNIQUE_KEYS,
    check_table,
    field_error,
    opening,
    text_literal,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import Chunk, ChunkResult, Committed, FieldError, Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord, StoreRequest

BUSY_SECONDS = 30
SMALL_WINDOW = 64
PREFIX = "sqlite:///"
_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}",
    "PRAGMA foreign_keys=ON",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
)
_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_SAVEPOINT = ("SAVEPOINT chunk", "RELEASE chunk", ("ROLLBACK TO chunk", "RELEASE chunk"))
"""Within the one transaction of a dry run."""


_Refused = list[tuple[int, "FieldError"]]


class SqliteSink(Ledger):
    """One SQLite file, one writing connection, shared by the threads of this process."""

    hints = SinkHints(writers=1, preferred_records=20_000)

    types = TYPES
    names_have_case = False

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        if not address.startswith(PREFIX) or len(address) == len(PREFIX):
            raise UsageError(
                "an SQLite address has three slashes and a path",
                where=f"--to {address}",
                hint="relative: sqlite:///users.db, absolute: sqlite:////data/users.db",
            )
        if options.ledger_schema:
            raise UsageError("SQLite has no schemas", where="--ledger-schema")
        super().__init__()
        self.path = Path(unquote(address.removeprefix(PREFIX)))
        self._dry_run = options.dry_run
        self._lock = threading.RLock()
        self._has_triggers = False
        if not options.create and not self.path.exists():
            raise UsageError("no such database", where=str(self.path))
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise UsageError(
                "is a directory" if self.path.is_dir() else "its directory does not exist",
                where=str(self.path),
                hint="name a file in a directory that exists",
            )
        if self._dry_run:
            self.hints = replace(self.hints, delivery=DRY_RUN)
        try:
            self._connection = dbapi.connect(self._place(options), autocommit=True)
            for pragma in _PRAGMAS[:2] if self._dry_run else _PRAGMAS:
                self._run(pragma)
            if self._dry_run:
                self._run("BEGIN IMMEDIATE")
        except DriverError as error:
            raise opening(error, self.path) from error
        except (FatalError, TransientError, DataError) as error:
            self.close()
            raise opening(error, self.path) from error

    def _place(self, options: SinkOptions) -> str:
        if options.dry_run and not self.path.exists():
            return ":memory:"
        mode = "rwc" if options.create else "rw"
        return f"file:{url_quote(str(self.path))}?mode={mode}"

    # -- the job ------------------------------------------------------------------------------

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record; takes no lock, for others may join, too."""
        super().join(job, record)
        self._has_triggers = bool(
            self._rows(
                "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)",
                (job.table,),
            )
        )

    def _match(self, table: str, columns: Sequence[Column]) -> dict[str, str]:
        """Check an existing table; SQLite knows its columns by any case of their names."""
        info = self._rows(
            'SELECT name, type, "notnull", dflt_value '
            f"FROM pragma_table_info({text_literal(table)})"
        )
        check_table(table, info, columns)
        known = {row[0].lower(): row[0] for row in info}
        return {column.name: known[column.name.lower()] for column in columns}

    def _unique_keys(self, table: str) -> list[frozenset[str]]:
        return [frozenset(key) for key in self._unique_columns(table)]

    def _unique_columns(self, table: str) -> list[dict[str, str]]:
        """Return what is unique together: columns with their type and collation, as SQL."""
        keys: dict[str, dict[str, str]] = {}
        rows = self._rows(UNIQUE_KEYS.format(table=text_literal(table)))
        for index, column, collation, declared in rows:
            keys.setdefault(index, {})[column] = f"{declared} COLLATE {quote(collation)}"
        return list(keys.values())

    def _create_keys(self, job_id: str) -> None:
        """Make the table of keys, whose columns compare as the unique index does."""
        found = self._unique_columns(self._table)
        key = next(columns for columns in found if columns.keys() == set(self._key))
        lines = [f"{quote(name)} {rule}" for name, rule in key.items()]
        self._run(
            f"CREATE TABLE IF NOT EXISTS {self._name(self._keys_table(job_id))} ({', '.join(lines)}, {quote(RECORD)} INTEGER, "
            f"PRIMARY KEY ({column_list(list(key))})) WITHOUT ROWID"
        )

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        with self._lock, self._transaction():
            job = self._fence()
            known = self._overlaps(job.job_id, request.chunk)
            if known:
                return statements.already_committed(request.chunk, known)
            values = statements.chunk_values(
                job.job_id, request, statements.outcome(request, request.rejects), job.epoch
            )
            self._insert(self._chunks, statements.CHUNK_COLUMNS, [values])
            failpoints.reach("after-ledger-row")
            refused, ignored = self._store_rows(request.frame, request.chunk.offset)
            failpoints.reach("after-rows")
            rejects = [*request.rejects, *(request.rejecter(at, [why]) for at, why in refused)]
            if rejects:
                rows = [statements.reject_values(job.job_id, reject) for reject in rejects]
                self._insert(self._rejects, statements.REJECT_COLUMNS, rows)
            result = statements.outcome(request, rejects, len(refused), ignored)
            if refused or ignored:
                self._run(
                    f"UPDATE {self._chunks} SET successful = ?, failed = ?, filtered = ? "
                    "WHERE job_id = ? AND lo = ?",
                    (*result.counts, job.job_id, request.chunk.lo),
                )
            failpoints.reach("before-commit")
        return result

    def _overlaps(self, job_id: str, chunk: Chunk) -> list[Committed]:
        """Return the ledger rows that share positions with a chunk."""
        rows = self._rows(
            f"SELECT {statements.CHUNK_COLUMNS} FROM {self._chunks} "
            "WHERE job_id = ? AND lo < ? AND hi > ?",
            (job_id, chunk.hi, chunk.lo),
        )
        return list(map(statements.committed, rows))

    def _store_rows(self, frame: pl.DataFrame, offset: int) -> tuple[_Refused, int]:
        """Store all rows that the table takes; return the others, and how many were left out.

        Args:
            offset: Number of the chunk's first record.
        """
        names = dict(self._names)
        if EXTRA_COLUMN in frame.columns:
            names[EXTRA_COLUMN] = EXTRA_COLUMN
            self._ensure_extra_column()
        columns = list(names.values())
        frame = frame.select(list(names))
        statement = (
            f"INSERT INTO {self._name(self._table)} ({column_list(columns)}) "
            f"VALUES ({', '.join('?' * len(columns))})"
        )
        if self._on_conflict == "error":
            return self._append(statement, frame), 0
        if self._on_conflict == "ignore":
            target = f"({column_list(self._key)})" if self._key else ""
            refused, stored = self._isolate(f"{statement} ON CONFLICT {target} DO NOTHING", frame)
            return refused, frame.height - len(refused) - stored
        return self._upsert(statement, frame.rename(names), offset), 0

    def _append(self, statement: str, frame: pl.DataFrame) -> _Refused:
        """Insert rows; the driver runs one statement a row, so those before a refused one are in.

        `total_changes` says how many they are. Triggers would blur that count: then row by row.
        """
        refused: _Refused = []
        step = 1 if self._has_triggers else max(1, frame.height)
        at, before = 0, self._changes()
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

    def _upsert(self, statement: str, frame: pl.DataFrame, offset: int) -> _Refused:
        """Insert rows or update those of the same key, unless a later record has written it."""
        written = [name for name in frame.columns if name not in self._key] or self._key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        same = " AND ".join(f"k.{quote(name)} = excluded.{quote(name)}" for name in self._key)
        assert self._job is not None  # noqa: S101 - claim comes first
        keys = self._name(self._keys_table(self._job.job_id))
        frame = frame.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + offset).alias(RECORD))
        refused, _ = self._isolate(
            f"{statement} ON CONFLICT ({column_list(self._key)}) DO UPDATE SET {changes} WHERE "
            f"coalesce((SELECT {quote(RECORD)} FROM {keys} AS k WHERE {same}), -1) < ?",
            frame,
        )
        bad = [at for at, _ in refused]
        self._run_many(
            f"INSERT INTO {keys} ({column_list([*self._key, RECORD])}) "
            f"VALUES ({', '.join('?' * (len(self._key) + 1))}) "
            f"ON CONFLICT ({column_list(self._key)}) DO UPDATE "
            f"SET {quote(RECORD)} = max({quote(RECORD)}, excluded.{quote(RECORD)})",
            frame.filter(~(pl.col(RECORD) - offset).is_in(bad))
            .select([*self._key, RECORD])
            .drop_nulls(),
        )
        return refused

    def _isolate(self, statement: str, frame: pl.DataFrame) -> tuple[_Refused, int]:
        """Run a statement for each row; return the refused ones, and how many rows changed.

        Each step is a savepoint. A window with a refused row is halved; after that row it starts
        small and doubles, so that a chunk of bad rows takes time in proportion to its size.
        """
        refused: _Refused = []
        changed, at, window = 0, 0, max(1, frame.height)
        while at < frame.height:
            piece = frame.slice(at, 1 if self._has_triggers else window)
            self._run("SAVEPOINT piece")
            before = self._changes()
            try:
                self._run_many(statement, piece)
            except DataError as error:
                self._run("ROLLBACK TO piece")
                if piece.height == 1:
                    refused.append((at, field_error(error)))
                    at, window = at + 1, SMALL_WINDOW
                else:
                    window = piece.height // 2
            else:
                at, window = at + piece.height, window * 2
                changed += self._changed(before)
            self._run("RELEASE piece")
        return refused, changed

    def _ensure_extra_column(self) -> None:
        info = self._rows(f"SELECT name FROM pragma_table_info({text_literal(self._table)})")
        if EXTRA_COLUMN not in {name.lower() for (name,) in info}:
            self._run(f"ALTER TABLE {quote(self._table)} ADD COLUMN {quote(EXTRA_COLUMN)} TEXT")

    def _is_ours(self, job_id: str, epoch: int) -> bool:
        """Say whether the epoch is the job's, and show that we are alive."""
        return bool(
            self._rows(
                f"UPDATE {self._jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? RETURNING 1",
                (statements.now(), job_id, epoch),
            )
        )

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        begin, commit, undo = _SAVEPOINT if self._dry_run else _TRANSACTION
        with self._lock:
            self._run(begin)
            try:
                yield
                self._run(commit)
            except BaseException:
                for statement in undo:
                    with suppress(BatchImportError):  # SQLite may have rolled back by itself
                        self._run(statement)
                raise

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

    def _changed(self, before: int) -> int:
        """Return how many rows changed since; with triggers, by the last row's statement alone."""
        if self._has_triggers:
            return int(self._rows("SELECT changes()")[0][0])
        return self._changes() - before

    def close(self) -> None:
        """Close the file; what is not committed is undone."""
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
