"""Rows into a PostgreSQL table: the fast way by COPY, and the exact way that finds refused rows.

The exact way stages a chunk as text. A function on the server inserts it block by block, and a
block that fails row by row, each in a subtransaction: no round trip per row, no second run of the
transform, and time in proportion to the rows, however many of them are bad.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import psycopg

from batchimport.errors import DataError
from batchimport.model import FieldError
from batchimport.sinks.base import taken_over
from batchimport.sinks.postgres.dialect import array_literal, reason, translate
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import RECORD, ChunkTransaction
from batchimport.sinks.sql.statements import column_list, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.postgres.dialect import PostgresColumn
    from batchimport.sinks.sql.dialect import Dialect, Refused, Rows, Target

_REFUSALS = "data_exception OR integrity_constraint_violation OR raise_exception"
_REFUSALS += " OR program_limit_exceeded"
FIRST, AFTER = "batchimport_first", "batchimport_after"
_RANGE = f"at >= {FIRST} AND at < {AFTER}"
_FIND_COLUMN = f"""
CREATE OR REPLACE FUNCTION pg_temp.batchimport_column(place int, names text[], types text[])
RETURNS text LANGUAGE plpgsql AS $batchimport$
BEGIN
  FOR i IN 1 .. cardinality(names) LOOP
    BEGIN
      EXECUTE format('INSERT INTO pg_temp.batchimport_types (%I) SELECT c%s::%s '
        'FROM pg_temp.batchimport_rows WHERE at = $1', names[i], i - 1, types[i]) USING place;
    EXCEPTION WHEN {_REFUSALS} THEN
      RETURN names[i];
    END;
  END LOOP;
  RETURN '';
END $batchimport$"""


def _isolate_function(statement: str, probe: str) -> str:
    """Return the function that stores the staged rows, and returns those that are refused.

    Args:
        statement: Stores the rows from FIRST up to AFTER; as a part of the function, it is planned
            once per chunk.
        probe: If not empty, tries a row that the statement leaves out since a later record has
            written its key, and undoes that: whether a row is refused must not depend on the
            order in which chunks are committed.
    """
    # No name in the statement can end the function's body: it would have to hold its own hash.
    tag = f"$b{hashlib.sha256(statement.encode()).hexdigest()[:16]}$"
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.batchimport_isolate(height int, names text[], types text[])
RETURNS TABLE (place int, stored bigint, state text, message text, detail text, name text)
LANGUAGE plpgsql SET enable_seqscan = off AS {tag}
#variable_conflict use_column
DECLARE
  {FIRST} int := 0;
  {AFTER} int;
  block_end int;
  changed bigint;
BEGIN
  WHILE {FIRST} < height LOOP
    block_end := least({FIRST} + 64, height);
    BEGIN
      {AFTER} := block_end;
      {statement};
      GET DIAGNOSTICS changed = ROW_COUNT;
      IF changed < {AFTER} - {FIRST} AND {bool(probe)} THEN
        RAISE cardinality_violation;
      END IF;
      place := NULL; stored := changed;
      RETURN NEXT;
    EXCEPTION WHEN {_REFUSALS} OR cardinality_violation THEN
      WHILE {FIRST} < block_end LOOP
        {AFTER} := {FIRST} + 1;
        BEGIN
          {statement};
          GET DIAGNOSTICS changed = ROW_COUNT;
          IF changed = 0 AND {bool(probe)} THEN
            {probe or "NULL"};
            RAISE cardinality_violation;
          END IF;
          place := NULL; stored := changed;
          RETURN NEXT;
        EXCEPTION
          WHEN cardinality_violation THEN NULL;
          WHEN {_REFUSALS} THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
              detail = PG_EXCEPTION_DETAIL, name = COLUMN_NAME;
            IF name = '' AND (state LIKE '22%' OR state = '23514') THEN
              name := pg_temp.batchimport_column({FIRST}, names, types);
            END IF;
            place := {FIRST}; stored := 0;
            RETURN NEXT;
        END;
        {FIRST} := {AFTER};
      END LOOP;
    END;
    {FIRST} := block_end;
  END LOOP;
END {tag}"""


