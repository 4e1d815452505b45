"""The definition of a table as a database keeps it, made into that of another table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.sinks.sql.dialect import Dialect

_NAME = r"""(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|'(?:[^']|'')*'|[^\s("'`\[.;]+)"""
_PATH = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_TABLE = re.compile(rf"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_PATH}", re.IGNORECASE)
_INDEX = re.compile(
    rf"\s*CREATE\s+UNIQUE\s+INDEX\s+(?:IF\s+NOT\s+EXISTS\s+)?{_PATH}\s+ON\s+{_PATH}",
    re.IGNORECASE,
)


def create_like(database: Dialect, definitions: Sequence[str], other: str) -> None:
    """Create an empty table with the columns, constraints and unique indexes of another one.

    Args:
        definitions: Of the other table, and then of its indexes.
        other: The name of the new table.
    """
    name = other.rpartition(".")[2] if database.has_schemas else other
    database.run(table_named(definitions[0], database.name(other)))
    for number, definition in enumerate(definitions[1:]):
        index = index_on(definition, database.quote(f"{name}_{number}"), database.name(other))
        if index is not None:
            database.run(index)


def table_named(definition: str, name: str) -> str:
    """Return the statement that creates a table like the one that is defined.

    Args:
        name: Of the other table, as SQL.
    """
    return _TABLE.sub(lambda _: f"CREATE TABLE {name}", definition, count=1)


def index_on(definition: str, index: str, table: str) -> str | None:
    """Return the statement that creates a like unique index on another table; None if it is not unique.

    Args:
        index: Its name, as SQL, as is that of the table.
    """
    if not _INDEX.match(definition):
        return None
    return _INDEX.sub(lambda _: f"CREATE UNIQUE INDEX {index} ON {table}", definition, count=1)
