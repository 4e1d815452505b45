"""DuckDB and Parquet, killed at every point: the job ends like an unbroken run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.sweep import Victim, at_passes
from tests.faults.test_failpoints import IN_CHUNK, POINTS
from tests.helpers.destinations import make_destination

FILES = ("duckdb", "parquet")


def new_victim(kind: str, folder: Path) -> Victim:
    folder.mkdir()
    return Victim(folder, make_destination(kind, folder, None))


@pytest.mark.parametrize("kind", FILES)
def test_killed_at_every_point(tmp_path: Path, kind: str) -> None:
    """Each in a resume of the one before; those of a chunk also when others are committed."""
    whole = new_victim(kind, tmp_path / "whole").end()
    victim = new_victim(kind, tmp_path / "broken")
    assert victim.end([*at_passes(POINTS, [1]), *at_passes(IN_CHUNK, [2])]) == whole
    assert victim.kills >= 12, "the points are passed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", FILES)
def test_killed_a_thousand_times(tmp_path: Path, kind: str) -> None:
    """At random points, in any order."""
    whole = new_victim(kind, tmp_path / "whole").end()
    for seed in range(40):
        chance = random.Random(seed)
        points = [f"{chance.choice(POINTS)}=kill@{chance.choice([1, 1, 2, 3])}" for _ in range(10)]
        assert new_victim(kind, tmp_path / f"job{seed}").end(points) == whole, seed
