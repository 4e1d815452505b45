"""What is known of jobs: the page of one, and the table of all."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from batchimport.display.bars import ACCENT, CAUTION, GOOD, QUIET, TROUBLE, track
from batchimport.display.escape import safe
from batchimport.display.report import output, print_facts
from batchimport.display.units import (
    ago,
    clock_time,
    local_time,
    parse_time,
    short_ago,
    short_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SILENT_SECONDS = 60.0
"""A job that runs and was not heard of for longer is said to be silent."""
NARROW = 80
_STYLES = {
    "running": ACCENT,
    "completed": GOOD,
    "failed": TROUBLE,
    "refused": TROUBLE,
    "interrupted": CAUTION,
    "stopped": CAUTION,
}
_LEAST = 6
"""Columns that a source or destination keeps when the table is narrow."""


def show_status(job: dict[str, Any]) -> None:
    """Print what is known of a job, and the next command."""
    console, status = output(), str(job["status"])
    stage = f": {job['current_stage']}" if "waiting" in str(job["current_stage"]) else ""
    words = status.replace("_", " ") + stage
    style = _STYLES.get(status.partition("_")[0], QUIET) if "rejects" not in status else CAUTION
    console.print(Text.assemble(safe(job["job_id"], 140), "  ", (words, style)))
    if status != "completed":
        share = job["progress_percentage"] / 100
        line = track(share, min(60, console.width - 10), console)
        console.print(line.append(f" {job['progress_percentage']:.1f}%"))
    print_facts(console, [(name, value) for name, value in _facts(job) if value])
    if job["next_command"]:
        console.print(Text(f"next: {safe(job['next_command'], 1000)}"), soft_wrap=True)


def _facts(job: dict[str, Any]) -> list[tuple[str, str]]:
    sources, total = job["sources"], job["total_items"]
    source = safe(sources[0], 200) if sources else ""
    if len(sources) > 1:
        source += f" and {len(sources) - 1:,} more"
    records = f"{job['processed_items']:,}" + (f" of {total:,}" if total is not None else "")
    filtered = job["processed_items"] - job["successful_items"] - job["failed_items"]
    table = f", table {safe(job['table'])}" if job["table"] else ""
    facts = [
        ("source", source),
        ("destination", safe(job["destination"], 200) + table),
        ("records", records),
        ("stored", f"{job['successful_items']:,}"),
        ("rejected", f"{job['failed_items']:,}"),
        ("filtered", f"{filtered:,}" if filtered else ""),
        ("begun", _when(job["begun_at"])),
        ("ended", _when(job["ended_at"])),
        ("duration", _duration(job)),
    ]
    if job["status"] == "running":
        facts += [("speed", _speed(job)), ("heard of", _silence(job["updated_at"]))]
    facts.append(("error", safe(job["error"] or "", 600)))
    return facts


def _when(text: str | None) -> str:
    time = parse_time(text)
    return f"{local_time(time)} ({ago(time)})" if time else ""


def _duration(job: dict[str, Any]) -> str:
    runs = job["runs"] or 0
    several = f"{runs} runs" if runs > 1 else ""
    if job["duration_seconds"] is None:
        return several
    return clock_time(job["duration_seconds"]) + (f" in {several}" if several else "")


def _speed(job: dict[str, Any]) -> str:
    rate, eta = job["records_per_second"], job["eta_seconds"]
    left = f", {clock_time(eta)} left" if eta is not None else ""
    return f"{rate:,.0f} records/s{left}" if rate else ""


def _silence(updated_at: str) -> str:
    time = parse_time(updated_at)
    if time is None or (datetime.now(UTC) - time).total_seconds() < SILENT_SECONDS:
        return ""
    return f"{ago(time)}: the program that runs it may be gone"


def show_jobs(jobs: Iterable[dict[str, Any]]) -> None:
    """Print the jobs as a table that fits the terminal; 80 columns where there is none."""
    console = output()
    columns = os.environ.get("COLUMNS", "")
    width = console.width if sys.stdout.isatty() else int(columns) if columns.isdigit() else NARROW
    is_wide = width >= 120
    rows = [_row(job, is_wide=is_wide) for job in jobs]
    header = ["job", "source", "destination", "state", "records", "rejects", "when", "time"]
    gap = 2 if is_wide else 1
    widths = _fit([header, *([str(cell) for cell in row] for row in rows)], width, gap)
    console.print(_line([Text(name, QUIET) for name in header], widths, gap), soft_wrap=True)
    for row in rows:
        console.print(_line(row, widths, gap), soft_wrap=True)


def _row(job: dict[str, Any], *, is_wide: bool) -> list[Text]:
    sources, status = job["sources"], str(job["status"])
    source = PurePath(sources[0]).name if sources else ""
    if len(sources) > 1:
        source += f" +{len(sources) - 1}"
    state, style = status.partition("_with")[0], _STYLES.get(status, QUIET)
    if status == "completed_with_rejects":
        style = CAUTION
    if status == "running":
        waits = "worker" in str(job["current_stage"])
        state = "no worker" if waits else f"running {job['progress_percentage']:.0f}%"
        style = CAUTION if waits else ACCENT
    time = parse_time(job["ended_at"] or job["updated_at"])
    when = "" if time is None else short_ago(time)
    if time is not None and is_wide:
        when = f"{local_time(time)}, {when}"
    seconds = job["duration_seconds"]
    return [
        Text(safe(job["job_id"], 140)),
        Text(safe(source, 60)),
        Text(safe(_place(job), 60)),
        Text(safe(state), style),
        Text(short_count(job["processed_items"])),
        Text(short_count(job["failed_items"]), CAUTION if job["failed_items"] else ""),
        Text(when),
        Text("" if seconds is None else clock_time(seconds)),
    ]


def _place(job: dict[str, Any]) -> str:
    """Return database and table in few characters: `users.db/users`, `shop@db/users`."""
    scheme, _, rest = str(job["destination"]).partition("://")
    rest = rest.partition("?")[0]
    if scheme.startswith(("postgres", "mysql", "mariadb")):
        host, _, database = rest.rpartition("@")[2].partition("/")
        place = f"{database}@{host}" if host else database
    else:
        place = PurePath(rest).name
    return f"{place}/{job['table']}" if job["table"] else place


def _fit(rows: Sequence[Sequence[str]], width: int, gap: int) -> list[int]:
    """Return the width of each column: source and destination give way, the job's id never does."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    over = sum(widths) + gap * (len(widths) - 1) - width
    for _ in range(max(0, over)):
        wider = 1 if widths[1] > widths[2] else 2
        if widths[wider] <= _LEAST:
            break
        widths[wider] -= 1
    return widths


def _line(cells: Sequence[Text], widths: Sequence[int], gap: int) -> Text:
    line = Text()
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        is_number = number in (4, 5, 7)
        cell.truncate(width, overflow="ellipsis")
        pad = " " * (width - cell.cell_len)
        line.append(" " * gap if number else "").append(pad if is_number else "")
        line.append(cell).append("" if is_number else pad)
    line.rstrip()
    return line
