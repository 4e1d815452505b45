"""What is peculiar to MySQL and MariaDB: their types, their catalogue, and what their errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.errors import (
    BatchImportError,
    DataError,
    DestinationAwayError,
    DestinationLockedError,
    DestinationNotUpError,
    FatalError,
    TransientError,
)
from batchimport.model import FieldError
from batchimport.sinks.sql.target import TableColumn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pymysql

    from batchimport.schema import Kind
    from batchimport.sinks.sql.target import Family, Rows

LONG_TEXT = "LONGTEXT CHARACTER SET utf8mb4"
TYPES: dict[Kind, str] = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "string": LONG_TEXT,
    "date": "DATE",
    "date-time": "DATETIME(6)",
    "uuid": "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin",
    "json": "JSON",
}
KEY_CHARACTERS = 255
"""Of a string in the key of a table that is made: three of them fit into an index of InnoDB."""

# -- errors -----------------------------------------------------------------------------------

_CODES = {
    1062: "unique",
    1586: "unique",
    1048: "not_null",
    1263: "not_null",
    1364: "not_null",
    1216: "foreign_key",
    1452: "foreign_key",
    3819: "check",
    4025: "check",
    1526: "check",  # no partition for the row
    1406: "too_long",
    1118: "too_long",  # the row
    1301: "too_long",
    1713: "too_long",
    1264: "out_of_range",
    1367: "out_of_range",
    1690: "out_of_range",
    1265: "type",
    1292: "type",
    1366: "type",
    1411: "type",
    1416: "type",
    3140: "type",  # JSON
    3141: "type",
    3156: "type",
    3157: "type",  # JSON that is nested too deeply
    1644: "trigger",  # SIGNAL
    1242: "trigger",
    1172: "trigger",
    1329: "trigger",
}
"""By the number of an error that a row may cause: the code of its reject."""
UNIQUE = frozenset({1062, 1586})
_AWAY = frozenset({0, 1040, 1047, 1053, 1080, 1152, 1158, 1159, 1160, 1161, 1203, 1927})
_CLIENT = range(2000, 3000)
"""Numbers of the driver: it is not connected any more."""
_LOCKED = frozenset({1205, 3572})
_TRANSIENT = frozenset({1213, 1020, 1060, 1317, 1412, 1614, 1615, 1637, 1969, 3024, 3101})
_HINTS = {
    1044: "grant the user what it needs in this database",
    1045: "check user and password; MYSQL_PWD may hold the password",
    1049: "create the database first, or name another one",
    1142: "grant the user what it needs; --ledger-schema moves the ledger to another database",
    1143: "grant the user what it needs",
    1227: "grant the user what it needs",
    1698: "check user and password; MYSQL_PWD may hold the password",
    1059: "names have at most 64 characters: rename the key with --transform or --sql",
    1166: "rename the key with --transform or --sql",
    1071: "make the table yourself, with shorter key columns: strings of --key get "
    f"{KEY_CHARACTERS} characters each",
    1117: "name the columns that you want in a --schema: other keys are kept in the column _extra",
    1021: "make room, then run the same command again",
    1114: "make room, then run the same command again",
    1153: "raise max_allowed_packet of the server",
    1290: "connect to a server that may be written",
    1792: "connect to a server that may be written",
    1836: "connect to a server that may be written",
    1665: "set binlog_format of the server to ROW or MIXED",
    3750: "make the table yourself, with a primary key; or name one with --key",
    3948: "switch local_infile on at the server",
}
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \((.+?)\)")


def number_of(error: pymysql.MySQLError) -> int:
    """Return the number of an error; 0 if the driver gives none, which means a lost connection."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0


