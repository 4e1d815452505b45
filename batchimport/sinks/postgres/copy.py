"""Rows into a PostgreSQL table: the fast way by COPY, and the exact way that finds refused rows.

The exact way stages a chunk as text and has a function on the server insert it block by block, and
a block that fails row by row, each in a subtransaction: no round trip a row, no re-run of the
transform, and time in proportion to the rows, however many of them are bad.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg

from batchimport.errors import DataError
from batchimport.model import FieldError
from batchimport.sinks.postgres.dialect import array_literal, reason, translate
from batchimport.sinks.sql.ledger import RECORD, column_list
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchimport.model import OnConflict
    from batchimport.sinks.postgres.dialect import TableColumn

Refused = list[tuple[int, FieldError]]

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
    """Return the function that stores the staged rows, and tells of those that are refused.

    Args:
        statement: Stores the rows from FIRST up to AFTER; as a part of the function, it is planned
            once a chunk.
        probe: If not empty, tries a row that the statement leaves out since a later record has
            written its key, and undoes it, so that it is refused or not, whatever came first.
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


@dataclass(frozen=True, slots=True)
class Target:
    """The table, and how rows get into it.

    Attributes:
        table: Its name as SQL.
        columns: Its column for each column of a frame.
        keys: Name, as SQL, of the table that knows which record wrote each key last.
    """

    table: str
    columns: Mapping[str, TableColumn]
    on_conflict: OnConflict
    key: Sequence[str]
    keys: str

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [column.name for column in self.columns.values()]

    def types(self) -> list[str]:
        """Return the types to which staged text is cast; lengths are left to the assignment."""
        return [column.base for column in self.columns.values()]

    def insert(self) -> str:
        """Return the statement that inserts the staged rows from FIRST up to AFTER."""
        casts = ", ".join(f"c{at}::{base}" for at, base in enumerate(self.types()))
        return (
            f"INSERT INTO {self.table} ({column_list(self.names())}) SELECT {casts} "
            f"FROM pg_temp.batchimport_rows WHERE {_RANGE}"
        )

    def update(self) -> str:
        """Return what is done with a row whose key is there."""
        written = [name for name in self.names() if name not in self.key] or self.key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        return f"ON CONFLICT ({column_list(self.key)}) DO UPDATE SET {changes}"

    def statements(self, offset: int) -> tuple[str, str]:
        """Return the statement for a range of staged rows, and its probe; empty if it needs none.

        Args:
            offset: Number of the chunk's first record.
        """
        if self.on_conflict == "error":
            return self.insert(), ""
        if self.on_conflict == "ignore":
            key = f"({column_list(self.key)})" if self.key else ""
            return f"{self.insert()} ON CONFLICT {key} DO NOTHING", ""
        places = [self.names().index(name) for name in self.key]
        casts = ", ".join(f"c{at}::{self.types()[at]}" for at in places)
        fresh = (
            f"WITH fresh AS (INSERT INTO {self.keys} AS k ({column_list([*self.key, RECORD])}) "
            f"SELECT {casts}, {offset} + at FROM pg_temp.batchimport_rows "
            f"WHERE {_RANGE} ON CONFLICT ({column_list(self.key)}) DO UPDATE "
            f"SET {RECORD} = excluded.{RECORD} WHERE k.{RECORD} < excluded.{RECORD} "
            f"RETURNING {RECORD} - {offset} AS at)"
        )
        inserts = f"{self.insert()} AND at IN (SELECT at FROM fresh)"
        return f"{fresh} {inserts} {self.update()}", f"{self.insert()} {self.update()}"


class Writer:
    """One connection inside of one transaction."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement whose parameters are `?`."""
        return run(self._connection, statement, values)

    def copy(self, table: str, names: str, frame: pl.DataFrame) -> None:
        """Copy a frame; null is an unquoted nothing, an empty string a quoted one."""
        text = frame.write_csv(include_header=False, quote_style="non_numeric")
        statement = f"COPY {table} ({names}) FROM STDIN (FORMAT csv)"
        with self._connection.cursor().copy(statement) as copy:
            copy.write(text)

    def store(self, target: Target, frame: pl.DataFrame, offset: int) -> tuple[Refused, int]:
        """Store all rows that the table takes; return the others, and how many were left out."""
        frame = _with_arrays(frame.select(list(target.columns)), target)
        kept, refused = _without_nul(frame)
        if kept is not None:
            frame = frame[kept]
        if target.on_conflict == "error" and self._append(target, frame):
            return refused, 0
        found, stored = self._isolate(target, frame, offset)
        ignored = frame.height - len(found) - stored if target.on_conflict == "ignore" else 0
        more = found if kept is None else [(kept[at], why) for at, why in found]
        return sorted([*refused, *more], key=lambda one: one[0]), ignored

    def _append(self, target: Target, frame: pl.DataFrame) -> bool:
        """Copy all rows or none; say which."""
        try:
            with self._connection.transaction():
                self.copy(target.table, column_list(target.names()), frame)
        except psycopg.Error as error:
            if isinstance(translate(error, ""), DataError):
                return False
            raise
        return True

    def _isolate(self, target: Target, frame: pl.DataFrame, offset: int) -> tuple[Refused, int]:
        """Return the rows that the table refuses, and how many others are stored."""
        names = [f"c{at}" for at in range(frame.width)]
        texts = ", ".join(f"{name} text" for name in names)
        self.rows(
            f"CREATE TEMP TABLE batchimport_rows (at int PRIMARY KEY, {texts}) ON COMMIT DROP"
        )
        self.rows(
            "CREATE TEMP TABLE batchimport_types ON COMMIT DROP AS "
            f"SELECT {column_list(target.names())} FROM {target.table} WITH NO DATA"
        )
        statement, probe = target.statements(offset)
        self.rows(_FIND_COLUMN)
        self.rows(_isolate_function(statement, probe))
        staged = frame.rename(dict(zip(frame.columns, names, strict=True))).with_row_index("at")
        self.copy("pg_temp.batchimport_rows", column_list(staged.columns), staged)
        found = self.rows(
            "SELECT * FROM pg_temp.batchimport_isolate(?, ?, ?)",
            (frame.height, target.names(), target.types()),
        )
        self.rows("DROP TABLE pg_temp.batchimport_rows, pg_temp.batchimport_types")
        refused = [(row[0], reason(*row[2:])) for row in found if row[0] is not None]
        return refused, sum(row[1] for row in found)


def run(
    connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Run a statement whose parameters are `?`; return its rows, if it has any."""
    query = as_query(statement) if values else statement
    cursor = connection.execute(query, tuple(values) or None)
    return cursor.fetchall() if cursor.description else []


def as_query(statement: str) -> str:
    """Return a statement with parameters as the driver marks them; a name may hold its marks."""

    def mark(found: re.Match[str]) -> str:
        return "%s" if found[0] == "?" else found[0].replace("%", "%%")

    return re.sub(r'"(?:[^"]|"")*"|[?%]', mark, statement)


def _with_arrays(frame: pl.DataFrame, target: Target) -> pl.DataFrame:
    """Write JSON arrays as PostgreSQL's, where the column is one."""
    arrays = [
        pl.Series(name, map(array_literal, frame.get_column(name)), dtype=pl.String)
        for name, column in target.columns.items()
        if column.category == "A" and frame.schema[name] == pl.String
    ]
    return frame.with_columns(arrays)


def _without_nul(frame: pl.DataFrame) -> tuple[list[int] | None, Refused]:
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
