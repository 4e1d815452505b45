"""Rows into a PostgreSQL table: the fast way by COPY, and the exact way that finds refused rows.

The exact way stages a chunk as text. A function on the server inserts it block by block, and a
block that fails row by row, each in a subtransaction: no round trip per row, no second run of the
transform, and time in proportion to the rows, however many of them are bad.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import psycopg

from batchimport.model import FieldError
from batchimport.sinks.base import taken_over
from batchimport.sinks.postgres.dialect import (
    NOT_THE_ROW,
    RAISED,
    WAYS,
    array_literal,
    is_of_a_row,
    reason,
)
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import ChunkTransaction
from batchimport.sinks.sql.statements import column_list, quote
from batchimport.sinks.sql.target import RECORD, Outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Chunk
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.postgres.dialect import PostgresColumn
    from batchimport.sinks.sql.dialect import Dialect
    from batchimport.sinks.sql.target import Refused, Rows, Target

_WIDTH = 400
"""Columns of a staging table: as text, more of them may not fit into a row of 8 kB, which is its limit."""
FIRST, AFTER = "batchimport_first", "batchimport_after"
_RANGE = f"at >= {FIRST} AND at < {AFTER}"
_ANY = "OTHERS OR query_canceled OR assert_failure"
_UNCLEAR = "SQLSTATE 'BI001'"
"""What the function raises to undo what it did."""
_NOT_THE_ROW = f"""
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
      detail = PG_EXCEPTION_DETAIL, name = COLUMN_NAME, context = PG_EXCEPTION_CONTEXT;
    IF state ~ '{NOT_THE_ROW}' AND split_part(context, chr(10), 1) !~ '{RAISED}' THEN
      RAISE;
    END IF;"""
"""Errors of the server, the connection or other transactions are raised again."""


def _find_column(staging: str) -> str:
    """Return the function that finds the column that does not take what a staged row has for it."""
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.batchimport_column(place int, names text[], types text[])
RETURNS text LANGUAGE plpgsql AS $batchimport$
BEGIN
  FOR i IN 1 .. cardinality(names) LOOP
    BEGIN
      EXECUTE format('INSERT INTO pg_temp.batchimport_types (%I) SELECT c%s::%s '
        'FROM {staging} WHERE at = $1', names[i], i - 1, types[i]) USING place;
    EXCEPTION WHEN OTHERS THEN
      RETURN names[i];
    END;
  END LOOP;
  RETURN '';
END $batchimport$"""


@dataclass(frozen=True, slots=True)
class _Way:
    """How staged rows are stored.

    Attributes:
        insert: Stores the rows from FIRST up to AFTER, and sets `changed` to their number, and
            `fresh` to the number of those that were inserted.
        shortfall: What rows are that it leaves out without an error: `ignored`, `skipped`, or
            empty if each must be looked at.
        probe: Tries a row that was left out so that it is left out by a trigger alone, or breaks
            the constraint; what it does is undone.
        otherwise: What a row is that a trigger did not leave out: `ignored` or `updated`.
    """

    insert: str
    shortfall: str = "skipped"
    probe: str = ""
    otherwise: str = "ignored"


def _isolate_function(way: _Way) -> str:
    """Return the function that stores the staged rows, counts them, and returns the refused ones.

    A row that is refused has its place; the counts of a block have none. Each statement is planned
    once per chunk. Whether a row is refused must not depend on the order in which chunks are
    committed: that is tried out even where a later record has written its key.
    """
    # No name in the statement can end the function's body: it would have to hold its own hash.
    tag = f"$b{hashlib.sha256((way.insert + way.probe).encode()).hexdigest()[:16]}$"
    must_look = bool(way.probe)
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.batchimport_isolate(height int, names text[], types text[])
RETURNS TABLE (place int, updated bigint, ignored bigint, skipped bigint,
               state text, message text, detail text, name text)
LANGUAGE plpgsql SET enable_seqscan = off AS {tag}
#variable_conflict use_column
DECLARE
  {FIRST} int := 0;
  {AFTER} int;
  block_end int;
  changed bigint;
  fresh bigint;
  context text;
