"""What is known of a job, wherever it was asked for: progress, history, and the next command."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from batchimport.model import ChunkCounts, ChunkSizes, Counts, Progress, Summary
from batchimport.policy.events import Advanced, JobFinished, JobStarted, SizeDecided
from batchimport.policy.progress import is_resumable

if TYPE_CHECKING:
    from batchimport.policy.events import Event

_KILLED = "its process ended without a word, as after `kill -9` or a power failure"


@dataclass(frozen=True, slots=True)
class Known:
    """A job as `status` and `jobs` show it.

    Attributes:
        begun_at: ISO 8601 in UTC, of the first run; `ended_at` of the last one, None while it runs.
        duration_seconds: Of all runs together.
        runs: How often the job was run, unless it had nothing to do.
        error: Why the last run did not complete.
        next_command: What to type next.
        started: What a live display needs, together with `advanced`.
    """

    progress: Progress
    sources: tuple[str, ...] = ()
    destination: str = ""
    table: str = ""
    begun_at: str | None = None
    ended_at: str | None = None
    duration_seconds: float | None = None
    runs: int | None = None
    error: str | None = None
    next_command: str | None = None
    started: JobStarted | None = None
    advanced: Advanced | None = None

    @property
    def is_running(self) -> bool:
        """Whether the job runs, as far as is known."""
        return self.progress.status == "running"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `status --json` prints."""
        more = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("progress", "started", "advanced"):
            del more[name]
        return {**asdict(self.progress), **more, "sources": list(self.sources)}

    def end(self) -> Event:
        """Return the event that ends a live display."""
        progress = self.progress
        return JobFinished(
            Summary(progress.job_id, progress.status, self.sources, self.destination, self.table)
        )


def from_checkpoint(document: dict[str, Any], *, has_ended: bool | None) -> Known:
    """Return what a checkpoint says of its job; one of an older version says less.

    Args:
        has_ended: Whether the process that runs the job is gone; None if that is unknown.
    """
    progress = _build(Progress, document["progress"])
    error = document.get("error")
    if progress.status == "already_completed":  # as an earlier version recorded it
        outcome = "completed_with_rejects" if progress.failed_items else "completed"
        progress = replace(progress, status=outcome)
    if progress.status == "running" and has_ended:
        progress = replace(progress, status="interrupted", current_stage="finished", in_flight=0)
        error = error or _KILLED
    if progress.status != "running":
        progress = replace(progress, eta_seconds=None, records_per_second=0.0)
    commands = document.get("commands", {})
    job, started, advanced = (document.get(name) for name in ("job", "started", "advanced"))
    ended = document.get("ended") or document.get("saved_at")
    return Known(
        progress,
        sources=tuple((job or {}).get("sources", ())),
        destination=str(document.get("destination", "")),
        table=str((job or {}).get("table", "")),
        begun_at=document.get("begun"),
        ended_at=None if progress.status == "running" else ended,
        duration_seconds=document.get("seconds"),
        runs=document.get("runs"),
        error=error,
        next_command=next_command(progress, commands),
        started=_build(JobStarted, started) if started else None,
        advanced=_advanced(advanced) if advanced else None,
    )


def next_command(progress: Progress, commands: dict[str, str]) -> str | None:
    """Return what to type next about a job.

    Args:
        commands: Those that resume it and that show its rejects.
    """
    resume = commands.get("resume", f"batchimport resume {progress.job_id}")
    if progress.status == "running":
        return resume.replace(" resume ", " status ", 1) + " --watch"
    if is_resumable(progress.status):
        return resume
    if progress.failed_items:
        return commands.get("rejects", f"batchimport rejects {progress.job_id}")
    return None


def _build(kind: type[Any], facts: dict[str, Any]) -> Any:
    """Return the dataclass of these facts; what this version does not know is left out."""
    names = {each.name for each in fields(kind)}
    values = {name: value for name, value in facts.items() if name in names}
    if "done" in values:
        values["done"] = _build(Counts, values["done"])
    return kind(**values)


def _advanced(facts: dict[str, Any]) -> Advanced:
    decision = facts.get("decision")
    built: Advanced = _build(Advanced, facts)
    return replace(
        built,
        totals=_build(Counts, facts["totals"]),
        this_run=_build(Counts, facts["this_run"]),
        chunks=_build(ChunkCounts, facts["chunks"]),
        sizes=_build(ChunkSizes, facts["sizes"]),
        decision=_build(SizeDecided, decision) if decision else None,
    )
