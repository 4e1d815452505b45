"""Records that refer to records of their own file: stored whatever the chunks are, and whatever is killed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweep import KILLED
from tests.helpers.cli import Ended
from tests.helpers.destinations import Database, make_destination
from tests.helpers.forked import call

PARENTS = {0: 3, 1: 0, 2: None, 3: 9, 4: 77, 5: 4, 6: 2, 7: 2, 8: 1, 9: 2, 10: 5}
"""Parents before and after their children, and 77, which is nowhere: 4 has none, nor have 5 and 10."""
STORED = [0, 1, 2, 3, 6, 7, 8, 9]
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER, FOREIGN KEY (parent) REFERENCES t (id))"
WORDS = ("--table", "t", "--job-id", "t-1", "--quiet", "--json", "--max-parallel", 1)


def new_place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Database:
    """Return a destination with the user's table, and write the source."""
    place = make_destination(kind, folder, lambda: request.getfixturevalue("postgres"))
    assert isinstance(place, Database)
    place.execute(TABLE)
    lines = [json.dumps({"id": own, "parent": parent}) for own, parent in PARENTS.items()]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    return place


def run(folder: Path, place: Database, size: int, fault: str = "") -> Ended:
    """Run the job once."""
    words = ("run", "t.jsonl", "--to", place.address, *WORDS, "--chunk-size", size)
    return call(folder, *words, failpoints=fault)


def rejects(place: Database) -> list[tuple[Any, ...]]:
    """Return for each reject its record, line, stage, codes and bytes."""
    found = []
    for record, _, line, _, stage, errors, raw in place.rejects():
        told = json.loads(errors) if isinstance(errors, str) else errors
        text = raw if isinstance(raw, str) else bytes(raw).decode()
        found.append((record, line, stage, [error["code"] for error in told], text))
    return sorted(found)


def rejected(own: int, parent: int | None) -> tuple[Any, ...]:
    """Return the same of a record whose parent is not stored."""
    return own, own + 1, "store", ["foreign_key"], json.dumps({"id": own, "parent": parent})


def assert_ended(ended: Ended, place: Database) -> None:
    """Check what must be the same whatever the chunks are."""
    assert ended.code == 3, ended.err
    assert sorted(row[0] for row in place.rows("t")) == STORED
    assert rejects(place) == [rejected(own, PARENTS[own]) for own in (4, 5, 10)]
    place.assert_consistent("t")
    counts = ("successful", "failed", "inserted", "rejects_by_code")
    assert [ended.summary[name] for name in counts] == [8, 3, 8, {"foreign_key": 3}]


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *(("sqlite", 1), ("sqlite", 2), ("sqlite", 7), ("sqlite", 100)),
        *(("postgresql", 1), ("postgresql", 7), ("duckdb", 2), ("duckdb", 7), ("mysql", 2)),
    ],
)
def test_one_end_at_every_chunk_size(
    kind: str, size: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same rows, the same rejects, and the same counts."""
    place = new_place(kind, tmp_path, request)
    ended = run(tmp_path, place, size)
    assert_ended(ended, place)
    assert ended.summary["this_run"]["failed"] == 3


def test_killed_while_records_are_tried_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each run goes on where the one before was killed, and the last one completes the job."""
    place = new_place("sqlite", tmp_path, request)
    assert run(tmp_path, place, 1, "before-store=kill@13").code == KILLED
    place.assert_consistent("t")
    before = len(place.rejects())
    for point in (
        "before-store=kill@2",
        "after-ledger-row=kill@6",
        "before-commit=kill@2",
        "after-commit=kill",
    ):
        assert run(tmp_path, place, 1, point).code == KILLED, point
        place.assert_consistent("t")
    assert len(place.rejects()) < before, "some were stored on the way"
    assert_ended(run(tmp_path, place, 50), place)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_random_references_end_alike(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Trees, circles, loops and missing parents: stored is what the greatest fixed point says."""
    place = make_destination(kind, tmp_path, lambda: request.getfixturevalue("postgres"))
    assert isinstance(place, Database)
    expected: list[tuple[Any, ...]] = []
    for seed in range(2 if kind == "sqlite" else 1):
        chance = random.Random(seed)
        parents = {own: chance.choice([None, 99, *range(14), *range(14)]) for own in range(14)}
        kept = set(parents)
        while lost := {own for own in kept if parents[own] not in {None, *kept}}:
            kept -= lost
        lines = [json.dumps({"id": own, "parent": parent}) for own, parent in parents.items()]
        (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
        for size in (1, 2, 3, 7, 14)[seed::2]:
            place.execute("DROP TABLE IF EXISTS t")
            place.execute(TABLE)
            words = ("run", "t.jsonl", "--to", place.address, *WORDS[:2], *WORDS[4:])
            options = ("--job-id", f"t-{seed}-{size}", "--chunk-size", size)
            ended = call(tmp_path, *words, *options, "--allow-duplicates")
            assert {row[0] for row in place.rows("t")} == kept, ended.err
            lost = [rejected(own, parents[own]) for own in parents if own not in kept]
            expected += lost
            assert rejects(place) == sorted(expected)
            assert ended.summary["failed"] == len(lost)


@pytest.mark.parametrize("point", ["after-ledger-row", "after-rows", "before-commit"])
def test_killed_while_a_circle_is_stored(
    point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Nothing of it is left, and the next run stores it whole."""
    place = new_place("sqlite", tmp_path, request)
    (tmp_path / "t.jsonl").write_text('{"id": 1, "parent": 2}\n{"id": 2, "parent": 1}\n')
    # Two chunks, each once more alone, and then both together.
    assert run(tmp_path, place, 1, f"{point}=kill@5").code == KILLED
    assert place.rows("t") == []
    place.assert_consistent("t")
    ended = run(tmp_path, place, 1)
    assert ended.code == 0, ended.err
    assert sorted(row[0] for row in place.rows("t")) == [1, 2]
    place.assert_consistent("t")
