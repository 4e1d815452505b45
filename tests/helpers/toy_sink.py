"""The SQL destination that docs/adding.md makes: SQLite by Python's own driver, as `toy:///path`.

It is a dialect with names in backticks, job ids of VARCHAR(128), and no RETURNING.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from batchimport.errors import (
    DataError,
    FatalError,
    NoSuchDestinationError,
    TransientError,
    UsageError,
)
from batchimport.model import DRY_RUN, FieldError
from batchimport.schema import Column, Kind
from batchimport.sinks.base import JobRecord, SinkHints, SinkOptions, taken_over
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import ChunkTransaction
from batchimport.sinks.sql.ledger import SqlSink
from batchimport.sinks.sql.target import (
    RECORD,
    Family,
    Outcomes,
    Refused,
    Rows,
    TableColumn,
    Target,
)

PREFIX = "toy:///"
CODES = {
    "SQLITE_CONSTRAINT_UNIQUE": "unique",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "unique",
    "SQLITE_CONSTRAINT_NOTNULL": "not_null",
    "SQLITE_CONSTRAINT_CHECK": "check",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "foreign_key",
    "SQLITE_CONSTRAINT_TRIGGER": "trigger",
}

FAMILIES: dict[str, Family] = {
    "INT": "integer",
    "CHAR": "text",
    "TEXT": "text",
    "BOOL": "boolean",
    "DATE": "date",
    "REAL": "number",
}
"""What a column holds, by a part of its type's name."""


@dataclass(frozen=True, slots=True)
class ToyColumn(TableColumn):
    """A column of a table."""

    def takes(self, kind: Kind) -> bool:
        """Say whether values fit: a number's column would turn some JSON into numbers."""
        return kind != "json" or self.family in ("text", "other")

    @property
    def family(self) -> Family:
        """Say what it is meant to hold, by the name of its type."""
        return next(
            (family for word, family in FAMILIES.items() if word in self.type_name), "other"
        )