class PostgresTransaction(ChunkTransaction):
    """A chunk in a transaction of a connection of its own."""

    def __init__(
        self, database: Dialect, connection: psycopg.Connection, job: JobRecord, target: Target
    ) -> None:
        super().__init__(database, job, target)
        self._connection = connection
        # Those of this sink's own catalogue.
        self._columns = cast("list[PostgresColumn]", [own for _, own in target.columns])

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement in this transaction and return its rows."""
        return run(self._connection, statement, values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement in this transaction."""
        self.rows(statement, values)

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Copy a frame; null is an empty field, an empty string a quoted one."""
        text = frame.write_csv(include_header=False, quote_style="non_numeric")
        statement = f"COPY {table} ({column_list(frame.columns)}) FROM STDIN (FORMAT csv)"
        with self._connection.cursor().copy(statement) as copy:
            copy.write(text)

    # -- whose the chunk is --------------------------------------------------------------------

    def fence(self) -> None:
        """Share-lock the job's row: others may store beside us, and none claim the job."""
        if not self.rows(
            f"SELECT 1 FROM {self._tables.jobs} WHERE job_id = ? AND epoch = ? FOR SHARE",
            (self._job.job_id, self._job.epoch),
        ):
            raise taken_over(self._job)

    def insert_chunk(self, request: StoreRequest) -> bool:
        """Insert the ledger row in one statement, which decides between concurrent attempts.

        It waits for another attempt that is not yet committed, such as one whose connection was
        lost over its COMMIT, and then learns how that ended.
        """
        values, chunks = self._ledger_row(request), self._tables.chunks
        known, key = statements.overlapping(chunks, self._job.job_id, request.chunk, "1")
        return bool(
            self.rows(
                f"INSERT INTO {chunks} ({statements.CHUNK_COLUMNS}) "
                f"SELECT {statements.marks(values)} WHERE NOT EXISTS ({known}) "
                "ON CONFLICT DO NOTHING RETURNING 1",
                (*values, *key),
            )
        )

    # -- rows ----------------------------------------------------------------------------------

    def store_rows(self, frame: pl.DataFrame, offset: int) -> tuple[Refused, int]:
        """Store all rows that the table takes; return the others, and how many were left out."""
        target = self._target
        frame = self._with_arrays(frame.select(target.frame_names))
        refused = _with_nul(frame)
        places = (
            [place for place in range(frame.height) if place not in refused] if refused else None
        )
        frame = frame if places is None else frame[places]
        if target.on_conflict == "error" and self._append(frame):
            return refused, 0
        found, stored = self._isolate(frame, offset)
        ignored = frame.height - len(found) - stored if target.on_conflict == "ignore" else 0
        refused |= {place if places is None else places[place]: why for place, why in found.items()}
        return dict(sorted(refused.items())), ignored

    def _append(self, frame: pl.DataFrame) -> bool:
        """Copy all rows or none; return whether the table took them."""
        renamed = frame.rename(
            dict(zip(self._target.frame_names, self._target.table_names, strict=True))
        )
        try:
            with self._connection.transaction():
                self.insert(self._target.name, renamed)
        except psycopg.Error as error:
            if isinstance(translate(error, ""), DataError):
                return False
            raise
        return True

    def _isolate(self, frame: pl.DataFrame, offset: int) -> tuple[Refused, int]:
        """Return the rows that the table refuses, and how many others are stored."""
        target = self._target
        staged = frame.select(
            pl.col(name).alias(f"c{place}") for place, name in enumerate(frame.columns)
        ).with_row_index("at")
        texts = ", ".join(f"{name} text" for name in staged.columns[1:])
        self.run(f"CREATE TEMP TABLE batchimport_rows (at int PRIMARY KEY, {texts}) ON COMMIT DROP")
        self.run(
            "CREATE TEMP TABLE batchimport_types ON COMMIT DROP AS "
            f"SELECT {column_list(target.table_names)} FROM {target.name} WITH NO DATA"
        )
        self.run(_FIND_COLUMN)
        self.run(_isolate_function(*self._statements(offset)))
        self.insert("pg_temp.batchimport_rows", staged)
        # Staged text is cast to types without their lengths, which the assignment then checks.
        types = [own.base for own in self._columns]
        found = self.rows(
            "SELECT * FROM pg_temp.batchimport_isolate(?, ?, ?)",
            (frame.height, target.table_names, types),
        )
        self.run("DROP TABLE pg_temp.batchimport_rows, pg_temp.batchimport_types")
        refused = {row[0]: [reason(*row[2:])] for row in found if row[0] is not None}
        return refused, sum(row[1] for row in found)

    def _statements(self, offset: int) -> tuple[str, str]:
        """Return the statement for a range of staged rows, and its probe; empty if it needs none."""
        target, key = self._target, self._target.key
        casts = [f"c{place}::{own.base}" for place, own in enumerate(self._columns)]
        staged = f"FROM pg_temp.batchimport_rows WHERE {_RANGE}"
        insert = (
            f"INSERT INTO {target.name} ({column_list(target.table_names)}) "
            f"SELECT {', '.join(casts)} {staged}"
        )
        if target.on_conflict == "error":
            return insert, ""
        if target.on_conflict == "ignore":
            return f"{insert} ON CONFLICT {f'({column_list(key)})' if key else ''} DO NOTHING", ""
        written = [name for name in target.table_names if name not in key] or key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        update = f"ON CONFLICT ({column_list(key)}) DO UPDATE SET {changes}"
        key_casts = ", ".join(casts[target.table_names.index(name)] for name in key)
        fresh = (
            f"WITH fresh AS (INSERT INTO {target.keys} AS k ({column_list([*key, RECORD])}) "
            f"SELECT {key_casts}, {offset} + at {staged} "
            f"ON CONFLICT ({column_list(key)}) DO UPDATE "
            f"SET {RECORD} = excluded.{RECORD} WHERE k.{RECORD} < excluded.{RECORD} "
            f"RETURNING {RECORD} - {offset} AS at)"
        )
        return f"{fresh} {insert} AND at IN (SELECT at FROM fresh) {update}", f"{insert} {update}"

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
