"""Killed at every point that matters, again and again: the job ends like an unbroken run."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from batchimport import failpoints
from batchimport.errors import UsageError
from tests.faults.sweep import KILLED, Ending, Victim, at_passes, new_victim
from tests.helpers.cli import ROOT
from tests.helpers.destinations import KINDS

RESTARTING = ("during-removal", "after-forgetting")
SOME_JOBS = ("before-removing-state", "after-publishing", "after-sql")
POINTS = tuple(point for point in failpoints.POINTS if point not in (*RESTARTING, *SOME_JOBS))
OF_THE_SINK = ("after-table", "before-renaming", "after-claim", "before-finish", "after-finish")
"""At these, and in a chunk, the destination is in the midst of something; the others are the same for all."""
IN_CHUNK = ("before-store", "after-ledger-row", "after-rows", "before-commit", "after-commit")
DATASETS = ("parquet", "s3")
EMPTIED = ("--if-exists", "truncate")
BEGINNING = (*RESTARTING, "after-table", "after-claim", "before-commit")


def test_the_points_are_those_of_the_program() -> None:
    """Every point is reached in the code, and no other."""
    text = "".join(path.read_text() for path in (ROOT / "batchimport").rglob("*.py"))
    assert set(re.findall(r'failpoints\.reach\("(.+?)"\)', text)) == set(failpoints.POINTS)
    with pytest.raises(UsageError, match="not a failpoint"):
        failpoints.arm("before-nothing=kill")


def reached(kind: str, points: Sequence[str]) -> list[str]:
    """Leave out what a sink has not.

    Only datasets remove files; there the ledger row is in them. Only MySQL names a table afterwards.
    """
    lacking = {"after-ledger-row"} if kind in DATASETS else {"during-removal"}
    lacking |= set() if kind == "mysql" else {"before-renaming"}
    return [each for each in points if each not in lacking]


def test_killed_at_every_point(kind: str, victim: Victim, whole: Ending) -> None:
    """One after the other, each of them in a resume of the one before; in a chunk: the next test."""
    killed_at_every_point(victim, whole, reached(kind, POINTS if kind == "sqlite" else OF_THE_SINK))


@pytest.mark.slow
def test_killed_at_every_point_of_a_job(kind: str, victim: Victim, whole: Ending) -> None:
    """The long sweep: also where the destination has nothing to do."""
    killed_at_every_point(victim, whole, reached(kind, POINTS))


def killed_at_every_point(victim: Victim, whole: Ending, points: Sequence[str]) -> None:
    assert victim.end(at_passes(points, [1])) == whole
    assert victim.kills == len(points), "each of them is passed"


def test_killed_at_every_chunk(kind: str, victim: Victim, whole: Ending) -> None:
    """At the second pass, when one chunk is committed and others are in flight."""
    assert victim.end(at_passes(reached(kind, IN_CHUNK), [2])) == whole
    assert victim.kills >= 3


def begin_again(
    victim: Victim, whole: Ending, point: str, *more: str, unfinished: bool, asked: bool
) -> None:
    """Begin a completed job again, killed at a point; then give the same command once more.

    Args:
        more: Options of all runs.
        unfinished: It is begun again twice, because the first time was killed on the way.
        asked: Once more with `--restart`; without it the job must end as well.
    """
    if unfinished:
        victim.run("after-commit=kill@3", *more, "--restart")
    assert victim.run(f"{point}=kill", *more, "--restart").code == KILLED, f"{point} is passed"
    assert victim.end((), *more, *(["--restart"] if asked else [])) == whole, point


def test_killed_over_a_restart(kind: str, victim: Victim, whole: Ending) -> None:
    """The old ledger accounts for all rows until a new one does, whatever is run next.

    Of each point half of the sinks have one way, the others the other one.
    """
    more = [] if kind in DATASETS else EMPTIED
    assert victim.end((), *more) == whole
    for turn, point in enumerate(reached(kind, BEGINNING), list(KINDS).index(kind)):
        begin_again(victim, whole, point, *more, unfinished=bool(turn % 2), asked=bool(turn % 2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("unfinished", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_killed_at_every_point_of_a_restart(
    kind: str, victim: Victim, whole: Ending, unfinished: bool, asked: bool
) -> None:
    """The long sweep: at all points, over a job that was completed and one that was not."""
    points = reached(kind, [*RESTARTING, *POINTS])
    assert victim.end((), *EMPTIED) == whole
    for point in points:
        if point != "before-renaming":
            begin_again(victim, whole, point, *EMPTIED, unfinished=unfinished, asked=asked)


def random_points(kind: str, seed: int, kills: int) -> list[str]:
    """Return points where the kills are; only those of a chunk are passed several times in each run."""
    chance, points = random.Random(seed), reached(kind, POINTS)
    chosen = [chance.choice(points) for _ in range(kills)]
    return [
        f"{each}=kill@{chance.choice([1, 1, 2, 3]) if each in IN_CHUNK else 1}" for each in chosen
    ]


def at_random_points(
    kind: str, tmp_path: Path, whole: Ending, request: pytest.FixtureRequest, jobs: int
) -> None:
    """Run so many jobs; for each of them ten kills are planned."""
    kills = 0
    for seed in range(100, 100 + jobs):
        victim = new_victim(kind, tmp_path / f"job{seed}", request)
        assert victim.end(random_points(kind, seed, 10)) == whole, seed
        kills += victim.kills
    assert kills >= 2 * jobs


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_killed_at_random_points(
    kind: str, tmp_path: Path, whole: Ending, request: pytest.FixtureRequest
) -> None:
    """A job in a database, and one in a dataset."""
    at_random_points(kind, tmp_path, whole, request, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_points_for_long(
    kind: str, tmp_path: Path, whole: Ending, request: pytest.FixtureRequest
) -> None:
    """Sixty jobs in each."""
    at_random_points(kind, tmp_path, whole, request, 60)


def test_an_attempt_that_breaks_is_tried_again(kind: str, victim: Victim, whole: Ending) -> None:
    """Also when it broke after the commit: the ledger knows, nothing is stored twice."""
    points = [f"{point}=error@{at}" for at, point in enumerate(reached(kind, IN_CHUNK), 1)]
    ended = victim.run(",".join(points), "--retry-initial", "0.01", "--max-attempts", 9)
    assert ended.summary["chunks"]["retried"] == len(points)
    assert victim.end() == whole
