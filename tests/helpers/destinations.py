"""Destinations as a user looks at them after an import: rows, rejects, and what the ledger says."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import obstore
import polars as pl
import psycopg
import pymysql
import pytest
from pymysql.constants import ER

from batchimport.sinks.base import FORGOTTEN
from batchimport.sinks.parquet.ledger import CHUNK, rejects_in
from batchimport.sinks.parquet.sink import ParquetSink
from batchimport.sinks.parquet.store import StoreSink
from batchimport.sinks.sql.statements import LEDGER_TABLES, committed
from tests.helpers import mariadb, web
from tests.helpers.stores import ADAPTERS, frames_below

Rows = list[tuple[Any, ...]]
JOBS, CHUNKS, REJECTS = LEDGER_TABLES
SOMEBODY = "elsewhere|0|1|0"
"""An owner on another host: nobody here can say whether it lives."""


class Destination(ABC):
    """A place that records go to.

    Attributes:
        address: For `--to`.
        options: What its imports need besides.
    """

    options: tuple[str, ...] = ("--key", "id")

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def rows(self, table: str) -> Rows:
        """Return all rows in no order; none, if the table is not there yet."""

    @abstractmethod
    def rejects(self) -> Rows:
        """Return all rejects in order of record."""

    @abstractmethod
    def accounts(self) -> tuple[int, int]:
        """Return how many rows and how many rejects the ledger says there are."""

    @abstractmethod
    def hand_over(self) -> None:
        """Let the job look as if its owner were on another host."""

    @abstractmethod
    def remove(self, *, drop: bool) -> None:
        """Drop or empty the table `users`; a dataset loses its parts, or all files."""

    def ending(self, table: str) -> tuple[Rows, Rows]:
        """Return all rows and all rejects in order."""
        return sorted(self.rows(table), key=repr), self.rejects()

    def assert_consistent(self, table: str) -> None:
        """Check what must hold at every moment: the ledger accounts for all rows and rejects."""
        found = (len(self.rows(table)), len(self.rejects()))
        accounts = self.accounts()
        assert found == accounts, f"stored {found}, but the ledger says {accounts}"


class Database(Destination):
    """A destination that is asked by SQL."""

    @abstractmethod
    def fetch(self, statement: str) -> Rows:
        """Return the rows of a query; none, if a table is not there yet."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement."""

    def rows(self, table: str) -> Rows:
        return self.fetch(f'SELECT * FROM "{table}"')

    def rejects(self) -> Rows:
        columns = "record, source, line, byte_offset, stage, errors, raw"
        return self.fetch(f"SELECT {columns} FROM {REJECTS} ORDER BY record")

    def accounts(self) -> tuple[int, int]:
        found = self.fetch(f"SELECT sum(successful), sum(failed) FROM {CHUNKS}") or [(0, 0)]
        return found[0][0] or 0, found[0][1] or 0

    def hand_over(self) -> None:
        self.execute(f"UPDATE {JOBS} SET owner = '{SOMEBODY}'")

    def remove(self, *, drop: bool) -> None:
        self.execute("DROP TABLE users" if drop else "DELETE FROM users")


class File(Database):
    """A file, of which each look takes a copy: reading would tidy up what a crash left behind."""

    connect: Callable[..., Any]
    missing: type[Exception]

    @property
    def path(self) -> Path:
        return Path(self.address.partition(":///")[2])

    def fetch(self, statement: str) -> Rows:
        with TemporaryDirectory() as folder:
            for found in self.path.parent.glob(f"{self.path.name}*"):
                shutil.copy(found, folder)
            with closing(self.connect(str(Path(folder) / self.path.name))) as connection:
                try:
                    return list(connection.execute(statement).fetchall())
                except self.missing:
                    return []

    def execute(self, statement: str) -> None:
        with closing(self.connect(str(self.path))) as connection:
            connection.execute(statement)
            connection.commit()


class SqliteFile(File):
    connect = staticmethod(sqlite3.connect)
    missing = sqlite3.OperationalError


class DuckdbFile(File):
    connect = staticmethod(duckdb.connect)
    missing = duckdb.CatalogException

    def execute(self, statement: str) -> None:
        with closing(self.connect(str(self.path))) as connection:
            connection.execute(statement)


class PostgresDatabase(Database):
    def fetch(self, statement: str) -> Rows:
        with psycopg.connect(self.address) as connection:
            try:
                return list(connection.execute(statement).fetchall())  # type: ignore[call-overload]
            except psycopg.errors.UndefinedTable:
                return []

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


class MysqlDatabase(Database):
    def fetch(self, statement: str) -> Rows:
        try:
            return mariadb.fetch(self.address, statement)
        except pymysql.ProgrammingError as error:
            if error.args[0] != ER.NO_SUCH_TABLE:
                raise
            return []

    def execute(self, statement: str) -> None:
        mariadb.execute(self.address, statement)

    def cut(self) -> None:
        """End all connections to the database."""
        others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> "
        for (number,) in self.fetch(others + "CONNECTION_ID()"):
            self.execute(f"KILL {number}")


