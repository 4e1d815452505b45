"""What is recorded of a job while it runs: a checkpoint, written once a second from its events."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from batchimport.errors import FatalError
from batchimport.jobs.identify import without_address
from batchimport.jobs.start import has_records
from batchimport.model import Counts
from batchimport.policy.events import Event, JobFinished, JobStarted
from batchimport.policy.progress import Tally, utc_now
from batchimport.sinks import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.jobs.identify import Request
    from batchimport.model import Committed, Job
    from batchimport.policy.events import Observer
    from batchimport.sources.base import Source

SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Recorder:
    """An observer between an engine and a display.

    Attributes:
        tally: What the events add up to.
        owner: Who runs the job: a process or a workflow.
    """

    def __init__(self, request: Request, observer: Observer, owner: str) -> None:
        self._request, self._observer, self.owner = request, observer, owner
        self.tally = Tally()
        self._job_id: str | None = None
        self._saved_at = 0.0

    def __call__(self, event: Event) -> None:
        """Add the event up, pass it on, and save a checkpoint if it is time for one."""
        if isinstance(event, JobStarted):
            self._job_id = event.job_id
        self.tally(event)
        self._observer(event)
        now = time.monotonic()
        if now - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS or isinstance(event, JobFinished):
            self._saved_at = now
            if self._job_id is not None:
                self.save(self._job_id)

    def save(self, job_id: str) -> None:
        """Write the checkpoint, if possible: it only mirrors the ledger, so nothing depends on it."""
        job, temporal = self._request.job, self._request.temporal
        if self._request.options.dry_run:
            return
        address = redact(job.destination)
        with suppress(FatalError):
            self._request.state.save(
                job_id,
                {
                    "job_id": job_id,
                    "saved_at": utc_now(),
                    "owner": self.owner,
                    "destination": address,
                    "job": without_address(job) | {"destination": address},
                    "options": asdict(self._request.options),
                    "temporal": asdict(temporal) if temporal else None,
                    "progress": asdict(self.tally.progress()) | {"job_id": job_id},
                },
            )


def started(job_id: str, job: Job, source: Source, committed: Sequence[Committed]) -> JobStarted:
    """Return the event that begins a run.

    Args:
        committed: The chunks that earlier runs have committed.
    """
    done, positions = committed_counts(committed)
    return JobStarted(
        job_id,
        job.sources,
        redact(job.destination),
        job.table,
        source.size,
        done=done,
        done_positions=positions,
        notes=(*source.notes, *_emptiness(job, source)),
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
