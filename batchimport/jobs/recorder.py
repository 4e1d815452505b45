"""What is recorded of a job while it runs: a checkpoint, written once a second from its events."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from batchimport.errors import FatalError, RefusedError, UsageError
from batchimport.jobs.finish import job_command
from batchimport.jobs.identify import without_address
from batchimport.jobs.start import Inferred, has_records
from batchimport.jobs.timeline import Timeline
from batchimport.model import Counts
from batchimport.policy.events import Event, JobFinished, JobStarted
from batchimport.policy.progress import Tally, is_resumable, utc_now
from batchimport.sinks import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.errors import BatchImportError
    from batchimport.jobs.identify import Request
    from batchimport.model import Committed, Job
    from batchimport.policy.events import Observer
    from batchimport.sinks.base import JobRecord
    from batchimport.sources.base import Source

SECONDS_BETWEEN_CHECKPOINTS = 1.0
COMPLETED = ("completed", "completed_with_rejects")


class Recorder:
    """An observer between an engine and a display.

    Attributes:
        tally: What the events add up to.
        owner: Who runs the job: a process or a workflow.
        only_at_end: Save no checkpoint before: a job that is completed must not look unfinished if
            the replay of its rejects is killed.
        job_status: What to save as the job's status, if that is not how the run ended.
    """

    only_at_end = False
    job_status: str | None = None

    def __init__(
        self, request: Request, observer: Observer, owner: str, began: float | None = None
    ) -> None:
        self._request, self._observer, self.owner = request, observer, owner
        self.tally = Tally(began=began)
        self._job_id: str | None = None
        self._saved_at = 0.0
        self._history: dict[str, Any] | None = None
        self._error: str | None = None
        is_kept = not request.options.dry_run
        timeline = Timeline(request.state, self.tally, fresh=request.restart)
        self._timeline: Observer = timeline if is_kept else lambda _: None

    def __call__(self, event: Event) -> None:
        """Add the event up, pass it on, and save a checkpoint if it is time for one."""
        if isinstance(event, JobStarted):
            self._job_id = event.job_id
        if isinstance(event, JobFinished):
            self._error = event.summary.error
        self.tally(event)
        self._timeline(event)
        self._observer(event)
        now = time.monotonic()
        is_time = now - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS and not self.only_at_end
        if is_time or isinstance(event, JobFinished):
            self._saved_at = now
            if self._job_id is not None:
                self.save(self._job_id)

    def save(self, job_id: str) -> None:
        """Write the checkpoint, if possible: it only mirrors the ledger, so nothing depends on it."""
        progress = asdict(self.tally.progress()) | {"job_id": job_id}
        progress["status"] = self.job_status or progress["status"]
        if self._history is None:
            self._history = self._begin(job_id)
        seconds = self._history["seconds_before"] + self.tally.elapsed()
        self._write(
            job_id,
            self._history
            | {
                "ended": None if self.tally.stage != "finished" else utc_now(),
                "seconds": round(seconds, 3),
                "error": None if self.job_status in COMPLETED else self._error,
                "progress": progress,
            },
        )

    def complete(self, record: JobRecord) -> None:
        """Make sure that the checkpoint says of a completed job that it is completed, and when."""
        known = self._request.state.load(record.job_id) or {}
        if known.get("progress", {}).get("status") in COMPLETED:
            return
        status = "completed_with_rejects" if self.tally.totals.failed else "completed"
        progress = asdict(self.tally.progress()) | {
            "job_id": record.job_id,
            "status": status,
            "current_stage": "finished",
        }
        times = {"begun": record.created_at, "ended": record.updated_at, "runs": record.epoch}
        self._write(record.job_id, times | {"seconds": known.get("seconds"), "progress": progress})

    def _begin(self, job_id: str) -> dict[str, Any]:
        """Return what is known of the earlier runs, and count this one."""
        known = self._request.state.load(job_id) if not self._request.restart else None
        known = known or {}
        is_same_run = known.get("owner") == self.owner
        before = known.get("seconds_before" if is_same_run else "seconds")
        now = datetime.now(UTC) - timedelta(seconds=self.tally.elapsed())
        return {
            "begun": known.get("begun") or now.isoformat(timespec="milliseconds"),
            "runs": (known.get("runs") or 0) + (not is_same_run),
            "seconds_before": before or 0.0,
        }

    def _write(self, job_id: str, facts: dict[str, Any]) -> None:
        request, job = self._request, self._request.job
        if request.options.dry_run:
            return
        address, tally = redact(job.destination), self.tally
        started = replace(tally.job, notes=()) if tally.job else None
        with suppress(FatalError):
            request.state.save(
                job_id,
                {
                    "job_id": job_id,
                    "saved_at": utc_now(),
                    "owner": self.owner,
                    "destination": address,
                    "job": without_address(job) | {"destination": address},
                    "options": asdict(request.options),
                    "temporal": asdict(request.temporal) if request.temporal else None,
                    "commands": {
                        name: job_command(name, request, job_id)
                        for name in ("resume", "rejects", "replay")
                    },
                    "started": asdict(started) if started else None,
                    "advanced": asdict(tally.advanced()),
                    **facts,
                },
            )


def record_failure(request: Request, job_id: str, error: BatchImportError) -> None:
    """Add to the checkpoint of an unfinished job why it could not be continued."""
    try:
        document = request.state.load(job_id) if job_id else None
    except UsageError:  # a link, or another user's
        return
    if document is None or isinstance(error, RefusedError) or request.options.dry_run:
        return
    if is_resumable(document["progress"]["status"]):
        with suppress(FatalError):
            request.state.save(job_id, document | {"error": str(error)})


def unit_of(source: Source) -> Literal["bytes", "rows"]:
    """Return what the positions of a source count."""
    return "rows" if source.format == "parquet" else "bytes"


def started(
    job_id: str,
    job: Job,
    source: Source,
    committed: Sequence[Committed],
    inferred: Inferred | None = None,
    notes: tuple[str, ...] = (),
) -> JobStarted:
    """Return the event that begins a run.

    Args:
        committed: The chunks that earlier runs have committed.
        inferred: How the schema of a new job was inferred.
        notes: What users should know besides.
    """
    inferred = inferred or Inferred({})
    done, positions = committed_counts(committed)
    return JobStarted(
        job_id,
        job.sources,
        redact(job.destination),
        job.table,
        source.size,
        done=done,
        done_positions=positions,
        notes=(*source.notes, *_emptiness(job, source), *inferred.notes, *notes),
        columns=inferred.report,
        looked_at=inferred.records,
        unit=unit_of(source),
    )


def _emptiness(job: Job, source: Source) -> tuple[str, ...]:
    """Say that a source has no record, and what that means for the table."""
    if has_records(source):
        return ()
    empties = job.if_exists in ("truncate", "replace")
    outcome = f"; --if-exists {job.if_exists} leaves the table empty" if empties else ""
    return (f"the source has no record{outcome}",)


def committed_counts(committed: Sequence[Committed]) -> tuple[Counts, int]:
    """Return the records by outcome, and the source positions, of committed chunks."""
    done = Counts()
    for row in committed:
        done = done.plus(row.successful, row.failed, row.filtered)
    return done, sum(row.chunk.hi - row.chunk.lo for row in committed)
