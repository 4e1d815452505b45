"""What is peculiar to SQLite: its types, its names, and what its errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchimport.errors import (
    BatchImportError,
    DataError,
    FatalError,
    JobRunningElsewhereError,
    TransientError,
    UsageError,
)
from batchimport.model import FieldError
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from adbc_driver_manager import Error as DriverError

    from batchimport.schema import Column, Kind

TYPES: dict[Kind, str] = {
    "integer": "INTEGER",
    "number": "REAL",
    "boolean": "INTEGER",
    "string": "TEXT",
    "date": "TEXT",
    "date-time": "TEXT",
    "uuid": "TEXT",
    "json": "TEXT",
}
_CONSTRAINT = re.compile(r"(UNIQUE|NOT NULL|CHECK|FOREIGN KEY) constraint failed(?:: (.+))?")
_FATAL = {
    "disk is full": ("the disk is full", "make room, then run the same command again"),
    "disk I/O error": (
        "the disk does not take what SQLite writes",
        "make room or check the disk, then run the same command again",
    ),
    "too many columns": (
        "the table would have more columns than SQLite allows (2,000)",
        "name those to keep in a --schema: the others are kept in _extra; or choose another --to",
    ),
    "unable to open": (
        "the database cannot be opened",
        "check its directory, and the limit of open files (ulimit -n)",
    ),
    "readonly": ("the database cannot be written", "check its mode"),
    "read-only": ("the database cannot be written", "check its mode"),
}
"""What SQLite says when the job cannot go on: our message and what to do."""
_STRICT = re.compile(r"cannot store \w+ value in \w+ column (.+)|datatype mismatch")


def translate(error: DriverError, path: Path) -> BatchImportError:
    """Say what a driver error means for the runner.

    By SQLite's own fixed messages, since the driver passes on no result code.
    """
    text = str(error)
    if _CONSTRAINT.search(text) or _STRICT.search(text):
        return DataError(text)
    if "locked" in text or "busy" in text:
        return TransientError("the database is locked by another program", where=str(path))
    if "not a database" in text:
        return UsageError("is not an SQLite database", where=str(path), hint="choose another --to")
    for words, (message, hint) in _FATAL.items():
        if words in text:
            return FatalError(message, where=str(path), hint=hint)
    return FatalError(f"SQLite says: {text}", where=str(path))


def opening(error: Exception, path: Path) -> BatchImportError:
    """Say what an error at opening means: a lock then is another job's, no reason to wait."""
    found = error if isinstance(error, BatchImportError) else translate(error, path)  # type: ignore[arg-type]  # the driver's
    if isinstance(found, TransientError):
        return JobRunningElsewhereError(found.message, str(path), "wait for it, or stop it")
    return found


@dataclass(frozen=True, slots=True)
class _Names:
    code: str
    message: str


_CODES = {
    "UNIQUE": _Names("unique", "another row has this value"),
    "NOT NULL": _Names("not_null", "may not be null"),
    "CHECK": _Names("check", "breaks the table's check"),
    "FOREIGN KEY": _Names("foreign_key", "refers to a row that is not there"),
}


def field_error(error: DataError) -> FieldError:
    """Say why a row was refused: code, column, and SQLite's own message."""
    found = _CONSTRAINT.search(error.message)
    if not found:
        return FieldError("type", "", error.message[-200:])
    names, what = _CODES[found[1]], (found[2] or "").strip()
    columns = ", ".join(part.strip().rpartition(".")[2] for part in what.split(","))
    field = columns if found[1] in ("UNIQUE", "NOT NULL") else ""
    return FieldError(names.code, field, f"{names.message} ({found[0].strip()})")


def check_table(table: str, info: Sequence[tuple[Any, ...]], columns: Sequence[Column]) -> None:
    """Check that an existing table can take the columns without changing or losing values.

    Args:
        info: Name, declared type, whether not null, and default of each of its columns.

    Raises:
        UsageError: If it cannot.
    """
    types = {name.lower(): declared.upper() for name, declared, _, _ in info}
    names = {column.name.lower() for column in columns}
    missing = [column.name for column in columns if column.name.lower() not in types]
    statements.refuse_missing(table, missing)
    needed = [
        name
        for name, _, notnull, default in info
        if notnull and default is None and name.lower() not in names
    ]
    statements.refuse_unfilled(table, needed)
    for column in columns:
        declared = types[column.name.lower()]
        if column.kind in ("string", "json") and is_numeric(declared):
            raise UsageError(
                f"text does not fit column {column.name} of type {declared}",
                where=table,
                hint="name the type in a --schema, or choose another --table",
            )


UNIQUE_KEYS = """
    SELECT l.name AS index_name, i.name AS column_name, i.coll, t.type
    FROM pragma_index_list({table}) AS l
    JOIN pragma_index_xinfo(l.name) AS i
    JOIN pragma_table_info({table}) AS t ON t.cid = i.cid
    WHERE l."unique" AND NOT l.partial AND i.key
    UNION ALL SELECT '', name, 'BINARY', type FROM pragma_table_info({table}) WHERE pk"""
"""Index, column, collation and type of what is unique; a rowid's alias has no index of its own."""


def is_numeric(declared: str) -> bool:
    """Say whether a column would turn text into numbers (https://sqlite.org/datatype3.html 3.1)."""
    if "INT" in declared:
        return True
    if any(
        word in declared
        for word in ("CHAR", "CLOB", "TEXT", "BLOB", "DATE", "TIME", "JSON", "UUID")
    ):
        return False
    return bool(declared)


def text_literal(value: str) -> str:
    """Return a string as an SQL literal, where no parameter is allowed."""
    return "'" + value.replace("'", "''") + "'"
