"""Where the benchmark loads to: an empty place for each command, and what is in it afterwards."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from tests.bench.data import Facts
from tests.helpers.postgres import PostgresServer, execute

FACTS = "SELECT count(*), sum(CAST(id AS BIGINT)), sum(length(name)) FROM {table}"
"""A loader may have made `id` a text column."""


@dataclass(frozen=True)
class Place:
    """An empty directory for one command, and where it shall load to.

    Attributes:
        address: As `--to` takes it; empty if nothing is stored.
    """

    folder: Path
    address: str

    @property
    def path(self) -> str:
        """The file or directory that the address names; empty for a server."""
        return "" if self.address.startswith("postgresql:") else self.address.partition(":///")[2]

    @property
    def socket(self) -> tuple[str, str]:
        """The directory of the server's socket, and the name of the database."""
        parts = urlsplit(self.address)
        return parse_qs(parts.query)["host"][0], parts.path.lstrip("/")

    def stored(self) -> Facts:
        """Return what identifies the rows of the table `users`."""
        statement = FACTS.format(table="users")
        if self.address.startswith("postgresql:"):
            with psycopg.connect(self.address) as connection:
                row = connection.execute(statement).fetchone()
        elif self.address.startswith("sqlite:"):
            with closing(sqlite3.connect(self.path)) as connection:
                row = connection.execute(statement).fetchone()
        else:
            row = self._ask_duckdb()
        rows, ids, letters = row or (0, 0, 0)
        return Facts(int(rows), int(ids or 0), int(letters or 0))

    def _ask_duckdb(self) -> tuple[int, ...] | None:
        import duckdb  # noqa: PLC0415 - an extra

        is_file = self.address.startswith("duckdb:")
        table = "users" if is_file else f"read_parquet('{self.path}/part*.parquet')"
        with duckdb.connect(self.path if is_file else ":memory:") as connection:
            return connection.execute(FACTS.format(table=table)).fetchone()


class Server:
    """A PostgreSQL server with the settings of a default installation, `fsync` included.

    Args:
        parent: Where its directory is made; the server's own user must be able to enter it.
    """

    def __init__(self, parent: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="batchimport-bench-pg-", dir=parent, ignore_cleanup_errors=True
        )
        self._server = PostgresServer(Path(self._folder.name))
        execute(self._server.new_database(), "ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        lines = (Path(self._folder.name) / "postmaster.pid").read_text().splitlines()
        self._process = psutil.Process(int(lines[0]))

    def new_database(self) -> str:
        """Return the address of an empty database."""
        return self._server.new_database()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes, also of those that have ended."""
        times = self._process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._process.children():
            with suppress(psutil.NoSuchProcess):
                took = child.cpu_times()
                total += took.user + took.system
        return total

    def settle(self) -> None:
        """Wait until no client is connected: the CPU time of a session counts when it has ended."""
        psutil.wait_procs([child for child in self._process.children() if _is_client(child)], 5)

    def drop(self, database: str) -> None:
        """Delete a database."""
        execute(self._server.new_database(), f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def stop(self) -> None:
        """Stop it and delete its files."""
        self._server.stop()
        self._folder.cleanup()


def _is_client(process: psutil.Process) -> bool:
    """Say whether a process of the server is a session: its title names the socket."""
    with suppress(psutil.NoSuchProcess, IndexError):
        return "[local]" in process.cmdline()[0]
    return False


class Destinations:
    """Makes places; a server is started when a database is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self.server: Server | None = None

    def place(self, kind: str) -> Place:
        """Return an empty place: sqlite, postgresql, duckdb, parquet, or none."""
        self._number += 1
        folder = self._folder / f"place-{self._number}"
        folder.mkdir(parents=True)
        endings = {"sqlite": "users.db", "duckdb": "users.duckdb", "parquet": "users"}
        if kind == "postgresql":
            self.server = self.server or Server(self._folder.parent)
            return Place(folder, self.server.new_database())
        return Place(folder, f"{kind}:///{folder}/{endings[kind]}" if kind in endings else "")

    def discard(self, place: Place) -> None:
        """Delete a place and what was stored there."""
        shutil.rmtree(place.folder)
        if self.server is not None and place.address and not place.path:
            self.server.drop(place.socket[1])

    def close(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.stop()
