"""What is said to be on disk is on disk: the order of system calls that a lost machine needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.sweep import Victim, new_victim
from tests.helpers.forked import call
from tests.helpers.tracing import can_trace

CALL = re.compile(r"^\d+ +(fsync|fdatasync|rename|linkat)\((.*)\) += 0$")


@pytest.fixture(autouse=True)
def _strace() -> None:
    if not can_trace():
        pytest.skip("no strace here, or not allowed to attach: durability NOT tested")


def calls_of(victim: Victim) -> list[tuple[str, str]]:
    """Run the job, and return its calls that make files lasting."""
    log = victim.folder / "calls"
    options = ["-y", "-o", str(log), "-e", "trace=fsync,fdatasync,rename,linkat"]
    ended = call(victim.folder, *victim.words(), broken=victim.broken, strace=options)
    assert ended.code == 3, ended
    found = [CALL.match(line) for line in log.read_text().splitlines()]
    return [(each[1], each[2]) for each in found if each]


def unsafe_names(calls: list[tuple[str, str]]) -> list[str]:
    """Return the new names of files that were not synced before, or their directories after."""
    bad = []
    for at, (name, words) in enumerate(calls):
        if name in ("rename", "linkat"):
            *_, target = re.findall(r'"(.*?)"', words)
            folder = re.escape(str(Path(target).parent)).lstrip(".")
            before = any(each.endswith("sync") for each, _ in calls[:at])
            after = any(
                each == "fsync" and re.search(rf"<\S*{folder}/?>", place)
                for each, place in calls[at:]
            )
            bad += [] if before and after else [target]
    return bad


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_new_names_are_synced(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Checkpoint, rejects, DuckDB's file, each part of Parquet: the file, then its directory."""
    calls = calls_of(new_victim(kind, tmp_path / "job", request))
    assert sum(name in ("rename", "linkat") for name, _ in calls) >= 3
    assert unsafe_names(calls) == []


def test_no_directory_sync_is_noticed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Negative control: without it, the new name may be lost with the machine."""
    calls = calls_of(new_victim("sqlite", tmp_path / "job", request, "no-directory-sync"))
    assert unsafe_names(calls)
