"""What a command prints at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from batchimport.display.bars import CAUTION, GOOD, QUIET, TROUBLE, bar
from batchimport.display.escape import safe
from batchimport.display.units import ago, clock_time, counted, parse_time
from batchimport.model import DRY_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.style import Style

    from batchimport.errors import BatchImportError
    from batchimport.model import Reject, Summary

WIDE = 400
BAR_COLUMNS = 20
MOST_REASONS = 15
_OUTCOMES = {
    "completed": ("completed: every record is stored", GOOD),
    "completed_with_rejects": ("completed with rejects", CAUTION),
    "running": ("started: the workers continue it", GOOD),
    "interrupted": ("interrupted: can be continued", CAUTION),
    "stopped": ("stopped: too many rejects", CAUTION),
    "failed": ("failed: can be continued", TROUBLE),
    "refused": ("refused", TROUBLE),
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


def output() -> Console:
    """Return the console of stdout; lines are not wrapped unless it is a terminal."""
    width = None if sys.stdout.isatty() else WIDE
    return _Output(highlight=False, width=width)


def final_report(summary: Summary, examples: Sequence[Reject], ended_at: str | None = None) -> None:
    """Print the outcome of a run, its rejects by field and reason, and the next command to type.

    Args:
        ended_at: When a job that had nothing to do was completed, ISO 8601.
    """
    console = output()
    if summary.status == "already_completed":
        console.print(Text(_already(summary, ended_at)), soft_wrap=True)
        return
    words, style = _outcome(summary, examples)
    is_dry = summary.delivery == DRY_RUN
    if is_dry:
        words = f"dry run, nothing is kept; a run would end: {words}"
    console.print(Text(words, style=style))
    _print_rest(console, summary, examples)


def replay_report(summary: Summary, examples: Sequence[Reject], _: str | None = None) -> None:
    """Print what became of the rejects that were replayed, and what is left."""
    console, this_run = output(), summary.this_run
    outcomes = {
        "stored": this_run.successful,
        "filtered or given up": this_run.filtered,
        "rejected again": this_run.failed,
    }
    told = ", ".join(f"{count:,} {word}" for word, count in outcomes.items() if count)
    rejects = counted(this_run.processed, "reject")
    words = f"replayed {rejects}: {told}" if told else "nothing was replayed"
    if summary.delivery == DRY_RUN:
        words = f"dry run, nothing is kept; {words}"
    console.print(Text(words, style=CAUTION if summary.failed else GOOD))
    _print_rest(console, summary, examples)


def _print_rest(console: Console, summary: Summary, examples: Sequence[Reject]) -> None:
    """Print the facts of a run, its rejects, and the next command to type."""
    print_facts(console, _facts(summary))
    if summary.rejects_by_field:
        _print_reasons(console, summary, examples)
    if summary.rejects_file:
        console.print(Text(f"rejects file: {safe(summary.rejects_file, 1000)}"), soft_wrap=True)
    _print_next(console, summary)


def _print_next(console: Console, summary: Summary) -> None:
    """Print what to type next: how to continue the job, or how its rejects come home."""
    if summary.delivery == DRY_RUN:
        return
    if summary.resume_command:
        lines = [f"next: {safe(summary.resume_command, 1000)}"]
    elif summary.failed:
        job = summary.job_id
        lines = [
            f"next: batchimport rejects {job}",
            f"once the schema, transform or data are fixed: batchimport replay {job}",
        ]
    else:
        lines = []
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _already(summary: Summary, ended_at: str | None) -> str:
    """Say in one line that nothing was to be done, when it was done, and what is left."""
    time = parse_time(ended_at)
    text = f"already completed: imported {ago(time) if time else 'before'} by job {summary.job_id}"
    if not summary.failed:
        return text
    remain = "remains" if summary.failed == 1 else "remain"
    rejects = counted(summary.failed, "reject")
    return f"{text}; {rejects} {remain}: batchimport replay {summary.job_id}"


def _why_none(summary: Summary, examples: Sequence[Reject]) -> str:
    """Say why every record is a reject, as far as that is known."""
    in_transform = {
        error.code: error.message
        for reject in reversed(examples)
        for error in reject.errors
        if reject.stage == "transform"
    }
    if in_transform and summary.rejects_by_code.keys() == in_transform.keys():
        return safe(f"every record fails in the transform: {[*in_transform.values()][-1]}", 300)
    return "no record fits: is this the right schema?"


def _outcome(summary: Summary, examples: Sequence[Reject]) -> tuple[str, Style]:
    """Return the text and style of the outcome; a run that stored nothing is not called complete."""
    words, style = _OUTCOMES.get(summary.status, (summary.status, QUIET))
    if summary.failed and summary.failed == summary.total_processed:
        return f"{words.partition(':')[0]}: {_why_none(summary, examples)}", TROUBLE
    exceptions = {
        "the source has no record": not summary.total_processed,
        "nothing is stored, every record was filtered or left out": not summary.successful,
        "the table left records out": summary.skipped_by_destination,
    }
    for exception, applies in exceptions.items():
        if applies and summary.status == "completed":
            return f"completed: {exception}", CAUTION
    if summary.filtered and summary.status == "completed":
        words += " or was filtered"
    return words, style


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a long value goes on in the next line."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        line = Text.assemble((f"{name:{width}}", QUIET), f"  {value}")
        console.print(line, soft_wrap=True)


def _print_reasons(console: Console, summary: Summary, examples: Sequence[Reject]) -> None:
    """Print how often each field was rejected for each reason, and examples of different reasons."""
    counts = {
        (field, code): count
        for field, codes in summary.rejects_by_field.items()
        for code, count in codes.items()
    }
    console.print(Text("rejects by field and reason", style="bold"))
    print_reasons(console, counts)
    for reject in examples:
        line, *more = reject_lines(reject)
        line += f" and {len(more)} more" if more else ""
        console.print(Text(line, style=QUIET, overflow="ellipsis", no_wrap=True))


def print_reasons(console: Console, counts: dict[tuple[str, str], int]) -> None:
    """Print a line with a bar for each pair of field and reason, the most frequent first."""
    most = max(counts.values(), default=1)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        (f"{count:,}", safe(field, 30) if field else "(record)", safe(code, 30), count)
        for (field, code), count in ranked[:MOST_REASONS]
    ]
    widths = [max(cell_len(str(row[at])) for row in shown) for at in range(3)]
    for number, field, code, count in shown:
        line = Text(f"{number:>{widths[0]}}  ")
        for cell, width in ((field, widths[1]), (code, widths[2])):
            line.append(cell + " " * (width - cell_len(cell) + 2))
        console.print(line.append(bar(count / most, BAR_COLUMNS, console, CAUTION)), soft_wrap=True)
    if len(ranked) > MOST_REASONS:
        console.print(Text(f"and {len(ranked) - MOST_REASONS:,} more", style=QUIET))


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


def show_reasons(counts: dict[tuple[str, str], int]) -> None:
    """Print how many errors there are of each field and reason."""
    print_reasons(output(), counts)


def show_rejects(rejects: Iterable[Reject]) -> None:
    """Print a line for each error of each reject."""
    console = output()
    for reject in rejects:
        for line in reject_lines(reject):
            console.print(Text(line), soft_wrap=True)
