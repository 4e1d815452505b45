"""Contestants in turn, A B A B: what each command took, and whether it stored what it should."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.data import Facts
from tests.bench.destinations import Destinations, Place
from tests.bench.hog import Hogs
from tests.helpers.cli import environment

CLOCK = Path(__file__).with_name("clock.py")
QUIET = {"SLING_DISABLE_TELEMETRY": "TRUE", "RUNTIME__DLTHUB_TELEMETRY": "false"}


@dataclass(frozen=True)
class Contestant:
    """A command that is measured.

    Attributes:
        command: Given an empty place.
        expected: What must be stored in the end; None if nothing is.
        before: What to do with the place before the clock starts.
        missing: How to install it, if it is not installed.
        is_ours: Its failure is a failure of the benchmark.
        codes: Exit codes of success; of a signal, negative.
        extra: More environment variables.
        own_clock: It prints its own `wall` and `cpu` as JSON, which exclude its start.
        goal: The first contestant's time should be at most this many times as long as this one's.
        memory_goal: The same of its peak memory.
        goal_seconds: It should take at most this long.
    """

    name: str
    command: Callable[[Place], Sequence[str]]
    expected: Facts | None = None
    before: Callable[[Place], None] | None = None
    missing: str = ""
    is_ours: bool = True
    codes: tuple[int, ...] = (0,)
    extra: Mapping[str, str] = field(default_factory=dict)
    own_clock: bool = False
    goal: float | None = None
    memory_goal: float | None = None
    goal_seconds: float | None = None


@dataclass(frozen=True)
class Case:
    """Contestants; the first one is compared with each of the others.

    Attributes:
        destination: Kind of place: sqlite, postgresql, duckdb, parquet, or none.
        size: Bytes of the source.
        hogs: Number of processes that keep a processor busy meanwhile.
        regret: The others are fixed choices, of which the best one is what the first could have been.
    """

    name: str
    title: str
    destination: str
    contestants: tuple[Contestant, ...]
    records: int = 0
    size: int = 0
    hogs: int = 0
    regret: bool = False


@dataclass(frozen=True)
class Measure:
    """One run of one contestant.

    Attributes:
        wall, cpu, server_cpu: Seconds; `cpu` is the command's, `server_cpu` the database server's.
        peak: Bytes of memory that the command's largest process had at most.
        slowed: Share of its speed that the hogs lost, 0 to 1; None without hogs.
        problem: What went wrong; empty if the rows were stored as expected.
    """

    wall: float
    cpu: float
    server_cpu: float
    peak: int
    slowed: float | None = None
    problem: str = ""


@dataclass
class Standing:
    """A contestant and its runs."""

    contestant: Contestant
    runs: list[Measure] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """The first thing that went wrong."""
        return next((run.problem for run in self.runs if run.problem), "")

    @property
    def counts(self) -> bool:
        """Whether there are figures to compare."""
        return bool(self.runs) and not self.problem

    def median(self, figure: Callable[[Measure], float]) -> float:
        """Return the median of a figure over the runs."""
        return statistics.median(map(figure, self.runs))


class Racer:
    """Runs cases.

    Args:
        path: Where the commands find programs.
        timeout: Seconds that one command may take.
    """

    def __init__(self, destinations: Destinations, path: str, timeout: float) -> None:
        self._destinations, self._path, self._timeout = destinations, path, timeout

    def run(self, case: Case, rounds: int) -> list[Standing]:
        """Run every contestant once a round; one that failed does not run again."""
        standings = [Standing(contestant) for contestant in case.contestants]
        for _ in range(rounds):
            for standing in standings:
                if not standing.contestant.missing and not standing.problem:
                    standing.runs.append(self._run(case, standing.contestant))
        return standings

    def _run(self, case: Case, contestant: Contestant) -> Measure:
        place = self._destinations.place(case.destination)
        try:
            if contestant.before is not None:
                contestant.before(place)
            os.sync()  # or this command pays for what the one before has written
            with Hogs(case.hogs) as hogs:
                return self._measure(contestant, place, hogs)
        finally:
            self._destinations.discard(place)

    def _measure(self, contestant: Contestant, place: Place, hogs: Hogs) -> Measure:
        server = self._destinations.server if place.address and not place.path else None
        server_before = server.cpu_seconds() if server else 0.0
        hogs.begin()
        took = self._clock(contestant, place)
        slowed = hogs.slowed()
        if server:
            server.settle()
        server_cpu = server.cpu_seconds() - server_before if server else 0.0
        problem = str(took["problem"]) or _difference(contestant, place)
        wall, cpu = float(took["wall"]), float(took["cpu"])
        return Measure(wall, cpu, server_cpu, int(took["peak"]), slowed, problem)

    def _clock(self, contestant: Contestant, place: Place) -> dict[str, float | str]:
        """Run the command in its directory; return what clock.py says, and what went wrong."""
        report, out = place.folder / "clock.json", place.folder / "output.txt"
        command = [sys.executable, "-S", "-E", str(CLOCK), str(report), *contestant.command(place)]
        more = {"PATH": self._path, "HOME": str(place.folder), **QUIET, **contestant.extra}
        with out.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=place.folder,
                env=environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that a command that takes too long can be ended whole
            )
            try:
                process.wait(self._timeout)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                problem = f"took more than {self._timeout:g} s"
                return {"wall": self._timeout, "cpu": 0.0, "peak": 0, "problem": problem}
        lines = out.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else ""
        if not report.exists():
            return {"wall": 0.0, "cpu": 0.0, "peak": 0, "problem": f"did not start: {last}"}
        took: dict[str, float | str] = json.loads(report.read_text(encoding="utf-8"))
        succeeded = took["code"] in contestant.codes
        if succeeded and contestant.own_clock:
            took |= json.loads(last)
        return took | {"problem": "" if succeeded else f"exit code {took['code']}: {last}"}


def _difference(contestant: Contestant, place: Place) -> str:
    """Say how the stored rows differ from what is expected."""
    if contestant.expected is None:
        return ""
    try:
        stored = place.stored()
    except Exception as error:  # noqa: BLE001 - of any driver: a peer may have stored nothing
        return f"cannot read what it stored: {error}"
    return "" if stored == contestant.expected else f"stored {stored}, not {contestant.expected}"
