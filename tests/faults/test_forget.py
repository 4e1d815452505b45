"""Finished jobs are forgotten: what is personal goes, the rows stay, and the content is still known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchimport.cli.forget import parse_age
from batchimport.errors import UsageError
from tests.faults.sweep import KILLED, OPTIONS, Victim
from tests.helpers.cli import Ended
from tests.helpers.forked import call

DATASETS = ("parquet", "s3")


def said(victim: Victim, *words: Any, failpoints: str = "") -> Ended:
    return call(victim.folder, *words, failpoints=failpoints)


def imported(victim: Victim, *more: Any) -> str:
    """Import, and return the job's id."""
    return str(victim.run("", *more).summary["job_id"])


def states(victim: Victim) -> list[str]:
    """Return the jobs that have a folder in the state directory."""
    return [path.parent.name for path in (victim.folder / ".batchimport").glob("*/job.json")]


def of_ledger(victim: Victim, *more: str) -> tuple[str, ...]:
    return ("--to", victim.destination.address, *more)


def test_forgotten_at_every_point(kind: str, victim: Victim) -> None:
    """Killed over it, and asked once more: rejects and state are gone, and nothing comes twice."""
    job = imported(victim)
    rows, rejects = victim.destination.ending("users")
    assert rejects
    points = ["after-forgetting", "before-removing-state"]
    for point in (["during-removal"] if kind in DATASETS else []) + points:
        ended = said(victim, "forget", job, *of_ledger(victim), failpoints=f"{point}=kill")
        assert ended.code == KILLED, (point, ended.err)
    assert said(victim, "forget", job, "--json").code == 0
    assert victim.destination.ending("users") == (rows, [])
    assert job not in states(victim)
    latest = said(victim, "status", *of_ledger(victim))
    assert (latest.code, f"all jobs there were forgotten: {job} (table users" in latest.err) == (
        2,
        True,
    )
    again = call(victim.folder, *victim.words())
    assert again.code == 6
    assert f"by job {job} (just now, forgotten since)" in json.loads(again.out)["error"]
    assert said(victim, "forget", job).code == 2, "nothing here knows it any more"
    assert said(victim, "status", job, *of_ledger(victim)).code == 2
    twice = call(victim.folder, *victim.words("--allow-duplicates"))
    assert twice.code == 3, twice.err
    assert json.loads(twice.out)["job_id"] == job


def test_forgotten_completely(kind: str, victim: Victim) -> None:
    """Its content may be imported again; other jobs on the table keep their accounts."""
    first = imported(victim)
    record = {
        "id": 900001,
        "email": "a@b.example",
        "name": "A",
        "created_at": "2024-01-31T10:00:00Z",
    }
    (victim.folder / "more.jsonl").write_text(json.dumps(record) + "\n")
    words = ("run", "more.jsonl", *OPTIONS, *of_ledger(victim), "--table", "users")
    more = call(victim.folder, *words)
    assert more.code == 0, more.err
    options = ("forget", first, "--completely", "--json")
    kills = [] if kind not in DATASETS else ["during-removal=kill", "during-removal=kill@4"]
    for point in [*kills, "after-forgetting=kill"]:
        assert said(victim, *options, failpoints=point).code == KILLED, point
    ended = said(victim, *options)
    assert ended.code == 0, ended.err
    same = call(victim.folder, *words)
    assert json.loads(same.out)["status"] == "already_completed", same.err
    rows = len(victim.destination.rows("users"))
    assert json.loads(call(victim.folder, *victim.words()).out)["job_id"] == first
    again = len(victim.destination.rows("users"))
    assert again > rows if kind in DATASETS else again == rows, "there the key is taken"


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_what_is_unfinished_is_kept(kind: str, victim: Victim) -> None:
    """It is refused, and the way out is said; a prune leaves it as well."""
    victim.run("after-commit=kill@2")
    (job,) = states(victim)
    ended = said(victim, "forget", job)
    assert ended.code == 6
    assert f"batchimport resume {job}" in ended.err
    pruned = json.loads(said(victim, "prune", "--older-than", "0d", "--json").out)
    assert (pruned["removed"], [each["job_id"] for each in pruned["kept"]]) == ([], [job])
    assert victim.end().counts["status"] == "completed_with_rejects"


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_prune_removes_what_is_old(kind: str, victim: Victim, tmp_path: Path) -> None:
    """First the rejects alone, then the job; by the state directory, and by the ledger."""
    job = imported(victim)
    rows, rejects = victim.destination.ending("users")
    for words in (("--older-than", "1d"), ("--older-than", "0d", "--dry-run")):
        assert said(victim, "prune", *words).code == 0
    assert victim.destination.ending("users") == (rows, rejects)
    ended = said(victim, "prune", "--older-than", "0d", "--rejects-only", "--json")
    assert json.loads(ended.out)["removed"][0]["rejects"] == len(rejects)
    assert victim.destination.ending("users") == (rows, [])
    assert said(victim, "status", job).code == 0
    for command in ("rejects", "replay"):
        assert "the rejects were removed since" in said(victim, command, job).err
    state = ("--state-dir", str(tmp_path / "other"))
    assert said(victim, "prune", "--older-than", "0m", *of_ledger(victim), *state).code == 0
    for command in ("status", "rejects", "replay"):
        ended = said(victim, command, job, *of_ledger(victim), *state)
        assert (ended.code, f"{job}: was forgotten" in ended.err) == (2, True), ended.err
    ended = said(victim, "prune", "--older-than", "0d", "--json")
    assert [each["job_id"] for each in json.loads(ended.out)["removed"]] == [job]
    assert said(victim, "status", job).code == 2
    assert victim.destination.rows("users") != []


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1.5d", "30 years"])
def test_an_age_is_a_number_and_a_unit(age: str) -> None:
    """Anything else is refused before a ledger is opened."""
    with pytest.raises(UsageError, match="not an age"):
        parse_age(age)
