"""Several processes on one job: one of them imports it, and everything is stored once."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from batchimport.sinks.duckdb.file import create_file
from tests.faults.sweep import Ending, Victim, new_victim
from tests.helpers.cli import Workdir
from tests.helpers.destinations import Database, MysqlDatabase
from tests.helpers.forked import Call, Started, call_all
from tests.helpers.tracing import has_stopped, wait_for


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        "postgresql",
        pytest.param("duckdb", marks=pytest.mark.slow),
        pytest.param("parquet", marks=pytest.mark.slow),
        pytest.param("mysql", marks=pytest.mark.slow),
        pytest.param("s3", marks=pytest.mark.slow),
    ],
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start_at_once(victim: Victim, processes: int, *, apart: bool) -> list[int]:
    """Run the same job in many processes.

    Args:
        apart: Each has a state directory of its own, so that only the destination can tell.
    """
    calls = [
        Call(victim.folder, victim.words(*(["--state-dir", f"state{at}"] if apart else [])))
        for at in range(processes)
    ]
    ended = call_all(calls)
    assert {each.code for each in ended} <= {3, 6}, [(each.code, each.err) for each in ended]
    victim.destination.assert_consistent("users")
    return [each.code for each in ended]


def test_ten_at_once(victim: Victim, whole: Ending) -> None:
    """One works, the others leave with 6, or find it completed."""
    assert 3 in start_at_once(victim, 10, apart=False)
    assert victim.end() == whole


def test_four_that_know_nothing_of_each_other(victim: Victim, whole: Ending) -> None:
    """With state directories of their own the destination itself tells them apart."""
    start_at_once(victim, 4, apart=True)
    assert victim.end() == whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("apart", [False, True])
def test_fifty_rounds(
    kind: str, whole: Ending, tmp_path: Path, request: pytest.FixtureRequest, apart: bool
) -> None:
    """Ten processes each."""
    for number in range(50):
        victim = new_victim(kind, tmp_path / str(number), request)
        start_at_once(victim, 10, apart=apart)
        assert victim.end() == whole, number


def test_a_new_database_that_all_make_is_whole(tmp_path: Path) -> None:
    """Whoever is told that there is a DuckDB file finds a complete one."""
    together = Barrier(8)

    def make(path: Path) -> bytes:
        together.wait()
        create_file(path)
        return path.read_bytes()

    with ThreadPoolExecutor(together.parties) as pool:
        for number in range(10):
            found = set(pool.map(make, [tmp_path / str(number)] * together.parties))
            assert [len(each) for each in found] == [3 * 4096]


class Stopped:
    """An owner that was stopped before it stores its second chunk."""

    def __init__(self, victim: Victim) -> None:
        words = victim.words("--max-parallel", 1)
        self.process = Started(Call(victim.folder, words, "before-store=stop@2"))
        wait_for(lambda: has_stopped(self.process.pid))

    def wake_up(self) -> tuple[int, str]:
        """Let it go on, and return how it ends."""
        self.process.send_signal(signal.SIGCONT)
        ended = self.process.end()
        return ended.code, ended.err


def take_over(victim: Victim) -> Any:
    """Run the job elsewhere, while its owner is stopped and its connections are lost."""
    if isinstance(victim.destination, Database) and "postgresql:" in victim.destination.address:
        victim.destination.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'batchimport' AND datname = current_database()"
        )
    if isinstance(victim.destination, MysqlDatabase):
        victim.destination.cut()
    victim.destination.hand_over()
    return victim.run("", "--state-dir", "elsewhere")


def test_a_stopped_owner_wakes_up_after_a_take_over(
    kind: str, victim: Victim, whole: Ending
) -> None:
    """It cannot commit, leaves with 6, and all is as the other one left it."""
    stopped = Stopped(victim)
    if kind == "duckdb":  # its lock of the file is the owner's until the process ends
        assert call_all([Call(victim.folder, victim.words("--state-dir", "x"))])[0].code == 6
        assert stopped.wake_up()[0] == 3
    else:
        take_over(victim)
        code, error = stopped.wake_up()
        assert (code, "taken over" in error) == (6, True), error
    assert victim.end() == whole


def test_an_orphan_holds_no_lock(workdir: Workdir) -> None:
    """A child of a transform outlives the import that is killed; the next run is not refused."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(100)])
    workdir.write(
        "mine.py",
        "import os, signal, subprocess\n"
        "def child(record: dict) -> dict:\n"
        "    if record['id'] == 50 and not os.path.exists('pid'):\n"
        "        null = subprocess.DEVNULL\n"
        "        options = {'stdout': null, 'stderr': null, 'close_fds': False}\n"
        "        sleeper = subprocess.Popen(['sleep', '100'], **options)\n"
        "        open('pid', 'w').write(str(sleeper.pid))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return record\n",
    )
    options = ["u.jsonl", "--transform", "mine:child", "--chunk-size", 10]
    assert workdir.call("run", *options).code == -signal.SIGKILL
    orphan = int((workdir.path / "pid").read_text())
    try:
        assert workdir.run(*options)["successful"] == 100
    finally:
        subprocess.run(["kill", str(orphan)], check=True)
