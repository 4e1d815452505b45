"""An import that Temporal's workers carry out: found or started, followed, its rejects fetched."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import BatchImportError, UsageError
from batchimport.jobs.finish import export_rejects
from batchimport.jobs.lookup import recorded_job
from batchimport.jobs.recorder import Recorder
from batchimport.model import TemporalOptions
from batchimport.sinks import open_sink
from batchimport.sinks.base import SinkOptions
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer

OWNER_PREFIX = "temporal|"


def attach(request: Request, observer: Observer) -> Outcome | None:
    """Follow the job that was asked for by its id, if a workflow runs it; else return None.

    Raises:
        BatchImportError: If the server cannot be reached, or cannot do what is asked.
    """
    if request.temporal is None:
        return None
    if request.options.dry_run:
        raise UsageError("a dry run is for --engine local", where="--dry-run --engine temporal")
    if request.job_id is None or request.restart:
        return None
    from batchimport.engines.temporal.client import RemoteJob  # noqa: PLC0415 - an extra

    if not RemoteJob(request, request.job_id, observer).is_running():
        return None
    return follow(request, request.job_id, observer)


def follow(request: Request, job_id: str, observer: Observer) -> Outcome:
    """Start the job's workflow or find it running, and stay with it to its end.

    Raises:
        BatchImportError: If the server cannot be reached, or refuses.
    """
    from batchimport.engines.temporal.client import RemoteJob  # noqa: PLC0415 - an extra

    assert request.temporal is not None  # noqa: S101 - the caller looked
    mirror = Recorder(request, observer, "")
    job = RemoteJob(request, job_id, mirror)
    mirror.owner = job.start()
    mirror.save(job_id)
    if request.temporal.detach:
        return job.detached()
    return _with_rejects(request, job.follow())


def recall(
    job_id: str,
    destination: str | None,
    temporal: TemporalOptions | None,
    ledger_schema: str | None = None,
) -> dict[str, Any]:
    """Return what the destination knows of a job, in the form of a checkpoint.

    Args:
        destination: Where to look; None: where the job's workflow imports to.
        ledger_schema: Database schema of the ledger's tables there.

    Raises:
        UsageError: If it knows no such job.
    """
    if destination is None and temporal is not None:
        from batchimport.engines.temporal.client import destination_of  # noqa: PLC0415 - an extra

        destination = destination_of(temporal, job_id)
    if destination is None:
        raise UsageError(
            "no such job",
            where=f"job {job_id}",
            hint="see `batchimport jobs`; without its state directory, add --to and the destination",
        )
    record = recorded_job(job_id, destination, ledger_schema)
    return {"job": record.configuration, "destination": destination, "options": {}}


def progress(document: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of a checkpoint's job, from whoever knows it best.

    A killed process cannot say itself that it ended; a workflow is asked.
    """
    known = dict(document["progress"])
    if known["status"] != "running":
        return known
    if document.get("temporal"):
        with suppress(BatchImportError):
            return ask_progress(TemporalOptions(**document["temporal"]), str(document["job_id"]))
    if has_ended(str(document.get("owner"))):
        known |= {"status": "interrupted", "current_stage": "finished", "in_flight": 0}
    return known


def ask_progress(temporal: TemporalOptions, job_id: str) -> dict[str, Any]:
    """Return the progress that a job's workflow tells.

    Raises:
        BatchImportError: If it does not answer.
    """
    from batchimport.engines.temporal.client import progress_of  # noqa: PLC0415 - an extra

    return asdict(progress_of(temporal, job_id))


def all_progress(temporal: TemporalOptions) -> list[dict[str, Any]]:
    """Return the progress of the jobs that the server remembers, the latest first.

    Raises:
        BatchImportError: If the server cannot be reached.
    """
    from batchimport.engines.temporal.client import all_progress_of  # noqa: PLC0415 - an extra

    return [asdict(each) for each in all_progress_of(temporal)]


def has_ended(owner: str) -> bool | None:
    """Say whether the process or the workflow that owns a job has ended; None if unknown."""
    if not owner.startswith(OWNER_PREFIX):
        return owner_is_gone(owner)
    try:
        from batchimport.engines.temporal.client import owner_has_ended  # noqa: PLC0415 - an extra
    except BatchImportError:
        return None
    return owner_has_ended(owner)


def _with_rejects(request: Request, outcome: Outcome) -> Outcome:
    """Write the rejects file here, where the user is; workers may be anywhere."""
    wanted, summary = request.options.rejects_path, outcome.summary
    if not summary.failed and not wanted:
        return outcome
    path = Path(wanted or request.state.folder(summary.job_id) / "rejects.jsonl")
    try:
        options = SinkOptions(create=False, ledger_schema=request.job.ledger_schema)
        sink = open_sink(request.job.destination, options)
    except BatchImportError:
        return outcome  # followed from a host that does not reach the destination
    try:
        found = export_rejects(sink, summary.job_id, path)
    except BatchImportError as error:
        return replace(outcome, error=outcome.error or error)
    finally:
        sink.close()
    summary = replace(summary, rejects_by_code=found.codes, rejects_file=found.path)
    return replace(outcome, summary=summary, examples=found.examples)
