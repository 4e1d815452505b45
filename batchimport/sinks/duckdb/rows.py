"""Rows into a DuckDB table, by way of Arrow: all of a chunk's, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sinks.duckdb.dialect import ROW, Reading, reading
from batchimport.sinks.sql.dialect import ChunkTransaction
from batchimport.sinks.sql.statements import column_list, quote
from batchimport.sinks.sql.target import RECORD, Outcomes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Dialect
    from batchimport.sinks.sql.target import Target

WHOLE = "temp.batchimport_whole"
"""A chunk's rows as the table would have them, where some records lack keys."""

View = Callable[[pl.DataFrame], "AbstractContextManager[str]"]
"""Shows a frame to SQL, under the name that it gives."""


class DuckdbTransaction(ChunkTransaction):
    """A chunk in the transaction of the one connection."""

    def __init__(self, database: Dialect, job: JobRecord, target: Target, view: View) -> None:
        super().__init__(database, job, target)
        self._view = view

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger."""
        with self._view(frame) as view:
            self.run(f"INSERT INTO {table} ({column_list(frame.columns)}) SELECT * FROM {view}")

    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows, none of which may be refused.

        Raises:
            DataError: If one is; then the transaction has failed.
        """
        target = self.target
        numbers = self.numbers(frame, offset)
        with self._view(numbered(frame, target).with_columns(numbers)) as view:
            insert = _Statements(target, readings(target), view)
            if target.on_conflict == "ignore":
                return Outcomes(ignored=frame.height - int(self.rows(insert.append_new())[0][0]))
            if target.on_conflict == "update":
                return self._upsert(frame, view)
            self.run(insert.append())
        return Outcomes()

    def _upsert(self, frame: pl.DataFrame, view: str) -> Outcomes:
        target = self.target
        insert = _Statements(target, readings(target), view)
        if target.absent_in(frame):
            self.run(make_whole(target, frame, view))
            insert = _Statements(target, whole_readings(target), WHOLE)
        inserted = int(self.rows(insert.count_new())[0][0])
        self.run(insert.upsert())
        self.run(insert.remember())
        return Outcomes(updated=frame.height - inserted)


@dataclass(frozen=True, slots=True)
class _Statements:
    """The statements that put the rows of a view into the table, for each way to treat a conflict.

    Attributes:
        view: Its rows have their place in `ROW`.
        readings: How each column of the table gets its values.
    """

    target: Target
    readings: Mapping[str, Reading]
    view: str

    def append(self) -> str:
        """Insert all rows."""
        casts = ", ".join(value.cast for value in self.readings.values())
        return f"{self._into()} SELECT {casts} FROM {self.view}"

    def append_new(self) -> str:
        """Insert the rows that are in no conflict (of the key, if there is one)."""
        key = f"({column_list(self.target.key)})" if self.target.key else ""
        return f"{self.append()} ON CONFLICT {key} DO NOTHING"

    def upsert(self) -> str:
        """Insert rows, or update those of the same key, unless a later record has written it."""
        names, key = column_list(self.target.table_names), column_list(self.target.key)
        written = [name for name in self.readings if name not in self.target.key]
        written = written or list(self.target.key)
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        same = " AND ".join(f"k.{quote(name)} = fresh.{quote(name)}" for name in self.target.key)
        record = quote(RECORD)
        return (
            f"{self._into()} SELECT {names} FROM ({self._fresh()}) AS fresh WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.target.keys} AS k WHERE {same} AND k.{record} > fresh.{record}) "
            f"QUALIFY {record} = max({record}) OVER (PARTITION BY {key}) OR {self._has_null()} "
            f"ON CONFLICT ({key}) DO UPDATE SET {changes}"
        )

    def count_new(self) -> str:
        """Count the rows that an upsert inserts: one for each key that the table has not."""
        key = column_list(self.target.key)
        same = " AND ".join(f"old.{quote(name)} = new.{quote(name)}" for name in self.target.key)
        return (
            f"WITH fresh AS ({self._fresh()}) SELECT "
            f"(SELECT count(*) FROM (SELECT DISTINCT {key} FROM fresh "
            f"WHERE NOT ({self._has_null()})) AS new "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.target.name} AS old WHERE {same})) "
            f"+ (SELECT count(*) FROM fresh WHERE {self._has_null()})"
        )

    def remember(self) -> str:
        """Record which record has written each key last."""
        key, record = column_list(self.target.key), quote(RECORD)
        return (
            f"INSERT INTO {self.target.keys} ({key}, {record}) SELECT {key}, max({record}) "
            f"FROM ({self._fresh()}) WHERE NOT ({self._has_null()}) GROUP BY {key} "
            f"ON CONFLICT ({key}) DO UPDATE SET {record} = greatest({record}, excluded.{record})"
        )

    def _into(self) -> str:
        return f"INSERT INTO {self.target.name} ({column_list(self.target.table_names)})"

    def _fresh(self) -> str:
        casts = [f"{value.cast} AS {quote(name)}" for name, value in self.readings.items()]
        return f"SELECT {quote(RECORD)}, {', '.join(casts)} FROM {self.view}"

    def _has_null(self) -> str:
        return " OR ".join(f"{quote(name)} IS NULL" for name in self.target.key)


