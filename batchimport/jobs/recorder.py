"""The checkpoint while a job runs: hears every event, tells the display, writes once a second."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from batchimport.errors import FatalError
from batchimport.jobs.identify import without_address
from batchimport.policy.events import Event, JobFinished, JobStarted
from batchimport.policy.progress import Tally, utc_now
from batchimport.sinks import redact

if TYPE_CHECKING:
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer

SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Recorder:
    """An observer between an engine and a display.

    Attributes:
        tally: The account of the run.
        owner: Who runs the job: a process, or a workflow.
    """

    def __init__(self, request: Request, observer: Observer, owner: str) -> None:
        self._request, self._observer, self.owner = request, observer, owner
        self.tally = Tally()
        self._job_id: str | None = None
        self._saved_at = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event into the account, tell it, and save if it is time."""
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
        """Write the checkpoint; it is a mirror, so that the import goes on without it."""
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
