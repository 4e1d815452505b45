"""DuckDB: one file, one connection, shared by the threads of this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb

from batchimport.errors import BatchImportError, DataError, UsageError
from batchimport.model import DRY_RUN
from batchimport.sinks.base import SinkHints, SinkOptions
from batchimport.sinks.duckdb.constraints import CONSTRAINTS, UNIQUE, UNIQUE_INDEXES, Refusals
from batchimport.sinks.duckdb.dialect import (
    CATALOGUE,
    DEFINITION,
    INDEX_DEFINITIONS,
    REFERRED_TO,
    ROW,
    TYPES,
    DuckdbColumn,
    field_error,
    translate,
    unquoted,
)
from batchimport.sinks.duckdb.file import Scratch, Stream, check_place, connect, path_of
from batchimport.sinks.duckdb.rows import (
    WHOLE,
    DuckdbTransaction,
    make_whole,
    numbered,
    readings,
    whole_readings,
)
from batchimport.sinks.sql.ledger import SqlSink
from batchimport.sinks.sql.statements import column_list, quote
from batchimport.sinks.sql.store import SqlClaim, without
from batchimport.sinks.sql.table import create_like
from batchimport.state.files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from batchimport.model import ChunkResult
    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.duckdb.dialect import Reading
    from batchimport.sinks.sql.target import Refused, Rows, Target

ROW_GROUP = 122_880
"""Rows that DuckDB compresses and writes as one; smaller transactions write them twice."""

CLOSE_SECONDS = 5.0
_VIEW = "batchimport_frame"


class DuckdbSink(SqlSink):
    """A database in a file, whose lock keeps every other process out for as long as it is open.

    Attributes:
        lock: Held over everything that must not be mixed with statements of other threads.
    """

    hints = SinkHints(writers=1, preferred_records=ROW_GROUP)
    types = TYPES
    names_have_case = False

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        super().__init__(options.ledger_schema)
        self.path = path_of(address)
        self.lock = threading.RLock()
        check_place(self.path, create=options.create)
        self._scratch: Scratch | None = None
        if options.dry_run:
            self._scratch = Scratch(self.path)
            self.hints = replace(self.hints, delivery=DRY_RUN)
        place = self._scratch.path if self._scratch else self.path
        self._connection = connect(self.path, place, options.max_memory_bytes)
        self._opened_file = OpenedFile(self._scratch.path if self._scratch else self.path)

    def create_ledger(self) -> None:
        """Create the ledger's tables, and their schema."""
        if self.ledger_schema:
            self.run(f"CREATE SCHEMA IF NOT EXISTS {quote(self.ledger_schema)}")
        super().create_ledger()

    def claim_of(self, record: JobRecord, target: Target) -> DuckdbClaim:
        """Return a claim that finds refused rows in DuckDB's way."""
        return DuckdbClaim(self, record, target, self.hints_for(target))

    # -- the catalogue ------------------------------------------------------------------------

    def place(self, table: str) -> tuple[str, str]:
        """Return the schema and the name of a table, which a dot separates."""
        schema, dot, name = table.partition(".")
        return (schema, name) if dot and schema and name else ("main", table)

    def name(self, table: str) -> str:
        """Return a table's name as SQL, with its schema."""
        return ".".join(map(quote, self.place(table)))

    def exists(self, table: str) -> bool:
        """Say whether a table exists."""
        return bool(
            self.rows(
                "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
                "AND schema_name = ? AND lower(table_name) = lower(?)",
                self.place(table),
            )
        )

    def identity_of(self, table: str) -> str | None:
        """Return schema and name without their case; None if there is no such table."""
        return self.name(table).lower() if self.exists(table) else None

    def table_names(self) -> list[str]:
        """Return the names of the tables, to suggest one: with the schema, unless it is `main`."""
        rows = self.rows(
            "SELECT CASE WHEN schema_name = 'main' THEN table_name ELSE schema_name || '.' || "
            "table_name END FROM duckdb_tables() WHERE database_name = current_database()"
        )
        return [str(name) for (name,) in rows]

    def columns(self, table: str) -> list[DuckdbColumn]:
        """Return the columns of a table in its order."""
        return [DuckdbColumn(*row) for row in self.rows(CATALOGUE, self.place(table))]

    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on."""
        place = self.place(table)
        constraints = [row[3] for row in self.rows(CONSTRAINTS, place) if row[0] in UNIQUE]
        indexes = [row[0] for row in self.rows(UNIQUE_INDEXES, place)]
        return [frozenset(map(unquoted, names)) for names in (*constraints, *indexes)]

    def create_like(self, table: str, other: str) -> None:
        """Create an empty table with the columns, constraints and unique indexes of another one.

        Raises:
            UsageError: If other tables refer to it: DuckDB cannot replace such rows in a transaction.
        """
        if self.rows(REFERRED_TO, self.place(table)):
            raise UsageError(
                "is not possible in DuckDB for a table that foreign keys refer to",
                where="--atomic",
                hint="import without it",
            )
        place = self.place(table)
        rows = [*self.rows(DEFINITION, place), *self.rows(INDEX_DEFINITIONS, place)]
        create_like(self, [definition for (definition,) in rows], other)

    def deferrable_indexes(self, table: str) -> list[tuple[str, str]]:
        """Refuse: an index that was dropped leaves traces in DuckDB until its transaction ends."""
        raise UsageError(
            "DuckDB does not support it", where="--defer-indexes", hint=f"leave it out for {table}"
        )

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def view(self, frame: pl.DataFrame) -> Iterator[str]:
        """Show a frame to SQL; a transaction that failed takes the view with it."""
        self._connection.register(_VIEW, Stream(frame))
        try:
            yield f"temp.{_VIEW}"
        finally:
            with suppress(duckdb.Error):
                self._connection.unregister(_VIEW)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what is run in it, or nothing of it; other threads wait."""
        with self.lock:
            self.run("BEGIN")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                with suppress(BatchImportError):  # a COMMIT that failed has rolled back
                    self.run("ROLLBACK")
                raise
            self._opened_file.check()

    @contextmanager
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> Iterator[DuckdbTransaction]:
        """Begin a transaction for one chunk; DuckDB cannot limit the time of a statement."""
        del seconds
        with self.transaction():
            yield DuckdbTransaction(self, job, target, self.view)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement and return its rows."""
        with self.lock:
            try:
                return self._connection.execute(statement, list(values)).fetchall()
            except duckdb.Error as error:
                raise translate(error, str(self.path)) from error

    def close(self) -> None:
        """Close the file; DuckDB then moves what is in its log into it."""
        if not self.lock.acquire(timeout=CLOSE_SECONDS):
            return  # an abandoned attempt uses it: the file is closed with the process
        try:
            self._connection.close()
        finally:
            self.lock.release()
        if self._scratch is not None:
            self._scratch.remove()


class DuckdbClaim(SqlClaim):
    """A claimed job whose refused rows are found before they are stored.

    DuckDB has no savepoints, and an error ends the transaction. So a chunk is stored as a whole; if
    that fails, without the rows that queries say would be refused; and if that fails, too, without
    those that were found by trying.
    """

    def __init__(
        self, database: DuckdbSink, record: JobRecord, target: Target, hints: SinkHints
    ) -> None:
        super().__init__(database, record, target, hints)
        self._file = database

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        with self._file.lock:
            return super().store(request)

    def _commit(self, request: StoreRequest, target: Target) -> ChunkResult:
        try:
            self._look_before(request.frame, target)
            return super()._commit(request, target)
        except DataError:
            refused = self._refusals(request.frame, target)
        try:
            return self._commit_without(refused, request, target)
        except DataError:
            refused = self._try_out(request, target, refused)
            return self._commit_without(refused, request, target)

    def _commit_without(
        self, refused: Refused, request: StoreRequest, target: Target
    ) -> ChunkResult:
        """Store a chunk without the rows that would be refused, which become rejects.

        Args:
            refused: Those that have no reasons are left to `--on-conflict ignore`.
        """
        reasons = {place: why for place, why in refused.items() if why}
        stored = super()._commit(without(request, reasons), target)
        return replace(stored, bisected=bool(reasons))

    def _look_before(self, frame: pl.DataFrame, target: Target) -> None:
        """Look for values that DuckDB would store, but as other ones.

        Raises:
            DataError: If there is one; or if a later record of the same key may replace a row
                before any constraint looks at it.
        """
        if target.on_conflict == "update":
            raise DataError("every row is to be judged")
        guards = [
            f"({column.value} IS NOT NULL AND NOT coalesce(TRY({column.guard}), false))"
            for column in readings(target).values()
            if column.guard
        ]
        if not guards:
            return
        with self._file.view(numbered(frame, target)) as view:
            if self._file.rows(f"SELECT 1 FROM {view} WHERE {' OR '.join(guards)} LIMIT 1"):
                raise DataError("a value would be changed")

    def _refusals(self, frame: pl.DataFrame, target: Target) -> Refused:
        """Return the rows that the table refuses, as far as queries can find out."""
        with self._file.view(numbered(frame, target)) as view:
            if not target.absent_in(frame):
                return self._examine(target, readings(target), view)
            # What a refused record says must not get into the rows after it: of each key the first
            # refused record is found, and then those after it are looked at without it.
            unread = Refusals(self._file.rows, *self._place(target), readings(target), view)
            refused = unread.find_unreadable()
            while True:
                taken = f"(SELECT * FROM {view} WHERE NOT list_contains({list(refused)}, {ROW}))"
                self._file.run(make_whole(target, frame, taken))
                found = self._examine(target, whole_readings(target), WHOLE)
                if not found:
                    return refused
                key = column_list([f"c{target.table_names.index(name)}" for name in target.key])
                first = f"SELECT min({ROW}) FROM {WHOLE} WHERE {ROW} IN ? GROUP BY {key}"
                for (row,) in self._file.rows(first, [list(found)]):
                    refused[row] = found[row]

    def _examine(self, target: Target, columns: Mapping[str, Reading], source: str) -> Refused:
        refusals = Refusals(self._file.rows, *self._place(target), columns, source)
        return refusals.find(target.on_conflict, target.key)

    def _place(self, target: Target) -> tuple[tuple[str, str], list[DuckdbColumn]]:
        return self._file.place(target.table), self._file.columns(target.table)

    def _try_out(self, request: StoreRequest, target: Target, refused: Refused) -> Refused:
        """Find the rows that make the table fail by storing more and more of them, and undoing it.

        For faults that no query finds, so that few rows are left; after each of them the steps
        start small and double.
        """
        frame = request.frame
        refused, kept = dict(refused), list[int]()
        open_rows = [place for place in range(frame.height) if place not in refused]
        first, step = 0, frame.height
        while first < len(open_rows):
            piece = open_rows[first : first + step]
            error = self._trial(frame[[*kept, *piece]], target, request.chunk.offset)
            if error is None:
                kept += piece
                first, step = first + len(piece), step * 2
            elif len(piece) == 1:
                refused[piece[0]] = [field_error(error)]
                first, step = first + 1, 1
            else:
                step = max(1, len(piece) // 2)
        return refused

    def _trial(self, frame: pl.DataFrame, target: Target, offset: int) -> DataError | None:
        """Store rows and undo it; return the error if there was one."""
        self._file.run("BEGIN")
        try:
            DuckdbTransaction(self._file, self.record, target, self._file.view).store_rows(
                frame, offset
            )
        except DataError as error:
            return error
        finally:
            self._file.run("ROLLBACK")
        return None
