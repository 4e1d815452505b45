"""A job that is killed, over and over, and must end like an unbroken one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE, Ended
from tests.helpers.destinations import Destination, make_destination
from tests.helpers.forked import call
from tests.helpers.tracing import injecting

RECORDS = 150
SEED = 11
OPTIONS = ("--schema", SAMPLE / "users.schema.json", "--max-parallel", 2, "--json", "--quiet")
SIZES = (17, 29, 11)
"""Records a chunk of the first run, the second, and so on."""
COUNTS = ("status", "total_items", "total_processed", "successful", "failed", "rejects_by_code")
KILLED = -9


@dataclass(frozen=True)
class Ending:
    """All that must be the same whatever happened on the way."""

    counts: dict[str, Any]
    rows: list[tuple[Any, ...]]
    rejects: list[tuple[Any, ...]]
    rejects_file: bytes


def write_source(folder: Path, records: int = RECORDS) -> None:
    """Write records, some of them bad in every way; keys repeat across chunks."""
    lines = [line for line, _, _ in make(records, 0.12, SEED)]
    lines[-1] = lines[3]
    (folder / "users.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Victim:
    """A job in a directory, its runs, and how it ends."""

    def __init__(self, folder: Path, destination: Destination) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_source(folder)
        self.folder, self.destination = folder, destination
        self.kills = self.runs = 0

    def run(self, fault: str = "", *more: Any) -> Ended:
        """Run once until it is killed or ends well.

        Args:
            fault: Failpoints, or with a colon what strace injects.
        """
        ended = self._run(fault, *more)
        assert ended.code in (KILLED, 3), f"{fault}: left with {ended.code}: {ended.err}"
        self.kills += ended.code == KILLED
        return ended

    def suffer(self, fault: str, *more: Any, limits: Mapping[str, int] | None = None) -> Ended:
        """Run once with a fault that the program hears of: it ends well, or says so in a line."""
        ended = self._run(fault, *more, "--retry-initial", "0.01", limits=limits or {})
        assert ended.code in (1, 3), f"{fault}: left with {ended.code}: {ended.err}"
        if ended.code == 1:
            assert re.fullmatch(r"error: .+\n(hint: .+\n)?", ended.err), f"{fault}: {ended.err}"
            assert ended.summary["status"] == "failed", fault
        return ended

    def words(self, *more: Any) -> list[Any]:
        """Return the words of a run, at another chunk size than before."""
        size = SIZES[self.runs % len(SIZES)]
        self.runs += 1
        words = ["run", "users.jsonl", *OPTIONS, "--to", self.destination.address]
        words += self.destination.options
        return [*words, "--chunk-size", size, *more]

    def _run(self, fault: str, *more: Any, limits: Mapping[str, int] | None = None) -> Ended:
        """Run once; check what must hold at all times."""
        befalls: dict[str, Any] = {"limits": limits or {}}
        befalls |= {"strace": injecting(fault)} if ":" in fault else {"failpoints": fault}
        ended = call(self.folder, *self.words(*more), **befalls)
        self.destination.assert_consistent("users")
        return ended

    def end(self, faults: Iterable[str] = (), *more: Any) -> Ending:
        """Run once for each fault, if it comes to that, and then to the end, undisturbed."""
        for fault in faults:
            self.run(fault, *more)
        summary = self.run("", *more).summary
        if summary["status"] == "already_completed":
            summary["status"] = "completed_with_rejects"
        rows, rejects = self.destination.ending("users")
        counts = {key: summary[key] for key in COUNTS}
        return Ending(counts, rows, rejects, (self.folder / summary["rejects_file"]).read_bytes())


def new_victim(kind: str, folder: Path, request: pytest.FixtureRequest) -> Victim:
    folder.mkdir(exist_ok=True)
    place = make_destination(kind, folder, lambda: request.getfixturevalue("postgres"))
    return Victim(folder, place)


def at_passes(points: Sequence[str], passes: Iterable[int]) -> list[str]:
    """Return the kills at these points, at each of these passes."""
    return [f"{point}=kill@{number}" for number in passes for point in points]
