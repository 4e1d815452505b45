"""One import as a picture: which thread works at what, and which one waits.

    python -m tests.bench timeline --records 1000000 --to sqlite

The import runs in this process while another thread looks, a hundred times a second, at what each
thread does: at its stage by its Python stack, at its CPU time and its wait for a processor by
`/proc/self/task/*/schedstat`, and at whether it is syncing a file by the system call that it is in.
That needs Linux, and costs the import a few percent of its speed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.bench.data import Data
from tests.bench.destinations import Destinations
from tests.helpers.cli import ROOT

INTERVAL = 0.01
WIDTH = 100
TASKS = Path("/proc/self/task")
PACKAGE = f"{ROOT}/batchimport/"
SYNCING = {"x86_64": ("74", "75"), "aarch64": ("82", "83")}
"""Numbers of the system calls fsync and fdatasync."""

STAGES = {
    ("importer.py", "_count"): "count",
    ("sources", "cut"): "cut",
    ("sources", "read"): "parse",
    ("pipeline", "judge"): "judge",
    ("pipeline", "apply"): "transform",
    ("engines", "before_store"): "turn",  # waits until the chunk before is stored
    ("sinks", "store"): "store",
    ("sinks", "claim"): "begin",
    ("sinks", "finish"): "end",
}
"""Stage by a part of the package and a function in it; the outermost one on the stack counts."""

LETTERS = {
    "parse": "P", "judge": "J", "transform": "T", "turn": "W", "store": "S", "fsync": "F",
    "cut": "C", "count": "N", "begin": "B", "end": "E", "load": "L", "other": "O",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What a thread did between two looks.

    Attributes:
        thread: Its name; threads of a native pool share one.
        stage: A key of `LETTERS`, "idle", or "native" if it runs no Python.
        began: Seconds since the import began.
        wall, cpu, queued: Seconds; `queued` is time in which it could have run, but had no processor.
    """

    thread: str
    stage: str
    began: float
    wall: float
    cpu: float
    queued: float