def numbered(frame: pl.DataFrame, target: Target) -> pl.DataFrame:
    """Return a chunk's frame as SQL sees it: rows with their place, columns `c0`, `c1`, …."""
    columns = [pl.col(name).alias(f"c{place}") for place, name in enumerate(target.frame_names)]
    places = {own: place for place, own in enumerate(target.table_names)}
    marks = [pl.col(mark).alias(f"m{places[own]}") for own, mark in target.absent_in(frame).items()]
    return frame.select([*columns, *marks]).with_row_index(ROW)


def make_whole(target: Target, frame: pl.DataFrame, view: str) -> str:
    """Return the statement that makes a table of a chunk's rows in which no record lacks a key.

    It has the value of the record before of the same key that has one, or else of the row that is
    there: as if the records were applied one after the other.

    Args:
        view: The frame as SQL sees it; values that do not fit their columns become null.
    """
    absent, own = target.absent_in(frame), target.table_names
    keys = [f"given.c{own.index(name)}" for name in target.key]
    casts = ", ".join(
        f"TRY({value.cast}) AS c{place}" for place, value in enumerate(readings(target).values())
    )
    # A column of the user's may be called `c0`, too: hence `given`.
    values = ", ".join(
        f"CASE WHEN NOT given.m{place} THEN given.c{place} WHEN {_any_null(keys)} THEN NULL "
        f"ELSE coalesce(last_value(CASE WHEN NOT given.m{place} THEN {{'value': given.c{place}}} END "
        f"IGNORE NULLS) OVER same, {{'value': o.{quote(name)}}}).value END AS c{place}"
        if name in absent
        else f"given.c{place}"
        for place, name in enumerate(own)
    )
    joined = " AND ".join(
        f"o.{quote(name)} = {key}" for name, key in zip(target.key, keys, strict=True)
    )
    marks, record = "".join(f", m{own.index(name)}" for name in absent), quote(RECORD)
    return (
        f"CREATE OR REPLACE TEMP TABLE {WHOLE.partition('.')[2]} AS "
        f"WITH given AS (SELECT {record}, {casts}{marks} FROM {view}) "
        f"SELECT given.{record}, {values} FROM given LEFT JOIN {target.name} AS o ON {joined} "
        f"WINDOW same AS (PARTITION BY {', '.join(keys)} ORDER BY given.{record} "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )


def whole_readings(target: Target) -> dict[str, Reading]:
    """Return how the columns of the table that `make_whole` makes are read: as they are."""
    return {
        name: Reading(f"c{place}", f"c{place}", may_fail=False)
        for place, name in enumerate(target.table_names)
    }


def _any_null(columns: Sequence[str]) -> str:
    return " OR ".join(f"{column} IS NULL" for column in columns)


def readings(target: Target) -> dict[str, Reading]:
    """Return how each column of the table gets its values from a numbered frame."""
    return {
        own.name: reading(column.kind, own.type_name, f"c{place}")
        for place, (column, own) in enumerate(target.columns)
    }
