"""How a job ends: check the accounts, record the outcome, sum up the run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import AccountsError
from batchimport.model import Summary
from batchimport.policy.plan import find_gaps
from batchimport.policy.progress import is_resumable
from batchimport.sinks import redact
from batchimport.sinks.registry import scheme_of
from batchimport.state.directory import STATE_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.errors import BatchImportError
    from batchimport.jobs.identify import Request
    from batchimport.jobs.start import Parts
    from batchimport.model import Committed, Job, Reject
    from batchimport.sinks.base import Claim
    from batchimport.sources.base import Source

_HINT = "nothing is lost: run the same command again, and report this"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        examples: Rejects for different reasons, to show.
        error: Why the run did not complete; None if it did.
        ended_at: When a job that had nothing to do was completed, ISO 8601 in UTC.
    """

    summary: Summary
    exit_code: int
    examples: tuple[Reject, ...] = ()
    error: BatchImportError | None = None
    ended_at: str | None = None


def resume_command(request: Request, job_id: str) -> str:
    """Return the command that continues a job."""
    return job_command("resume", request, job_id)


def job_command(
    command: str, request: Request, job_id: str, *options: str, is_remembered: bool = True
) -> str:
    """Return a command about a job, with all that it needs.

    A password is not printed: where the address had one, its variable (`PGPASSWORD`) stands for it.

    Args:
        is_remembered: The state directory knows the job, and with it the destination.
    """
    job, state = request.job, request.state.path
    words, prefix = ["batchimport", command, job_id, *options], ""
    address = job.destination
    scheme = scheme_of(address)
    if scheme and scheme.password_variable:
        address = redact(address)
        prefix = f"{scheme.password_variable}=... " if address != job.destination else ""
    if prefix or job.ledger_schema or not is_remembered:
        words += ["--to", address]
        if command == "resume":
            words += ["--transform", job.transform] if job.transform else []
            words += ["--schema", job.model] if job.model else []
    if job.ledger_schema:
        words += ["--ledger-schema", job.ledger_schema]
    if state != STATE_PATH:
        words += ["--state-dir", str(state)]
    return prefix + shlex.join(words)


def finish_job(parts: Parts, claim: Claim, total: int | None, *, is_whole: bool) -> None:
    """Record how the run ended: as completed once the accounts balance, else as interrupted.

    Args:
        total: Records of the job, counted independently; None if they could not be counted.
        is_whole: Every chunk of the source is committed.

    Raises:
        AccountsError: If a record has no outcome or more than one, or if the table has gained
            another number of rows than were stored.
    """
    sink, job = parts.sink, parts.job
    if not is_whole:
        claim.finish("interrupted", total)
        return
    reconcile(sink.committed(claim.record.job_id), parts.source.size, total, job.limit)
    end_claim(claim, "completed", total, job.table, "the job ran")
    if job.analyze is not False:
        sink.analyze_for(job)


def end_claim(claim: Claim, state: str, total: int | None, table: str, what: str) -> None:
    """Record in the destination how the work on a job ended.

    Args:
        what: What was going on, to put after "while".

    Raises:
        AccountsError: If the table has gained another number of rows than were stored.
    """
    failpoints.reach("before-finish")
    difference = claim.finish(state, total)
    failpoints.reach("after-finish")
    if difference:
        word = "more" if difference > 0 else "fewer"
        raise AccountsError(
            f"the table has {abs(difference):,} rows {word} than were stored",
            where=table,
            hint=f"did another program write to it while {what}?",
        )


def count_records(source: Source, job: Job) -> int:
    """Count the records of a job to its limit, independently of how the source is cut.

    Raises:
        BatchImportError: If the source cannot be read.
    """
    total = source.count()
    return total if job.limit is None else min(total, job.limit)


def reconcile(
    committed: Sequence[Committed], size: int, total: int | None, limit: int | None
) -> None:
    """Check that committed chunks cover the source and that each record has one outcome.

    Args:
        size: Positions (bytes or rows) of the source.
        total: Records of the job, counted independently; None if they could not be counted.
        limit: Maximum number of records that the job imports.

    Raises:
        AccountsError: If the chunks overlap or leave gaps, or if the numbers differ.
    """
    records = sum(row.chunk.records for row in committed)
    outcomes = sum(row.successful + row.failed + row.filtered for row in committed)
    gaps = find_gaps(size, [row.chunk for row in committed])
    if gaps and records != limit:
        raise AccountsError(f"{len(gaps)} parts of the source are not committed", hint=_HINT)
    if not records == outcomes == total:
        raise AccountsError(
            f"the source has {total} records, the ledger {records}, outcomes {outcomes}",
            hint=_HINT,
        )


def rejects_path(request: Request, job_id: str, failed: int) -> Path | None:
    """Return where the rejects file goes; None if there are no rejects and none was asked for."""
    if request.options.rejects_path:
        return Path(request.options.rejects_path)
    return request.state.folder(job_id) / "rejects.jsonl" if failed else None


def outcome_counts(committed: Sequence[Committed]) -> dict[str, Any]:
    """Return the records of a job by what the destination did, as fields of the summary."""
    updated = sum(row.updated for row in committed)
    return {
        "inserted": sum(row.successful for row in committed) - updated,
        "updated": updated,
        "ignored": sum(row.ignored for row in committed),
        "skipped_by_destination": sum(row.skipped for row in committed),
    }


def summary_of(
    request: Request, job_id: str, status: str, error: BatchImportError | None = None
) -> Summary:
    """Return the summary of a run that works for this request, without its counts."""
    job = request.job
    return Summary(
        job_id,
        status,
        job.sources,
        redact(job.destination),
        job.table,
        engine="local" if request.temporal is None else "temporal",
        resume_command=resume_command(request, job_id) if is_resumable(status) else None,
        error=str(error) if error else None,
    )
