"""Which rows of a chunk a DuckDB table would refuse, found by queries before they are stored.

The queries find all of a row's faults at once, and take time in proportion to the chunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchimport.model import FieldError
from batchimport.sinks.duckdb.dialect import ROW, unquoted
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchimport.model import OnConflict
    from batchimport.sinks.duckdb.dialect import DuckdbColumn, Reading
    from batchimport.sinks.sql.target import Refused

ROWS = "temp.batchimport_rows"
"""The chunk's rows as the table would store them; a value that does not fit is null."""

CONSTRAINTS = """
    SELECT constraint_type, constraint_text, expression, constraint_column_names,
           referenced_table, referenced_column_names
    FROM duckdb_constraints()
    WHERE database_name = current_database() AND schema_name = ? AND lower(table_name) = lower(?)
    ORDER BY constraint_index"""
UNIQUE_INDEXES = """
    SELECT CAST(expressions AS VARCHAR[]) FROM duckdb_indexes()
    WHERE database_name = current_database() AND schema_name = ? AND lower(table_name) = lower(?)
    AND is_unique"""

_SHOWN = 200

_Shared = tuple[tuple[str, int | None], FieldError | None]
"""A key that several rows have: its columns, the first row that has it (None: a row of the table), and
the error of another row that has it (None: that row is left out)."""

