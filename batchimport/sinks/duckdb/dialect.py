"""What is peculiar to DuckDB: its types and how values are read into them, its catalogue, its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from batchimport.errors import (
    BatchImportError,
    DataError,
    FatalError,
    JobRunningElsewhereError,
    TransientError,
    UsageError,
)
from batchimport.model import INDEX, FieldError
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.schema import Column, Kind

ROW = INDEX
"""Number of a row within its chunk, in the views that show a frame: no column has this name."""

TYPES: dict[Kind, str] = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "date-time": "TIMESTAMP WITH TIME ZONE",
    "uuid": "UUID",
    "json": "JSON",
}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_INTEGER_TYPES = {*_INTEGERS, *(f"U{name}" for name in _INTEGERS), "BIGNUM"}
_NARROW_TYPES = {*_INTEGERS[:4], "UTINYINT", "USMALLINT", "UINTEGER"}
_FLOAT_TYPES = {"FLOAT", "DOUBLE"}
_TEXT_TYPES = {"VARCHAR", "JSON"}
_NESTED = ("STRUCT", "MAP", "UNION", "VARIANT")
_MESSAGES = {
    "Duplicate key": "unique",
    "NOT NULL": "not_null",
    "CHECK": "check",
    "foreign key": "foreign_key",
}

# -- errors -----------------------------------------------------------------------------------


def translate(error: duckdb.Error, where: str) -> BatchImportError:
    """Say what a driver error means for the runner, by its class; I/O errors by their fixed words."""
    text = message_of(error)
    if isinstance(error, (duckdb.IntegrityError, duckdb.DataError)):
        return DataError(text)
    if "No space left" in text:  # also in the words of a COMMIT
        return FatalError("the disk is full", where=where, hint="make room, then run again")
    if isinstance(error, duckdb.TransactionException) and "Could not write" not in text:
        return TransientError(text, where=where)
    if "Could not set lock" in text:
        return JobRunningElsewhereError(
            "another process has this database open",
            where=where,
            hint=f"DuckDB lets one process in: wait for it, or stop it ({_holder(text)})",
        )
    if isinstance(error, duckdb.CatalogException):
        return UsageError(f"DuckDB says: {text}", where=where, hint="choose another --table")
    is_memory = isinstance(error, duckdb.OutOfMemoryException)
    hint = "a smaller --chunk-size needs less memory" if is_memory else None
    return FatalError(f"DuckDB says: {text}", where=where, hint=hint)


def opening(error: duckdb.Error, where: str) -> BatchImportError:
    """Say what an error at opening means."""
    text = message_of(error)
    if "Permission denied" in text or "Read-only" in text:
        return FatalError("the database cannot be written", where=where, hint="check its mode")
    return translate(error, where)


def message_of(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message, without its class."""
    line = str(error).strip().partition("\n")[0]
    return line.partition(" Error: ")[2] or line


def _holder(text: str) -> str:
    return text.rpartition("Conflicting lock is held in ")[2].partition(". See")[0] or "unknown"


def field_error(error: DataError) -> FieldError:
    """Say why a row was refused, when only DuckDB's message tells."""
    found = [code for words, code in _MESSAGES.items() if words in error.message]
    return FieldError(found[0] if found else "type", "", error.message[:500])


def unquoted(name: str) -> str:
    """Return a name that may stand in quotes without them."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# -- the table --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as the catalogue describes it.

    Attributes:
        default: SQL of the value when none is given, if there is one.
        generated: SQL that computes it, if it is generated: then it takes no values.
    """

    name: str
    type_name: str
    is_nullable: bool
    default: str | None
    generated: str | None


CATALOGUE = """
    SELECT column_name, data_type, is_nullable,
           CASE WHEN NOT is_generated THEN column_default END, generation_expression
    FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND lower(table_name) = lower(?)
    ORDER BY column_index"""


def table_column(row: Sequence[Any]) -> TableColumn:
    """Return the column of a row of `CATALOGUE`."""
    return TableColumn(*row)


