"""A destination that is away or locked: the job waits, says so, and loses neither records nor attempts."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from psycopg.conninfo import conninfo_to_dict

from batchimport.errors import TransientError
from batchimport.sinks.mysql.sink import MysqlSink
from batchimport.sinks.postgres.sink import PostgresSink
from tests.faults.sweep import write_source
from tests.helpers import mariadb
from tests.helpers.cli import Workdir
from tests.helpers.forked import Started
from tests.helpers.postgres import PostgresServer, fetch
from tests.helpers.proxy import Proxy, Weather
from tests.helpers.tracing import has_stopped, wait_for

RECORDS = 1000
RUN = ("run", "users.jsonl", "--infer-rows", "all", "--chunk-size", 100, "--json")


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres.socket, Weather()) as found:
        yield found


def read_to(process: Started, words: str) -> str:
    """Read what a command says until a line has these words; return that line."""
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"never said {words!r}: {said}, {process.stdout.read()}")


def stopped_at(workdir: Workdir, point: str, *arguments: object) -> Started:
    """Start an import that stops itself at a failpoint."""
    process = workdir.start(*RUN, *arguments, BATCHIMPORT_FAILPOINTS=point)
    wait_for(lambda: has_stopped(process.pid))
    return process


def lose(proxy: Proxy, process: Started) -> None:
    """Take the server away from a stopped import, and let it go on."""
    proxy.go_away()
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "point", ["after-rows=stop@3", "before-commit=stop@3", "before-finish=stop"]
)
def test_a_server_that_comes_back(
    workdir: Workdir, postgres: PostgresServer, proxy: Proxy, point: str
) -> None:
    """One wait, in a chunk or at the end; it is said, counted, and costs no attempt."""
    write_source(workdir.path, RECORDS)
    address = postgres.new_database()
    far = proxy.address(str(conninfo_to_dict(address)["dbname"]))
    process = stopped_at(workdir, point, "--to", far, "--max-attempts", 1)
    lose(proxy, process)
    line = read_to(process, "waiting for")
    assert f"PostgreSQL at 127.0.0.1:{proxy.port}" in line
    proxy.weather.is_away = False
    read_to(process, "the destination is back")
    ended = process.end()
    assert ended.code == 3
    assert ended.summary["total_processed"] == RECORDS
    assert ended.summary["chunks"] == {"committed": 10, "retried": 0, "failed": 0, "bisected": 0}
    assert ended.summary["waited_seconds"] > 2
    assert fetch(address, "SELECT count(*) FROM users")[0][0] == ended.summary["successful"]


def test_a_server_that_stays_away(workdir: Workdir, postgres: PostgresServer, proxy: Proxy) -> None:
    """After the time that was given the job ends with 1, once, and can be continued."""
    write_source(workdir.path, RECORDS)
    far = proxy.address(str(conninfo_to_dict(postgres.new_database())["dbname"]))
    process = stopped_at(workdir, "after-rows=stop@3", "--to", far, "--destination-wait", 3)
    lose(proxy, process)
    ended = process.end()
    assert ended.code == 1
    assert ended.summary["status"] == "failed"
    assert "--destination-wait" in ended.summary["error"]
    assert ended.summary["waited_seconds"] >= 3
    assert ended.summary["chunks"]["retried"] == 0
    proxy.weather.is_away = False
    again = workdir.call(*RUN, "--to", far)
    assert (again.code, again.summary["total_processed"]) == (3, RECORDS)


def test_connections_that_are_not_in_use_are_lost_together(postgres: PostgresServer) -> None:
    """Of a server that was restarted no more than one chunk hears by a connection from before."""
    address = postgres.new_database()
    with closing(PostgresSink(address)) as sink:
        lend_and_cut(
            sink._chunk_connection,
            lambda: fetch(
                address,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            ),
            lambda connection: connection.execute("SELECT 1"),
        )


def test_sessions_that_are_not_in_use_are_lost_together() -> None:
    """The same of MariaDB."""
    address = mariadb.server().new_database()

    def cut() -> None:
        own = "SELECT id FROM information_schema.processlist WHERE db = database() "
        for (number,) in mariadb.fetch(address, f"{own} AND id <> connection_id()"):
            mariadb.execute(address, f"KILL {number}")

    with closing(MysqlSink(address)) as sink:
        lend_and_cut(sink._chunk_connection, cut, lambda session: session.run("SELECT 1"))


def lend_and_cut(
    lend: Callable[[], AbstractContextManager[Any]],
    cut: Callable[[], object],
    use: Callable[[Any], object],
) -> None:
    """Lend three connections at once, cut them while they lie idle, and use one after another."""
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(lend())
    cut()
    with pytest.raises(TransientError), lend() as connection:
        use(connection)
    with lend() as connection:
        use(connection)


def test_an_interrupt_ends_the_wait(
    workdir: Workdir, postgres: PostgresServer, proxy: Proxy
) -> None:
    """A signal is not kept waiting: the job is interrupted, and can be continued."""
    write_source(workdir.path, RECORDS)
    far = proxy.address(str(conninfo_to_dict(postgres.new_database())["dbname"]))
    process = stopped_at(workdir, "after-rows=stop@3", "--to", far)
    lose(proxy, process)
    read_to(process, "waiting for")
    process.send_signal(signal.SIGINT)
    ended = process.end()
    assert (ended.code, ended.summary["status"]) == (5, "interrupted")
    proxy.weather.is_away = False
    assert workdir.call(*RUN, "--to", far).code == 3


def test_a_server_that_is_not_up_yet_is_waited_for(
    workdir: Workdir, postgres: PostgresServer, proxy: Proxy
) -> None:
    """Also by the first connection: a job may be started beside its server."""
    write_source(workdir.path, RECORDS)
    far = proxy.address(str(conninfo_to_dict(postgres.new_database())["dbname"]))
    proxy.go_away()
    process = workdir.start(*RUN, "--to", far)
    line = read_to(process, "waiting for")
    assert f"PostgreSQL at 127.0.0.1:{proxy.port}" in line
    proxy.weather.is_away = False
    assert process.end().code == 3


def test_a_server_that_never_comes_is_waited_for_as_long_as_was_said(workdir: Workdir) -> None:
    """Then the error says where and why."""
    write_source(workdir.path, 10)
    ended = workdir.call(
        *RUN, "--to", "postgresql://u:secret@127.0.0.1:1/db", "--destination-wait", 0.5
    )
    assert ended.code == 1
    assert "PostgreSQL at 127.0.0.1:1: cannot connect: Connection refused" in ended.err
    assert "--destination-wait" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize("place", ["no-such-host.invalid", "no such database"])
def test_what_no_waiting_helps_is_not_waited_for(
    workdir: Workdir, postgres: PostgresServer, place: str
) -> None:
    """A host that nobody knows, a server that answers and refuses."""
    write_source(workdir.path, 10)
    given = conninfo_to_dict(postgres.new_database())
    address = f"postgresql:///no_such_database?host={given['host']}&user={given['user']}"
    if "invalid" in place:
        address = f"postgresql://u@{place}/db"
    ended = workdir.call(*RUN, "--to", address)
    assert ended.code == 1
    assert "waiting" not in ended.err


def _lock_rollback(path: Path) -> Any:
    own = sqlite3.connect(path, isolation_level=None)
    own.execute("CREATE TABLE IF NOT EXISTS other (a)")
    own.execute("BEGIN EXCLUSIVE")
    return own


def _lock_wal(path: Path) -> Any:
    own = sqlite3.connect(path, isolation_level=None)
    own.execute("PRAGMA journal_mode = WAL")
    own.execute("CREATE TABLE IF NOT EXISTS other (a)")
    own.execute("BEGIN IMMEDIATE")
    return own


LOCKS = {
    "sqlite, rollback": ("sqlite", _lock_rollback),
    "sqlite, wal": ("sqlite", _lock_wal),
    "duckdb": ("duckdb", duckdb.connect),
}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_file_that_is_locked(workdir: Workdir, lock: str) -> None:
    """The job says who has it and waits; then it imports everything."""
    scheme, take = LOCKS[lock]
    write_source(workdir.path, RECORDS)
    with closing(take(workdir.path / "d.db")):
        process = workdir.start(*RUN, "--to", f"{scheme}:///d.db")
        line = read_to(process, "waiting for")
        assert str(os.getpid()) in line
    ended = process.end()
    assert (ended.code, ended.summary["total_processed"]) == (3, RECORDS)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_file_that_stays_locked(workdir: Workdir, lock: str) -> None:
    """After the time that was given the job is refused, and who has the file is said."""
    scheme, take = LOCKS[lock]
    write_source(workdir.path, RECORDS)
    with closing(take(workdir.path / "d.db")):
        ended = workdir.call(*RUN, "--to", f"{scheme}:///d.db", "--destination-wait", 0.5)
    assert (ended.code, ended.summary["status"]) == (6, "refused")
    assert str(os.getpid()) in ended.summary["error"]


def test_a_lock_in_the_middle_of_a_job(workdir: Workdir) -> None:
    """Another program that writes to the file between two chunks costs no attempt."""
    write_source(workdir.path, RECORDS)
    process = stopped_at(
        workdir, "before-store=stop@3", "--to", "sqlite:///d.db", "--max-attempts", 1
    )
    with closing(sqlite3.connect(workdir.path / "d.db", isolation_level=None)) as own:
        own.execute("BEGIN IMMEDIATE")
        process.send_signal(signal.SIGCONT)
        read_to(process, "waiting for")
    ended = process.end()
    assert (ended.code, ended.summary["total_processed"]) == (3, RECORDS)
    assert ended.summary["chunks"]["retried"] == 0
