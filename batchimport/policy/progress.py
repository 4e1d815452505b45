"""The running account of a run: events in, progress out. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import replace
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
    RecordsCounted,
    SizeDecided,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 10.0


def utc_now() -> str:
    """Return the present time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Tally:
    """An observer that adds up.

    Attributes:
        totals: Records of the whole job by outcome, earlier runs included.
        this_run: The same of this run alone.
        positions: Source positions that are committed.
        decision: What the sizer decided last.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], str] = utc_now
    ) -> None:
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()
        self._began = clock()
        self._follows = False
        self.job: JobStarted | None = None
        self.total: int | None = None
        self.status, self.stage = "running", "planning"
        self.totals, self.this_run = Counts(), Counts()
        self.positions = self.positions_before = 0
        self.in_flight = 0
        self.file = ""
        self.chunks, self.sizes = ChunkCounts(), ChunkSizes()
        self.codes: Counter[str] = Counter()
        self.decision: SizeDecided | None = None

    def __call__(self, event: Event) -> None:
        """Take an event into the account."""
        with self._lock:
            match event:
                case JobStarted():
                    self.job, self.total, self.totals = event, event.total, event.done
                    self.positions = self.positions_before = event.done_positions
                    self.stage = "importing"
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
                case Noted():
                    pass
                case JobFinished():
                    self.status, self.stage = event.summary.status, "finished"

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
        outcome = (result.successful, result.failed, result.filtered)
        self.in_flight -= 1
        self.totals = self.totals.plus(*outcome)
        self.this_run = self.this_run.plus(*outcome)
        self.positions += result.chunk.hi - result.chunk.lo
        self.chunks = replace(
            self.chunks,
            committed=self.chunks.committed + 1,
            bisected=self.chunks.bisected + result.bisected,
        )
        self.codes.update(result.rejects_by_code)
        self._recent.append((self._clock(), result.chunk.records))

    def _advanced(self, event: Advanced) -> None:
        more = event.totals.processed - self.totals.processed
        if more > 0 and self._follows:  # what was done before one looked says nothing of speed
            self._recent.append((self._clock(), more))
        self._follows = True
        self.stage, self.total = event.stage, event.total
        self.totals, self.this_run = event.totals, event.this_run
        self.positions, self.in_flight = event.positions, event.in_flight
        self.chunks, self.sizes, self.decision = event.chunks, event.sizes, event.decision

    def advanced(self) -> Advanced:
        """Return the account as it stands, for another tally to go on from."""
        return Advanced(
            stage=self.stage,
            total=self.total,
            totals=self.totals,
            this_run=self.this_run,
            positions=self.positions,
            in_flight=self.in_flight,
            chunks=self.chunks,
            sizes=self.sizes,
            decision=self.decision,
        )

    def rate(self) -> float:
        """Return records per second over the last ten seconds."""
        now = self._clock()
        with self._lock:
            while self._recent and now - self._recent[0][0] > WINDOW_SECONDS:
                self._recent.popleft()
            span = min(WINDOW_SECONDS, now - self._began)
            return sum(records for _, records in self._recent) / span if span > 0 else 0.0

    def share(self) -> float:
        """Return how much of the job is done, 0 to 1."""
        if self.total:
            return min(1.0, self.totals.processed / self.total)
        size = self.job.size if self.job else 0
        return min(1.0, self.positions / size) if size else float(self.stage == "finished")

    def eta_seconds(self) -> float | None:
        """Return how long the rest will take; None while nothing can be said."""
        rate = self.rate()
        if self.total is None or rate <= 0:
            return None
        return max(0.0, (self.total - self.totals.processed) / rate)

    def reading(self) -> str:
        """Return which file is being read, if there are several."""
        several = self.job is not None and len(self.job.sources) > 1
        return self.file if several and self.stage != "finished" else ""

    def progress(self) -> Progress:
        """Return the moment as `status --json` prints it."""
        rate, eta, decision = self.rate(), self.eta_seconds(), self.decision
        finished = self.stage == "finished"
        return Progress(
            job_id=self.job.job_id if self.job else "",
            status=self.status,
            total_items=self.total,
            processed_items=self.totals.processed,
            successful_items=self.totals.successful,
            failed_items=self.totals.failed,
            current_stage=self.stage,
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
        """Return a summary with the numbers of this account.

        Args:
            seconds: How long the run took.
        """
        this_run = self.this_run
        return replace(
            summary,
            total_items=self.total,
            total_processed=self.totals.processed,
            successful=self.totals.successful,
            failed=self.totals.failed,
            filtered=self.totals.filtered,
            this_run=this_run,
            duration_seconds=round(seconds, 3),
            records_per_second=round(this_run.processed / seconds, 1) if seconds else 0.0,
            bytes_read=self.positions - self.positions_before,
            chunks=self.chunks,
            chunk_size=self.sizes,
        )
