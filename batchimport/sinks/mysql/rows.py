"""Rows into a MySQL table: the fast way by LOAD DATA, and the exact way that finds refused rows.

The exact way inserts many rows with a statement. One that fails leaves nothing, and MariaDB tells
which row it failed at; from MySQL it is found by halving. A chunk of bad rows takes time in
proportion to its size.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pymysql

from batchimport.errors import FatalError
from batchimport.model import FieldError
from batchimport.sinks.base import taken_over
from batchimport.sinks.mysql.dialect import (
    UNIQUE,
    is_of_a_row,
    number_of,
    place_of,
    reason,
    unique_indexes,
)
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import ChunkTransaction
from batchimport.sinks.sql.target import RECORD, Outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchimport.model import Chunk, Committed
    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.mysql.dialect import MysqlColumn
    from batchimport.sinks.mysql.session import Session
    from batchimport.sinks.sql.dialect import Dialect
    from batchimport.sinks.sql.target import Refused, Rows, Target

LARGE_WINDOW, SMALL_WINDOW = 1000, 8
"""Rows that are inserted together, at most, and after one that was refused."""
PACKET_SHARE = 0.9
"""Of the longest statement that the server takes: the rest is for what is around the rows."""
ROW, FOUND = "@batchimport_at", "@batchimport_found"
"""Variables of the session: the row that is being stored, from 1; rows that were in conflict."""
_Failure = tuple[int | None, pymysql.MySQLError]
"""Which of the rows was refused, if that is known, and why."""
_WHOLE = r"^\s*[+-]?[0-9]+(?:\.0*)?\s*$"


class MysqlTransaction(ChunkTransaction):
    """A chunk in a transaction of a connection of its own.

    Attributes:
        is_replay: Its records are rejects that are replayed, among others that are committed.
    """

    locking = " FOR UPDATE"
    is_replay = False

    def __init__(self, database: Dialect, session: Session, job: JobRecord, target: Target) -> None:
        super().__init__(database, job, target)
        self.session = session
        # Those of this sink's own catalogue.
        self.columns = cast("list[MysqlColumn]", [own for _, own in target.columns])

    def begin(self, request: StoreRequest) -> bool:
        """Change the ledger first, so that of two attempts the second one finds what the first did."""
        self.is_replay = bool(request.replayed)
        return super().begin(request)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement in this transaction and return its rows."""
        return self.session.run(statement, values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement in this transaction."""
        self.rows(statement, values)

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger."""
        given = _literals(frame, [False] * frame.width)
        names = self.database.column_list(frame.columns)
        for rows in self.packets(given):
            self.session.execute(f"INSERT INTO {table} ({names}) VALUES {','.join(rows)}")

    # -- whose the chunk is --------------------------------------------------------------------

    def fence(self) -> None:
        """Lock the job's row, so that none claims the job.

        Others may store beside us, unless it matters which of them wrote a key last.
        """
        is_alone = self.target.on_conflict == "update"
        if not self.rows(
            f"SELECT 1 FROM {self.tables.jobs} WHERE job_id = ? AND epoch = ? "
            f"{'FOR UPDATE' if is_alone else 'LOCK IN SHARE MODE'}",
            (self.job.job_id, self.job.epoch),
        ):
            raise taken_over(self.job)

    def insert_chunk(self, chunk: Chunk, values: tuple[Any, ...]) -> bool:
        """Insert the ledger row, whose key decides between two attempts at the same chunk.

        It waits for another attempt that is not yet committed, such as one whose connection was
        lost over its COMMIT, and then learns how that ended.
        """
        try:
            return super().insert_chunk(chunk, values)
        except pymysql.IntegrityError as error:
            if number_of(error) not in UNIQUE:
                raise
            return False

    def overlapping(self, chunk: Chunk) -> list[Committed]:
        """Return the ledger rows that share positions with a chunk.

        In two statements: MySQL opens a temporary table, as a dry run has it, once in each.
        """
        chunks, job_id = self.tables.chunks, self.job.job_id
        before = self.rows(
            f"SELECT lo FROM {chunks} WHERE job_id = ? AND lo <= ? ORDER BY lo DESC LIMIT 1",
            (job_id, chunk.lo),
        )
        first = before[0][0] if before else chunk.lo
        columns = f"{statements.CHUNK_COLUMNS}, {', '.join(statements.OUTCOME_COLUMNS)}"
        found = self.rows(
            f"SELECT {columns} FROM {chunks} WHERE job_id = ? AND lo >= ? AND lo < ? AND hi > ?",
            (job_id, first, chunk.hi, chunk.lo),
        )
        return statements.all_committed(found)

    # -- rows ----------------------------------------------------------------------------------

    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows that the table takes."""
        absent, whole = self.target.absent_in(frame), frame
        numbers = self.numbers(frame, offset)
        frame = self._shaped(frame.select(self.target.frame_names))
        refused = self._misread(frame)
        places = [place for place in range(frame.height) if place not in refused]
        frame = frame[places] if refused else frame
        if not frame.height or (self.target.on_conflict == "error" and self._load(frame)):
            return Outcomes(refused)
        lacking = {name: whole.get_column(flag)[places].to_list() for name, flag in absent.items()}
        outcomes = _Rows(self, frame, numbers[places].to_list(), places, lacking).store()
        return Outcomes(
            dict(sorted((refused | outcomes.refused).items())), outcomes.updated, outcomes.ignored
        )

    def _shaped(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Write booleans as the column has them: in words in a text, else as 1 and 0."""
        return frame.with_columns(
            pl.col(name).cast(pl.String if own.family == "text" else pl.Int8)
            for name, own in zip(frame.columns, self.columns, strict=True)
            if frame.schema[name] == pl.Boolean
        )

    def _misread(self, frame: pl.DataFrame) -> Refused:
        """Return the rows whose values the server would round without a word."""
        refused: Refused = {}
        for name, own in zip(frame.columns, self.columns, strict=True):
            if own.base != "bigint unsigned" or frame.schema[name] == pl.Int64:
                continue
            cells = frame.get_column(name)
            is_text = cells.dtype == pl.String
            is_whole = cells.str.contains(_WHOLE) if is_text else cells == cells.floor()
            for place in (~is_whole).fill_null(value=False).arg_true():
                shown = str(cells[place])[:200]
                message = f"{shown!r} cannot be read as {own.type_name}"
                refused[place] = [FieldError("type", own.name, message, shown)]
        return refused

    def _load(self, frame: pl.DataFrame) -> bool:
        """Load all rows; say whether the table has taken them, else nothing is stored."""
        # The text of a number would become the bits of its digits.
        if not self.session.takes_files or any(own.base.startswith("bit") for own in self.columns):
            return False
        names = self.database.column_list(self.target.table_names)
        try:
            with self.session.savepoint("load"):
                if not self.session.load(self.target.name, names, frame):
                    raise _UnclearError  # noqa: TRY301 - undoes it
        except _UnclearError:
            return False
        except pymysql.MySQLError as error:
            if is_of_a_row(error):
                return False
            raise
        return True

    def packets(self, given: Sequence[str]) -> Iterator[list[str]]:
        """Yield rows as lists that fit into a statement each."""
        first = 0
        while first < len(given):
            rows = self.packet(given, first, LARGE_WINDOW)
            yield rows
            first += len(rows)

    def packet(self, given: Sequence[str], first: int, window: int) -> list[str]:
        """Return the rows from a place on that fit into a statement.

        Raises:
            FatalError: If not even one does.
        """
        limit, found, size = int(self.session.packet_bytes * PACKET_SHARE), list[str](), 0
        for row in given[first : first + window]:
            # Most rows need not be encoded to know how long they are.
            length = len(row) if row.isascii() else len(row.encode())
            size += length + 80  # what numbers it, and the comma
            if size > limit:
                break
            found.append(row)
        if not found:
            raise FatalError(
                f"a record of {size:,} bytes does not fit into a statement of the server "
                f"(max_allowed_packet is {self.session.packet_bytes:,})",
                where=self.target.table,
                hint="raise max_allowed_packet of the server and run the same command again; or let "
                "--max-record-bytes reject such records",
            )
        return found


class _UnclearError(Exception):
    """The server has changed a value or left out a row."""


class _Rows:
    """The rows of a chunk on their way into the table by INSERT.

    Args:
        numbers: The number of the record that each row counts as.
        places: The place of each row in the chunk.
        absent: Columns that some rows leave alone, and for each row whether it does.
    """

    def __init__(
        self,
        transaction: MysqlTransaction,
        frame: pl.DataFrame,
        numbers: Sequence[int],
        places: Sequence[int],
        absent: Mapping[str, Sequence[bool]],
    ) -> None:
        self._transaction, self._session = transaction, transaction.session
        self._database, self._target = transaction.database, transaction.target
        self._job_id = transaction.job.job_id
        self._places, self._absent = places, absent
        texts = [own.family == "text" for own in transaction.columns]
        self._cells = _cells(frame, texts)
        self._given = _literals(frame, texts)
        self._numbers = numbers
        names = self._database.column_list(self._target.table_names)
        self._into = f"INSERT INTO {self._target.name} ({names}) VALUES "
        self._indexes = {
            index: list(columns)
            for index, columns in unique_indexes(
                self._session.run(f"SHOW INDEX FROM {self._target.name}")
            ).items()
        }
        self._refused: Refused = {}
        self._updated = self._ignored = 0
        self._clause, self._notes, self._may_note = "", False, False

    def store(self) -> Outcomes:
        """Store all rows that the table takes, and count what became of the others."""
        key = self._target.key
        only_key = all(set(names) == set(key) for names in self._indexes.values())
        mode, window = self._target.on_conflict, LARGE_WINDOW
        # A statement that takes rows in conflict would let triggers act for them.
        self._may_note = mode != "update" and not self._has_triggers()
        if mode == "update":
            self._clause = self._conflict(f"{FOUND} + 1", self._changes())
            is_alike = only_key and not self._absent  # else each row has columns of its own
            window = LARGE_WINDOW if is_alike and not self._is_overtaken() else 0
        elif mode == "ignore" and (only_key or not key) and self._may_note:
            self._clause = self._conflict(f"{FOUND} + 1")
        self._isolate(window)
        if mode == "update":
            self._remember()
        return Outcomes(self._refused, self._updated, self._ignored)

    def _changes(self) -> list[str]:
        """Return how a row is updated whose key is there."""
        key, quote = self._target.key, self._database.quote
        written = [name for name in self._target.table_names if name not in key] or key
        return [f"{quote(name)} = VALUES({quote(name)})" for name in written]

    def _conflict(self, found: str, changes: Sequence[str] = ()) -> str:
        """Return the clause for a row that is in conflict with another.

        Args:
            found: What `FOUND` becomes. It is evaluated once for each of them.
        """
        names = self._target.table_names
        indexed = [name for index in self._indexes.values() for name in index if name in names]
        own = self._database.quote([*indexed, *names][0])
        unchanged = f"{own} = IF(({FOUND} := {found}) IS NULL, {own}, {own})"
        return f"ON DUPLICATE KEY UPDATE {', '.join([*changes, unchanged])}"

    def _isolate(self, largest: int) -> None:
        """Insert rows, so that only those stay out that the table refuses.

        Args:
            largest: Rows of a statement at most; 0 looks at the key of each row first.
        """
        place, window = 0, largest
        while place < len(self._given):
            rows = self._transaction.packet(self._given, place, max(window, 1))
            failure = self._try(place, rows) if largest else self._try_one(place)
            if failure is None:
                place, window = place + len(rows), min(largest, 2 * window)
                continue
            at, error = failure
            if number_of(error) in UNIQUE and self._may_note and not self._clause:
                # From here on, since there may be many of them. It costs time for each row.
                self._clause, self._notes = self._conflict(f"concat({FOUND}, ' ', {ROW})"), True
            elif at is None:
                window = len(rows) // 2
            elif at and self._try(place, rows[:at]) is not None:
                window = at  # what was taken before is not any more: a trigger decides otherwise
            else:
                self._judge(place + at, error)
                place, window = place + at + 1, min(largest, max(SMALL_WINDOW, 2 * at))

    def _try(self, place: int, rows: Sequence[str]) -> _Failure | None:
        """Insert rows; if that fails, return why, and nothing is inserted."""
        if self._clause:
            self._session.execute(f"SET {ROW} = 0, {FOUND} = {0 if not self._notes else repr('')}")
        if self._notes:
            numbered = (
                # The server evaluates it for each row before it stores the row.
                f"(CASE WHEN ({ROW} := {ROW} + 1) THEN {first} END{row[1 + len(first) :]}"
                for row, first in zip(rows, self._cells[0][place : place + len(rows)], strict=True)
            )
            rows = list(numbered)
        try:
            self._session.execute(f"{self._into}{','.join(rows)} {self._clause}")
        except pymysql.MySQLError as error:
            if not is_of_a_row(error):
                raise
            return (0 if len(rows) == 1 else self._session.refused_row()), error
        if self._clause:
            self._account(place, self._session.execute(f"SELECT {FOUND}")[0][0])
        return None

    def _account(self, place: int, found: str | int) -> None:
        """Say what became of the rows of a statement that were in conflict.

        Args:
            found: Their numbers from 1, if they were noted; else how many they were.
        """
        if self._notes:
            for at in map(int, str(found).split()):
                # By itself, so that the server says which index is in conflict.
                failure = self._try_one(place + at - 1)
                if failure is not None:
                    self._judge(place + at - 1, failure[1])
        elif self._target.on_conflict == "update":
            self._updated += int(found)
        else:
            self._ignored += int(found)

    def _try_one(self, place: int) -> _Failure | None:
        """Insert a row, or update that of its key; if that fails, return why."""
        try:
            if self._target.on_conflict == "update":
                self._upsert_one(place)
            else:
                self._session.execute(self._into + self._given[place])
        except pymysql.MySQLError as error:
            if not is_of_a_row(error):
                raise
            return 0, error
        return None

    def _judge(self, place: int, error: pymysql.MySQLError) -> None:
        """Say what becomes of a row that the table does not take."""
        if (
            self._target.on_conflict == "ignore"
            and number_of(error) in UNIQUE
            and (not self._target.key or self._is_there(place))
        ):
            self._ignored += 1
            return
        names = self._target.table_names
        self._refused[self._places[place]] = [reason(error, names, self._indexes)]

    # -- keys ----------------------------------------------------------------------------------

    def _upsert_one(self, place: int) -> None:
        """Insert a row or update that of the same key, and no other that it is in conflict with.

        A row whose key a later record has written is tried, and that is undone.
        """
        same = self._has_key_of(place)
        is_there = same and self._is_there(place)
        cells = zip(self._target.table_names, (cells[place] for cells in self._cells), strict=True)
        quote, key = self._database.quote, self._target.key
        left = {name for name, is_absent in self._absent.items() if is_absent[place]}
        written = [(name, value) for name, value in cells if name not in key and name not in left]
        changes = ", ".join(f"{quote(name)} = {value}" for name, value in written)
        later = same and self._session.execute(
            f"SELECT 1 FROM {self._target.keys} WHERE {same} "
            f"AND {quote(RECORD)} > {self._numbers[place]}"
        )
        with _undone(self._session, is_wanted=bool(later)):
            if not is_there:
                self._session.execute(self._into + self._given[place])
            elif changes:
                self._session.execute(f"UPDATE {self._target.name} SET {changes} WHERE {same}")
        self._updated += bool(is_there)

    def _has_key_of(self, place: int) -> str:
        """Return the condition that a row has the key of this one; empty if that is null."""
        names = self._target.table_names
        values = [(name, self._cells[names.index(name)][place]) for name in self._target.key]
        if any(value == "NULL" for _, value in values):  # null is equal to nothing
            return ""
        return " AND ".join(f"{self._database.quote(name)} = {value}" for name, value in values)

    def _is_there(self, place: int) -> bool:
        """Say whether the table has the key of a row."""
        same = self._has_key_of(place)
        query = f"SELECT 1 FROM {self._target.name} WHERE {same} LIMIT 1"
        return bool(same and self._session.execute(query))

    def _is_overtaken(self) -> bool:
        """Say whether later records of the job are committed, which may have written the same keys."""
        if self._transaction.is_replay:
            return True
        first = self._transaction.rows(
            f"SELECT max(first_record) FROM {self._database.tables.chunks} WHERE job_id = ?",
            (self._job_id,),
        )
        return bool(first and first[0][0] is not None and first[0][0] > self._numbers[0])

    def _remember(self) -> None:
        """Record which record has written each key last."""
        key, quote = self._target.key, self._database.quote
        at = [self._target.table_names.index(name) for name in key]
        known = [
            f"({','.join(values)},{self._numbers[place]})"
            for place in range(len(self._given))
            if self._places[place] not in self._refused
            and "NULL" not in (values := [self._cells[column][place] for column in at])
        ]
        record, names = quote(RECORD), self._database.column_list([*key, RECORD])
        for rows in self._transaction.packets(known):
            self._session.execute(
                f"INSERT INTO {self._target.keys} ({names}) VALUES {','.join(rows)} "
                f"ON DUPLICATE KEY UPDATE {record} = GREATEST({record}, VALUES({record}))"
            )

    def _has_triggers(self) -> bool:
        return bool(
            self._session.run(
                "SELECT 1 FROM information_schema.triggers WHERE event_manipulation <> 'DELETE' "
                "AND event_object_schema = coalesce(?, DATABASE()) AND event_object_table = ?",
                place_of(self._target.table),
            )
        )


@contextmanager
def _undone(session: Session, *, is_wanted: bool) -> Iterator[None]:
    """Undo what is run in it, if that is wanted."""
    if not is_wanted:
        yield
        return
    session.run("SAVEPOINT batchimport_try")
    try:
        yield
    finally:
        with suppress(pymysql.MySQLError):  # the server has undone it, or the connection is lost
            session.run("ROLLBACK TO SAVEPOINT batchimport_try")


def _cells(frame: pl.DataFrame, texts: Sequence[bool]) -> list[list[str]]:
    """Return the SQL literals of each column."""
    written = frame.select(_written(frame, texts))
    return [written.get_column(name).to_list() for name in written.columns]


def _literals(frame: pl.DataFrame, texts: Sequence[bool]) -> list[str]:
    """Return each row as a list of SQL literals in parentheses."""
    row = pl.concat_str(
        [pl.lit("("), pl.concat_str(_written(frame, texts), separator=","), pl.lit(")")]
    )
    return frame.select(row.alias("row")).get_column("row").to_list()


def _written(frame: pl.DataFrame, texts: Sequence[bool]) -> list[pl.Expr]:
    """Return each column as SQL literals.

    Args:
        texts: For each column, whether the table has a text: a number is compared with that as a
            number, unless it is quoted.
    """
    return [
        _literal(pl.col(name), is_quoted=is_text or frame.schema[name] == pl.String).alias(name)
        for name, is_text in zip(frame.columns, texts, strict=True)
    ]


def _literal(column: pl.Expr, *, is_quoted: bool) -> pl.Expr:
    text = column.cast(pl.String)
    if is_quoted:
        text = text.str.replace_all("\\", "\\\\", literal=True).str.replace_all(
            "'", "''", literal=True
        )
        text = pl.lit("'") + text + pl.lit("'")
    return text.fill_null("NULL")