def match_columns(
    table: str, known: Sequence[TableColumn], columns: Sequence[Column]
) -> dict[str, TableColumn]:
    """Return the table's column for the name of each column; DuckDB's names have no case.

    Raises:
        UsageError: If the table cannot take the columns.
    """
    folded = {each.name.lower(): each for each in known}
    missing = [column.name for column in columns if column.name.lower() not in folded]
    statements.refuse_missing(table, missing)
    matched = {column.name: folded[column.name.lower()] for column in columns}
    for column in columns:
        _check_fit(table, matched[column.name], column)
    taken = {each.name for each in matched.values()}
    needed = [
        each.name
        for each in known
        if each.name not in taken and not (each.is_nullable or each.default or each.generated)
    ]
    statements.refuse_unfilled(table, needed)
    return matched


def _check_fit(table: str, found: TableColumn, column: Column) -> None:
    if found.generated is not None:
        reason = "is generated and takes no values"
    elif not _fits(column.kind, found.type_name):
        reason = f"of type {found.type_name} cannot take {column.kind} values"
    else:
        return
    raise UsageError(
        f"column {found.name} {reason}",
        where=table,
        hint="name the type in a --schema, or change it with --transform or --sql",
    )


def _fits(kind: Kind, type_name: str) -> bool:
    """Say whether a kind of values can go into a type. Texts go into every type: they are read."""
    if type_name in _TEXT_TYPES:
        return True
    if kind in ("integer", "number"):
        return type_name in _INTEGER_TYPES | _FLOAT_TYPES or type_name.startswith("DECIMAL")
    if kind == "boolean":
        return type_name == "BOOLEAN"
    if kind == "json":
        return _is_nested(type_name) or is_exact(type_name)
    return not (kind == "date-time" and type_name == "DATE")


def is_exact(type_name: str) -> bool:
    """Say whether a type holds numbers that would not pass through a double or 64 bits unchanged."""
    return type_name.startswith("DECIMAL") or type_name in _INTEGER_TYPES - _NARROW_TYPES


def _is_nested(type_name: str) -> bool:
    return type_name.endswith("]") or type_name.startswith(_NESTED)


# -- values -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """How the values of a frame's column are read into a column of the table.

    Attributes:
        value: SQL of the value in the frame.
        cast: SQL of the value as the table's column has it; fails for a value that does not fit.
        guard: SQL that is false for values which DuckDB would change silently; empty if it would
            change none.
        may_fail: Whether there are values that do not fit.
    """

    value: str
    cast: str
    guard: str = ""
    may_fail: bool = True


def reading(kind: Kind, type_name: str, value: str) -> Reading:
    """Return how values of a kind are read into a type.

    Args:
        value: SQL of the frame's column.
    """
    if kind in ("integer", "number", "boolean"):
        same = type_name == TYPES[kind]
        cast = value if same else f"CAST({value} AS {type_name})"
        return Reading(value, cast, _number_guard(kind, type_name, value), may_fail=not same)
    if type_name == "VARCHAR":
        return Reading(value, value, may_fail=False)
    if kind == "date-time":
        return Reading(value, _instant(value, type_name))
    if kind == "json" and _is_nested(type_name):
        return Reading(value, f"CAST(CAST({value} AS JSON) AS {type_name})")
    return Reading(value, f"CAST({value} AS {type_name})", _text_guard(value, type_name))


def _number_guard(kind: Kind, type_name: str, value: str) -> str:
    """DuckDB rounds decimals to integers, and large integers to doubles."""
    if kind == "number" and type_name in _INTEGER_TYPES:
        return f"{value} = trunc({value})"
    if kind == "integer" and type_name in _FLOAT_TYPES:
        return f"CAST(CAST({value} AS {type_name}) AS HUGEINT) = {value}"
    return ""


def _instant(value: str, type_name: str) -> str:
    """Read a time of RFC 3339, which allows `t` and `z`; a column without a zone gets it in UTC."""
    instant = f"CAST(upper({value}) AS TIMESTAMPTZ)"
    if type_name.startswith("TIMESTAMP") and "WITH TIME ZONE" not in type_name:
        return f"CAST(timezone('UTC', {instant}) AS {type_name})"
    return instant if type_name == TYPES["date-time"] else f"CAST({value} AS {type_name})"


def _text_guard(value: str, type_name: str) -> str:
    """DuckDB rounds `1.5` read as an integer, and makes `1e400` infinite."""
    if type_name in _INTEGER_TYPES:
        return f"regexp_full_match(trim({value}), '[+-]?[0-9]+')"
    if type_name in _FLOAT_TYPES:
        return f"({value} ILIKE '%inf%' OR NOT isinf(CAST({value} AS {type_name})))"
    return ""
