"""A broken network between batchimport and PostgreSQL: the job ends like an unbroken run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.faults.sweep import Ending, Victim, write_source
from tests.helpers.cli import Workdir
from tests.helpers.destinations import PostgresDatabase
from tests.helpers.postgres import PostgresServer
from tests.helpers.proxy import Proxy, Weather
from tests.helpers.tracing import wait_for

BYTES = 150_000
"""About what a run of the sweep's source sends and receives."""
HASTE = ("--retry-initial", "0.01", "--retry-max", "0.1", "--max-attempts", "5")


class Afar(PostgresDatabase):
    """A database that imports reach by way of a proxy, and tests directly."""

    def __init__(self, address: str, proxy: Proxy) -> None:
        super().__init__(address)
        self._direct = address
        self.address = proxy.address(str(conninfo_to_dict(address)["dbname"]))

    def fetch(self, statement: str) -> list[tuple[object, ...]]:
        return PostgresDatabase(self._direct).fetch(statement)


@pytest.fixture(scope="module")
def kind() -> str:
    """The sink that has a network."""
    return "postgresql"


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres.socket, Weather()) as found:
        yield found


@pytest.fixture
def far(postgres: PostgresServer, proxy: Proxy, tmp_path: Path) -> Victim:
    """A job whose database is behind the proxy."""
    return Victim(tmp_path / "far", Afar(postgres.new_database(), proxy))


def test_a_slow_network(far: Victim, proxy: Proxy, whole: Ending) -> None:
    """Is slow, and that is all."""
    proxy.weather.delay_seconds = 0.002
    assert far.end() == whole
    assert proxy.passed_bytes > BYTES / 2


def cut_after(far: Victim, proxy: Proxy, passed: int) -> None:
    proxy.passed_bytes, proxy.weather.cut_after = 0, passed
    far.suffer("", *HASTE)


def test_cut_at_any_byte(far: Victim, proxy: Proxy, whole: Ending) -> None:
    """While it connects it says so; later it tries again; nothing is lost or doubled."""
    for passed in (10, 400, 3000, 8000, 20_000, 45_000):
        cut_after(far, proxy, passed)
    assert proxy.cuts >= 4
    assert far.end() == whole


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cut_at_every_kilobyte(
    postgres: PostgresServer, proxy: Proxy, tmp_path: Path, whole: Ending
) -> None:
    """A job for each."""
    for passed in range(100, BYTES, 1000):
        far = Victim(tmp_path / str(passed), Afar(postgres.new_database(), proxy))
        cut_after(far, proxy, passed)
        assert far.end() == whole, passed


def test_a_lost_reply_to_commit(far: Victim, proxy: Proxy, whole: Ending) -> None:
    """Committed, but nobody knows: done again, it finds the ledger row and stores nothing."""
    proxy.weather.lost_replies = frozenset({2, 4, 5, 9})
    ended = far.run("", *HASTE)
    assert proxy.cuts == 4
    assert ended.summary["chunks"]["retried"] == 0
    assert ended.summary["waited_seconds"] > 0
    assert far.end() == whole


def test_a_network_that_is_silent(far: Victim, proxy: Proxy, whole: Ending) -> None:
    """Nobody is told: the attempt runs out of time, and the next one succeeds."""
    proxy.weather.silent_after = 40_000
    ended = far.run("", *HASTE, "--chunk-timeout", "2")
    assert proxy.cuts == 1
    assert ended.summary["chunks"]["retried"] >= 1
    assert far.end() == whole


def crash(address: str) -> None:
    """Kill a process of the server, upon which it ends all others and recovers."""
    with psycopg.connect(address) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)


def stored_in(place: PostgresDatabase) -> int:
    """Return how many records are committed; none, while the server recovers."""
    try:
        return place.accounts()[0]
    except psycopg.OperationalError:
        return 0


def test_a_server_that_crashes_under_load(
    workdir: Workdir, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Twice, in the middle of many chunks: rows and rejects are exact."""
    write_source(tmp_path, 4000)
    addresses = postgres.new_database(), postgres.new_database()
    options = ["users.jsonl", "--infer-rows", "all", "--chunk-size", 100, "--max-attempts", 9]
    expected = workdir.run(*options, "--to", addresses[0])
    process = workdir.start("run", *options, "--to", addresses[1], "--quiet")
    place = PostgresDatabase(addresses[1])
    for stored in (300, 1200):
        wait_for(lambda stored=stored: stored_in(place) > stored)  # type: ignore[misc]
        crash(addresses[0])
        wait_for(postgres.is_up)
    process.communicate(timeout=100)
    found = workdir.run(*options, "--to", addresses[1])
    for key in ("total_items", "successful", "failed", "rejects_by_code"):
        assert found[key] == expected[key]
    place.assert_consistent("users")
    assert place.ending("users") == PostgresDatabase(addresses[0]).ending("users")


def test_a_lost_reply_to_the_claim(far: Victim, proxy: Proxy, whole: Ending) -> None:
    """The claim is made again: the job is known by then, and is the same one."""
    proxy.weather.lost_replies = frozenset({1})
    ended = far.run("", *HASTE)
    assert proxy.cuts == 1
    assert ended.summary["chunks"]["retried"] == 0
    assert far.end() == whole
