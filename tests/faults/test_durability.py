"""What is said to be on disk is on disk: the order of system calls that a lost machine needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.sweep import Victim, new_victim
from tests.helpers.forked import call
from tests.helpers.tracing import can_trace

CALL = re.compile(r"^(\d+) +(fsync|fdatasync|rename|linkat)\((.*)\) += 0$")
BEGUN = re.compile(r"^(\d+) +(fsync|fdatasync|rename|linkat)\((.*?),? <unfinished \.\.\.>$")
ENDED = re.compile(r"^(\d+) +<\.\.\. (?:fsync|fdatasync) resumed>\) += 0$")
DESCRIPTOR = "/proc/self/fd/"


class Call(NamedTuple):
    """A system call of a thread, with its arguments as strace shows them."""

    thread: str
    name: str
    arguments: str


@pytest.fixture(autouse=True)
def _strace() -> None:
    if not can_trace():
        pytest.skip("no strace here, or not allowed to attach: durability NOT tested")


def calls_of(victim: Victim) -> list[Call]:
    """Run the job, and return its calls that make files lasting."""
    log = victim.folder / "calls"
    options = ["-y", "-o", str(log), "-e", "trace=fsync,fdatasync,rename,linkat"]
    ended = call(victim.folder, *victim.words(), strace=options)
    assert ended.code == 3, ended
    return list(parsed(log.read_text()))


def parsed(log: str) -> Iterator[Call]:
    """Yield syncs where they end, and new names where they begin: threads interrupt each other."""
    begun: dict[str, Call] = {}
    for line in log.splitlines():
        if match := CALL.match(line):
            yield Call(*match.groups())
        elif match := BEGUN.match(line):
            made = Call(*match.groups())
            if made.name.endswith("sync"):
                begun[made.thread] = made
            else:
                yield made
        elif match := ENDED.match(line):
            yield begun[match[1]]


def unsafe_names(calls: list[Call]) -> list[str]:
    """Return the new names of files that were not synced before, or their directories after."""
    bad: list[str] = []
    safe: set[str] = set()
    for at, made in enumerate(calls):
        if made.name in ("rename", "linkat"):
            source, target = re.findall(r'"(.*?)"', made.arguments)
            if source in safe or is_synced(source, made, calls[:at]):
                safe.add(target)
            folder = str(Path(target).parent).lstrip(".")
            after = any(
                later.name == "fsync" and re.search(rf"<\S*{re.escape(folder)}/?>", later.arguments)
                for later in calls[at:]
            )
            bad += [] if target in safe and after else [target]
    return bad


def is_synced(source: str, made: Call, before: list[Call]) -> bool:
    """Say whether this very file was synced; a file without a name goes by its descriptor."""
    for earlier in reversed(before):
        if source.startswith(DESCRIPTOR) and earlier.thread == made.thread:
            number = source.removeprefix(DESCRIPTOR)
            if earlier.name == "linkat" and f'"{source}"' in earlier.arguments:
                return False  # the descriptor was another file's
            if earlier.name.endswith("sync") and earlier.arguments.startswith(f"{number}<"):
                return "(deleted)" in earlier.arguments
        elif earlier.name.endswith("sync") and f"<{source}>" in earlier.arguments:
            return True
    return False


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_new_names_are_synced(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Checkpoint, rejects, DuckDB's file, each part of Parquet: the file, then its directory."""
    calls = calls_of(new_victim(kind, tmp_path / "job", request))
    assert sum(made.name in ("rename", "linkat") for made in calls) >= 3
    assert unsafe_names(calls) == []
