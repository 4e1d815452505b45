"""How far a run has got: it adds up events, and derives progress and summary. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batchimport.model import ChunkCounts, ChunkSizes, Counts, Progress, Summary
from batchimport.policy.events import (
    Advanced,
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    Draining,
    Event,
    JobFinished,
    JobStarted,
    Noted,
    Preparing,
    RecordsCounted,
    SizeDecided,
    WaitEnded,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 10.0
"""The current speed is the mean over this time."""
_ADVANCED = tuple(each.name for each in fields(Advanced) if each.name != "elapsed")
"""Fields of `Advanced` that are attributes of a tally."""


def utc_now() -> str:
    """Return the current time in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_resumable(status: str) -> bool:
    """Return whether `batchimport resume` continues a job of this status."""
    return status in ("running", "interrupted", "stopped", "failed")


class Tally:
    """An observer that adds up what the other events say.

    Attributes:
        job: The job, once it is claimed.
        total: Records of the whole job; None until they are counted.
        totals: Records of the whole job by outcome, including earlier runs.
        this_run: Records of this run by outcome.
        positions: Source positions (bytes or rows) that are committed, including earlier runs.
        positions_before: Source positions that earlier runs committed.
        in_flight: Chunks that have started and not ended.
        file: The file of the chunk that started last.
        decision: The sizer's latest decision.
        preparing: What is done before or after the import; None while it runs.
        waited_seconds: Time that this run waited for the destination, without the present wait.
        waiting: The present wait, once it is worth a line; None if there is none.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = utc_now,
        began: float | None = None,
    ) -> None:
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int, int]] = deque()  # time, records, positions
        self._imports_since = clock()
        self._began = self._imports_since if began is None else began
        self._ended: float | None = None
        self._has_advanced = False
        self.job: JobStarted | None = None
        self.total: int | None = None
        self.status, self.stage = "running", "planning"
        self.totals, self.this_run = Counts(), Counts()
        self.positions = self.positions_before = 0
        self.in_flight = 0
        self.file = ""
        self.chunks, self.sizes = ChunkCounts(), ChunkSizes()
        self.decision: SizeDecided | None = None
        self.preparing: Preparing | None = None
        self.waited_seconds = 0.0
        self.waiting: Waiting | None = None

    def __call__(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            match event:
                case JobStarted():
                    self._started(event)
                case RecordsCounted():
                    self.total = event.total
                case SizeDecided():
                    self._decided(event)
                case ChunkStarted() | ChunkRetried() | ChunkFailed() | ChunkFinished():
                    self._chunk(event)
                case Draining():
                    self.stage = "draining"
                case Advanced():
                    self._advanced(event)
                case Preparing() | Waiting() | WaitEnded():
                    self._delayed(event)
                case Noted():
                    pass
                case JobFinished():
                    self._ended = self._clock()
                    self.status, self.stage = event.summary.status, "finished"
                    self.preparing = None

    def _delayed(self, event: Preparing | Waiting | WaitEnded) -> None:
        """Remember what keeps chunks from being imported just now."""
        if isinstance(event, Preparing):
            self.preparing = event
            return
        self.waiting = event if isinstance(event, Waiting) else None
        self.waited_seconds += event.seconds if isinstance(event, WaitEnded) else 0

    def _started(self, event: JobStarted) -> None:
        self.job, self.total, self.totals = event, event.total, event.done
        self.positions = self.positions_before = event.done_positions
        self.stage, self.preparing = "importing", None
        self._imports_since = self._clock()

    def _chunk(self, event: ChunkStarted | ChunkRetried | ChunkFailed | ChunkFinished) -> None:
        match event:
            case ChunkStarted():
                self.in_flight += 1
                self.file = event.file
            case ChunkRetried():
                self.chunks = replace(self.chunks, retried=self.chunks.retried + 1)
            case ChunkFailed():
                self.in_flight -= 1
                self.chunks = replace(self.chunks, failed=self.chunks.failed + 1)
            case ChunkFinished():
                self._finished(event)

    def _decided(self, event: SizeDecided) -> None:
        self.decision = event
        known, limit = self.sizes, event.limit
        self.sizes = ChunkSizes(
            min(known.min or limit, limit), max(known.max or limit, limit), limit
        )

    def _finished(self, event: ChunkFinished) -> None:
        result = event.result
        self.in_flight -= 1
        self.totals = self.totals.plus(*result.counts)
        self.this_run = self.this_run.plus(*result.counts)
        self.positions += result.chunk.hi - result.chunk.lo
        self.chunks = replace(
            self.chunks,
            committed=self.chunks.committed + 1,
            bisected=self.chunks.bisected + result.bisected,
        )
        chunk = result.chunk
        self._recent.append((self._clock(), chunk.records, chunk.hi - chunk.lo))

    def _advanced(self, event: Advanced) -> None:
        more = event.totals.processed - self.totals.processed
        positions = event.positions - self.positions
        if more > 0 and self._has_advanced:  # the first report covers an unknown span of time
            self._recent.append((self._clock(), more, positions))
        self._has_advanced = True
        for name in _ADVANCED:
            setattr(self, name, getattr(event, name))
        if event.elapsed is not None:
            self._began = self._clock() - event.elapsed

    def settle(self, totals: Counts) -> None:
        """Take over the counts of the ledger, after rejects of the job were processed again."""
        stored = totals.successful - self.totals.successful
        left_out = totals.filtered - self.totals.filtered
        failed = min(self.this_run.failed, stored + left_out)  # the others are of earlier runs
        self.this_run = self.this_run.plus(stored, -failed, left_out)
        self.totals = totals

    def advanced(self) -> Advanced:
        """Return the present state as an event, from which another tally can continue."""
        known = {name: getattr(self, name) for name in _ADVANCED}
        return Advanced(**known, elapsed=round(self.elapsed(), 3))

    def elapsed(self) -> float:
        """Return the seconds since the run began; after its end, how long it took."""
        return (self._clock() if self._ended is None else self._ended) - self._began

    def rate(self) -> float:
        """Return records per second over the last ten seconds; of the whole run at its end."""
        return self._speeds()[0]

    def position_rate(self) -> float:
        """Return positions (bytes or rows) per second, likewise."""
        return self._speeds()[1]

    def _speeds(self) -> tuple[float, float]:
        now = self._clock()
        with self._lock:
            if self._ended is not None:
                span = self._ended - self._began
                read = self.positions - self.positions_before
                return (self.this_run.processed / span, read / span) if span > 0 else (0.0, 0.0)
            while self._recent and now - self._recent[0][0] > WINDOW_SECONDS:
                self._recent.popleft()
            span = min(WINDOW_SECONDS, now - self._imports_since)
            if span <= 0:
                return 0.0, 0.0
            records = sum(records for _, records, _ in self._recent)
            return records / span, sum(positions for *_, positions in self._recent) / span

    def share(self) -> float:
        """Return the share of the job that is done: by records if they are counted, 0 to 1."""
        if self.total:
            return min(1.0, self.totals.processed / self.total)
        size = self.job.size if self.job else 0
        return min(1.0, self.positions / size) if size else float(self.stage == "finished")

    def eta_seconds(self) -> float | None:
        """Return the estimated time to the end; None while the speed is unknown.

        By records once they are counted, before that by the positions of the source.
        """
        records, positions = self._speeds()
        if self.total is not None:
            left, speed = float(self.total - self.totals.processed), records
        else:
            left, speed = float((self.job.size if self.job else 0) - self.positions), positions
        return max(0.0, left / speed) if speed > 0 else None

    def reading(self) -> str:
        """Return the file that is being read; empty if the job has one file only."""
        several = self.job is not None and len(self.job.sources) > 1
        return self.file if several and self.stage != "finished" else ""

    def progress(self) -> Progress:
        """Return the present state as `status --json` prints it."""
        rate, eta, decision = self.rate(), self.eta_seconds(), self.decision
        finished = self.stage == "finished"
        return Progress(
            job_id=self.job.job_id if self.job else "",
            status=self.status,
            total_items=self.total,
            processed_items=self.totals.processed,
            successful_items=self.totals.successful,
            failed_items=self.totals.failed,
            current_stage="waiting" if self.waiting and not finished else self.stage,
            progress_percentage=round(100 * self.share(), 2),
            records_per_second=0.0 if finished else round(rate, 1),
            eta_seconds=None if finished or eta is None else round(eta, 1),
            chunk_size=decision.limit if decision else None,
            in_flight=self.in_flight,
            cpu_usage=decision.cpu_usage if decision else None,
            memory_usage=decision.memory_usage if decision else None,
            updated_at=self._now(),
        )

    def fill(self, summary: Summary, seconds: float) -> Summary:
        """Return a summary with the counts of this tally.

        Args:
            seconds: Duration of the run.
        """
        return replace(
            summary,
            total_items=self.total,
            total_processed=self.totals.processed,
            successful=self.totals.successful,
            failed=self.totals.failed,
            filtered=self.totals.filtered,
            this_run=self.this_run,
            duration_seconds=round(seconds, 3),
            records_per_second=round(self.this_run.processed / seconds, 1) if seconds else 0.0,
            bytes_read=self.positions - self.positions_before,
            chunks=self.chunks,
            chunk_size=self.sizes,
            waited_seconds=round(self.waited_seconds, 3),
        )
