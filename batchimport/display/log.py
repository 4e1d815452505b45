"""A run as lines with their time in a file, for the morning after."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from batchimport.display.escape import safe
from batchimport.display.lines import Warnings, describe
from batchimport.errors import UsageError
from batchimport.policy.events import (
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    JobFinished,
    RecordsCounted,
    SizeDecided,
)
from batchimport.policy.progress import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchimport.model import Summary
    from batchimport.policy.events import Event, Observer


@contextmanager
def open_log(path: Path | None) -> Iterator[Observer]:
    """Append to a log file, which only its owner may read; without a path, log nothing.

    Raises:
        UsageError: If it cannot be opened.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            where=f"--log-file {path}",
            hint="choose another place",
        ) from error
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
        yield Log(stream)


class Log:
    """Writes each event that tells something as one line, at once.

    A disk that takes no more lines does not stop the import.
    """

    def __init__(self, stream: TextIO, now: Callable[[], str] = utc_now) -> None:
        self._stream, self._now = stream, now
        self._decision, self._is_over = "", False
        self._warnings = _AllOfThem()

    def __call__(self, event: Event) -> None:
        """Write what there is to say."""
        for line in self._lines(event):
            try:
                self._stream.write(f"{self._now()} {line}\n")
                self._stream.flush()
            except OSError:
                return

    def _lines(self, event: Event) -> list[str]:
        match event:
            case SizeDecided():
                return self._changed(event)
            case ChunkFinished():
                return [_committed(event)]
            case RecordsCounted():
                return [f"the source has {event.total:,} records"]
            case JobFinished():
                is_told, self._is_over = self._is_over, True
                return [] if is_told else _ended(event.summary)
            case ChunkRetried() | ChunkFailed():
                return [f"WARNING {line}" for line in describe(event, self._warnings)]
            case _:
                return describe(event, self._warnings)

    def _changed(self, event: SizeDecided) -> list[str]:
        """Tell of a decision that differs from the one before."""
        decision = f"chunks of {event.limit:,}, {event.in_flight} in flight: {event.reason}"
        is_new, self._decision = decision != self._decision, decision
        return [decision] if is_new else []


class _AllOfThem(Warnings):
    """Lets all through: a log is searched, not read."""

    def admit(self, event: Event) -> int:
        del event
        return 2


def _committed(event: ChunkFinished) -> str:
    result = event.result
    first, last = result.chunk.offset, result.chunk.offset + result.chunk.records
    counts = f"stored {result.successful:,}, rejected {result.failed:,}"
    if result.filtered:
        counts += f", filtered {result.filtered:,}"
    return f"records {first:,} to {last:,} committed in {event.seconds:.2f} s: {counts}"


def _ended(summary: Summary) -> list[str]:
    totals = f"{summary.total_processed:,} records: stored {summary.successful:,}"
    totals += f", rejected {summary.failed:,}, filtered {summary.filtered:,}"
    lines = [f"{summary.status}: {totals} in {summary.duration_seconds:.1f} s"]
    if summary.error:
        lines.insert(0, f"ERROR {safe(summary.error, 1000)}")
    return lines
