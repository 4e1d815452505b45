"""Starts that do not know of each other: what one of them saw may have changed when it claims."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from batchimport.errors import AlreadyStoredError
from batchimport.jobs.stored import refuse_stored_content
from batchimport.model import Job
from batchimport.sinks import open_sink
from batchimport.sinks.postgres.sink import _CLAIMS, PostgresSink
from batchimport.sources.opening import open_source
from tests.helpers.destinations import KINDS, Destination, make_destination
from tests.helpers.forked import Call, Started, call, call_all
from tests.helpers.postgres import PostgresServer, fetch
from tests.helpers.tracing import has_stopped, wait_for

RECORDS = 60


def stopped_at(folder: Path, fault: str, *words: str) -> Started:
    """Start a run that stops itself at a failpoint."""
    process = Started(Call(folder, ["run", "users.jsonl", "--json", "--quiet", *words], fault))
    wait_for(lambda: has_stopped(process.pid))
    return process


class Stopped:
    """A run that has found out that its job is new, and has not claimed it."""

    def __init__(self, folder: Path, address: str, *words: str) -> None:
        self.process = stopped_at(folder, "before-claim=stop", "--to", address, *words)

    def go_on(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGCONT)
        ended = self.process.end()
        return ended.code, ended.summary["status"], ended.err


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Destination:
    lines = [json.dumps({"id": number}) + "\n" for number in range(RECORDS)]
    (tmp_path / "users.jsonl").write_text("".join(lines))
    return make_destination(kind, tmp_path, lambda: request.getfixturevalue("postgres"))


def otherwise(address: str) -> str:
    """Return the same address in other words."""
    if address.startswith("mysql:"):
        return address.replace("mysql:", "mariadb:", 1)
    if "postgresql" in address:
        return address.replace("127.0.0.1", "localhost")
    if address.startswith("s3:"):
        return address + "/"
    scheme, path = address.split(":///")
    return f"{scheme}:///{path.rpartition('/')[0]}/./{path.rpartition('/')[2]}"


def _same_file(folder: Path) -> str:
    return str(folder / "users.jsonl")


def _touched(folder: Path) -> str:
    (folder / "users.jsonl").touch()
    return str(folder / "users.jsonl")


def _copy(folder: Path) -> str:
    return str(shutil.copy(folder / "users.jsonl", folder / "copy.jsonl"))


def _compressed(folder: Path) -> str:
    path = folder / "users.jsonl.gz"
    path.write_bytes(gzip.compress((folder / "users.jsonl").read_bytes()))
    return str(path)


SOURCES = (_same_file, _touched, _copy, _compressed)
"""What the other one imports."""
ALWAYS = {"postgresql": (0, 2), "parquet": (1, 3), "mysql": (0, 3), "duckdb": (0,), "s3": ()}
"""Other sinks than SQLite, and with which of these; with the others in the long sweep."""


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        pytest.param(
            kind, source, marks=[] if at in ALWAYS.get(kind, range(4)) else pytest.mark.slow
        )
        for kind in KINDS
        for at, source in enumerate(SOURCES)
    ],
)
def test_another_one_was_first(
    kind: str, place: Destination, tmp_path: Path, source: Callable[[Path], str]
) -> None:
    """Under another spelling of the address, with a state directory of its own."""
    stopped = Stopped(tmp_path, place.address)
    words = ["run", source(tmp_path), "--to", otherwise(place.address), "--table", "users"]
    words += ["--destination-wait", "0"] if kind == "duckdb" else []
    other = call(tmp_path, *words, "--state-dir", "elsewhere", "--json", "--quiet")
    code, status, error = stopped.go_on()
    if kind == "duckdb":  # the first one keeps all others out of the file
        assert (other.code, code, status) == (6, 0, "completed"), (other, error)
    else:
        found = (0, "already_completed") if source in (_same_file, _touched) else (6, "refused")
        assert (other.code, code, status) == (0, *found), (other, error)
    assert sorted(row[0] for row in place.rows("users")) == list(range(RECORDS))


def test_another_one_is_at_it(kind: str, place: Destination, tmp_path: Path) -> None:
    """It has claimed its job and stored nothing yet: a copy is known by its size, head and tail."""
    if kind == "duckdb":
        pytest.skip("one process keeps all others out of the file")
    first = stopped_at(tmp_path, "before-store=stop", "--to", place.address)
    words = ["--to", otherwise(place.address), "--table", "users", "--state-dir", "elsewhere"]
    for source in (_copy(tmp_path), _compressed(tmp_path)):
        refused = call(tmp_path, "run", source, *words)
        assert (refused.code, "another job imports this file" in refused.err) == (6, True), refused
    emptying = call(tmp_path, "run", source, *words, "--if-exists", "truncate")
    assert (emptying.code, "would be emptied" in emptying.err) == (6, True), emptying
    first.send_signal(signal.SIGCONT)
    assert first.end().code == 0
    assert len(place.rows("users")) == RECORDS


def at_once(place: Destination, folder: Path, processes: int) -> list[int]:
    """Start imports of copies of one file, each with a state directory of its own."""
    calls = []
    for at in range(processes):
        shutil.copy(folder / "users.jsonl", folder / f"copy{at}.jsonl")
        words = ["run", f"copy{at}.jsonl", "--to", place.address, "--table", "users"]
        calls.append(Call(folder, [*words, "--state-dir", f"state{at}", "--quiet"]))
    ended = call_all(calls)
    codes = sorted(each.code for each in ended)
    assert codes == [0] + [6] * (processes - 1), [(each.code, each.err) for each in ended]
    assert len(place.rows("users")) == RECORDS
    return codes


def test_copies_at_once(place: Destination, tmp_path: Path) -> None:
    """One of them is stored, the others are refused."""
    at_once(place, tmp_path, 4)


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_that_ends_while_it_is_looked_at(
    place: Destination, tmp_path: Path, looks: int
) -> None:
    """It was at work and had stored nothing; a moment later it is gone, and its rows are there."""
    first = stopped_at(tmp_path, "before-store=stop", "--to", place.address)
    looked = []

    def may_run(_: object) -> bool:
        looked.append(first.poll())
        if len(looked) < looks:
            return True
        first.send_signal(signal.SIGCONT)
        assert first.end().code == 0
        return False

    job = Job((_copy(tmp_path),), place.address, "users", on_conflict="error")
    sink, source = open_sink(place.address), open_source(job.sources, job.options)
    try:
        with pytest.raises(AlreadyStoredError, match="is in the table already"):
            refuse_stored_content(job, source, sink, sink.jobs(), may_run)
    finally:
        source.close()
        sink.close()


def test_a_claim_that_waited_sees_the_tables_of_the_other(postgres: PostgresServer) -> None:
    """PostgreSQL's sessions remember what is not there, also over the wait for a lock."""
    address = postgres.new_database()
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    found = []
    with closing(PostgresSink(address)) as sink, psycopg.connect(address) as other:
        assert not sink.exists("users")

        def claim() -> None:
            with sink.transaction():
                sink.exclude_claims()
                found.append(sink.exists("users"))

        other.execute("SELECT pg_advisory_xact_lock(%s)", (_CLAIMS,))
        claiming = threading.Thread(target=claim)
        claiming.start()
        wait_for(lambda: bool(fetch(address, waiting)))
        other.execute("CREATE TABLE users (id int)")
        other.commit()
        claiming.join()
    assert found == [True]


def test_different_jobs_into_a_new_database(kind: str, place: Destination, tmp_path: Path) -> None:
    """All of them make the ledger at once, and all of them end well."""
    if kind == "duckdb":
        pytest.skip("one process keeps all others out of the file")
    calls = []
    for at in range(6):
        (tmp_path / f"t{at}.jsonl").write_text(json.dumps({"id": at}) + "\n")
        calls.append(Call(tmp_path, ["run", f"t{at}.jsonl", "--to", place.address, "--quiet"]))
    ended = call_all(calls)
    assert [each.code for each in ended] == [0] * 6, [each.err for each in ended]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_rounds(
    kind: str, place: Destination, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By luck, what the others do by failpoints."""
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(tmp_path / "users.jsonl", folder)
        fresh = make_destination(kind, folder, lambda: request.getfixturevalue("postgres"))
        at_once(fresh, folder, 6)