BEGIN
  WHILE {FIRST} < height LOOP
    block_end := least({FIRST} + 64, height);
    BEGIN
      {AFTER} := block_end;
      {way.insert};
      IF changed < {AFTER} - {FIRST} AND {must_look} THEN
        RAISE {_UNCLEAR};
      END IF;
      place := NULL; updated := changed - fresh; ignored := 0; skipped := 0;
      {way.shortfall or "skipped"} := {AFTER} - {FIRST} - changed;
      RETURN NEXT;
    EXCEPTION WHEN {_ANY} THEN
      {_NOT_THE_ROW}
      WHILE {FIRST} < block_end LOOP
        {AFTER} := {FIRST} + 1;
        place := NULL; updated := 0; ignored := 0; skipped := 0; changed := 0;
        BEGIN
          {way.insert};
          IF changed = 0 AND {must_look} THEN
            changed := -1;
            {way.probe or "NULL"};
            GET DIAGNOSTICS changed = ROW_COUNT;
            RAISE {_UNCLEAR};
          END IF;
          updated := changed - fresh; {way.shortfall or "skipped"} := 1 - changed;
          RETURN NEXT;
        EXCEPTION
          WHEN {_UNCLEAR} THEN
            IF changed = 0 THEN skipped := 1; ELSE {way.otherwise} := 1; END IF;
            RETURN NEXT;
          WHEN {_ANY} THEN
            {_NOT_THE_ROW}
            IF {way.otherwise == "ignored"} AND changed = -1 AND state IN ('23505', '23P01') THEN
              ignored := 1;
              RETURN NEXT;
            ELSE
              IF name = '' AND (state LIKE '22%' OR state = '23514') THEN
                name := pg_temp.batchimport_column({FIRST}, names, types);
              END IF;
              place := {FIRST};
              RETURN NEXT;
            END IF;
        END;
        {FIRST} := {AFTER};
      END LOOP;
    END;
    {FIRST} := block_end;
  END LOOP;
