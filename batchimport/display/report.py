"""What a command prints at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchimport.display.escape import safe
from batchimport.display.lines import clock_time
from batchimport.model import DRY_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.errors import BatchImportError
    from batchimport.model import Reject, Summary

WIDE = 400
_OUTCOMES = {
    "completed": ("completed: every record is stored", "green"),
    "completed_with_rejects": ("completed with rejects", "yellow"),
    "already_completed": ("already completed: nothing to do", "green"),
    "running": ("started: the workers continue it", "green"),
    "interrupted": ("interrupted: can be continued", "yellow"),
    "stopped": ("stopped: too many rejects", "yellow"),
    "failed": ("failed: can be continued", "red"),
    "refused": ("refused", "red"),
}


def print_error(error: BatchImportError) -> None:
    """Print what happened, where, what to do, and the notes that were added to the error."""
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    place = f"{safe(error.where, 300)}: " if error.where else ""
    console.print(Text(f"error: {place}{safe(error.message, 600)}"))
    if error.hint:
        console.print(Text(f"hint: {safe(error.hint, 300)}"))
    for note in getattr(error, "__notes__", ()):
        console.print(Text(safe(note, 2000)))


class _Output(Console):
    """A console that leaves a closed pipe to the command, which knows what it means."""

    def on_broken_pipe(self) -> None:
        """Raise it again, where Rich would exit with 1."""
        raise  # noqa: PLE0704 - Rich calls this while it handles the error


def _console() -> Console:
    """Return the console of stdout; lines are not wrapped unless it is a terminal."""
    width = None if sys.stdout.isatty() else WIDE
    return _Output(highlight=False, width=width)


def final_report(summary: Summary, examples: Sequence[Reject]) -> None:
    """Print the outcome of a run, its rejects by code, and the next command to type."""
    console = _console()
    words, style = _outcome(summary)
    is_dry = summary.delivery == DRY_RUN
    if is_dry:
        words = f"dry run, nothing is kept; a run would end: {words}"
    console.print(Text(words, style=f"bold {style}"))
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(summary):
        table.add_row(Text(name, style="dim"), Text(value))
    console.print(table)
    if summary.rejects_by_code:
        console.print(Text("rejects by reason", style="bold"))
        reasons = Table.grid(padding=(0, 2))
        for code, count in sorted(summary.rejects_by_code.items(), key=lambda item: -item[1]):
            reasons.add_row(Text(f"{count:,}", justify="right"), Text(safe(code)))
        console.print(reasons)
        for reject in examples:
            for line in reject_lines(reject):
                console.print(Text(line, style="dim", overflow="ellipsis", no_wrap=True))
    if summary.rejects_file:
        console.print(Text(f"rejects file: {safe(summary.rejects_file, 1000)}"), soft_wrap=True)
    command = summary.resume_command or (
        f"batchimport rejects {summary.job_id}" if summary.failed else None
    )
    if command and not is_dry:
        console.print(Text(f"next: {safe(command, 1000)}"), soft_wrap=True)


def _outcome(summary: Summary) -> tuple[str, str]:
    """Return how the run ended, and the colour for it."""
    if summary.status == "completed" and summary.total_items == 0:
        return "completed: the source has no record", "yellow"
    if summary.status == "completed" and summary.skipped_by_destination:
        return "completed: the table left records out", "yellow"
    if summary.status == "completed" and summary.filtered:
        return "completed", "green"
    return _OUTCOMES.get(summary.status, (summary.status, ""))


def _facts(summary: Summary) -> list[tuple[str, str]]:
    this_run, total = summary.this_run, summary.total_items
    facts = [
        ("job", summary.job_id),
        ("destination", f"{safe(summary.destination, 200)}, table {safe(summary.table)}"),
        ("stored", f"{summary.successful:,}" + (f" of {total:,}" if total is not None else "")),
        ("rejected", f"{summary.failed:,}"),
    ]
    if summary.updated:
        facts.append(("", f"{summary.inserted:,} inserted, {summary.updated:,} updated"))
    left_out = summary.ignored + summary.skipped_by_destination
    if summary.filtered > left_out:
        facts.append(("filtered", f"{summary.filtered - left_out:,}"))
    if summary.ignored:
        facts.append(("ignored", f"{summary.ignored:,} whose key was there (--on-conflict ignore)"))
    if summary.skipped_by_destination:
        skipped = f"{summary.skipped_by_destination:,} by a trigger, rule or clause of the table"
        facts.append(("skipped", skipped))
    if summary.resumed:
        facts.append(("this run", f"{this_run.processed:,} records"))
    rate = f"{summary.records_per_second:,.0f} records/s"
    facts.append(("time", f"{clock_time(summary.duration_seconds)}, {rate}"))
    if summary.chunks.failed:
        facts.append(("failed chunks", f"{summary.chunks.failed:,}"))
    return facts


def reject_lines(reject: Reject) -> list[str]:
    """Return a line for each error of a record."""
    place = f":{reject.line}" if reject.line else f" row {reject.byte_offset}"
    place = safe(reject.source) + place
    lines = []
    for error in reject.errors:
        field = f" {safe(error.field)}:" if error.field else ""
        lines.append(f"{place}{field} {safe(error.message, 160)} [{safe(error.code)}]")
    return lines


def show_progress(progress: dict[str, Any]) -> None:
    """Print the progress of a job."""
    console = _console()
    table = Table.grid(padding=(0, 2))
    for name, value in progress.items():
        if value is not None:
            table.add_row(Text(name.replace("_", " "), style="dim"), Text(safe(value)))
    console.print(table)


def show_jobs(jobs: Iterable[dict[str, Any]]) -> None:
    """Print the known jobs as a table."""
    console = _console()
    table = Table(
        "job", "status", "done", "stored", "rejected", "updated", box=None, pad_edge=False
    )
    for job in jobs:
        table.add_row(
            Text(safe(job["job_id"], 140)),
            Text(safe(job["status"])),
            f"{job['progress_percentage']:.1f}%",
            f"{job['successful_items']:,}",
            f"{job['failed_items']:,}",
            Text(safe(job["updated_at"])),
        )
    console.print(table)


def show_rejects(rejects: Iterable[Reject]) -> None:
    """Print a line for each error of each reject."""
    console = _console()
    for reject in rejects:
        for line in reject_lines(reject):
            console.print(Text(line), soft_wrap=True)
