"""A disk that is full or broken, and too few file descriptors: one line, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.sweep import RECORDS, Ending, Victim, new_victim
from tests.helpers.cli import Workdir
from tests.helpers.forked import call

ROOM = (0, 500, 4096, 20_000, 70_000, 150_000)
"""Bytes that a file may have."""


def test_no_room_for_any_file(kind: str, victim: Victim, whole: Ending) -> None:
    """Database, state and rejects: at every size it says so, and ends well when there is room."""
    if kind == "postgresql":
        pytest.skip("its files are the server's")
    failures = sum(victim.suffer("", limits={"RLIMIT_FSIZE": room}).code == 1 for room in ROOM)
    assert failures >= 3
    assert victim.end() == whole


@pytest.mark.parametrize("more", [0, 1, 6, 24])
def test_too_few_file_descriptors(
    tmp_path: Path, request: pytest.FixtureRequest, more: int
) -> None:
    """From none at all to nearly enough; at some counts between, Polars itself panics."""
    victim = new_victim("sqlite", tmp_path / "broken", request)
    victim.suffer("", limits={"RLIMIT_NOFILE": more})
    assert victim.end().counts["total_items"] == RECORDS


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
