"""SQLite: one file, one writing connection, shared by the threads of this process.

Only ADBC opens the file here. Its driver brings an SQLite of its own, and a second one in the same
process (Python's `sqlite3`) would drop the first one's POSIX locks when it closes the file.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as url_quote

from adbc_driver_manager import Error as DriverError

from batchimport.errors import (
    BatchImportError,
    FatalError,
    TransientError,
    UsageError,
)
from batchimport.model import DRY_RUN
from batchimport.sinks.base import SinkHints, SinkOptions
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.circles import ForeignKey
from batchimport.sinks.sql.ledger import SqlSink
from batchimport.sinks.sql.place import check_file, path_in
from batchimport.sinks.sql.statements import column_list, quote
from batchimport.sinks.sql.table import create_like, index_on
from batchimport.sinks.sql.target import RECORD
from batchimport.sinks.sqlite.checkpoints import Checkpoints
from batchimport.sinks.sqlite.dialect import (
    CATALOGUE,
    FOREIGN_KEYS,
    REFERRED_TO,
    TYPES,
    UNIQUE_KEYS,
    SqliteColumn,
    text_literal,
    translate,
)
from batchimport.sinks.sqlite.driver import Connection, one_row
from batchimport.sinks.sqlite.rows import SqliteTransaction
from batchimport.state.files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from batchimport.model import Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.target import Rows, Target

CLOSE_SECONDS = 5.0
ANALYZED_ROWS = 1000
"""Of each index; the most that https://sqlite.org/lang_analyze.html recommends."""
BUSY_SECONDS = 2
"""SQLite asks for a lock this long; then the caller waits, and says so."""
PAGE_BYTES = 8192
"""Of a database that is made here: commits of large chunks cost a third less than with 4096."""
_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}",
    "PRAGMA foreign_keys=ON",
    "PRAGMA synchronous=EXTRA",
)
"""A commit is on disk when it returns: in WAL mode that takes FULL, in rollback mode EXTRA."""
_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_SAVEPOINT = ("SAVEPOINT chunk", "RELEASE chunk", ("ROLLBACK TO chunk", "RELEASE chunk"))
"""Within the one transaction of a dry run."""