class Sampler(threading.Thread):
    """Looks at all threads of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self._ended = threading.Event()
        self._start = self._last = time.monotonic()
        self._known: dict[str, tuple[int, int]] = {}

    def run(self) -> None:
        """Look, and wait."""
        self._known = {task.name: _times(task) for task in TASKS.iterdir()}
        while not self._ended.wait(INTERVAL):
            self._look()

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        now = time.monotonic()
        began, wall = self._last - self._start, now - self._last
        self._last = now
        stacks = sys._current_frames()
        python = {str(thread.native_id): thread for thread in threading.enumerate()}
        for task in TASKS.iterdir():
            if task.name == str(self.native_id):
                continue
            with suppress(OSError):  # it has ended
                cpu, queued = _times(task)
                cpu_before, queued_before = self._known.get(task.name, (0, 0))
                self._known[task.name] = cpu, queued
                thread = python.get(task.name)
                name = thread.name if thread else _pool(task)
                stage = _stage(stacks.get(thread.ident or 0)) if thread else "native"
                if stage != "idle" and _is_syncing(task):
                    stage = "fsync"
                took = (cpu - cpu_before) / 1e9, (queued - queued_before) / 1e9
                self.samples.append(Sample(name, stage, began, wall, *took))


def _times(task: Path) -> tuple[int, int]:
    """Return nanoseconds on a processor, and ready to run without one."""
    on, queued, _ = (task / "schedstat").read_text().split()
    return int(on), int(queued)


def _pool(task: Path) -> str:
    return (task / "comm").read_text().strip().rstrip("0123456789").rstrip("-_") or "native"


def _is_syncing(task: Path) -> bool:
    number = (task / "syscall").read_text().partition(" ")[0]
    return number in SYNCING.get(platform.machine(), ())


def _stage(frame: FrameType | None) -> str:
    """Return what a thread is at, by its stack."""
    if frame is not None and frame.f_code.co_name == "select":  # the event loop has nothing to do
        return "idle"
    stage, is_ours = "idle", False
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            return "load"
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            is_ours = True
            part = path.removeprefix(PACKAGE).partition("/")[0]
            # The outermost one is met last.
            stage = STAGES.get((part, frame.f_code.co_name), stage)
        frame = frame.f_back
    return "other" if is_ours and stage == "idle" else stage


# -- the picture ----------------------------------------------------------------------------------


def picture(samples: Sequence[Sample]) -> str:
    """Return a line for each thread, and the seconds of each stage."""
    if not samples:
        return "too short to be seen; take more --records"
    total = max(sample.began + sample.wall for sample in samples)
    threads: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        threads[sample.thread].append(sample)
    worked = {name: of for name, of in threads.items() if _is_worth_a_line(of, total)}
    width = max(map(len, [*worked, "processors"]))
    lines = [f"{name:>{width}} |{_line(of, total)}|" for name, of in sorted(worked.items())]
    lines.append(f"{'processors':>{width}} |{_tenths(samples, total)}|")
    lines.append(f"{'':>{width}}  0{total:>{WIDTH - 1}.2f} s")
    lines.append(", ".join(f"{letter} {stage}" for stage, letter in LETTERS.items()))
    lines.append("lower case: it waits; native threads and processors: tenths of all processors")
    return "\n".join([*lines, "", *_table(samples, total)])


def _is_worth_a_line(samples: Sequence[Sample], total: float) -> bool:
    """Say whether a thread had a stage; a native pool needs a hundredth of a processor."""
    if any(each.stage == "native" for each in samples):
        return sum(each.cpu for each in samples) >= total / 100
    return any(each.stage != "idle" for each in samples)


def _line(samples: Sequence[Sample], total: float) -> str:
    if any(sample.stage == "native" for sample in samples):
        return _tenths(samples, total)
    return "".join(_letter(each) for each in _buckets(samples, total))


def _buckets(samples: Iterable[Sample], total: float) -> list[list[Sample]]:
    buckets: list[list[Sample]] = [[] for _ in range(WIDTH)]
    for sample in samples:
        middle = sample.began + sample.wall / 2
        buckets[min(WIDTH - 1, int(middle / total * WIDTH))].append(sample)
    return buckets


def _letter(samples: Sequence[Sample]) -> str:
    """Return the stage that took longest: in lower case if it mostly waited."""
    wall, cpu = _sums(samples, lambda each: each.wall), _sums(samples, lambda each: each.cpu)
    wall.pop("idle", None)
    if not wall:
        return " "
    stage = max(wall, key=lambda name: wall[name])
    letter = LETTERS[stage]
    return letter if cpu[stage] >= wall[stage] / 2 else letter.lower()


def _tenths(samples: Iterable[Sample], total: float) -> str:
    """Return how many tenths of all processors were in use."""
    capacity = total / WIDTH * (os.cpu_count() or 1)
    used = (sum(each.cpu for each in bucket) for bucket in _buckets(samples, total))
    tenths = (min(9, round(10 * cpu / capacity)) for cpu in used)
    return "".join(str(number) if number else " " for number in tenths)


def _sums(samples: Iterable[Sample], figure: Callable[[Sample], float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for sample in samples:
        sums[sample.stage] += figure(sample)
    return sums


def _table(samples: Sequence[Sample], total: float) -> list[str]:
    wall, cpu, queued = (
        _sums(samples, figure)
        for figure in (lambda each: each.wall, lambda each: each.cpu, lambda each: each.queued)
    )
    lines = [f"{'stage':<10} {'CPU s':>8} {'queued s':>9} {'blocked s':>10}"]
    for stage in sorted(cpu, key=lambda name: -cpu[name]):
        sleeps = stage in ("idle", "native")  # pools have nothing to do, most of the time
        blocked = max(0.0, wall[stage] - cpu[stage] - queued[stage])
        last = "" if sleeps else f"{blocked:10.2f}"
        lines.append(f"{stage:<10} {cpu[stage]:8.2f} {queued[stage]:9.2f} {last}".rstrip())
    used = sum(cpu.values())
    lines.append(
        f"{'total':<10} {used:8.2f} s of CPU in {total:.2f} s: {used / total:.2f} processors in use"
    )
    return lines


# -- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Import users and print the picture; return the exit code of the import."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench timeline")
    add = parser.add_argument
    add("--records", type=int, default=200_000)
    add("--to", choices=("sqlite", "postgresql", "duckdb", "parquet"), default="sqlite")
    add("--source", choices=("users", "records", "wide", "heavy"), default="users")
    add("--format", choices=("jsonl", "csv"), default="jsonl", help="of the source")
    add("--data", metavar="DIR", help="keep the source here for the next time")
    add("options", nargs="*", help="options of `batchimport run`, after --")
    options = parser.parse_args(arguments)
    if not TASKS.is_dir():
        parser.error("needs /proc/self/task: Linux")
    with tempfile.TemporaryDirectory(prefix="batchimport-bench-") as folder:
        source = getattr(Data(Path(options.data or f"{folder}/data")), options.source)(
            options.records
        )
        destinations = Destinations(Path(folder))
        try:
            place = destinations.place(options.to)
            command = [
                "run",
                str(getattr(source, options.format)),
                "--to",
                place.address,
                "--table",
                "users",
            ]
            command += ["--schema", str(source.schema)] if source.schema else []
            command += ["--state-dir", f"{place.folder}/state", "--quiet", *options.options]
            code, samples = watched(command)
            if code == 0 and place.stored() != source.facts:
                code = 1
        finally:
            destinations.close()
    print(picture(samples))  # noqa: T201 - what it is for
    return code


def watched(command: Sequence[str]) -> tuple[int, list[Sample]]:
    """Run the command line in this process; return its exit code and what was seen."""
    sampler = Sampler()
    sampler.start()
    try:
        from batchimport.cli import app  # noqa: PLC0415 - loading it is part of the picture

        app(list(command))
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        sampler.stop()
    return code, sampler.samples
