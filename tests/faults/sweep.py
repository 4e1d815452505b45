"""A job that is killed, over and over, and must end like an unbroken one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE
from tests.helpers.destinations import Destination
from tests.helpers.forked import call

RECORDS = 240
SEED = 11
OPTIONS = ("--schema", SAMPLE / "users.schema.json", "--json", "--quiet")
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
    lines = [line for line, _, _ in make(records, 0.08, SEED)]
    lines[-1] = lines[3]
    (folder / "users.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Victim:
    """A job in a directory, its runs, and how it ends."""

    def __init__(self, folder: Path, destination: Destination, broken: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_source(folder)
        self.folder, self.destination, self.broken = folder, destination, broken
        self.kills = self.runs = 0

    def run(self, failpoints: str = "", *more: Any) -> Any:
        """Run once, at another chunk size than before; check what must hold after each crash."""
        size = SIZES[self.runs % len(SIZES)]
        self.runs += 1
        words = ["run", "users.jsonl", *OPTIONS, "--to", self.destination.address]
        words += ["--key", "id"] if self.destination.keeps_keys else []
        words += ["--chunk-size", size, *more]
        ended = call(self.folder, *words, failpoints=failpoints, broken=self.broken)
        assert ended.code in (KILLED, 3), f"{failpoints}: left with {ended.code}: {ended.err}"
        self.kills += ended.code == KILLED
        self.destination.assert_consistent("users")
        return ended

    def end(self, kills: Iterable[str] = ()) -> Ending:
        """Run once for each kill, if it comes to that, and then to the end, undisturbed."""
        for point in kills:
            self.run(point)
        summary = self.run().summary
        if summary["status"] == "already_completed":
            summary["status"] = "completed_with_rejects"
        rows, rejects = self.destination.ending("users")
        counts = {key: summary[key] for key in COUNTS}
        return Ending(counts, rows, rejects, (self.folder / summary["rejects_file"]).read_bytes())


def at_passes(points: Sequence[str], passes: Iterable[int]) -> list[str]:
    """Return the kills at these points, at each of these passes."""
    return [f"{point}=kill@{number}" for number in passes for point in points]
