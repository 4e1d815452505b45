"""Progress as lines: for logs and pipes, as JSON for programs, or none."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Self, TextIO

from batchimport.display.escape import safe
from batchimport.display.units import clock_time, counted, data_size
from batchimport.policy.events import (
    ChunkFailed,
    ChunkRetried,
    Draining,
    JobFinished,
    JobStarted,
    Noted,
    WaitEnded,
    Waiting,
)
from batchimport.policy.progress import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.policy.events import Event, SizeDecided

SECONDS_BETWEEN_LINES = 5.0
MOST_COLUMNS = 12
MOST_WARNINGS = 5


class NoDisplay:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class PlainDisplay(NoDisplay):
    """A line every five seconds, and one for each warning, up to five of a kind."""

    seconds_between_lines = SECONDS_BETWEEN_LINES

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        verbose: bool = False,
    ) -> None:
        self._stream, self._clock, self._verbose = stream, clock, verbose
        self._tally = Tally(clock)
        self._last = clock()
        self._warnings = Warnings()

    def __call__(self, event: Event) -> None:
        """Print a line when it is due."""
        self._tally(event)
        for line in describe(event, self._warnings):
            self._print(line)
        is_last = isinstance(event, JobFinished)
        is_over = self._tally.stage == "finished"
        is_due = self._clock() - self._last >= self.seconds_between_lines
        if is_last or (is_due and not is_over):
            self._last = self._clock()
            if line := self._line():
                self._print(line)

    def _line(self) -> str:
        tally = self._tally
        if tally.stage != "finished" and (tally.job is None or tally.preparing is not None):
            return preparing_line(tally)
        return progress_line(tally, verbose=self._verbose) if tally.job is not None else ""

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class JsonDisplay(PlainDisplay):
    """Progress as a JSON object per line, at most one a second."""

    seconds_between_lines = 1.0

    def __call__(self, event: Event) -> None:
        """Print an object when it is due."""
        self._tally(event)
        is_due = isinstance(event, JobStarted | JobFinished)
        if is_due or self._clock() - self._last >= self.seconds_between_lines:
            self._last = self._clock()
            self._print(json.dumps(asdict(self._tally.progress())))


class Warnings:
    """Limits the warnings of each kind that are shown."""

    def __init__(self) -> None:
        self._seen: dict[type, int] = {}
        self._is_waiting = False

    def admit(self, event: Event) -> int:
        """Return how many more of this kind may be shown, including this one."""
        seen = self._seen[type(event)] = self._seen.get(type(event), 0) + 1
        return MOST_WARNINGS + 1 - seen

    def begins(self, event: Waiting | WaitEnded) -> bool:
        """Say whether the event begins a wait, or ends one that was shown: others are not shown."""
        was_waiting, self._is_waiting = self._is_waiting, isinstance(event, Waiting)
        return was_waiting != self._is_waiting


def _columns(event: JobStarted) -> list[str]:
    """Return what was inferred about the columns, not too long."""
    if not event.columns:
        return []
    shown = event.columns[:MOST_COLUMNS]
    left = len(event.columns) - len(shown)
    more = (
        [f"  … and {counted(left, 'more column')} (`batchimport schema` shows all)"] if left else []
    )
    title = f"columns, inferred from {counted(event.looked_at, 'record')}:"
    return [title, *(f"  {safe(line, 160)}" for line in shown), *more]


def describe(event: Event, warnings: Warnings) -> list[str]:
    """Return the lines that tell the user about an event."""
    match event:
        case JobStarted():
            lines = [f"job {event.job_id}: into {safe(event.table)} of {safe(event.destination)}"]
            if event.done.processed:
                lines.append(f"resumed: {event.done.processed:,} records were imported before")
            lines += [safe(note, 200) for note in event.notes]
            return lines + _columns(event)
        case ChunkRetried():
            what = f"{_place(event)}: attempt {event.attempt} failed: {safe(event.error, 200)}"
        case ChunkFailed():
            what = f"{_place(event)}: given up: {safe(event.error, 200)}"
        case Noted():
            return [safe(event.text, 300)]
        case Waiting() | WaitEnded():
            return [_wait(event)] if warnings.begins(event) else []
        case Draining():
            return [_draining(event)]
        case _:
            return []
    left = warnings.admit(event)
    return [what] if left > 1 else [f"{what} … and more like this"] if left == 1 else []


def _draining(event: Draining) -> str:
    text = f"{safe(event.reason, 200)}; finishing the chunks in flight"
    if "SIG" not in event.reason:
        return text
    again = "Ctrl-C again" if "SIGINT" in event.reason else "a second signal"
    return f"{text}; {again} leaves at once, and nothing is lost"


def waiting_line(event: Waiting) -> str:
    """Return what is waited for, why and how long."""
    what = f"waiting for {safe(event.destination, 200)}: {safe(event.reason, 200)}"
    return f"{what} ({clock_time(event.seconds)})"


def _wait(event: Waiting | WaitEnded) -> str:
    if isinstance(event, Waiting):
        return waiting_line(event)
    after = f"after {clock_time(event.seconds)}"
    return f"the destination is back {after}" if event.is_back else f"gave up waiting {after}"


def _place(event: ChunkRetried | ChunkFailed) -> str:
    chunk = event.chunk
    return f"records {chunk.offset:,} to {chunk.offset + chunk.records:,}"


def progress_line(tally: Tally, *, verbose: bool = False) -> str:
    """Return the current progress in one line."""
    if tally.waiting is not None:
        return waiting_line(tally.waiting)
    totals = tally.totals
    parts = [f"{tally.share():6.1%}", f"{totals.processed:,}"]
    parts[-1] += f" of {tally.total:,} records" if tally.total is not None else " records"
    parts += speeds(tally)
    eta = tally.eta_seconds()
    parts.append(f"{clock_time(tally.elapsed())} elapsed")
    if eta is not None and tally.stage != "finished":
        parts.append(f"ETA {clock_time(eta)}")
    parts += [f"stored {totals.successful:,}", f"rejected {totals.failed:,}"]
    if tally.chunks.retried:
        parts.append(f"retried {tally.chunks.retried:,}")
    if tally.reading():
        parts.append(f"file {safe(tally.reading(), 60)}")
    if verbose and tally.decision is not None:
        parts.append(decision(tally.decision, tally.in_flight))
    return "  ".join(parts)


def speeds(tally: Tally) -> list[str]:
    """Return records per second, and bytes per second where the source counts bytes, once known."""
    if not tally.rate():
        return []
    known = [f"{tally.rate():,.0f}/s"]
    if tally.job is not None and tally.job.unit == "bytes":
        known.append(f"{data_size(tally.position_rate())}/s")
    return known


def decision(size: SizeDecided, in_flight: int) -> str:
    """Return what the sizer decided and why."""
    text = f"{in_flight} in flight, chunk {size.limit:,} ({size.reason})"
    if size.cpu_usage is not None and size.memory_usage is not None:
        text += f", cpu {size.cpu_usage:.0%} mem {size.memory_usage:.0%}"
    return text


def preparing_line(tally: Tally) -> str:
    """Return what is done before or after the import, in one line."""
    preparing = tally.preparing
    if preparing is None:
        return "examining the source"
    line = safe(preparing.what, 200)
    if preparing.total:
        line += f": {data_size(preparing.done)} of {data_size(preparing.total)}"
    elif preparing.done:
        line += f": {data_size(preparing.done)}"
    return f"{line} ({clock_time(tally.elapsed())})"
