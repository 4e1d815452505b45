"""Killed and failed at the Nth system call: the job ends like an unbroken run.

Counts are those of each thread. Without strace these cases are skipped, and said so.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from tests.faults.sweep import KILLED, Ending, Victim, new_victim
from tests.helpers.tracing import can_trace

KILLING = {
    "sqlite": ("pwrite64", "fsync", "unlink", "rename", "ftruncate", "write"),
    "duckdb": ("pwrite64", "write", "fsync", "unlink"),
    "parquet": ("write", "fsync", "linkat", "rename", "unlink"),
    "postgresql": ("sendto", "recvfrom", "rename", "fsync"),
    "mysql": ("sendto", "recvfrom", "memfd_create"),
    "s3": ("writev", "recvfrom", "rename", "fsync"),
}
FAILING = {
    "sqlite": ("pwrite64:error=ENOSPC", "fsync:error=EIO"),
    "duckdb": ("pwrite64:error=ENOSPC", "fsync:error=EIO"),
    "parquet": ("fsync:error=EIO", "linkat:error=EIO"),
}
"""What a disk says to those that write files themselves; networks break in test_network."""
STEPS = (1, 3, 9, 27, 81)
MOST = 400


@pytest.fixture(autouse=True)
def _strace() -> None:
    if not can_trace():
        pytest.skip("no strace here, or not allowed to attach: kills at system calls NOT tested")


def killed_at(victim: Victim, syscall: str, number: int) -> bool:
    return bool(victim.run(f"{syscall}:signal=KILL:when={number}").code == KILLED)


def test_killed_at_system_calls(kind: str, victim: Victim, whole: Ending) -> None:
    """At larger and larger counts, each time in the resume of the one before."""
    for syscall in KILLING[kind]:
        for number in STEPS:
            if not killed_at(victim, syscall, number):
                break
    assert victim.kills >= 5, "the calls are made"
    assert victim.end() == whole


def test_failed_at_system_calls(kind: str, victim: Victim, whole: Ending) -> None:
    """The disk fails from some moment on: a line of error, and nothing is lost."""
    failures = 0
    for error in FAILING.get(kind, ()):
        for number in STEPS:
            ended = victim.suffer(f"{error}:when={number}+")
            failures += ended.code == 1
            if ended.code != 1:
                break
    assert failures >= 2 or kind not in FAILING, "how many more depends on how far each one came"
    assert victim.end() == whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_system_call(
    kind: str, whole: Ending, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A job for every call, killed there, and there again when it is resumed."""
    kills = 0
    for syscall in KILLING[kind]:
        for number in count(1):
            victim = new_victim(kind, tmp_path / f"{syscall}{number}", request)
            if not killed_at(victim, syscall, number):
                break
            killed_at(victim, syscall, number)
            assert victim.end() == whole, (syscall, number)
            kills += victim.kills
            assert number < MOST
    assert kills > 50