class SqliteSink(SqlSink):
    """A database in a file."""

    hints = SinkHints(writers=1, preferred_records=20_000)
    types = TYPES
    names_have_case = False
    most_columns = 2000
    has_schemas = False

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        self.path = path_in(address, "SQLite")
        if options.ledger_schema:
            raise UsageError("SQLite has no schemas", where="--ledger-schema")
        super().__init__(None)
        self._dry_run = options.dry_run
        self._lock = threading.RLock()
        check_file(self.path, create=options.create)
        if self._dry_run:
            self.hints = replace(self.hints, delivery=DRY_RUN)
        self._is_closed = False
        place = self._place(options)
        self._checkpoints = Checkpoints(place)
        with _translated(self.path):
            self._connection = Connection(place)
        try:
            self._set_up()
        except BatchImportError:
            self.close()
            raise
        self._opened_file = OpenedFile(self.path)

    def _set_up(self) -> None:
        """Prepare the connection; only a database that is made here gets another journal mode.

        A user's own file stays as it is: its owner may have reasons (a network file system, tools
        that copy one file), and a mode that is set back at the end would stay set after a kill.
        """
        for pragma in _PRAGMAS:
            self.run(pragma)
        if self._dry_run:
            self.run("BEGIN IMMEDIATE")
        elif self.rows("PRAGMA page_count") == [(0,)]:
            self.run(f"PRAGMA page_size={PAGE_BYTES}")
            self.run("PRAGMA journal_mode=WAL")
        self.rows("SELECT count(*) FROM sqlite_schema")  # is it a database, and can it be read?

    def _place(self, options: SinkOptions) -> str:
        if options.dry_run and not self.path.exists():
            return ":memory:"
        mode = "rwc" if options.create else "rw"
        return f"file:{url_quote(str(self.path))}?mode={mode}"

    # -- the catalogue ------------------------------------------------------------------------

    def name(self, table: str) -> str:
        """Return a table's name as SQL; a dot is a part of it, for there are no schemas."""
        return quote(table)

    def exists(self, table: str) -> bool:
        """Say whether a table exists."""
        return bool(
            self.rows(
                "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)",
                (table,),
            )
        )

    def table_names(self) -> list[str]:
        """Return the names of the tables, to suggest one."""
        return [
            name for (name,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]

    def columns(self, table: str) -> list[SqliteColumn]:
        """Return the columns of a table in its order."""
        rows = self.rows(CATALOGUE.format(table=text_literal(table)))
        return [SqliteColumn(name, kind, bool(a), bool(b)) for name, kind, a, b in rows]

    def column_type(self, column: Column, *, is_key: bool) -> str:
        """Return a type; that of a key is none that would make it the row's own number.

        SQLite gives an INTEGER PRIMARY KEY to a row that has none, and keeps rows in its order: with
        keys in random order each chunk would change most pages of the table.
        """
        declared = super().column_type(column, is_key=is_key)
        return "INT" if is_key and declared == "INTEGER" else declared

    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on."""
        return [frozenset(key) for key in self._unique_columns(table)]

    def is_unique(self, target: Target) -> bool:
        """Say whether rows of a table may refuse each other, also by an index on expressions."""
        return bool(
            self.rows(
                'SELECT 1 FROM pragma_index_list(?) WHERE "unique" '
                "UNION ALL SELECT 1 FROM pragma_table_info(?) WHERE pk",
                (target.table, target.table),
            )
        )

    def _unique_columns(self, table: str) -> list[dict[str, str]]:
        """Return the columns of each unique index with their type and collation, as SQL."""
        keys: dict[str, dict[str, str]] = {}
        rows = self.rows(UNIQUE_KEYS.format(table=text_literal(table)))
        for index, column, collation, declared in rows:
            keys.setdefault(index, {})[column] = f"{declared} COLLATE {quote(collation)}"
        return list(keys.values())

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        """Return the foreign keys of a table, each column by the name that its table gives it."""
        keys: dict[int, list[tuple[str, str, str]]] = {}
        for number, *pair in self.rows(FOREIGN_KEYS.format(table=text_literal(table))):
            keys.setdefault(number, []).append(tuple(pair))
        own = {column.name.lower(): column.name for column in self.columns(table)}
        found = []
        for pairs in keys.values():
            parents, names, parent_names = zip(*pairs, strict=True)
            if None not in parent_names:
                is_own = parents[0].lower() == table.lower()
                known = own if is_own else {}
                parent_names = tuple(known.get(name.lower(), name) for name in parent_names)
                names = tuple(own.get(name.lower(), name) for name in names)
                found.append(ForeignKey(names, quote(parents[0]), parent_names, is_own))
        return found

    def create_like(self, table: str, other: str) -> None:
        """Create an empty table with the columns, constraints and unique indexes of another one."""
        if self.rows(
            f'SELECT 1 FROM pragma_foreign_key_list({text_literal(table)}) WHERE lower("table") = ?',
            (table.lower(),),
        ):
            raise UsageError(
                "is not possible for a table that refers to itself",
                where="--atomic",
                hint="import without it",
            )
        rows = self.rows(
            "SELECT sql FROM sqlite_schema WHERE lower(tbl_name) = lower(?) AND sql IS NOT NULL "
            "AND type IN ('table', 'index') ORDER BY type DESC",
            (table,),
        )
        create_like(self, [definition for (definition,) in rows], other)

    def rename_table(self, table: str, other: str) -> None:
        """Give a table another name; views of that name are left as they are."""
        self.run("PRAGMA legacy_alter_table=ON")
        super().rename_table(table, other)
        self.run("PRAGMA legacy_alter_table=OFF")

    def keys_referred_to(self, table: str) -> list[tuple[str, ...]]:
        """Return the columns of a table that foreign keys of other tables refer to."""
        keys: dict[tuple[str, int], list[str]] = {}
        for child, number, column in self.rows(REFERRED_TO.format(table=text_literal(table))):
            keys.setdefault((child, number), []).append(column)
        return list(map(tuple, keys.values()))

    def deferrable_indexes(self, table: str) -> list[tuple[str, str]]:
        """Return name and definition, as SQL, of the indexes that no row can be refused by."""
        rows = self.rows(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL "
            "AND lower(tbl_name) = lower(?) ORDER BY name",
            (table,),
        )
        return [(quote(name), sql) for name, sql in rows if index_on(sql, "i", "t") is None]

    def analyze_for(self, job: Job) -> None:
        """Let SQLite look at a table that has indexes; of another one it would count all rows.

        Nothing else would be learned of that, so it is done only if it was asked for.
        """
        if job.analyze or self.rows("SELECT 1 FROM pragma_index_list(?)", (job.table,)):
            super().analyze_for(job)

    def analyze(self, table: str) -> None:
        """Let SQLite look at a table: at a part of each index, for a whole one takes long."""
        self.run(f"PRAGMA analysis_limit={ANALYZED_ROWS}")
        super().analyze(table)

    def create_keys(self, job_id: str, target: Target) -> None:
        """Create the table of keys, with the collations of the unique index."""
        del job_id
        indexes = self._unique_columns(target.table)
        key = next(columns for columns in indexes if columns.keys() == set(target.key))
        lines = [f"{quote(name)} {rule}" for name, rule in key.items()]
        self.run(
            f"CREATE TABLE IF NOT EXISTS {target.keys} ({', '.join(lines)}, "
            f"{quote(RECORD)} INTEGER, PRIMARY KEY ({column_list(list(key))})) WITHOUT ROWID"
        )

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what is run in it, or nothing of it; other threads wait."""
        begin, commit, undo = _SAVEPOINT if self._dry_run else _TRANSACTION
        with self._lock:
            self.run(begin)
            try:
                yield
                self._checkpoints.wait()
                self.run(commit)
            except BaseException:
                for statement in undo:
                    with suppress(BatchImportError):  # SQLite may have rolled back by itself
                        self.run(statement)
                raise
            if not self._dry_run:
                self._opened_file.check()

    @contextmanager
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> Iterator[SqliteTransaction]:
        """Begin a transaction for one chunk; SQLite cannot limit the time of a statement."""
        del seconds
        with self._lock:  # until the checkpoint is under way: another thread may close the database
            with self.transaction():
                chunk = SqliteTransaction(self, job, target, self)
                yield chunk
            if self._has_log:
                self._checkpoints.after_commit(chunk.bytes_stored)

    @cached_property
    def _has_log(self) -> bool:
        """Whether commits go into a log, from which checkpoints bring them into the file."""
        return not self._dry_run and self.rows("PRAGMA journal_mode") == [("wal",)]

    def stands(self) -> bool:
        """Say whether the transaction is still open: an error of a statement may have ended it."""
        try:
            self.run("BEGIN")
        except BatchImportError:
            return True
        self.run("ROLLBACK")
        return False

    def begin_again(self) -> None:
        """Begin another transaction in place of the one that SQLite has ended.

        Raises:
            FatalError: In a dry run, for the one transaction that it undoes at its end is gone.
        """
        self.run("BEGIN IMMEDIATE")
        if self._dry_run:
            raise FatalError(
                "a trigger or conflict clause of the table rolls back, which ends a dry run",
                where=str(self.path),
                hint="run it without --dry-run, with a copy of the database",
            )

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement and return its rows."""
        with self._use() as connection:
            return connection.rows(statement, one_row(values))

    def reject_page(self, job_id: str, query: str, values: Sequence[Any]) -> pl.DataFrame:
        """Return the rows of some rejects, as the driver has them."""
        with self._use() as connection:
            frame = connection.frame(query, one_row(values))
        return statements.checked_rejects(job_id, frame)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that returns no rows."""
        self.run_many(statement, one_row(values))

    def run_many(self, statement: str, frame: pl.DataFrame | None) -> None:
        """Run a statement once for each row, whose columns are its parameters in order."""
        with self._use() as connection:
            connection.run(statement, frame)

    def select_many(self, statement: str, frame: pl.DataFrame) -> Rows:
        """Run a statement once for each row, and return the rows of all runs."""
        with self._use() as connection:
            return connection.rows(statement, frame) if frame.height else []

    @contextmanager
    def _use(self) -> Iterator[Connection]:
        with self._lock:
            if self._is_closed:  # by a run that ended without waiting for this attempt
                raise TransientError("the database was closed", where=str(self.path))
            with _translated(self.path):
                yield self._connection

    def close(self) -> None:
        """Close the file, unless a thread still uses it; what is not committed is undone."""
        if not self._lock.acquire(timeout=CLOSE_SECONDS):
            return  # an abandoned attempt: the file is closed with the process
        try:
            if not self._is_closed:
                self._is_closed = True
                with _translated(self.path):
                    self._checkpoints.close()
                    self._connection.close()
        finally:
            self._lock.release()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise translate(error, path) from error