class ParquetFolder(Destination):
    """A directory; its ledger is in footers, which only the sink can read."""

    options = ()

    @property
    def path(self) -> Path:
        return Path(self.address.partition(":///")[2])

    def rows(self, table: str) -> Rows:
        del table
        assert {path.suffix for path in self.path.glob("*")} <= {".parquet"}, "no debris"
        parts = sorted(self.path.glob("part-*.parquet"))
        return [row for part in parts for row in pl.read_parquet(part).rows()]

    def rejects(self) -> Rows:
        sink = self._sink()
        found = [reject for job in self._job_ids() for reject in sink.rejects(job)]
        return [(each.record, each.to_dict()) for each in sorted(found, key=lambda r: r.record)]

    def accounts(self) -> tuple[int, int]:
        sink = self._sink()
        chunks = [row for job in self._job_ids() for row in sink.committed(job)]
        return sum(row.successful for row in chunks), sum(row.failed for row in chunks)

    def hand_over(self) -> None:
        sink = self._sink()
        for job in sink.jobs():
            schema = sink._folder.schema(sink._folder.job_path(job.job_id))
            sink._ledger.write_job(job, "users", SOMEBODY, schema)

    def remove(self, *, drop: bool) -> None:
        if drop:
            shutil.rmtree(self.path)
        for part in self.path.glob("part-*"):
            part.unlink()

    def _sink(self) -> ParquetSink:
        return ParquetSink(self.address)

    def _job_ids(self) -> list[str]:
        return self._sink()._folder.job_ids()  # those that are being forgotten, too


class ObjectStore(Destination):
    """A prefix of a bucket; its ledger is in footers, those of parts that are being removed, too."""

    options = ()

    def rows(self, table: str) -> Rows:
        """Return what a reader finds who reads all objects."""
        del table
        return [row for frame in frames_below(self.store, self.prefix) for row in frame.rows()]

    def rejects(self) -> Rows:
        found = [reject for footer in self._footers() for reject in rejects_in(footer)]
        return [(each.record, each.to_dict()) for each in sorted(found, key=lambda r: r.record)]

    def accounts(self) -> tuple[int, int]:
        sink = StoreSink(self.address)
        chunks = [committed(json.loads(footer[CHUNK])) for footer in self._footers()]
        if not sink._ledger.jobs().leaving and all(job.state != FORGOTTEN for job in sink.jobs()):
            seen = [chunk for job in sink.jobs() for chunk in sink.committed(job.job_id)]
            assert len(seen) == len(chunks)
        return sum(row.successful for row in chunks), sum(row.failed for row in chunks)

    def hand_over(self) -> None:
        def change(jobs: Any) -> bool:
            for entry in jobs.entries.values():
                entry.row["owner"] = SOMEBODY
            return True

        StoreSink(self.address)._ledger.change(change)

    def remove(self, *, drop: bool) -> None:
        """Remove the parts, or everything."""
        found = obstore.list(self.store, self.prefix.rstrip("/")).collect()
        paths = [meta["path"] for meta in found]
        obstore.delete(self.store, [path for path in paths if drop or "/part-" in path])

    @property
    def store(self) -> Any:
        return web.shared_s3().store()

    @property
    def prefix(self) -> str:
        return self.address.split("/", 3)[3] + "/"

    def _footers(self) -> list[dict[str, str]]:
        found = obstore.list(self.store, self.prefix.rstrip("/")).collect()
        paths = [
            meta["path"]
            for meta in found
            if "/part-" in meta["path"].removeprefix(self.prefix[:-1])
        ]
        files = [bytes(obstore.get(self.store, path).bytes()) for path in sorted(paths)]
        footers = [pl.read_parquet_metadata(io.BytesIO(file)) for file in files]
        return [footer for footer in footers if CHUNK in footer]


KINDS: dict[str, type[Destination]] = {
    "sqlite": SqliteFile,
    "postgresql": PostgresDatabase,
    "duckdb": DuckdbFile,
    "parquet": ParquetFolder,
    "mysql": MysqlDatabase,
    "s3": ObjectStore,
}
"""Every sink that the sweeps run over."""
SWEPT = [pytest.param(kind, marks=pytest.mark.slow) if kind == "s3" else kind for kind in KINDS]
"""The same; an object store takes requests where others take system calls, and so is swept when there
is time. Always: tests/faults/test_object_store.py."""


def make_destination(kind: str, folder: Path, postgres: Callable[[], Any]) -> Destination:
    """Return a new and empty destination.

    Args:
        postgres: Gives the server when it is asked for.
    """
    return KINDS[kind](ADAPTERS[kind].new_address(folder, postgres))