class ToySink(SqlSink):
    """A database in a file, with one connection."""

    hints = SinkHints(writers=1, preferred_records=1000)
    names_have_case = False
    key_text = "VARCHAR(128)"
    types: ClassVar[dict[Kind, str]] = {
        "integer": "BIGINT",  # an INTEGER key would be given where a record has none
        "number": "REAL",
        "boolean": "INTEGER",
        "string": "TEXT",
        "date": "TEXT",
        "date-time": "TEXT",
        "uuid": "TEXT",
        "json": "TEXT",
    }

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        if options.ledger_schema:
            raise UsageError("this destination has no schemas", where="--ledger-schema")
        super().__init__(None)
        path = Path(address.removeprefix(PREFIX))
        if not address.startswith(PREFIX) or not path.parent.is_dir():
            raise UsageError("no such directory", where=f"--to {address}", hint="toy:///users.toy")
        if not options.create and not path.exists():
            raise NoSuchDestinationError("no such database", where=str(path))
        self._path, self._lock = path, threading.RLock()
        if options.dry_run:
            self.hints = replace(self.hints, delivery=DRY_RUN)
            self._connection = _copy_in_memory(path)
        else:
            self._connection = _connect(str(path))
        self.run("PRAGMA foreign_keys = ON")
        self.run("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file; what is not committed is undone."""
        self._connection.close()

    # -- its SQL -------------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """Return a name in backticks, with those inside doubled."""
        if "\0" in name:
            raise FatalError("a name with a NUL character cannot be a table or column")
        return f"`{name.replace('`', '``')}`"

    def name(self, table: str) -> str:
        """Return a table's name as SQL; there are no schemas."""
        return self.quote(table)

    def column_type(self, column: Column, *, is_key: bool) -> str:
        """Return a type with a length for strings that are in an index."""
        type_name = super().column_type(column, is_key=is_key)
        return "VARCHAR(255)" if is_key and type_name == "TEXT" else type_name

    def hold(self, job: JobRecord) -> None:
        """Make sure that a job is still at this epoch, and keep it so until the transaction ends."""
        held = self._execute(
            f"UPDATE {self.tables.jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ?",
            (statements.now(), job.job_id, job.epoch),
        )
        if not held.rowcount:
            raise taken_over(job)

    # -- the catalogue -------------------------------------------------------------------------

    def exists(self, table: str) -> bool:
        """Say whether a table exists."""
        names = self.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return table.lower() in {name.lower() for (name,) in names}

    def identity_of(self, table: str) -> str | None:
        """Return the name without its case; None if there is no such table."""
        return table.lower() if self.exists(table) else None

    def columns(self, table: str) -> list[ToyColumn]:
        """Return the columns of a table in its order."""
        rows = self.rows(
            'SELECT name, upper(type), NOT "notnull" OR dflt_value IS NOT NULL OR hidden, hidden > 1 '
            "FROM pragma_table_xinfo(?)",
            (table,),
        )
        return [ToyColumn(name, kind, bool(a), bool(b)) for name, kind, a, b in rows]

    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on."""
        keys: dict[str, set[str]] = {}
        for index, column in self.rows(
            "SELECT l.name, i.name FROM pragma_index_list(?) AS l JOIN pragma_index_info(l.name) AS i "
            'WHERE l."unique" AND NOT l.partial '
            "UNION ALL SELECT '', name FROM pragma_table_info(?) WHERE pk",
            (table, table),
        ):
            keys.setdefault(index, set()).add(column)
        return [frozenset(key) for key in keys.values()]

    # -- statements ----------------------------------------------------------------------------

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement and return its rows."""
        with self._lock:
            return self._execute(statement, values).fetchall()

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self._lock:
            try:
                return self._connection.execute(statement, tuple(values))
            except sqlite3.IntegrityError as error:
                raise DataError(str(error)) from error
            except sqlite3.Error as error:
                if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise TransientError("the database is locked", str(self._path)) from error
                raise FatalError(f"SQLite says: {error}", where=str(self._path)) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what is run in it, or nothing of it; other threads wait."""
        with self._lock:
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self.run("ROLLBACK")
                raise

    @contextmanager
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> Iterator[ToyTransaction]:
        """Begin a transaction for one chunk."""
        del seconds  # a statement of SQLite has no limit of time
        with self.transaction():
            yield ToyTransaction(self, job, target, self._connection)


class ToyTransaction(ChunkTransaction):
    """A chunk, stored row by row."""

    def __init__(
        self, database: ToySink, job: JobRecord, target: Target, connection: sqlite3.Connection
    ) -> None:
        super().__init__(database, job, target)
        self._connection = connection

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger."""
        self._connection.executemany(self._insert(table, frame.columns), frame.rows())

    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows that the table takes, and count what became of the others."""
        target = self.target
        refused: Refused = {}
        found: Counter[str] = Counter()
        has_parents = bool(self.rows("SELECT 1 FROM pragma_foreign_key_list(?)", (target.table,)))
        absent = target.absent_in(frame)
        marks = frame.select(absent.values()).rows() or [()] * frame.height
        for place, row in enumerate(frame.select(target.frame_names).rows()):
            self.run("SAVEPOINT one")
            before = self._orphans() if has_parents else 0
            try:
                lacking = [own for own, lacks in zip(absent, marks[place], strict=True) if lacks]
                found[self._store(self._whole(row, lacking), offset + place)] += 1
                if has_parents and self._orphans() > before:  # else the commit would fail
                    raise sqlite3.IntegrityError("FOREIGN KEY constraint failed")  # noqa: TRY301
            except sqlite3.IntegrityError as error:
                self.run("ROLLBACK TO one")
                refused[place] = [_field_error(error)]
            self.run("RELEASE one")
        return Outcomes(refused, found["updated"], found["ignored"], found["skipped"])

    def _whole(self, row: tuple[Any, ...], lacking: Sequence[str]) -> tuple[Any, ...]:
        """Return a row with what the table has of the columns that its record lacks."""
        target, quote = self.target, self.database.quote
        if not lacking:
            return row
        values = dict(zip(target.table_names, row, strict=True))
        same = " AND ".join(f"{quote(name)} = ?" for name in target.key)
        known = self._connection.execute(
            f"SELECT {self.database.column_list(lacking)} FROM {target.name} WHERE {same}",
            [values[name] for name in target.key],
        ).fetchone()
        return tuple((values | dict(zip(lacking, known or (), strict=False))).values())

    def _store(self, row: tuple[Any, ...], record: int) -> str:
        """Store a row; return what became of it."""
        target = self.target
        statement = self._insert(target.name, target.table_names)
        if target.on_conflict == "update":
            return self._upsert(statement, row, record)
        names = f"({self.database.column_list(target.key)})" if target.key else ""
        clause = f"ON CONFLICT {names} DO NOTHING" if target.on_conflict == "ignore" else ""
        if self._connection.execute(f"{statement} {clause}", row).rowcount:
            return "stored"
        return "ignored" if clause and self._is_refused(statement, row) else "skipped"

    def _is_refused(self, statement: str, row: tuple[Any, ...]) -> bool:
        """Say whether the table refuses a row: one that it skips instead was left out by a trigger."""
        self.run("SAVEPOINT probe")
        try:
            self._connection.execute(statement, row)
        except sqlite3.IntegrityError:
            return True
        finally:
            self.run("ROLLBACK TO probe")
            self.run("RELEASE probe")
        return False

    def _upsert(self, statement: str, row: tuple[Any, ...], record: int) -> str:
        """Insert a row or update that of the same key, unless a later record has written it.

        The row is judged in either case: one that the table refuses is a reject.
        """
        target, quote = self.target, self.database.quote
        names = self.database.column_list(target.key)
        key = [row[target.table_names.index(name)] for name in target.key]
        ours = " AND ".join(f"{quote(name)} = ?" for name in target.key)
        exists = self.rows(f"SELECT 1 FROM {target.name} WHERE {ours}", key)
        same = " AND ".join(f"k.{quote(name)} = excluded.{quote(name)}" for name in target.key)
        changes = ", ".join(
            f"{quote(name)} = excluded.{quote(name)}" for name in target.table_names
        )
        latest = f"SELECT {quote(RECORD)} FROM {target.keys} AS k WHERE {same}"
        stored = self._connection.execute(
            f"{statement} ON CONFLICT ({names}) DO UPDATE SET {changes} "
            f"WHERE coalesce(({latest}), -1) < ?",
            (*row, record),
        ).rowcount
        if not stored and not exists:
            return "skipped"
        if None not in key:  # null is equal to nothing
            self._connection.execute(
                f"{self._insert(target.keys, [*target.key, RECORD])} ON CONFLICT ({names}) "
                f"DO UPDATE SET {quote(RECORD)} = max({quote(RECORD)}, excluded.{quote(RECORD)})",
                (*key, record),
            )
        return "updated" if exists else "stored"

    def _orphans(self) -> int:
        """Count the rows that refer to a row which is not there."""
        return len(self.rows(f"PRAGMA foreign_key_check({self.target.name})"))

    def _insert(self, table: str, names: Sequence[str]) -> str:
        columns = self.database.column_list(names)
        return f"INSERT INTO {table} ({columns}) VALUES ({statements.marks(names)})"


def _connect(place: str) -> sqlite3.Connection:
    return sqlite3.connect(place, timeout=30, isolation_level=None, check_same_thread=False)


def _copy_in_memory(path: Path) -> sqlite3.Connection:
    """Return a copy to do a dry run in; it is gone when it is closed."""
    copy = _connect(":memory:")
    if path.exists():
        original = _connect(str(path))
        original.backup(copy)
        original.close()
    return copy


def _field_error(error: sqlite3.IntegrityError) -> FieldError:
    """Return why a row was refused."""
    name = getattr(error, "sqlite_errorname", "SQLITE_CONSTRAINT_FOREIGNKEY")
    code = CODES.get(name, "type")
    columns = str(error).partition(": ")[2].split(", ")
    field = ", ".join(column.rpartition(".")[2] for column in columns)
    return FieldError(code, field if code in ("unique", "not_null") else "", str(error))
