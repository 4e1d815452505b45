"""Rows into an SQLite table: at once if it takes them all, else so that only the refused stay out.

What the table's own conflict clauses and triggers do is obeyed, and counted. A clause or trigger that
rolls back ends the whole transaction, in which the chunk's ledger row was: then it is begun again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from batchimport.errors import BatchImportError, DataError, TransientError
from batchimport.model import ABSENT, FieldError
from batchimport.sinks.sql.dialect import ChunkTransaction
from batchimport.sinks.sql.statements import column_list, marks, quote
from batchimport.sinks.sql.target import RECORD, Outcomes
from batchimport.sinks.sqlite.dialect import field_error, is_conflict_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.sql.dialect import Dialect
    from batchimport.sinks.sql.target import Refused, Rows, Target

SMALL_WINDOW = 64
"""Rows that are tried together after one that was refused."""


class Connection(Protocol):
    """What is asked of the one connection. A statement runs once for each row of a frame."""

    def run_many(self, statement: str, frame: pl.DataFrame) -> None:
        """Run a statement that returns nothing."""
        ...

    def select_many(self, statement: str, frame: pl.DataFrame) -> Rows:
        """Return the rows of all runs."""
        ...

    def stands(self) -> bool:
        """Say whether the transaction is still open."""
        ...

    def begin_again(self) -> None:
        """Begin another transaction in place of the one that SQLite has ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Table:
    """What the text of a table's definition says about it.

    A word may also stand elsewhere in it: that costs time, and changes nothing.

    Attributes:
        has_clauses: It may have conflict clauses of its own.
        may_replace: One of them may replace rows.
        may_defer: It may have foreign keys that are checked at the commit.
    """

    has_triggers: bool
    has_clauses: bool
    may_replace: bool
    may_defer: bool

    @staticmethod
    def of(definitions: Sequence[tuple[Any, ...]]) -> _Table:
        """Return it, given type and text of all that belongs to the table."""
        texts = [text.upper() for kind, text in definitions if kind == "table"]
        words = ("CONFLICT", "REPLACE", "DEFERRED")
        found = (any(word in text for text in texts) for word in words)
        return _Table(any(kind == "trigger" for kind, _ in definitions), *found)


