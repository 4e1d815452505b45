"""A replay of rejects that is killed, over and over, ends like an unbroken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweep import KILLED, new_victim
from tests.helpers.destinations import KINDS, Destination
from tests.helpers.forked import call

RECORDS = 90
SCHEMA = {
    "properties": {
        "id": {"type": "integer"},
        "age": {"type": "integer"},
        "word": {"type": "string"},
    }
}
JOB = ("--job-id", "users-1", "--table", "users", "--schema", "schema.json", "--quiet", "--json")
POINTS = (
    "before-claim",
    "after-claim",
    "before-store",
    "after-ledger-row@2",
    "after-rows",
    "before-commit@2",
    "after-commit",
    "after-commit@2",
    "before-finish",
    "after-finish",
    "during-export",
    "file-written",
    "file-renamed",
)


def write(folder: Path) -> None:
    """Write records of which every third one is bad, and corrections of them.

    Of four rejects one is given up, one is as bad as before, and one is left out.
    """
    folder.mkdir(exist_ok=True)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    records = [{"id": at, "age": "x" if at % 3 == 0 else at, "word": "w"} for at in range(RECORDS)]
    (folder / "users.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    ways = [json.dumps({"id": 0, "age": 7}), None, '{"id": 1, "age": "y"}']
    lines = [
        {"record": at, "raw": ways[0].replace("0", str(at), 1) if ways[at % 4] == ways[0] else raw}
        for at in range(0, RECORDS, 3)
        if at % 4 != 3
        for raw in [ways[at % 4]]
    ]
    (folder / "edited.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))


def imported(folder: Path, place: Destination, size: int) -> None:
    """Import the records, which leaves thirty rejects."""
    write(folder)
    ended = call(*(folder, "run", "users.jsonl", "--to", place.address, *JOB, "--chunk-size", size))
    assert (ended.code, ended.summary["failed"]) == (3, 30)


def replay(folder: Path, place: Destination, fault: str = "") -> Any:
    ended = call(
        *(folder, "replay", "users-1", "--to", place.address, "--quiet", "--json"),
        *("--from", "edited.jsonl"),
        failpoints=fault,
    )
    place.assert_consistent("users")
    return ended


@pytest.mark.parametrize("size", [4, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_over_a_replay(
    kind: str, size: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """At every point; then every record is stored once, given up, or a reject."""
    place = new_victim(kind, tmp_path / "a", request).destination
    folder = tmp_path / "b"
    imported(folder, place, size)
    killed = []
    for point in POINTS:
        name, _, number = point.partition("@")
        ended = replay(folder, place, f"{name}=kill@{number or 1}")
        assert ended.code in (KILLED, 3), ended
        killed += [point] if ended.code == KILLED else []
    assert set(POINTS) - set(killed) <= (
        {"after-commit@2", "before-commit@2", "after-ledger-row@2"} if size > 4 else set()
    )
    summary = replay(folder, place).summary
    good = {at for at in range(RECORDS) if at % 3 or at % 4 == 0}
    rows = [row[0] for row in place.rows("users")]
    assert sorted(rows) == sorted(good)
    assert [row[0] for row in place.rejects()] == [at for at in range(0, RECORDS, 3) if at % 4 > 1]
    counts = ("successful", "failed", "filtered", "total_items")
    assert [summary[name] for name in counts] == [len(good), 15, 7, RECORDS]
    again = call(folder, "run", "users.jsonl", "--to", place.address, *JOB, "--chunk-size", 50)
    assert (again.code, again.summary["status"]) == (3, "already_completed")