def text_of(error: pymysql.MySQLError) -> str:
    """Return the first line of an error's message."""
    text = str(error.args[1] if len(error.args) > 1 else error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def is_of_a_row(error: pymysql.MySQLError) -> bool:
    """Say whether a row may have caused an error."""
    return number_of(error) in _CODES


def translate(error: pymysql.MySQLError, where: str) -> BatchImportError:
    """Return the error of ours that a driver error means, by its number."""
    number, text = number_of(error), text_of(error)
    if number in _CODES:
        return DataError(text)
    if number in _LOCKED:
        return DestinationLockedError(
            "another transaction holds a lock on the table",
            where=where,
            hint="wait for it, or end it; --destination-wait says how long a run waits",
        )
    if number in _AWAY or number in _CLIENT:
        message = text if number else "the connection is lost"
        return DestinationAwayError(message, where, was_connected=True)
    if number in _TRANSIENT:
        return TransientError(text, where=where)
    return FatalError(f"the server says: {text} ({number})", where=where, hint=_HINTS.get(number))


def opening(error: pymysql.MySQLError, server: str, where: str) -> BatchImportError:
    """Return the error of ours that a failed connection means."""
    ours = translate(error, where)
    if not isinstance(ours, DestinationAwayError):
        return ours
    cause = getattr(error, "original_exception", None)
    may_come_up = isinstance(cause, ConnectionRefusedError | FileNotFoundError)  # no such socket
    kind = DestinationNotUpError if may_come_up else DestinationAwayError
    return kind(f"cannot connect: {ours.message}", server, "check the address and the server")


def reason(
    error: pymysql.MySQLError, names: Sequence[str], indexes: Mapping[str, Sequence[str]]
) -> FieldError:
    """Return the reason why a row was refused.

    Args:
        names: Columns that were written.
        indexes: Columns of the table's indexes, by their names.
    """
    number, text = number_of(error), text_of(error)
    if number in UNIQUE:
        return FieldError("unique", ", ".join(indexes.get(index_of(error), ())), text)
    parents = _FOREIGN_KEY.search(text)
    if parents:
        field = parents[1].replace("`", "")
    else:
        field = next((n for n in names if f"'{n}'" in text or f"`{n}`" in text), "")
    return FieldError(_CODES[number], field, text)


def index_of(error: pymysql.MySQLError) -> str:
    """Return the name of the index in the error of a key that is there already."""
    quoted = _QUOTED.findall(text_of(error))
    return str(quoted[-1]).rpartition(".")[2] if quoted else ""


# -- the table --------------------------------------------------------------------------------


def place_of(table: str) -> tuple[str | None, str]:
    """Return a table's database, None for that of the connection, and its name there."""
    database, dot, name = table.partition(".")
    return (database, name) if dot and database and name else (None, table)


def unique_indexes(shown: Rows) -> dict[str, dict[str, bool]]:
    """Return the columns of each unique index, given what SHOW INDEX shows.

    Each column has whether its whole value is in the index. An expression has an empty name.
    """
    found: dict[str, dict[str, bool]] = {}
    for row in shown:
        if not row[1]:
            found.setdefault(row[2], {})[row[4] or ""] = bool(row[4]) and not row[7]
    return found


_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_EXACT = frozenset({"decimal", "bigint unsigned"})
_NUMBERS = _INTEGERS | _EXACT | {"float", "double"}
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_SPATIAL = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
    | {"multipolygon", "geometrycollection", "geomcollection", "vector"}
)
_FAMILIES: dict[str, Family] = {
    "bool": "boolean",
    "bit(1)": "boolean",
    "date": "date",
    "datetime": "timestamp",
    "timestamp": "timestamp",
}
_TAKEN: dict[Kind, frozenset[str]] = {
    "integer": _NUMBERS
    | _TEXTS
    | {"bool", "bit", "bit(1)", "date", "year", "datetime", "timestamp"},
    "number": _NUMBERS | _TEXTS,
    "boolean": _INTEGERS | _TEXTS | {"bool", "bit(1)"},
    "json": _TEXTS | {"json", "decimal"},
}
"""Types that take a kind of column. Strings go into every type, but into shapes: each type reads them
strictly, and refuses the row if they do not have its form."""
_IS_COMPUTED = re.compile(r"\b(VIRTUAL|STORED|PERSISTENT)\b")


@dataclass(frozen=True, slots=True)
class MysqlColumn(TableColumn):
    """A column of a MySQL table.

    Attributes:
        base: Its type without length; `bool` for tinyint(1), `json` also where that is a text with
            a check.
        collation: Of a text, else empty.
        is_numbered: The server numbers its rows (AUTO_INCREMENT).
    """

    base: str
    collation: str
    is_numbered: bool

    @staticmethod
    def of(row: Sequence[str | None], checked: bool) -> MysqlColumn:
        """Return the column that SHOW FULL COLUMNS describes by a row.

        Args:
            checked: A check allows nothing but JSON.
        """
        name, declared, collation, null, _, default, extra = (each or "" for each in row[:7])
        is_numbered = "auto_increment" in extra.lower()
        is_computed = bool(_IS_COMPUTED.search(extra))
        is_filled = null == "YES" or row[5] is not None or is_numbered or is_computed
        del default
        base = "json" if checked else _base(declared)
        return MysqlColumn(name, declared, is_filled, is_computed, base, collation, is_numbered)

    @property
    def is_exact(self) -> bool:
        """Say whether it holds numbers that a double or 64 bits would change."""
        return self.base in _EXACT

    @property
    def family(self) -> Family:
        """Say what it holds, as far as the server is to be given it read."""
        if self.base in _TEXTS:
            return "text"
        if self.base in _INTEGERS:
            return "integer"
        return _FAMILIES.get(self.base, "other")

    def takes(self, kind: Kind) -> bool:
        """Say whether values of this kind fit the type; strings are read strictly."""
        if self.base in _SPATIAL:
            return False
        if kind == "date-time" and self.base == "date":
            return False
        return self.base in _TAKEN[kind] if kind in _TAKEN else True


def _base(declared: str) -> str:
    """Return a type without its length: `int(10) unsigned` is `int`."""
    if declared in ("tinyint(1)", "bit(1)"):
        return "bool" if declared == "tinyint(1)" else declared
    words = re.sub(r"\(.*?\)", "", declared).split()
    if words[0] == "bigint" and "unsigned" in words:  # more than 64 bits with a sign
        return "bigint unsigned"
    return words[0]
