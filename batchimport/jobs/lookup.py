"""What the ledger in a destination knows of a job, for when the state directory is lost."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.model import Counts, Progress
from batchimport.policy.events import JobStarted
from batchimport.policy.progress import Tally
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchimport.model import Committed
    from batchimport.sinks.base import JobRecord, Sink


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
    has_ended: Callable[[str], bool | None],
) -> Progress:
    """Return the progress of a job; of the latest one if none is named.

    Args:
        has_ended: Returns whether an owner has ended; None if that cannot be known.

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
    done = Counts()
    for row in committed:
        done = done.plus(row.successful, row.failed, row.filtered)
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
            done_positions=sum(row.chunk.hi - row.chunk.lo for row in committed),
        )
    )
    return tally.progress()