Query = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement with the values of its parameters, and returns its rows."""


class Refusals:
    """Examines one chunk's rows, which are in the view `source` with their place in `ROW`."""

    def __init__(
        self,
        query: Query,
        place: tuple[str, str],
        columns: Sequence[DuckdbColumn],
        readings: Mapping[str, Reading],
        source: str,
    ) -> None:
        """Take the table and the chunk.

        Args:
            place: The table's schema and name.
            columns: All columns of the table.
            readings: How a column of the table gets its values, by its name.
        """
        self._query, self._place, self._columns = query, place, columns
        self._readings, self._source = readings, source
        self._table = ".".join(map(quote, place))
        self._found: defaultdict[int, list[FieldError]] = defaultdict(list)
        self._shared: defaultdict[int, list[_Shared]] = defaultdict(list)

    def find(self, on_conflict: OnConflict, key: Sequence[str]) -> Refused:
        """Return the rows that the table would refuse, as far as queries can find out.

        Those without a reason are left out because of `--on-conflict ignore`.

        Args:
            key: The columns whose conflicts `on_conflict` is about; empty for all unique ones.
        """
        self.find_unreadable()
        self._make_rows()
        constraints = self._query(CONSTRAINTS, self._place)
        for kind, text, expression, names, parent, parent_names in constraints:
            if kind == "NOT NULL":
                self._find_nulls(names[0])
            elif kind == "CHECK":
                self._find_broken_checks(text, expression)
            elif kind == "FOREIGN KEY":
                self._find_orphans(names, parent, parent_names)
        if on_conflict != "update":
            ignored = on_conflict == "ignore"
            for unique in self._unique_keys(constraints):
                is_key = not key or {unquoted(name) for name in unique} == set(key)
                self._find_shared(unique, is_ignored=ignored and is_key)
            self._judge_shared()
        self._query(f"DROP TABLE {ROWS}")
        return dict(self._found)

    def _unique_keys(self, constraints: Sequence[tuple[Any, ...]]) -> list[list[str]]:
        """Return the columns of each unique constraint and index, as SQL."""
        return [
            *([quote(name) for name in row[3]] for row in constraints if row[0] in UNIQUE),
            *(list(row[0]) for row in self._query(UNIQUE_INDEXES, self._place)),
        ]

    def find_unreadable(self) -> Refused:
        """Return the rows with a value that cannot be read as the column's type."""
        for name in self._readings:
            self._find_unreadable(name)
        return dict(self._found)

    def _find_unreadable(self, name: str) -> None:
        """Find values that cannot be read as the column's type, or would be changed."""
        reading = self._readings[name]
        if not reading.may_fail:
            return
        guard = f"OR NOT coalesce(TRY({reading.guard}), false)" if reading.guard else ""
        rows = self._query(
            f"SELECT {ROW}, CAST({reading.value} AS VARCHAR) FROM {self._source} "
            f"WHERE {reading.value} IS NOT NULL AND (TRY({reading.cast}) IS NULL {guard})"
        )
        type_name = next(own.type_name for own in self._columns if own.name == name)
        for row, text in rows:
            shown = text[:_SHOWN]
            message = f"DuckDB cannot convert {shown!r} to {type_name}"
            self._found[row].append(FieldError("type", name, message, shown))

    def _make_rows(self) -> None:
        given = [f"TRY({value.cast}) AS {quote(name)}" for name, value in self._readings.items()]
        absent = [
            f"{_default(own)} AS {quote(own.name)}"
            for own in self._columns
            if own.name not in self._readings and own.generated is None
        ]
        generated = [
            f"TRY({own.generated}) AS {quote(own.name)}" for own in self._columns if own.generated
        ]
        inner = f"SELECT {ROW}, {', '.join([*given, *absent])} FROM {self._source}"
        self._query(
            f"CREATE OR REPLACE TEMP TABLE {ROWS.partition('.')[2]} AS "
            f"SELECT {', '.join(['*', *generated])} FROM ({inner})"
        )

    def _find_nulls(self, name: str) -> None:
        message = f"NOT NULL constraint failed: {self._place[1]}.{name}"
        for (row,) in self._query(f"SELECT {ROW} FROM {ROWS} WHERE {quote(name)} IS NULL"):
            if not any(error.field == name for error in self._found[row]):
                self._found[row].append(FieldError("not_null", name, message))

    def _find_broken_checks(self, text: str, expression: str) -> None:
        message = f"CHECK constraint failed on table {self._place[1]}: {text}"
        for (row,) in self._query(f"SELECT {ROW} FROM {ROWS} WHERE NOT TRY({expression})"):
            self._found[row].append(FieldError("check", "", message))

    def _find_orphans(self, names: Sequence[str], parent: str, parent_names: Sequence[str]) -> None:
        """Find rows whose parent is not there."""
        parents = ".".join(map(quote, (self._place[0], parent)))
        pairs = list(zip(names, parent_names, strict=True))
        same = " AND ".join(f"child.{quote(a)} = parent.{quote(b)}" for a, b in pairs)
        rows = self._query(
            f"SELECT {ROW}, {_shown('child', names)} FROM {ROWS} child "
            f"WHERE {_all_given('child', names)} "
            f"AND NOT EXISTS (SELECT 1 FROM {parents} parent WHERE {same})"
        )
        for row, key in rows:
            message = f"key ({key}) does not exist in the referenced table {parent}"
            self._found[row].append(FieldError("foreign_key", ", ".join(names), message))

    # -- unique keys ---------------------------------------------------------------------------

    def _find_shared(self, key: Sequence[str], *, is_ignored: bool) -> None:
        """Find the rows whose key is not theirs alone."""
        field = ", ".join(map(unquoted, key))
        for row, first, is_stored, shown in self._query(self._sharing(key)):
            message = f'Duplicate key "{field}: {shown}" violates unique constraint'
            error = None if is_ignored else FieldError("unique", field, message)
            self._shared[row].append(((field, None if is_stored else first), error))

    def _judge_shared(self) -> None:
        """Refuse rows whose key a row of the table has, or an earlier one that is not refused."""
        taken: set[tuple[str, int | None]] = set()
        for row in sorted(self._shared.keys() - self._found.keys()):
            keys = self._shared[row]
            lost = [error for key, error in keys if key[1] is None or key in taken]
            if not lost:
                taken.update(key for key, _ in keys)
            elif None in lost:
                self._found[row] = []
            else:
                self._found[row] = [error for error in lost if error]

    def _sharing(self, key: Sequence[str]) -> str:
        """Select the rows whose key is not theirs alone, with the first row that has it."""
        names = [f"k{at}" for at in range(len(key))]
        named = ", ".join(f"{column} AS {name}" for column, name in zip(key, names, strict=True))
        listed = ", ".join(names)
        return (
            f"WITH fresh AS (SELECT {ROW}, {named} FROM {ROWS}), "
            f"shared AS (SELECT {ROW}, {listed}, min({ROW}) OVER same AS first, "
            f"count(*) OVER same AS n FROM fresh WHERE {_all_given('fresh', names)} "
            f"WINDOW same AS (PARTITION BY {listed})), "
            f"stored AS (SELECT DISTINCT {ROW} FROM fresh "
            f"JOIN (SELECT {named} FROM {self._table}) USING ({listed})) "
            f"SELECT {ROW}, first, stored.{ROW} IS NOT NULL, {_shown('shared', names)} "
            f"FROM shared LEFT JOIN stored USING ({ROW}) WHERE n > 1 OR stored.{ROW} IS NOT NULL"
        )


UNIQUE = ("PRIMARY KEY", "UNIQUE")


def _default(column: DuckdbColumn) -> str:
    """Return the SQL of a column that no record has; a query must not advance its sequence."""
    if column.default is None or "nextval" in column.default:
        return f"CAST(NULL AS {column.type_name})"
    return f"CAST({column.default} AS {column.type_name})"


def _all_given(table: str, names: Sequence[str]) -> str:
    return " AND ".join(f"{table}.{quote(name)} IS NOT NULL" for name in names)


def _shown(table: str, names: Sequence[str]) -> str:
    texts = ", ".join(f"CAST({table}.{quote(name)} AS VARCHAR)" for name in names)
    return f"left(concat_ws(', ', {texts}), {_SHOWN})"
