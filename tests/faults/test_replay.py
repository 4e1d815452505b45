"""A replay of rejects that is killed, over and over, ends like an unbroken one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.sweep import KILLED, new_victim
from tests.helpers.cli import Ended
from tests.helpers.destinations import SWEPT, Destination
from tests.helpers.forked import call

RECORDS = 90
SCHEMA = {"properties": {"id": {"type": "integer"}, "age": {"type": "integer"}}}
JOB = ("--job-id", "users-1", "--table", "users", "--schema", "schema.json", "--quiet", "--json")
QUICKLY = ("--retry-initial", 0.01)
POINTS = (
    "before-claim",
    "after-claim",
    "before-store",
    "after-ledger-row",
    "after-rows",
    "before-commit",
    "after-commit",
    "before-finish",
    "after-finish",
    "during-export",
    "file-written",
)

IN_THE_SINK = POINTS[1:8]
"""At these the destination is in the midst of something; the others are the same for all of them."""

SIZES = [
    *(("sqlite", 4), ("postgresql", 5), ("duckdb", 3), ("parquet", 7), ("mysql", 6)),
    pytest.param("s3", 8, marks=pytest.mark.slow),
]
"""Records a chunk."""


def imported(folder: Path, place: Destination, size: int) -> None:
    """Import records of which every third one is bad, and write corrections of those.

    Of four rejects one is corrected, one is given up, one is as bad as before, and one is left out.
    """
    folder.mkdir(exist_ok=True)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    records = [{"id": at, "age": at if at % 3 else "x"} for at in range(RECORDS)]
    (folder / "users.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    lines = [
        {"record": at, "raw": ({"id": at, "age": 7}, None, {"id": at, "age": "y"})[at % 4]}
        for at in range(0, RECORDS, 3)
        if at % 4 < 3
    ]
    (folder / "edited.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    words = ("run", "users.jsonl", "--to", place.address, *JOB, *QUICKLY, "--chunk-size", size)
    ended = call(folder, *words)
    assert (ended.code, ended.summary["failed"]) == (3, 30)


def replay(folder: Path, place: Destination, fault: str = "") -> Ended:
    """Replay once, and check what must hold at all times."""
    words = ("--to", place.address, "--from", "edited.jsonl", "--quiet", "--json")
    ended = call(folder, "replay", "users-1", *words, failpoints=fault)
    place.assert_consistent("users")
    return ended


@pytest.mark.parametrize(("kind", "size"), SIZES)
def test_killed_over_a_replay(
    kind: str, size: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """At every point; then every record is stored once, given up, or a reject."""
    points = POINTS if kind in ("sqlite", "s3") else IN_THE_SINK
    killed_over_a_replay(kind, size, points, tmp_path, request)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size"), [("postgresql", 5), ("duckdb", 3), ("parquet", 7), ("mysql", 6)]
)
def test_killed_at_every_point_of_a_replay(
    kind: str, size: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Also where the destination has nothing to do."""
    killed_over_a_replay(kind, size, POINTS, tmp_path, request)


def killed_over_a_replay(
    kind: str, size: int, points: Sequence[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = new_victim(kind, tmp_path / "a", request).destination
    folder = tmp_path / "b"
    imported(folder, place, size)
    for point in points:
        assert replay(folder, place, f"{point}=kill").code == KILLED, point
    summary = replay(folder, place).summary
    good = [at for at in range(RECORDS) if at % 3 or at % 4 == 0]
    assert sorted(row[0] for row in place.rows("users")) == good
    assert [row[0] for row in place.rejects()] == [at for at in range(0, RECORDS, 3) if at % 4 > 1]
    counts = ("successful", "failed", "filtered", "total_items")
    assert [summary[name] for name in counts] == [len(good), 15, 7, RECORDS]
    again = call(folder, "run", "users.jsonl", "--to", place.address, *JOB, "--chunk-size", 50)
    assert (again.code, again.summary["status"]) == (3, "already_completed")


@pytest.mark.parametrize("kind", SWEPT)
def test_an_attempt_that_breaks_is_tried_again(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The next one finds what became of it, and counts each record once."""
    place = new_victim(kind, tmp_path / "a", request).destination
    folder = tmp_path / "b"
    imported(folder, place, 7)
    fault = "before-commit=error@2,after-commit=error@2"
    summary = replay(folder, place, fault).summary
    assert summary["chunks"]["retried"] == 2
    assert summary["this_run"] == {"processed": 22, "successful": 8, "failed": 7, "filtered": 7}
    assert (summary["successful"], summary["failed"], summary["filtered"]) == (68, 15, 7)
