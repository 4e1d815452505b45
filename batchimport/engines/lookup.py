"""Look up a job wherever it runs or ran: its owner, its progress, what its destination knows.

Loads without the extra `temporal`; Temporal's client is imported when a job turns out to need it.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchimport.engines import OWNED_BY_TEMPORAL
from batchimport.errors import BatchImportError, UnknownJobError, hint_for
from batchimport.jobs.finish import job_command
from batchimport.jobs.identify import Request, job_from
from batchimport.jobs.known import Known, from_checkpoint, next_command
from batchimport.jobs.recorder import committed_counts
from batchimport.jobs.report import LedgerFacts, Rejected
from batchimport.model import TemporalOptions
from batchimport.policy.events import JobStarted
from batchimport.policy.progress import Tally
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import FORGOTTEN, SinkOptions
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import Committed
    from batchimport.sinks.base import JobRecord, Sink

MOST_SHOWN = 3
"""Forgotten jobs that an error names."""


def unknown(job_id: str | None, known: Sequence[str] = (), where: str = "") -> UnknownJobError:
    """Return the error for a job that the state directory does not know.

    Args:
        known: The ids of the jobs that it knows.
        where: What to name if no job was asked for.
    """
    hint = "see `batchimport jobs`; without its state directory, add --to and the destination"
    return UnknownJobError(
        "no such job" if job_id else "no job is known here",
        where=f"job {job_id}" if job_id else where,
        hint=hint_for(job_id or "", known, hint),
    )


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
        raise unknown(job_id)
    record = recorded_job(job_id, destination, ledger_schema)
    return {
        "job": record.configuration,
        "destination": destination,
        "options": {},
        "trusted": False,
    }


def known_by(document: dict[str, Any]) -> Known:
    """Return what is known of a checkpoint's job.

    A workflow is asked. The checkpoint of a process that was killed still says "running", so
    whether the process lives is looked up.
    """
    is_open = document["progress"]["status"] == "running"
    owner = str(document.get("owner"))
    is_remote = bool(document.get("temporal")) or owner.startswith(OWNED_BY_TEMPORAL)
    if is_remote and not document.get("trusted"):  # it may name a server that is not the user's
        return from_checkpoint(document, has_ended=None)
    if not is_open or not document.get("temporal"):
        return from_checkpoint(document, has_ended=has_ended(owner) if is_open else None)
    recorded = from_checkpoint(document, has_ended=None)
    try:
        asked = ask(TemporalOptions(**document["temporal"]), str(document["job_id"]))
    except BatchImportError:
        return from_checkpoint(document, has_ended=has_ended(owner))
    return replace(
        asked,
        sources=recorded.sources,
        next_command=next_command(asked.progress, document.get("commands", {})),
    )


def ask(temporal: TemporalOptions, job_id: str) -> Known:
    """Ask a job's workflow how far it is.

    Raises:
        BatchImportError: If the server does not answer, or knows no such job.
    """
    from batchimport.engines.temporal.client import known_of  # noqa: PLC0415 - an extra

    return known_of(temporal, job_id)


def ask_all(temporal: TemporalOptions) -> list[Known]:
    """Ask for all jobs that the Temporal server remembers, the latest first.

    Raises:
        BatchImportError: If the server cannot be reached.
    """
    from batchimport.engines.temporal.client import all_known  # noqa: PLC0415 - an extra

    return all_known(temporal)


def recorded_job(job_id: str, destination: str, ledger_schema: str | None) -> JobRecord:
    """Return the record of a job.

    Raises:
        UsageError: If the destination knows no such job, or cannot be opened.
    """
    with opened(destination, ledger_schema) as sink:
        return find_record(sink, job_id)


def known_at(job_id: str | None, destination: str, ledger_schema: str | None) -> Known:
    """Return what the ledger in a destination knows of a job; of the latest one if none is named.

    Raises:
        UsageError: If the destination knows no such job, or cannot be opened.
    """
    with opened(destination, ledger_schema) as sink:
        record = find_record(sink, job_id)
        committed = sink.committed(record.job_id)
        owner = sink.owner(record.job_id)
    tally = _tallied(record, committed, destination)
    status = record.state
    if status == "running" and has_ended(str(owner)):
        status = "interrupted"
    if status == "completed" and tally.totals.failed:
        status = "completed_with_rejects"
    tally.stage = "importing" if status == "running" else "finished"
    progress = replace(tally.progress(), status=status, updated_at=record.updated_at)
    job = job_from(record.configuration, destination)
    request = Request(replace(job, ledger_schema=ledger_schema))
    return Known(
        progress,
        sources=job.sources,
        destination=redact(destination),
        table=job.table,
        begun_at=record.created_at or None,
        ended_at=None if status == "running" else record.updated_at,
        runs=record.epoch,
        next_command=next_command(
            progress,
            {
                name: job_command(name, request, record.job_id, is_remembered=False)
                for name in ("resume", "rejects")
            },
        ),
        started=tally.job,
        advanced=replace(tally.advanced(), elapsed=None),
    )


def ledger_facts(job_id: str, destination: str, ledger_schema: str | None) -> LedgerFacts:
    """Return what the ledger in a destination knows of a job, for its report.

    Raises:
        BatchImportError: If the destination knows no such job, or cannot be read.
    """
    with opened(destination, ledger_schema) as sink:
        record, rejected = find_record(sink, job_id), Rejected()
        for reject in sink.rejects(job_id):
            rejected.add(reject)
        return LedgerFacts(record, sink.committed(job_id), rejected)


@contextmanager
def opened(destination: str, ledger_schema: str | None) -> Iterator[Sink]:
    """Open a destination that is there, and close it in the end."""
    options = SinkOptions(create=False, ledger_schema=ledger_schema)
    with closing(open_sink(destination, options)) as sink:
        yield sink


def find_record(sink: Sink, job_id: str | None) -> JobRecord:
    """Return the record of a job; of the latest one if none is named.

    Raises:
        UsageError: If there is none.
    """
    everything = sink.jobs()
    known = [record for record in everything if record.state != FORGOTTEN]
    records = [record for record in known if job_id in (None, record.job_id)]
    if not records and any(record.job_id == job_id for record in everything):
        raise UnknownJobError(
            "was forgotten: what it rejected is not known any more, the rows that it stored are there",
            where=f"job {job_id}",
            hint="to import its source again: batchimport run with --if-exists replace, or with "
            "--allow-duplicates",
        )
    if job_id is None and everything and not known:
        raise UnknownJobError(
            f"all jobs there were forgotten: {', '.join(map(_shown, everything[: -MOST_SHOWN - 1 : -1]))}"
            + (f" and {len(everything) - MOST_SHOWN} more" if len(everything) > MOST_SHOWN else ""),
            where="--to",
            hint="the rows that they stored are there",
        )
    if not records:
        ids = [record.job_id for record in known]
        raise UnknownJobError(
            "no such job there",
            where=f"job {job_id}" if job_id else "--to",
            hint=hint_for(job_id or "", ids, "check --to and --ledger-schema"),
        )
    return records[-1]


def _shown(record: JobRecord) -> str:
    """Return what is left to know of a forgotten job, in words."""
    day = str(record.updated_at)[:10]
    return f"{record.job_id} (table {record.configuration.get('table')}, last changed {day})"


def _tallied(record: JobRecord, committed: Sequence[Committed], destination: str) -> Tally:
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
    return tally
