"""The events of a run on the logger `batchimport`, and the file of `--log-file`."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchimport.model import Summary
    from batchimport.policy.events import Event

LOGGER = logging.getLogger("batchimport")
# Without a handler, Python prints warnings to stderr in a program that has not set up logging.
LOGGER.addHandler(logging.NullHandler())


class RunLog:
    """Logs the events of one run."""

    def __init__(self) -> None:
        self._decision, self._is_over = "", False
        self._warnings = _Unlimited()

    def __call__(self, event: Event) -> None:
        """Log what the event reports."""
        level = (
            logging.WARNING
            if isinstance(event, ChunkRetried | ChunkFailed | Waiting)
            else logging.INFO
        )
        if isinstance(event, JobFinished) and event.summary.error and not self._is_over:
            LOGGER.error("%s", safe(event.summary.error, 1000))
        for line in self._lines(event):
            LOGGER.log(level, "%s", line)

    def _lines(self, event: Event) -> list[str]:
        match event:
            case SizeDecided():
                return self._changed(event)
            case ChunkFinished():
                return [committed(event)]
            case RecordsCounted():
                return [f"the source has {event.total:,} records"]
            case JobFinished():
                was_over, self._is_over = self._is_over, True
                return [] if was_over else [_ended(event.summary)]
            case _:
                return describe(event, self._warnings)

    def _changed(self, event: SizeDecided) -> list[str]:
        """Report a decision that differs from the one before."""
        decision = f"chunks of {event.limit:,}, {event.in_flight} in flight: {event.reason}"
        is_new, self._decision = decision != self._decision, decision
        return [decision] if is_new else []


@contextmanager
def log_to(path: Path | None) -> Iterator[None]:
    """Append the log to a file that only its owner may read; without a path, do nothing.

    Raises:
        UsageError: If the file cannot be opened.
    """
    if path is None:
        yield
        return
    try:
        handler = _LogFile(path)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            where=f"--log-file {path}",
            hint="choose another path",
        ) from error
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A line per record, with its time in UTC; a full disk does not stop the import."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{time} {level}{record.getMessage()}"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - named by logging
        """Drop the line, where logging would print a traceback."""


class _Unlimited(Warnings):
    """Lets all warnings through: a log is searched, not read."""

    def admit(self, event: Event) -> int:
        del event
        return 2


def committed(event: ChunkFinished) -> str:
    """Say in one line what became of a chunk."""
    result = event.result
    first, last = result.chunk.offset, result.chunk.offset + result.chunk.records
    counts = f"stored {result.successful:,}, rejected {result.failed:,}"
    if result.filtered:
        counts += f", filtered {result.filtered:,}"
    return f"records {first:,} to {last:,} committed in {event.seconds:.2f} s: {counts}"


def _ended(summary: Summary) -> str:
    totals = f"{summary.total_processed:,} records: stored {summary.successful:,}"
    totals += f", rejected {summary.failed:,}, filtered {summary.filtered:,}"
    return f"{summary.status}: {totals} in {summary.duration_seconds:.1f} s"
