"""Killed with SIGKILL at random moments, the job ends like an unbroken run."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.tables import content, query

OPTIONS = ["--schema", str(SAMPLE / "users.schema.json"), "--key", "id"]


def write_records(path: Path, count: int, seed: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line, _, _ in make(count, 0.02, seed))


def ending(path: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return all rows, and all rejects but for the row that was there first."""
    rejects = query(
        path,
        "SELECT record, source, line, byte_offset, stage, errors, raw FROM _batchimport_rejects "
        "ORDER BY record",
    )
    return content(path, "users"), rejects


def run_with_kills(workdir: Workdir, kills: int, seed: int, longest: float) -> dict[str, Any]:
    chance = random.Random(seed)
    killed = 0
    while killed < kills:
        size = chance.choice([97, 500, 2000, 20_000])
        process = workdir.start("run", "users.jsonl", *OPTIONS, "--chunk-size", size, "--json")
        deadline = time.monotonic() + chance.uniform(0.1, longest)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: TID251 - a moment of a real process
        if process.poll() is not None:
            process.communicate()
            break
        process.kill()
        process.communicate()
        killed += 1
    return workdir.run("users.jsonl", *OPTIONS) | {"kills": killed}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    """Another chunk size after each kill; rows and rejects are those of an unbroken run."""
    broken, whole = Workdir(tmp_path / "a"), Workdir(tmp_path / "b")
    for workdir in (broken, whole):
        workdir.path.mkdir()
        write_records(workdir.path / "users.jsonl", 20_000, seed)
    expected = whole.run("users.jsonl", *OPTIONS)
    found = run_with_kills(broken, 4, seed, 0.8)
    for key in ("total_items", "successful", "failed", "filtered", "rejects_by_code"):
        assert found[key] == expected[key]
    assert ending(broken.path / "users.db") == ending(whole.path / "users.db")
    assert broken.rejects(found) == whole.rejects(expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_records_killed_twenty_times(tmp_path: Path) -> None:
    """The promise, at the size that it is made for."""
    broken, whole = Workdir(tmp_path / "a"), Workdir(tmp_path / "b")
    for workdir in (broken, whole):
        workdir.path.mkdir()
    write_records(whole.path / "users.jsonl", 1_000_000, 7)
    (broken.path / "users.jsonl").hardlink_to(whole.path / "users.jsonl")
    expected = whole.run("users.jsonl", *OPTIONS)
    found = run_with_kills(broken, 20, 7, 1.2)
    assert found["kills"] == 20
    assert (found["successful"], found["failed"]) == (expected["successful"], expected["failed"])
    assert ending(broken.path / "users.db") == ending(whole.path / "users.db")
