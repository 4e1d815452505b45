"""Look up a job wherever it runs or ran: its owner, its progress, what its destination knows.

Loads without the extra `temporal`; Temporal's client is imported when a job turns out to need it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from batchimport.engines import OWNED_BY_TEMPORAL
from batchimport.errors import BatchImportError, UsageError
from batchimport.jobs.recorder import committed_counts
from batchimport.model import Progress, TemporalOptions
from batchimport.policy.events import JobStarted
from batchimport.policy.progress import Tally
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import Committed
    from batchimport.sinks.base import JobRecord, Sink


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
            hint="see `batchimport jobs`; without its state directory, add --to and the destination",
        )
    record = recorded_job(job_id, destination, ledger_schema)
    return {
        "job": record.configuration,
        "destination": destination,
        "options": {},
        "trusted": False,
    }


def progress(document: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of a checkpoint's job, as `status --json` prints it.

    A workflow is asked. The checkpoint of a process that was killed still says "running", so
    whether the process lives is looked up.
    """
    known = dict(document["progress"])
    if known["status"] != "running":
        return known
    owner, is_trusted = str(document.get("owner")), document.get("trusted")
    if not is_trusted and (document.get("temporal") or owner.startswith(OWNED_BY_TEMPORAL)):
        return known  # it may name a server that is not the user's
    if document.get("temporal"):
        with suppress(BatchImportError):
            return ask_progress(TemporalOptions(**document["temporal"]), str(document["job_id"]))
    if has_ended(owner):
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


def recorded_job(job_id: str, destination: str, ledger_schema: str | None) -> JobRecord:
    """Return the record of a job.

    Raises:
        UsageError: If the destination knows no such job, or cannot be opened.
    """
    with _opened(destination, ledger_schema) as sink:
        return _find(sink, job_id)


def recorded_progress(
    job_id: str | None,
    destination: str,
    ledger_schema: str | None,
) -> Progress:
    """Return the progress of a job; of the latest one if none is named.

    Raises:
        UsageError: If the destination knows no such job, or cannot be opened.
    """
    with _opened(destination, ledger_schema) as sink:
        record = _find(sink, job_id)
        committed = sink.committed(record.job_id)
        owner = sink.owner(record.job_id)
    progress = _tallied(record, committed, destination)
    status = record.state
    if status == "running" and has_ended(str(owner)):
        status = "interrupted"
    if status == "completed" and progress.failed_items:
        status = "completed_with_rejects"
    stage = "importing" if status == "running" else "finished"
    return replace(progress, status=status, current_stage=stage)


@contextmanager
def _opened(destination: str, ledger_schema: str | None) -> Iterator[Sink]:
    sink = open_sink(destination, SinkOptions(create=False, ledger_schema=ledger_schema))
    try:
        yield sink
    finally:
        sink.close()


def _find(sink: Sink, job_id: str | None) -> JobRecord:
    records = [record for record in sink.jobs() if job_id in (None, record.job_id)]
    if not records:
        raise UsageError(
            "no such job there",
            where=f"job {job_id}" if job_id else "--to",
            hint="check --to and --ledger-schema",
        )
    return records[-1]


def _tallied(record: JobRecord, committed: Sequence[Committed], destination: str) -> Progress:
    done, positions = committed_counts(committed)
    tally = Tally()
    tally(
        JobStarted(
            record.job_id,
            tuple(record.configuration.get("sources", ())),
            redact(destination),
            str(record.configuration.get("table", "")),
            record.size,
            record.total_items,
            done=done,
            done_positions=positions,
        )
    )
    return tally.progress()
