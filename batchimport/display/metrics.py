"""Metrics of a run as a file that Prometheus collects (the textfile collector of node_exporter)."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from batchimport.errors import FatalError
from batchimport.model import Summary
from batchimport.policy.events import JobFinished
from batchimport.policy.progress import Tally
from batchimport.state.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchimport.policy.events import Event

SECONDS_BETWEEN_WRITES = 5.0
READABLE = 0o644
"""The collector runs as another user."""


class Metrics:
    """An observer that writes the file every few seconds. It is there as a whole, or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tally = Tally()
        self._lock = threading.Lock()
        self._written_at = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Add the event, and write the file if it is time for it."""
        self._tally(event)
        now = time.monotonic()
        if self._tally.job is None or isinstance(event, JobFinished):
            return
        with self._lock:
            if now - self._written_at < SECONDS_BETWEEN_WRITES:
                return
            self._written_at = now
        with suppress(FatalError):  # the next one may succeed
            self._write(self._running())

    def finish(self, summary: Summary) -> None:
        """Write the outcome.

        Raises:
            FatalError: If the file cannot be written.
        """
        self._write(summary)

    def _running(self) -> Summary:
        job = self._tally.job
        assert job is not None  # noqa: S101 - a mistake in this program
        known = Summary(job.job_id, "running", job.sources, job.destination, job.table)
        return self._tally.fill(known, self._tally.elapsed())

    def _write(self, summary: Summary) -> None:
        text = "".join(lines_of(summary, time.time()))
        write_atomically(self._path, [text.encode()], mode=READABLE)


def lines_of(summary: Summary, now: float) -> Iterator[str]:
    """Yield the lines of the file.

    Args:
        now: Seconds since 1970.
    """
    labels = f'job_id="{_escaped(summary.job_id)}",table="{_escaped(summary.table)}"'
    for name, text, value in _values(summary, now):
        yield f"# HELP batchimport_{name} {text}\n# TYPE batchimport_{name} gauge\n"
        yield f"batchimport_{name}{{{labels}}} {value}\n"
    yield "# HELP batchimport_status 1 for the status that the run has\n"
    yield "# TYPE batchimport_status gauge\n"
    yield f'batchimport_status{{{labels},status="{_escaped(summary.status)}"}} 1\n'


def _values(summary: Summary, now: float) -> Iterator[tuple[str, str, float]]:
    if summary.total_items is not None:
        yield "records", "Records of the job", summary.total_items
    yield "records_processed", "Records that have an outcome", summary.total_processed
    yield "records_stored", "Records that are in the table", summary.successful
    yield "records_rejected", "Records that are in the rejects", summary.failed
    yield "records_filtered", "Records that were left out", summary.filtered
    yield "records_per_second", "Speed of this run", summary.records_per_second
    yield "chunks_committed", "Chunks that this run committed", summary.chunks.committed
    yield "chunks_retried", "Attempts of this run that failed", summary.chunks.retried
    yield "chunks_failed", "Chunks that this run gave up", summary.chunks.failed
    yield "duration_seconds", "Duration of this run", summary.duration_seconds
    yield "waited_seconds", "Time that this run waited for the destination", summary.waited_seconds
    yield "running", "1 while the job runs", int(summary.status == "running")
    yield "updated_timestamp_seconds", "When this was written", round(now, 3)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
