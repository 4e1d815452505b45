"""What is peculiar to DuckDB: its types and how values are read into them, its catalogue, its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from batchimport.errors import (
    BatchImportError,
    DataError,
    DestinationLockedError,
    FatalError,
    TransientError,
    UsageError,
)
from batchimport.model import INDEX, FieldError
from batchimport.sinks.sql.target import TableColumn

if TYPE_CHECKING:
    from batchimport.schema import Kind
    from batchimport.sinks.sql.target import Family

ROW = INDEX
"""Column of the views that show a frame to SQL: place of the row, from 0. No table of a user has a
column of this name."""

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
_FAMILIES: dict[str, Family] = {
    "VARCHAR": "text",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "instant",
}
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
    """Return the error of ours that a driver error means: by its class, I/O errors by their messages."""
    text = message_of(error)
    if isinstance(error, (duckdb.IntegrityError, duckdb.DataError)):
        return DataError(text)
    if "No space left" in text:  # a COMMIT says so, too
        return FatalError("the disk is full", where=where, hint="make room, then run again")
    is_memory = isinstance(error, duckdb.OutOfMemoryException) or " allocate " in text
    is_passing = isinstance(error, duckdb.TransactionException) and "Could not write" not in text
    if is_passing and not is_memory:
        return TransientError(text, where=where)
    if "Could not set lock" in text:
        return DestinationLockedError(
            f"another process has this database open: {_holder(text)}",
            where=where,
            hint="DuckDB allows one process: wait for it, or stop it",
        )
    if isinstance(error, duckdb.CatalogException):
        return UsageError(f"DuckDB says: {text}", where=where, hint="choose another --table")
    hint = "lower --chunk-size, or raise --max-memory if it was given: DuckDB may use half of it"
    return FatalError(f"DuckDB says: {text}", where=where, hint=hint if is_memory else None)


def opening(error: duckdb.Error, where: str) -> BatchImportError:
    """Return the error of ours that an error at opening means."""
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
    """Return the reason why a row was refused, as far as DuckDB's message shows it."""
    codes = [code for part, code in _MESSAGES.items() if part in error.message]
    return FieldError(codes[0] if codes else "type", "", error.message[:500])


def unquoted(name: str) -> str:
    """Return a name without its quotes, if it has any."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# -- the table --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DuckdbColumn(TableColumn):
    """A column of a DuckDB table.

    Attributes:
        default: SQL of its value where none is given; None if there is no default.
        generated: SQL that computes it; None if it is not generated.
    """

    default: str | None
    generated: str | None

    @property
    def is_exact(self) -> bool:
        """Say whether it holds numbers that a double or 64 bits would change."""
        is_wide = self.type_name in _INTEGER_TYPES - _NARROW_TYPES
        return is_wide or self.type_name.startswith("DECIMAL")

    @property
    def family(self) -> Family:
        """Say what it holds, as far as DuckDB is to be given it read."""
        if self.type_name in _NARROW_TYPES:
            return "integer"
        is_naive = self.type_name.startswith("TIMESTAMP") and "ZONE" not in self.type_name
        return "timestamp" if is_naive else _FAMILIES.get(self.type_name, "other")

    def takes(self, kind: Kind) -> bool:
        """Say whether values of this kind fit the type. Strings go into every type: it reads them."""
        if self.type_name in _TEXT_TYPES:
            return True
        if kind in ("integer", "number"):
            if kind == "integer" and self.family in ("boolean", "date", "timestamp", "instant"):
                return True
            is_number = self.type_name in _INTEGER_TYPES | _FLOAT_TYPES
            return is_number or self.type_name.startswith("DECIMAL")
        if kind == "boolean":
            return self.type_name == "BOOLEAN"
        if kind == "json":
            return _is_nested(self.type_name) or self.is_exact
        return not (kind == "date-time" and self.type_name == "DATE")


CATALOGUE = """
    SELECT column_name, data_type,
           is_nullable OR column_default IS NOT NULL OR generation_expression IS NOT NULL,
           generation_expression IS NOT NULL,
           CASE WHEN NOT is_generated THEN column_default END, generation_expression
    FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = ? AND lower(table_name) = lower(?)
    ORDER BY column_index"""


_OF_TABLE = (
    "database_name = current_database() AND schema_name = ? AND lower(table_name) = lower(?)"
)
DEFINITION = f"SELECT sql FROM duckdb_tables() WHERE {_OF_TABLE}"
INDEX_DEFINITIONS = f"SELECT sql FROM duckdb_indexes() WHERE {_OF_TABLE} ORDER BY index_name"
REFERRED_TO = """
    SELECT 1 FROM duckdb_constraints()
    WHERE database_name = current_database() AND schema_name = ?
      AND lower(referenced_table) = lower(?)"""


def _is_nested(type_name: str) -> bool:
    return type_name.endswith("]") or type_name.startswith(_NESTED)


# -- values -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """How the values of a frame's column are read into a column of the table.

    Attributes:
        value: SQL of the value in the frame.
        cast: SQL of the value as the table's column has it; fails for a value that does not fit.
        guard: SQL that is false for values that DuckDB would change silently; empty if there are
            none.
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
