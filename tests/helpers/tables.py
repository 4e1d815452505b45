"""What is in a database, read with another library than the one that wrote it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement. Only for files that no connection of this process holds open."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def content(path: Path, table: str) -> list[tuple[Any, ...]]:
    """Return all rows of a table, sorted."""
    return sorted(query(path, f'SELECT * FROM "{table}"'), key=repr)