class SqliteTransaction(ChunkTransaction):
    """A chunk in the transaction of the one connection.

    Attributes:
        bytes_stored: Size of its rows.
    """

    def __init__(
        self, database: Dialect, job: JobRecord, target: Target, connection: Connection
    ) -> None:
        super().__init__(database, job, target)
        self.connection = connection
        self.table = _Table.of(
            self.rows(
                "SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL "
                "AND lower(tbl_name) = lower(?)",
                (target.table,),
            )
        )
        self.bytes_stored = 0
        self._request: StoreRequest | None = None

    def begin(self, request: StoreRequest) -> bool:
        """Change the ledger first."""
        self._request = request
        return super().begin(request)

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger."""
        self.connection.run_many(_insert(table, frame.columns), frame)

    def begin_again(self) -> None:
        """Begin the transaction again, up to where the chunk's rows come."""
        self.connection.begin_again()
        self.fence()
        if self._request and not super().begin(self._request):
            raise TransientError("another process has stored the chunk meanwhile")
        self.run("SAVEPOINT rows")

    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows that the table takes."""
        target = self.target
        names = dict(zip(target.frame_names, target.table_names, strict=True))
        numbers = self.numbers(frame, offset)
        absent = target.absent_in(frame)
        names |= {mark: ABSENT + own for own, mark in absent.items()}
        frame = frame.select([*target.frame_names, *absent.values()]).rename(names)
        self.bytes_stored = int(frame.estimated_size())
        orphans: Refused = {}
        while True:
            self.run("SAVEPOINT rows")
            places: Sequence[int] = range(frame.height)
            if orphans:
                places = [place for place in places if place not in orphans]
            outcomes = (
                self._store(frame[places], numbers[places])
                if orphans
                else self._store(frame, numbers)
            )
            refused = {places[place]: why for place, why in outcomes.refused.items()}
            found = self._orphans(frame, {*refused, *orphans}) if self.table.may_defer else {}
            if not found:
                self.run("RELEASE rows")
                return Outcomes(dict(sorted((refused | orphans).items())), *outcomes.counts)
            orphans |= found  # and then those whose parent was one of them
            self.run("ROLLBACK TO rows")
            self.run("RELEASE rows")

    def insert_together(self, frame: pl.DataFrame) -> bool:
        """Insert rows that refer to one another, before which foreign keys are not checked."""
        statement = _insert(self.target.name, frame.columns)
        statement = statement.replace("INSERT", "INSERT OR ABORT", 1)
        self.run("PRAGMA defer_foreign_keys=ON")
        stored = self.connection.select_many(f"{statement} RETURNING 1", frame)
        is_whole = len(stored) == frame.height and not self._orphans(frame, set())
        self.run("PRAGMA defer_foreign_keys=OFF")  # a dry run goes on in this transaction
        return is_whole

    def _store(self, frame: pl.DataFrame, numbers: pl.Series) -> Outcomes:
        target = self.target
        if target.on_conflict == "update":
            return self._upsert(frame, numbers)
        statement = _insert(target.name, frame.columns)
        if target.on_conflict == "ignore":
            key = f"({column_list(target.key)})" if target.key else ""
            rows = _Rows(self, f"{statement} ON CONFLICT {key} DO NOTHING", frame)
            rows.isolate()
        else:
            rows = _Rows(self, statement, frame)
            if self.table.has_triggers:
                rows.isolate()
            else:
                rows.append()
        return Outcomes(rows.refused, rows.replaced, len(rows.ignored), len(rows.skipped))

    def _upsert(self, frame: pl.DataFrame, numbers: pl.Series) -> Outcomes:
        """Insert rows or update those of the same key, unless a later record has written it.

        The table of keys gets those of the chunk that the table has. The ones that are new to it
        afterwards were inserted.
        """
        key, keys = self.target.key, self.target.keys
        given = " AND ".join(f"{quote(name)} = ?" for name in key)
        record = quote(RECORD)
        frame = frame.with_columns(numbers)

        def remember_those_there() -> None:
            self.connection.run_many(
                f"INSERT INTO {keys} SELECT {column_list(key)}, -1 FROM {self.target.name} "
                f"WHERE {given} ON CONFLICT DO NOTHING",
                frame.select(key).drop_nulls(),
            )

        rows = _Rows(self, self._upsert_statement(frame.columns), frame, remember_those_there)
        remember_those_there()
        rows.isolate()
        places = pl.int_range(pl.len(), dtype=pl.Int64)
        stored = frame.filter(~places.is_in([*rows.refused, *rows.skipped]))
        named = stored.select([*key, RECORD]).drop_nulls()
        remember = f"{_insert(keys, named.columns)} ON CONFLICT ({column_list(key)}) DO"
        before = self.changes()
        self.connection.run_many(f"{remember} NOTHING", named)
        inserted = self.changes() - before + stored.height - named.height
        self.connection.run_many(
            f"{remember} UPDATE SET {record} = max({record}, excluded.{record})", named
        )
        return Outcomes(rows.refused, stored.height - inserted, 0, len(rows.skipped))

    def _upsert_statement(self, parameters: Sequence[str]) -> str:
        """Return the statement that inserts a row, or updates that of the same key.

        Where a record lacks a key, the row keeps what is there: that is inserted again, so that a
        column that must not be null is not.

        Args:
            parameters: What each parameter of the statement is.
        """
        table, names, key = self.target.name, self.target.table_names, self.target.key
        place = {name: at for at, name in enumerate(parameters, 1)}
        this = " AND ".join(f"{quote(name)} = ?{place[name]}" for name in key)
        values = ", ".join(
            f"CASE WHEN ?{place[ABSENT + name]} THEN (SELECT {quote(name)} FROM {table} "
            f"WHERE {this}) ELSE ?{place[name]} END"
            if ABSENT + name in place
            else f"?{place[name]}"
            for name in names
        )
        written = [name for name in names if name not in key] or key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        same = " AND ".join(f"k.{quote(name)} = excluded.{quote(name)}" for name in key)
        latest = f"(SELECT {quote(RECORD)} FROM {self.target.keys} AS k WHERE {same})"
        return (
            f"INSERT INTO {table} ({column_list(names)}) VALUES ({values}) "
            f"ON CONFLICT ({column_list(key)}) DO UPDATE SET {changes} "
            f"WHERE coalesce({latest}, -1) < ?{place[RECORD]}"
        )

    def _orphans(self, frame: pl.DataFrame, refused: set[int]) -> Refused:
        """Return the rows whose parent is not there, now that all rows are: COMMIT names none."""
        found: Refused = {}
        at = pl.Series("at", range(frame.height), dtype=pl.Int64)
        rows = frame.with_columns(at.alias(RECORD)).filter(~at.is_in(list(refused)))
        for key in self.database.foreign_keys(self.target.table):
            if not set(key.names) <= set(frame.columns):
                continue
            same = " AND ".join(f"{quote(name)} = ?" for name in key.parent_names)
            orphans = self.connection.select_many(
                f"SELECT ? WHERE NOT EXISTS (SELECT 1 FROM {key.parent} WHERE {same})",
                rows.select([RECORD, *key.names]).drop_nulls(),
            )
            for (place,) in orphans:
                message = "refers to a row that is not there (FOREIGN KEY constraint failed)"
                error = FieldError("foreign_key", ", ".join(key.names), message)
                found.setdefault(place, []).append(error)
        return found

    def changes(self) -> int:
        """Return how many rows this connection has changed, also by triggers."""
        return int(self.rows("SELECT total_changes()")[0][0])


class _Rows:
    """The rows of a chunk on their way into the table.

    Args:
        statement: Stores one row.
        prepare: What else must be repeated when the transaction is begun again.

    Attributes:
        replaced: Number of rows in whose place others were, by the table's own clause.
        ignored: Rows that `--on-conflict ignore` left out.
        skipped: Rows that a trigger or a clause of the table left out.
    """

    def __init__(
        self,
        transaction: SqliteTransaction,
        statement: str,
        frame: pl.DataFrame,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._transaction, self._frame, self._prepare = transaction, frame, prepare
        self._connection, self._table = transaction.connection, transaction.table
        self._target = transaction.target
        self._statement = statement
        # With ABORT for all conflicts, each clause is noticed; then the row is tried by its own.
        self._is_strict = self._table.has_clauses and (
            self._table.may_replace or not self._table.has_triggers
        )
        self._strictly = (
            statement.replace("INSERT", "INSERT OR ABORT", 1) if self._is_strict else statement
        )
        self.refused: Refused = {}
        self.replaced = 0
        self.ignored: list[int] = []
        self.skipped: list[int] = []

    def append(self) -> None:
        """Insert rows of a table without triggers.

        The driver runs one statement a row, so those before a refused one are in: the number of
        changes says how many they are.
        """
        place, before = 0, self._transaction.changes()
        while place < self._frame.height:
            try:
                self._connection.run_many(self._strictly, self._frame.slice(place))
            except DataError as error:
                after = self._transaction.changes()
                place += after - before
                if self._is_strict:
                    self._run("SAVEPOINT piece")
                self._judge(place, error)
                if self._is_strict:
                    self._run("RELEASE piece")
                before = self._transaction.changes() if self._is_strict else after
                place += 1
            else:
                return

    def isolate(self) -> None:
        """Run the statement for each row, each window of rows in a savepoint.

        A window with a row that is refused, or whose fate is not clear, is halved; after that row it
        starts small and doubles, so that a chunk of bad rows takes time in proportion to its size.
        """
        place, window = 0, self._frame.height
        while place < self._frame.height:
            piece = self._frame.slice(place, window)
            is_one = piece.height == 1
            self._run("SAVEPOINT piece")
            try:
                left_out = piece.height - self._count(self._strictly, piece)
            except BatchImportError as error:
                stands = self._connection.stands()
                if is_one:
                    self._judge(place, error, stands=stands)
                elif stands:
                    self._run("ROLLBACK TO piece")
                else:
                    self._repeat(place)
                done, window = int(is_one), self._smaller(piece.height, stands=stands)
            else:
                if left_out and not is_one and self._is_unclear():
                    self._run("ROLLBACK TO piece")
                    done, window = 0, self._smaller(piece.height)
                else:
                    self._explain(place, piece, left_out)
                    done, window = piece.height, window * 2
            place += done
            self._run("RELEASE piece")

    @staticmethod
    def _smaller(height: int, *, stands: bool = True) -> int:
        if not stands:  # what is done before the next such row is repeated: be sure of it
            return 1
        return height // 2 if height > 1 else SMALL_WINDOW

    def _judge(self, place: int, error: BatchImportError, *, stands: bool = True) -> None:
        """Say what becomes of a row that caused an error by itself: its clauses decide.

        Raises:
            BatchImportError: If the row is not at fault.
        """
        if not isinstance(error, DataError):
            raise error
        if stands and self._is_strict:
            self._run("ROLLBACK TO piece")
            try:
                count = self._count(self._statement, self._frame.slice(place, 1))
            except DataError as own:
                error, stands = own, self._connection.stands()
            else:
                if not count:
                    self.skipped.append(place)
                elif is_conflict_in(self._target.table, error):
                    self.replaced += 1
                return
        self.refused[place] = [field_error(error)]
        if not stands:
            self._repeat(place)
        elif self._table.has_triggers or self._is_strict:
            self._run("ROLLBACK TO piece")  # FAIL leaves what a trigger did before

    def _repeat(self, place: int) -> None:
        """Begin the transaction again, and repeat what was stored of the rows before this one."""
        self._transaction.begin_again()
        self._prepare()
        kept = [at for at in range(place) if at not in self.refused]
        if kept:
            self._connection.run_many(self._statement, self._frame[kept])
        self._run("SAVEPOINT piece")

    def _count(self, statement: str, piece: pl.DataFrame) -> int:
        """Run a statement for each row; return how many rows it changed itself, triggers apart."""
        if self._table.has_triggers:
            return len(self._connection.select_many(f"{statement} RETURNING 1", piece))
        before = self._transaction.changes()
        self._connection.run_many(statement, piece)
        return min(piece.height, self._transaction.changes() - before)

    def _is_unclear(self) -> bool:
        """Say whether a row that was left out must be looked at to know why."""
        return self._table.has_triggers and self._target.on_conflict != "error"

    def _explain(self, place: int, piece: pl.DataFrame, left_out: int) -> None:
        """Record why rows of a piece were left out without an error."""
        places = list(range(place, place + left_out))  # which ones matters only if there is one
        if self._target.on_conflict == "error":
            self.skipped += places
        elif self._target.on_conflict == "ignore":
            skipped = self._table.has_triggers and left_out and not self._is_in_conflict(piece)
            (self.skipped if skipped else self.ignored).extend(places)
        elif self._table.has_triggers and left_out and not self._is_outdated(piece):
            self.skipped += places

    def _is_in_conflict(self, piece: pl.DataFrame) -> bool:
        """Say whether a row would break a unique constraint, were it not left out."""
        statement = _insert(self._target.name, piece.columns)
        self._run("SAVEPOINT probe")
        try:
            self._connection.run_many(statement.replace("INSERT", "INSERT OR ABORT", 1), piece)
        except DataError as error:
            return is_conflict_in(self._target.table, error)
        finally:
            self._run("ROLLBACK TO probe")
            self._run("RELEASE probe")
        return False

    def _is_outdated(self, piece: pl.DataFrame) -> bool:
        """Say whether a later record has written the key of a row."""
        names = [*self._target.key, RECORD]
        given = " AND ".join(f"{quote(name)} = ?" for name in self._target.key)
        later = f"SELECT 1 FROM {self._target.keys} WHERE {given} AND {quote(RECORD)} >= ?"
        return bool(self._connection.select_many(later, piece.select(names).drop_nulls()))

    def _run(self, statement: str) -> None:
        self._transaction.run(statement)


def _insert(table: str, names: Iterable[str]) -> str:
    listed = list(names)
    return f"INSERT INTO {table} ({column_list(listed)}) VALUES ({marks(listed)})"
