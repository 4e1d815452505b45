"""The result of the benchmark: as a table for people, as JSON for programs."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil

from tests.bench.race import Case, Measure, Standing

PACKAGES = ("polars", "duckdb", "psycopg", "adbc-driver-sqlite", "msgspec", "jsonschema-rs")
HEAD = (
    "",
    "wall s",
    "spread",
    "x wall",
    "goal",
    "CPU s",
    "server s",
    "x CPU",
    "peak MB",
    "x peak",
    "hogs slowed",
)


def machine() -> dict[str, Any]:
    """Describe where and when this was measured; the load is that of the last minute before."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu(run: Measure) -> float:
    """Return the CPU seconds of client and server."""
    return run.cpu + run.server_cpu


def regret(case: Case, standings: Sequence[Standing]) -> float | None:
    """Return how much longer the first contestant took than the best of the others; 0.05 is 5 %."""
    others = [each.median(lambda run: run.wall) for each in standings[1:] if each.counts]
    if not case.regret or not others or not standings[0].counts:
        return None
    return standings[0].median(lambda run: run.wall) / min(others) - 1


def ratios(first: Standing, other: Standing) -> dict[str, float | None]:
    """Return how many times as much the first contestant took of time, CPU and memory."""
    if not first.counts or not other.counts or first is other:
        return {"wall": None, "cpu": None, "peak": None}
    return {
        "wall": _ratio(first, other, lambda run: run.wall),
        "cpu": _ratio(first, other, cpu),
        "peak": _ratio(first, other, lambda run: run.peak),
    }


def _ratio(first: Standing, other: Standing, figure: Callable[[Measure], float]) -> float | None:
    divisor = other.median(figure)
    return first.median(figure) / divisor if divisor else None


def as_json(case: Case, standings: Sequence[Standing]) -> dict[str, Any]:
    """Return a case with every single run."""
    return {
        "name": case.name,
        "title": case.title,
        "destination": case.destination,
        "records": case.records,
        "bytes": case.size,
        "hogs": case.hogs,
        "regret": regret(case, standings),
        "contestants": [_standing(standings[0], each) for each in standings],
    }


def _standing(first: Standing, standing: Standing) -> dict[str, Any]:
    contestant = standing.contestant
    figures = ("wall", "cpu", "server_cpu", "peak")
    medians = (
        {name: standing.median(attrgetter(name)) for name in figures} if standing.counts else None
    )
    return {
        "name": contestant.name,
        "missing": contestant.missing or None,
        "problem": standing.problem or None,
        "median": medians,
        "first_to_this": ratios(first, standing),
        "goals": {
            "wall_ratio": contestant.goal,
            "peak_ratio": contestant.memory_goal,
            "wall_seconds": contestant.goal_seconds,
        },
        "runs": [asdict(run) for run in standing.runs],
    }


def as_table(case: Case, standings: Sequence[Standing]) -> str:
    """Return a case as lines of text."""
    head = HEAD if case.hogs else (*HEAD[:-1], "")
    rows = [head, *(_row(standings[0], each) for each in standings)]
    widths = [max(len(row[at]) for row in rows if len(row) > 2) for at in range(len(head))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = [_aligned(row, widths) for row in rows]
    share = regret(case, standings)
    if share is not None:
        lines.append(f"  regret of {standings[0].contestant.name}: {share:+.1%} (goal: 5 %)")
    size = f", {case.size / 1e6:,.1f} MB" if case.size else ""
    records = f": {case.records:,} records{size}" if case.records else ""
    return "\n".join([f"{case.name}: {case.title}{records}", *lines])


def _row(first: Standing, standing: Standing) -> tuple[str, ...]:
    contestant = standing.contestant
    if contestant.missing:
        return (contestant.name, f"missing: {contestant.missing}")
    if not standing.counts:
        return (contestant.name, f"failed: {standing.problem}")
    walls = [run.wall for run in standing.runs]
    times = ratios(first, standing)
    goal = contestant.goal_seconds
    return (
        contestant.name,
        f"{standing.median(lambda run: run.wall):.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        _times(times["wall"]),
        f"{goal:g} s" if goal else _times(contestant.goal),
        f"{standing.median(lambda run: run.cpu):.2f}",
        f"{standing.median(lambda run: run.server_cpu):.2f}",
        _times(times["cpu"]),
        f"{standing.median(lambda run: run.peak) / 1e6:.0f}",
        _times(times["peak"]),
        _share(standing),
    )


def _share(standing: Standing) -> str:
    """Return how much the hogs were slowed; nothing if there were none."""
    if standing.runs[0].slowed is None:
        return ""
    return f"{standing.median(lambda run: run.slowed or 0.0):.0%}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _aligned(row: tuple[str, ...], widths: Sequence[int]) -> str:
    name, *cells = row
    if len(cells) == 1:  # what is wrong with it
        return f"  {name:<{widths[0]}}  {cells[0]}"
    parts = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
    return "  ".join([f"  {name:<{widths[0]}}", *parts]).rstrip()
