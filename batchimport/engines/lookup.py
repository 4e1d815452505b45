"""Look up a job wherever it runs or ran: its owner, its progress, what its destination knows.

Loads without the extra `temporal`; Temporal's client is imported when a job turns out to need it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from batchimport.engines import OWNED_BY_TEMPORAL
from batchimport.errors import BatchImportError, UsageError
from batchimport.model import TemporalOptions
from batchimport.sinks import open_sink
from batchimport.sinks.base import SinkOptions
from batchimport.system import owner_is_gone


def has_ended(owner: str) -> bool | None:
    """Say whether the process or workflow that owns a job has ended; None if that is unknown."""
    if not owner.startswith(OWNED_BY_TEMPORAL):
        return owner_is_gone(owner)
    try:
        from batchimport.engines.temporal.client import owner_has_ended  # noqa: PLC0415 - an extra
    except BatchImportError:
        return None
    return owner_has_ended(owner)


def recall(
    job_id: str,
    destination: str | None,
    temporal: TemporalOptions | None,
    ledger_schema: str | None = None,
) -> dict[str, Any]:
    """Return what the destination knows of a job, in the form of a checkpoint.

    Args:
        destination: Where to look; None asks the job's workflow where it imports to.

    Raises:
        UsageError: If there is no such job.
    """
    if destination is None and temporal is not None:
        from batchimport.engines.temporal.client import destination_of  # noqa: PLC0415 - an extra

        destination = destination_of(temporal, job_id)
    if destination is None:
        raise UsageError(
            "no such job",
            where=f"job {job_id}",
            hint="see `batchimport jobs`; without a state directory say where it imports to: --to",
        )
    sink = open_sink(destination, SinkOptions(create=False, ledger_schema=ledger_schema))
    try:
        records = [record for record in sink.jobs() if record.job_id == job_id]
    finally:
        sink.close()
    if not records:
        raise UsageError("no such job there", where=f"job {job_id}", hint="check --to")
    return {"job": records[-1].configuration, "destination": destination, "options": {}}


def progress(document: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of a checkpoint's job, as `status --json` prints it.

    A workflow is asked. The checkpoint of a process that was killed still says "running", so
    whether the process lives is looked up.
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
    """Ask a job's workflow for its progress.

    Raises:
        BatchImportError: If it does not answer.
    """
    from batchimport.engines.temporal.client import progress_of  # noqa: PLC0415 - an extra

    return asdict(progress_of(temporal, job_id))


def all_progress(temporal: TemporalOptions) -> list[dict[str, Any]]:
    """Ask for the progress of all jobs that the Temporal server remembers, the latest first.

    Raises:
        BatchImportError: If the server cannot be reached.
    """
    from batchimport.engines.temporal.client import all_progress_of  # noqa: PLC0415 - an extra

    return [asdict(progress) for progress in all_progress_of(temporal)]
