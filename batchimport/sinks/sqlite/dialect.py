"""What is peculiar to SQLite: its types, its catalogue, and what its errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adbc_driver_manager import AdbcStatusCode

from batchimport.errors import (
    BatchImportError,
    DataError,
    DestinationLockedError,
    FatalError,
    UsageError,
)
from batchimport.model import FieldError
from batchimport.sinks.sql.target import TableColumn
from batchimport.system import lock_holders

if TYPE_CHECKING:
    from pathlib import Path

    from adbc_driver_manager import Error as DriverError

    from batchimport.schema import Kind
    from batchimport.sinks.sql.target import Family

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
_PREFIX = re.compile(
    r"^[A-Z_]+: (?:\[SQLite\] )?"
    r"(?:failed to execute query: |Failed to reset statement: |Failed to prepare query: )?"
)
"""What the driver puts before SQLite's message."""
_CONSTRAINT = re.compile(r"(UNIQUE|NOT NULL|CHECK|FOREIGN KEY) constraint failed(?:: (.+))?")
_FATAL = {
    "disk is full": ("the disk is full", "make room, then run the same command again"),
    "disk I/O error": (
        "the disk does not take what SQLite writes",
        "make room or check the disk, then run the same command again",
    ),
    "unable to open": (
        "the database cannot be opened",
        "check its directory, and the limit of open files (ulimit -n)",
    ),
    "readonly": ("the database cannot be written", "check its mode"),
    "read-only": ("the database cannot be written", "check its mode"),
}
"""By a part of SQLite's message, when the job cannot go on: our message and hint."""
_STRICT = re.compile(r"cannot store \w+ value in \w+ column (.+)|datatype mismatch")


def translate(error: DriverError, path: Path) -> BatchImportError:
    """Return the error of ours that a driver error means.

    The driver passes on one result code: that of a constraint, which triggers that raise have, too.
    Their texts are the user's. All others are recognised by SQLite's fixed messages. Of a row that is
    not the first of several, no code is known.
    """
    text = _PREFIX.sub("", str(error)).partition("\nquery: ")[0]
    is_constraint = error.status_code == AdbcStatusCode.INTEGRITY
    if is_constraint or _CONSTRAINT.match(text) or _STRICT.search(text):
        return DataError(text)
    if "locked" in text or "busy" in text:
        holders = lock_holders(path, path.with_name(path.name + "-shm"))
        return DestinationLockedError(
            f"the database is locked by {' and '.join(holders) or 'another program'}",
            where=str(path),
            hint="wait for it, or stop it; --destination-wait says how long a run waits",
        )
    if "not a database" in text:
        return UsageError("is not an SQLite database", where=str(path), hint="choose another --to")
    if "reserved for internal use" in text:
        return UsageError(
            "names that begin with sqlite_ are SQLite's own", "--table", hint="choose another one"
        )
    for words, (message, hint) in _FATAL.items():
        if words in text:
            return FatalError(message, where=str(path), hint=hint)
    return FatalError(f"SQLite says: {text}", where=str(path))


_CODES = {
    "UNIQUE": ("unique", "another row has this value"),
    "NOT NULL": ("not_null", "may not be null"),
    "CHECK": ("check", "breaks the table's check"),
    "FOREIGN KEY": ("foreign_key", "refers to a row that is not there"),
}
"""By the constraint that SQLite names: our code and message."""


def field_error(error: DataError) -> FieldError:
    """Return the reason why a row was refused: code, column, and SQLite's own message."""
    constraint = _CONSTRAINT.match(error.message)
    if not constraint:
        code = "type" if _STRICT.search(error.message) else "trigger"
        return FieldError(code, "", error.message[:500])
    (code, message), where = _CODES[constraint[1]], (constraint[2] or "").strip()
    columns = ", ".join(part.strip().rpartition(".")[2] for part in where.split(","))
    field = columns if constraint[1] in ("UNIQUE", "NOT NULL") else ""
    return FieldError(code, field, f"{message} ({constraint[0].strip()})")


def is_conflict_in(table: str, error: DataError) -> bool:
    """Say whether a row has the key of another one of this table, not of one that a trigger fills."""
    constraint = _CONSTRAINT.match(error.message)
    if not constraint or constraint[1] != "UNIQUE":
        return False
    where = (constraint[2] or "").lower()
    return where.startswith((f"{table.lower()}.", "index "))


@dataclass(frozen=True, slots=True)
class SqliteColumn(TableColumn):
    """A column of an SQLite table."""

    def takes(self, kind: Kind) -> bool:
        """Say whether values fit: SQLite stores any, but would turn some JSON into numbers."""
        return not (kind == "json" and is_numeric(self.type_name))

    @property
    def family(self) -> Family:
        """Say what it is meant to hold, by the rules of affinity and by the names of its type."""
        declared = self.type_name
        if "INT" in declared:
            return "integer"
        if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
            return "text"
        if "BOOL" in declared:
            return "boolean"
        if "DATE" in declared and "TIME" not in declared:
            return "date"
        return "number" if is_numeric(declared) else "other"


CATALOGUE = """
    SELECT name, upper(type),
        NOT "notnull" OR dflt_value IS NOT NULL OR hidden OR pk AND upper(type) = 'INTEGER'
        AND NOT EXISTS (SELECT 1 FROM pragma_index_list({table}) WHERE origin = 'pk'),
        hidden > 1
    FROM pragma_table_xinfo({table})"""
"""Name, type, whether it may be left out, whether it is generated. A primary key of type INTEGER
without an index is the row's own number, which SQLite gives to a row that comes without."""


UNIQUE_KEYS = """
    SELECT l.name AS index_name, i.name AS column_name, i.coll, t.type
    FROM pragma_index_list({table}) AS l
    JOIN pragma_index_xinfo(l.name) AS i
    JOIN pragma_table_info({table}) AS t ON t.cid = i.cid
    WHERE l."unique" AND NOT l.partial AND i.key
    UNION ALL SELECT '', name, 'BINARY', type FROM pragma_table_info({table}) WHERE pk"""
"""Index, column, collation and type of the unique columns; an alias of the rowid has no index."""


FOREIGN_KEYS = """
    SELECT f.id, f."table", f."from", coalesce(f."to", p.name)
    FROM pragma_foreign_key_list({table}) AS f
    LEFT JOIN pragma_table_info(f."table") AS p ON p.pk = f.seq + 1 ORDER BY f.id, f.seq"""
"""Number, parent table, column and the parent's column; by default that of its primary key."""


REFERRED_TO = """
    SELECT m.name, f.id, coalesce(f."to", p.name)
    FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS f
    LEFT JOIN pragma_table_info({table}) AS p ON p.pk = f.seq + 1
    WHERE m.type = 'table' AND lower(f."table") = lower({table}) AND lower(m.name) <> lower({table})
    ORDER BY m.name, f.id, f.seq"""
"""Child table, number of its foreign key, and the column of this table that it refers to."""


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
