"""Rows into an SQLite table: at once if it takes them all, else so that only the refused stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batchimport.errors import DataError
from batchimport.sinks.sql.dialect import RECORD, ChunkTransaction
from batchimport.sinks.sql.statements import column_list, marks, quote
from batchimport.sinks.sqlite.dialect import field_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Dialect, Refused, Target

SMALL_WINDOW = 64
"""Rows that are tried together after one that was refused."""


class SqliteTransaction(ChunkTransaction):
    """A chunk in the transaction of the one connection."""

    def __init__(
        self,
        database: Dialect,
        job: JobRecord,
        target: Target,
        run_many: Callable[[str, pl.DataFrame], None],
    ) -> None:
        super().__init__(database, job, target)
        self._run_many = run_many
        self._has_triggers = bool(
            self.rows(
                "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)",
                (target.table,),
            )
        )

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger."""
        self._run_many(_insert(table, frame.columns), frame)

    def store_rows(self, frame: pl.DataFrame, offset: int) -> tuple[Refused, int]:
        """Store all rows that the table takes; return the others, and how many were left out."""
        target = self._target
        frame = frame.select(target.frame_names)
        statement = _insert(target.name, target.table_names)
        if target.on_conflict == "error":
            return self._append(statement, frame), 0
        if target.on_conflict == "ignore":
            key = f"({column_list(target.key)})" if target.key else ""
            refused, stored = self._isolate(f"{statement} ON CONFLICT {key} DO NOTHING", frame)
            return refused, frame.height - len(refused) - stored
        names = dict(zip(target.frame_names, target.table_names, strict=True))
        return self._upsert(statement, frame.rename(names), offset), 0

    def _append(self, statement: str, frame: pl.DataFrame) -> Refused:
        """Insert rows; the driver runs one statement a row, so those before a refused one are in.

        `total_changes` says how many they are. Triggers would blur that count: then row by row.
        """
        refused: Refused = {}
        step = 1 if self._has_triggers else frame.height
        place, before = 0, self._changes()
        while place < frame.height:
            piece = frame.slice(place, step)
            try:
                self._run_many(statement, piece)
                place += piece.height
            except DataError as error:
                after = self._changes()
                place += 0 if self._has_triggers else after - before
                before = after
                refused[place] = [field_error(error)]
                place += 1
        return refused

    def _upsert(self, statement: str, frame: pl.DataFrame, offset: int) -> Refused:
        """Insert rows or update those of the same key, unless a later record has written it."""
        key, keys = self._target.key, self._target.keys
        written = [name for name in frame.columns if name not in key] or key
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        same = " AND ".join(f"k.{quote(name)} = excluded.{quote(name)}" for name in key)
        frame = frame.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + offset).alias(RECORD))
        refused, _ = self._isolate(
            f"{statement} ON CONFLICT ({column_list(key)}) DO UPDATE SET {changes} WHERE "
            f"coalesce((SELECT {quote(RECORD)} FROM {keys} AS k WHERE {same}), -1) < ?",
            frame,
        )
        self._run_many(
            f"{_insert(keys, [*key, RECORD])} ON CONFLICT ({column_list(key)}) DO UPDATE "
            f"SET {quote(RECORD)} = max({quote(RECORD)}, excluded.{quote(RECORD)})",
            frame.filter(~(pl.col(RECORD) - offset).is_in(list(refused)))
            .select([*key, RECORD])
            .drop_nulls(),
        )
        return refused

    def _isolate(self, statement: str, frame: pl.DataFrame) -> tuple[Refused, int]:
        """Run a statement for each row; return the refused ones, and how many rows changed.

        Each step is a savepoint. A window with a refused row is halved; after that row it starts
        small and doubles, so that a chunk of bad rows takes time in proportion to its size.
        """
        refused: Refused = {}
        changed, place, window = 0, 0, frame.height
        while place < frame.height:
            piece = frame.slice(place, 1 if self._has_triggers else window)
            self._database.run("SAVEPOINT piece")
            before = self._changes()
            try:
                self._run_many(statement, piece)
            except DataError as error:
                self._database.run("ROLLBACK TO piece")
                if piece.height == 1:
                    refused[place] = [field_error(error)]
                    place, window = place + 1, SMALL_WINDOW
                else:
                    window = piece.height // 2
            else:
                place, window = place + piece.height, window * 2
                changed += self._changed(before)
            self._database.run("RELEASE piece")
        return refused, changed

    def _changes(self) -> int:
        return int(self.rows("SELECT total_changes()")[0][0])

    def _changed(self, before: int) -> int:
        """Return how many rows changed since; with triggers, by the last row's statement alone."""
        if self._has_triggers:
            return int(self.rows("SELECT changes()")[0][0])
        return self._changes() - before


def _insert(table: str, names: list[str]) -> str:
    return f"INSERT INTO {table} ({column_list(names)}) VALUES ({marks(names)})"
