"""Destinations as a user looks at them after an import: rows, rejects, and what the ledger says."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import zlib
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl
import psycopg

from batchimport.sinks.sql import LEDGER_TABLES
from tests.helpers.postgres import PostgresServer

Rows = list[tuple[Any, ...]]
JOBS, CHUNKS, REJECTS = LEDGER_TABLES


class Destination(ABC):
    """A place that records go to; `address` is for `--to`."""

    address: str
    keeps_keys = True
    """Whether columns can be unique."""

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


class DuckdbFile(Destination):
    """A file, of which each look takes a copy, as of SQLite's."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, f"duckdb:///{path}"

    def fetch(self, statement: str) -> Rows:
        with TemporaryDirectory() as folder:
            for found in self.path.parent.glob(f"{self.path.name}*"):
                shutil.copy(found, folder)
            with closing(duckdb.connect(Path(folder) / self.path.name)) as connection:
                try:
                    return connection.execute(statement).fetchall()
                except duckdb.CatalogException:
                    return []

    def execute(self, statement: str) -> None:
        with closing(duckdb.connect(self.path)) as connection:
            connection.execute(statement)


class ParquetDirectory(Destination):
    """A directory of Parquet files, read by DuckDB; its ledger is in the footers."""

    keeps_keys = False

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, f"parquet:///{path}"

    def fetch(self, statement: str) -> Rows:
        """Return the rows of a query, in which the dataset has the name `users`."""
        if not any(self.path.glob("*.parquet")):
            return []
        with closing(duckdb.connect()) as connection:
            connection.execute(
                f"CREATE VIEW users AS SELECT * FROM read_parquet('{self.path}/*.parquet')"
            )
            return connection.execute(statement).fetchall()

    def execute(self, statement: str) -> None:
        raise NotImplementedError(statement)

    def ending(self, table: str) -> tuple[Rows, Rows]:
        rejects = [row[1:] for part in self._parts() for row in self._rejects(part)]
        return sorted(self.fetch(f'SELECT * FROM "{table}"'), key=repr), rejects

    def assert_consistent(self, table: str) -> None:
        for part in self._parts():
            row = json.loads(pl.read_parquet_metadata(part)["batchimport.chunk"])
            found = (pl.read_parquet(part).height, len(self._rejects(part)))
            assert found == (row[7], row[8]), f"{part.name} has {found}, its ledger row says {row}"
        assert {path.suffix for path in self.path.glob("*")} <= {".parquet"}

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    def _rejects(self, part: Path) -> Rows:
        packed = pl.read_parquet_metadata(part).get("batchimport.rejects")
        rows = json.loads(zlib.decompress(base64.b64decode(packed))) if packed else []
        return [tuple(row[:8]) for row in rows]

    def hand_over(self) -> None:
        (path,) = self.path.glob("_job-*.parquet")
        facts = json.loads(pl.read_parquet_metadata(path)["batchimport.job"])
        facts |= {"owner": "elsewhere|0|1|0"}
        pl.read_parquet(path).write_parquet(path, metadata={"batchimport.job": json.dumps(facts)})


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
    if kind == "duckdb":
        return DuckdbFile(folder / "users.duckdb")
    if kind == "parquet":
        return ParquetDirectory(folder / "out")
    server: PostgresServer = postgres()
    return PostgresDatabase(server.new_database())


KINDS = ("sqlite", "postgresql")
"""Sinks that the long sweeps run over."""
ALL_KINDS = (*KINDS, "duckdb", "parquet")