END {tag}"""


class PostgresTransaction(ChunkTransaction):
    """A chunk in a transaction of a connection of its own."""

    locking = " FOR UPDATE"

    def __init__(
        self, database: Dialect, connection: psycopg.Connection, job: JobRecord, target: Target
    ) -> None:
        super().__init__(database, job, target)
        self._connection = connection
        # Those of this sink's own catalogue.
        self._columns = cast("list[PostgresColumn]", [own for _, own in target.columns])
        self._absent: dict[str, str] = {}

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement in this transaction and return its rows."""
        return run(self._connection, statement, values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement in this transaction."""
        self.rows(statement, values)

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Copy a frame into a table of the ledger."""
        self._copy(table, frame)

    def _copy(self, table: str, frame: pl.DataFrame) -> int:
        """Copy a frame; null is an empty field, an empty string a quoted one.

        Returns:
            How many rows the table has taken: a trigger may leave some out.
        """
        text = io.BytesIO()  # as a `str`, it would be decoded and encoded again
        frame.write_csv(text, include_header=False, quote_style="non_numeric")
        statement = f"COPY {table} ({column_list(frame.columns)}) FROM STDIN (FORMAT csv)"
        cursor = self._connection.cursor()
        with cursor.copy(statement) as copy:
            copy.write(text.getbuffer())
        return cursor.rowcount

    # -- whose the chunk is --------------------------------------------------------------------

    def fence(self) -> None:
        """Share-lock the job's row: others may store beside us, and none claim the job."""
        if not self.rows(
            f"SELECT 1 FROM {self.tables.jobs} WHERE job_id = ? AND epoch = ? FOR SHARE",
            (self.job.job_id, self.job.epoch),
        ):
            raise taken_over(self.job)

    def insert_chunk(self, chunk: Chunk, values: tuple[Any, ...]) -> bool:
        """Insert the ledger row in one statement, which decides between concurrent attempts.

        It waits for another attempt that is not yet committed, such as one whose connection was
        lost over its COMMIT, and then learns how that ended.
        """
        chunks = self.tables.chunks
        known, key = statements.overlapping(chunks, self.job.job_id, chunk, "1")
        return bool(
            self.rows(
                f"INSERT INTO {chunks} ({statements.CHUNK_COLUMNS}) "
                f"SELECT {statements.marks(values)} WHERE NOT EXISTS ({known}) "
                "ON CONFLICT DO NOTHING RETURNING 1",
                (*values, *key),
            )
        )

    # -- rows ----------------------------------------------------------------------------------

    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows that the table takes."""
        target, numbers = self.target, self.numbers(frame, offset)
        self._absent = target.absent_in(frame)
        bits = [pl.col(mark).cast(pl.Int8).cast(pl.String) for mark in self._absent.values()]
        absent = frame.select(pl.concat_str(bits)).to_series() if bits else None
        frame = self._with_arrays(frame.select(target.frame_names))
        refused = _with_nul(frame)
        places = [place for place in range(frame.height) if place not in refused]
        staged = frame.select(
            pl.col(name).alias(f"c{place}") for place, name in enumerate(frame.columns)
        ).with_columns(
            numbers.alias("number"),
            pl.lit(None, pl.String).alias("absent") if absent is None else absent.alias("absent"),
        )
        if refused:
            frame, staged = frame[places], staged[places]
        takes_copy, may_skip = self.rows(WAYS, (target.name,))[0]
        if target.on_conflict == "error" and takes_copy:
            stored = self._append(frame)
            if stored is not None:
                return Outcomes(refused, skipped=frame.height - stored)
        outcomes = self._isolate(staged, self._way(may_skip=may_skip))
        refused |= {places[place]: why for place, why in outcomes.refused.items()}
        return Outcomes(dict(sorted(refused.items())), *outcomes.counts)

    def insert_together(self, frame: pl.DataFrame) -> bool:
        """Insert rows that refer to one another: foreign keys are checked after the statement."""
        takes_copy, _ = self.rows(WAYS, (self.target.name,))[0]
        return bool(takes_copy) and self._append(self._with_arrays(frame)) == frame.height

    def parameter(self, value: Any) -> Any:
        """Return a text, which the server reads as the column's type."""
        return str(value)

    def _append(self, frame: pl.DataFrame) -> int | None:
        """Copy all rows; return how many the table has taken, None if it has refused one."""
        renamed = frame.rename(dict(zip(frame.columns, self.target.table_names, strict=True)))
        try:
            with self._connection.transaction():
                return self._copy(self.target.name, renamed)
        except psycopg.Error as error:
            if is_of_a_row(error):
                return None
            raise

    def _isolate(self, staged: pl.DataFrame, way: _Way) -> Outcomes:
        """Store the rows that the table takes, block by block.

        Args:
            staged: The column `c1` for the second column of the table, and so on; `number`, the row's
                record; and `absent`, a bit for each column that some record lacks.
        """
        target = self.target
        typed = ", ".join(f"{quote(own.name)} {own.type_name}" for own in self._columns)
        self.run(f"CREATE TEMP TABLE batchimport_types ({typed}) ON COMMIT DROP")
        pieces = self._pieces()
        for name, columns in pieces:
            self.run(
                f"CREATE TEMP TABLE {name} (at int PRIMARY KEY, {', '.join(columns.values())}) "
                "ON COMMIT DROP"
            )
        # What is wrong with the statement itself, such as a missing right, is no row's fault.
        self.run(f"EXPLAIN {self._insert()} {self._conflict()}")
        self.run(_find_column(self._staging()))
        self.run(_isolate_function(way))
        staged = staged.with_row_index("at")
        for name, columns in pieces:
            self.insert(f"pg_temp.{name}", staged.select("at", *columns))
        # Staged text is cast to types without their lengths, which the assignment then checks.
        types = [own.base for own in self._columns]
        found = self.rows(
            "SELECT * FROM pg_temp.batchimport_isolate(?, ?, ?)",
            (staged.height, target.table_names, types),
        )
        names = ["batchimport_types", *(name for name, _ in pieces)]
        self.run(f"DROP TABLE {', '.join(f'pg_temp.{name}' for name in names)}")
        refused: Refused = {row[0]: [reason(*row[4:])] for row in found if row[0] is not None}
        blocks = [row[1:4] for row in found if row[0] is None]
        return Outcomes(refused, *(int(sum(counts)) for counts in zip(*blocks, strict=True)))

    def _pieces(self) -> list[tuple[str, dict[str, str]]]:
        """Return the staging tables, each with the definitions of its columns; the first has those of all."""
        pieces = []
        for start in range(0, len(self._columns), _WIDTH):
            places = range(start, min(start + _WIDTH, len(self._columns)))
            columns = {f"c{place}": f"c{place} text" for place in places}
            if not start:
                columns |= {"number": "number bigint", "absent": "absent varbit"}
            pieces.append((f"batchimport_rows{start // _WIDTH}", columns))
        return pieces

    def _staging(self) -> str:
        """Return the staging tables as one, in SQL."""
        first, *others = (f"pg_temp.{name} AS {name}" for name, _ in self._pieces())
        return first + "".join(f" JOIN {other} USING (at)" for other in others)

    def _insert(self, condition: str = "") -> str:
        """Return the statement that inserts staged rows as values of the table's columns.

        Where a record lacks a key, what the row has is inserted again: it is updated to itself, and a
        column that must not be null is not.
        """
        # With their table: beside the user's, which may have a column `c1`, too.
        typed = {
            own.name: f"batchimport_rows{at // _WIDTH}.c{at}::{own.base}"
            for at, own in enumerate(self._columns)
        }
        same = " AND ".join(f"o.{quote(name)} = {typed[name]}" for name in self.target.key)
        bits = {name: f"get_bit(absent, {at})" for at, name in enumerate(self._absent)}
        casts = ", ".join(
            f"CASE WHEN {bits[own.name]} = 0 THEN {typed[own.name]} ELSE "
            f"(SELECT o.{quote(own.name)} FROM {self.target.name} AS o WHERE {same}) END"
            if own.name in bits
            else typed[own.name]
            for own in self._columns
        )
        names = column_list(self.target.table_names)
        staged = f"SELECT {casts} FROM {self._staging()}"
        return f"INSERT INTO {self.target.name} ({names}) {staged} {condition}"

    def _conflict(self) -> str:
        """Return the clause that says what becomes of a row whose key is there."""
        target = self.target
        key = f"({column_list(target.key)})" if target.key else ""
        if target.on_conflict == "error":
            return ""
        if target.on_conflict == "ignore":
            return f"ON CONFLICT {key} DO NOTHING"
        written = [name for name in target.table_names if name not in target.key] or target.key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        return f"ON CONFLICT {key} DO UPDATE SET {changes}"

    def _way(self, *, may_skip: bool) -> _Way:
        """Return how staged rows are stored.

        Args:
            may_skip: The table has triggers that may leave rows out.
        """
        target, key, conflict = self.target, self.target.key, self._conflict()
        insert = self._insert(f"WHERE {_RANGE}")
        count = "GET DIAGNOSTICS changed = ROW_COUNT; fresh := changed"
        if target.on_conflict == "error":
            return _Way(f"{insert}; {count}")
        if target.on_conflict == "ignore":
            probe = insert if may_skip else ""
            return _Way(f"{insert} {conflict}; {count}", "" if probe else "ignored", probe)
        casts = dict(zip(target.table_names, self._columns, strict=True))
        key_casts = ", ".join(
            f"c{target.table_names.index(name)}::{casts[name].base}" for name in key
        )
        record = quote(RECORD)
        first = (
            f"WITH first AS (INSERT INTO {target.keys} AS k ({column_list([*key, RECORD])}) "
            f"SELECT {key_casts}, number FROM {self._staging()} WHERE {_RANGE} "
            f"ON CONFLICT ({column_list(key)}) DO UPDATE "
            f"SET {record} = excluded.{record} WHERE k.{record} < excluded.{record} "
            f"RETURNING {record} AS number)"
        )
        # An updated row has the number of this transaction in xmax, an inserted one has none.
        latest = f"{insert} AND number IN (SELECT first.number FROM first)"
        stored = f"stored AS ({latest} {conflict} RETURNING xmax)"
        counted = (
            "SELECT count(*), count(*) FILTER (WHERE xmax = 0) INTO changed, fresh FROM stored"
        )
        return _Way(f"{first}, {stored} {counted}", "", f"{insert} {conflict}", "updated")

    def _with_arrays(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Write JSON arrays as PostgreSQL's, where the column is one."""
        return frame.with_columns(
            pl.Series(name, map(array_literal, frame.get_column(name)), dtype=pl.String)
            for name, own in zip(frame.columns, self._columns, strict=True)
            if own.category == "A" and frame.schema[name] == pl.String
        )


def run(
    connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Run a statement whose parameters are `?`; return its rows, if it has any."""
    query = as_query(statement) if values else statement
    cursor = connection.execute(query, tuple(values) or None)
    return cursor.fetchall() if cursor.description else []


def as_query(statement: str) -> str:
    """Return a statement with `%s` for each `?`, except in quoted names."""

    def mark(match: re.Match[str]) -> str:
        return "%s" if match[0] == "?" else match[0].replace("%", "%%")

    return re.sub(r'"(?:[^"]|"")*"|[?%]', mark, statement)


def _with_nul(frame: pl.DataFrame) -> Refused:
    """Return the rows with a NUL character, which no type of PostgreSQL takes."""
    refused: Refused = {}
    for name in (name for name, dtype in frame.schema.items() if dtype == pl.String):
        has_nul = frame.get_column(name).str.contains("\0", literal=True).fill_null(value=False)
        for place in has_nul.arg_true().to_list():
            message = "PostgreSQL takes no NUL characters"
            refused.setdefault(place, [FieldError("nul_character", name, message)])
    return refused
