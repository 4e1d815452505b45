"""The statements that put a chunk's rows into a DuckDB table, for each way to treat a conflict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.sinks.duckdb.dialect import ROW
from batchimport.sinks.sql.ledger import RECORD, column_list
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchimport.sinks.duckdb.dialect import Reading


@dataclass(frozen=True, slots=True)
class Writing:
    """A chunk's rows, which stand in `view` with their number in `ROW`, on their way into `table`.

    Attributes:
        table: Its name as SQL.
        readings: How each of its columns gets its values.
        key: The columns that `--key` names.
    """

    table: str
    readings: Mapping[str, Reading]
    view: str
    key: Sequence[str]

    def append(self) -> str:
        """Insert all rows."""
        casts = ", ".join(each.cast for each in self.readings.values())
        return f"{self._into()} SELECT {casts} FROM {self.view}"

    def append_new(self) -> str:
        """Insert the rows that are in no conflict (of the key, if there is one)."""
        target = f"({column_list(self.key)})" if self.key else ""
        return f"{self.append()} ON CONFLICT {target} DO NOTHING"

    def upsert(self, keys: str, offset: int) -> str:
        """Insert rows, or update those of the same key, unless a later record has written it.

        Args:
            keys: Name, as SQL, of the table that knows which record wrote each key last.
            offset: Number of the chunk's first record.
        """
        names, key = column_list(list(self.readings)), column_list(self.key)
        written = [name for name in self.readings if name not in self.key] or list(self.key)
        changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in written)
        same = " AND ".join(f"k.{quote(name)} = fresh.{quote(name)}" for name in self.key)
        return (
            f"{self._into()} SELECT {names} FROM ({self._fresh()}) AS fresh WHERE NOT EXISTS "
            f"(SELECT 1 FROM {keys} AS k WHERE {same} AND k.{quote(RECORD)} > fresh.{ROW} + {offset}) "
            f"QUALIFY {ROW} = max({ROW}) OVER (PARTITION BY {key}) OR {self._has_null()} "
            f"ON CONFLICT ({key}) DO UPDATE SET {changes}"
        )

    def remember(self, keys: str, offset: int) -> str:
        """Write down which record has written each key last."""
        key, record = column_list(self.key), quote(RECORD)
        return (
            f"INSERT INTO {keys} ({key}, {record}) SELECT {key}, max({ROW}) + {offset} "
            f"FROM ({self._fresh()}) WHERE NOT ({self._has_null()}) GROUP BY {key} "
            f"ON CONFLICT ({key}) DO UPDATE SET {record} = greatest({record}, excluded.{record})"
        )

    def _into(self) -> str:
        return f"INSERT INTO {self.table} ({column_list(list(self.readings))})"

    def _fresh(self) -> str:
        casts = [f"{each.cast} AS {quote(name)}" for name, each in self.readings.items()]
        return f"SELECT {ROW}, {', '.join(casts)} FROM {self.view}"

    def _has_null(self) -> str:
        return " OR ".join(f"{quote(name)} IS NULL" for name in self.key)
