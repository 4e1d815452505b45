"""A disk that is full or broken, and too few file descriptors: one line, and nothing is lost."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from batchimport.system import FILES_NEEDED
from tests.faults.sweep import Ending, Victim
from tests.helpers.cli import COMMAND, Workdir, environment
from tests.helpers.forked import call

ROOM = (0, 500, 4096, 30_000)
"""Bytes that a file may have."""


def test_no_room_for_any_file(kind: str, victim: Victim, whole: Ending) -> None:
    """Database, state and rejects: at every size it says so, and ends well when there is room."""
    if kind in ("postgresql", "mysql", "s3"):
        pytest.skip("its files are the server's")
    failures = sum(victim.suffer("", limits={"RLIMIT_FSIZE": room}).code == 1 for room in ROOM)
    assert failures >= 3
    assert victim.end() == whole


def test_too_few_file_descriptors(kind: str, victim: Victim, whole: Ending) -> None:
    """A line says so before anything is done; what then counts as enough is enough."""
    for more in (0, 1, 12) if kind == "sqlite" else ():
        assert victim.suffer("", limits={"RLIMIT_NOFILE": more}).code == 1, more
    assert victim.suffer("", limits={"RLIMIT_NOFILE": FILES_NEEDED - 1}).code == 1
    assert victim.suffer("", limits={"RLIMIT_NOFILE": FILES_NEEDED}).code == 3
    assert victim.end() == whole


def test_a_worker_with_too_few_file_descriptors(workdir: Workdir) -> None:
    """It takes no chunk that it could not finish."""
    worker = shlex.join([*COMMAND, "worker", "--task-queue", "q"])
    ended = subprocess.run(
        ["sh", "-c", f"ulimit -n {FILES_NEEDED - 5}; exec {worker}"],
        cwd=workdir.path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, "more files may be opened" in ended.stderr) == (1, True), ended


def test_a_library_that_panics(workdir: Workdir) -> None:
    """No exception of Python's own kind: one line all the same, and the job can go on."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(1500)])
    workdir.write(
        "mine.py",
        "import os\n"
        "from polars.exceptions import PanicException\n"
        "def panic(record: dict) -> dict:\n"
        "    if record['id'] == 1400 and not os.path.exists('calm'):\n"
        "        raise PanicException('called unwrap on\\n None')\n"
        "    return record\n",
    )
    options = ["u.jsonl", "--transform", "mine:panic", "--chunk-size", 500, "--max-parallel", 1]
    ended = workdir.call("run", *options, "--quiet", "--json")
    assert (ended.code, ended.summary["status"], ended.summary["successful"]) == (1, "failed", 1000)
    assert ended.err.startswith("error: a library crashed: called unwrap on None\nhint: ")
    assert ended.err.count("\n") == 2
    workdir.write("calm", "")
    assert workdir.run(*options)["successful"] == 1500


@pytest.mark.parametrize("option", ["--rejects", "--summary"])
def test_a_full_disk_for_a_report(victim: Victim, whole: Ending, option: str) -> None:
    """The records are stored all the same; it is written when there is room."""
    ended = call(victim.folder, *victim.words(option, "/dev/full"))
    assert (ended.code, ended.err.count("\n")) == (1, 2), ended
    assert "No space left on device" in ended.err
    assert len(victim.destination.rows("users")) == whole.counts["successful"]
    assert victim.end() == whole


def test_a_full_disk_for_standard_output(workdir: Workdir) -> None:
    """Nobody can read the summary: exit 1 and a line, whatever the command; never a traceback."""
    workdir.lines("u.jsonl", [{"id": 1}, {"id": "x"}])
    workdir.run("u.jsonl")
    for command in ("run u.jsonl --json", "run u.jsonl", "jobs", "jobs --json", "status", "--help"):
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a stream
            code, err = workdir.call_into(full, *command.split())
        assert code == 1, command
        assert "No space left on device" in err


def test_a_place_for_state_that_is_none(workdir: Workdir) -> None:
    """A line that says what to do; nothing is imported."""
    workdir.lines("u.jsonl", [{"id": 1}])
    for place in ("/dev/null/x", "/proc/x", "u.jsonl"):
        ended = workdir.call("run", "u.jsonl", "--state-dir", place)
        assert (ended.code, "--state-dir" in ended.err) == (1, True), ended
    assert not (workdir.path / "u.db").exists()
