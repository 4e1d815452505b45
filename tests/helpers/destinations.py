"""Destinations as a user looks at them after an import: rows, rejects, and what the ledger says."""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from batchimport.sinks.sql import CHUNKS, JOBS, REJECTS
from tests.helpers.postgres import PostgresServer

Rows = list[tuple[Any, ...]]


class Destination(ABC):
    """A place that records go to; `address` is for `--to`."""

    address: str

    @abstractmethod
    def fetch(self, statement: str) -> Rows:
        """Return the rows of a query; nothing, if a table is not there yet."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement."""

    def ending(self, table: str) -> tuple[Rows, Rows]:
        """Return all rows and all rejects in order."""
        rejects = (
            f"SELECT record, source, line, byte_offset, stage, errors, raw FROM {REJECTS} "
            "ORDER BY record"
        )
        return sorted(self.fetch(f'SELECT * FROM "{table}"'), key=repr), self.fetch(rejects)

    def assert_consistent(self, table: str) -> None:
        """Check what must hold at every moment: the ledger accounts for all rows and rejects."""
        ledger = self.fetch(f"SELECT sum(successful), sum(failed) FROM {CHUNKS}") or [(0, 0)]
        rows = self.fetch(f'SELECT count(*) FROM "{table}"') or [(0,)]
        rejects = self.fetch(f"SELECT count(*) FROM {REJECTS}") or [(0,)]
        found = (rows[0][0], rejects[0][0])
        accounted = tuple(number or 0 for number in ledger[0])
        assert found == accounted, f"stored {found}, but the ledger says {accounted}"

    def hand_over(self) -> None:
        """Let the job look as if its owner were on another host."""
        self.execute(f"UPDATE {JOBS} SET owner = 'elsewhere|0|1|0'")


class SqliteFile(Destination):
    """A file, of which each look takes a copy: reading would tidy up what a crash left behind."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, f"sqlite:///{path}"

    def fetch(self, statement: str) -> Rows:
        with TemporaryDirectory() as folder:
            for found in self.path.parent.glob(f"{self.path.name}*"):
                shutil.copy(found, folder)
            with closing(sqlite3.connect(Path(folder) / self.path.name)) as connection:
                try:
                    return connection.execute(statement).fetchall()
                except sqlite3.OperationalError as error:
                    if "no such table" not in str(error):
                        raise
                    return []

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)


class PostgresDatabase(Destination):
    """A database of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def fetch(self, statement: str) -> Rows:
        with psycopg.connect(self.address) as connection:
            try:
                return connection.execute(statement).fetchall()  # type: ignore[call-overload, no-any-return]
            except psycopg.errors.UndefinedTable:
                return []

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


def make_destination(kind: str, folder: Path, postgres: Any) -> Destination:
    """Return a new and empty destination.

    Args:
        postgres: Gives the server when it is asked for.
    """
    if kind == "sqlite":
        return SqliteFile(folder / "users.db")
    server: PostgresServer = postgres()
    return PostgresDatabase(server.new_database())


KINDS = ("sqlite", "postgresql")
"""Every sink that the sweeps run over."""
