"""Identify the job that a call means: a new one, one to resume, or one that is completed.

A job is known by its files, their content, its table and its configuration; what the destination's
ledger says about it decides.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchimport.errors import (
    ConfigurationChangedError,
    FatalError,
    JobRunningElsewhereError,
    SourceChangedError,
    UsageError,
)
from batchimport.model import (
    Job,
    RunOptions,
    SourceOptions,
    TemporalOptions,
    check_job_id,
    hash_of,
)
from batchimport.sinks import redact
from batchimport.sources.paths import STANDARD_INPUT, stem_of
from batchimport.state.directory import STATE_PATH, StateDirectory
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.model import Committed
    from batchimport.sinks.base import JobRecord, Sink
    from batchimport.sources.base import Source


@dataclass(frozen=True, slots=True)
class Request:
    """What one call of `import_file` is asked to do.

    Attributes:
        job: What is imported.
        options: How this run goes about it.
        state: Where checkpoints and rejects files are kept.
        job_id: The job to continue, or the id of a new one; None derives it from the source.
        restart: Forget what earlier runs have committed, and begin again.
        allow_duplicates: Restart even if that stores records a second time.
        must_exist: Refuse to begin a new job.
        append: If the source has only grown since the job began, import the new tail.
        handle_signals: SIGINT and SIGTERM end the run in good order; needs the main thread.
        temporal: Let Temporal's workers import it; None imports it in this process.
    """

    job: Job
    options: RunOptions = RunOptions()
    state: StateDirectory = field(default_factory=lambda: StateDirectory(STATE_PATH))
    job_id: str | None = None
    restart: bool = False
    allow_duplicates: bool = False
    must_exist: bool = False
    append: bool = False
    handle_signals: bool = False
    temporal: TemporalOptions | None = None

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: If the job id is not valid.
        """
        if self.job_id is not None:
            check_job_id(self.job_id, "--job-id")


@dataclass(frozen=True, slots=True)
class Found:
    """The job that a call means.

    Attributes:
        known: The job to resume, or one that is completed; None for a new job.
        instead_of: Jobs that a new one replaces (`--restart`).
    """

    known: JobRecord | None = None
    instead_of: tuple[JobRecord, ...] = ()

    @property
    def completed(self) -> JobRecord | None:
        """The job if nothing is left to do."""
        is_completed = self.known is not None and self.known.state == "completed"
        return self.known if is_completed else None


def identify(
    request: Request,
    source: Source,
    sink: Sink,
    owner: str,
    has_ended: Callable[[str], bool | None] = owner_is_gone,
) -> Found:
    """Find the job that this call resumes, if it does not begin a new one.

    Args:
        owner: This program.
        has_ended: Says whether another owner has ended; None if that cannot be known.

    Raises:
        RefusedError: If an unfinished job stands in the way.
        UsageError: If there is nothing to continue, or a restart would duplicate rows.
    """
    job, wanted = request.job, request.job_id
    records = [
        record
        for record in sink.jobs()
        if (record.job_id == wanted if wanted else _concerns(record, job))
    ]
    unfinished = [record for record in records if record.state != "completed"]
    same = [record for record in records if _is_same(record, job, source, sink)]
    if request.restart:
        replaced = [record for record in records if wanted or record in [*unfinished, *same]]
        for record in replaced:
            refuse_if_owned(record, sink, owner, has_ended)
            _check_restart(request, record, sink)
        return Found(instead_of=tuple(replaced))
    latest = unfinished[-1] if unfinished else same[-1] if same else None
    if request.append and (latest is None or latest.fingerprint != source.fingerprint):
        grown = _grown(request, source, sink)
        if grown is not None:
            # Without records, nothing was known of the columns, and nothing was stored.
            return Found(grown) if grown.columns else Found(instead_of=(grown,))
    if latest is None:
        _check_new(request, is_taken=bool(wanted and records))
    elif latest.state != "completed":
        _check_unchanged(latest, job, source)
    return Found(latest)


def _check_new(request: Request, *, is_taken: bool) -> None:
    """Refuse to begin a new job if one must exist, or if its id is taken."""
    if request.must_exist:
        raise UsageError("nothing to continue", hint="see `batchimport jobs`")
    if is_taken:
        raise SourceChangedError(
            "the source is not the file that this job imported",
            where=f"job {request.job_id}",
            hint="choose another --job-id, or start over with --restart",
        )


def refuse_if_owned(
    record: JobRecord,
    sink: Sink,
    owner: str,
    has_ended: Callable[[str], bool | None] = owner_is_gone,
) -> None:
    """Refuse a job that another process or workflow is running.

    Raises:
        JobRunningElsewhereError: If so.
    """
    claimed_by = sink.owner(record.job_id)
    if record.state != "running" or claimed_by in (None, owner):
        return
    if has_ended(str(claimed_by)) is False:
        raise JobRunningElsewhereError(
            "another program is running this job",
            where=f"job {record.job_id}",
            hint=f"watch it with: batchimport status {record.job_id} --watch",
        )


def _grown(request: Request, source: Source, sink: Sink) -> JobRecord | None:
    """Return the job whose source has grown into this one, ready to resume; None if there is none.

    Raises:
        RefusedError: If a job imported these files, and they have changed in another way.
    """
    job = request.job
    before = [
        record
        for record in sink.jobs()
        if record.configuration.get("table") == job.table
        and not set(job.sources).isdisjoint(record.configuration.get("sources", ()))
        and (not request.job_id or record.job_id == request.job_id)
    ]
    if not before:
        return None
    record = before[-1]
    known = tuple(record.configuration["sources"])
    if job.sources[: len(known)] != known or not source.continues(record.fingerprint):
        raise SourceChangedError(
            "the source has not only grown at its end since this job imported it",
            where=f"job {record.job_id}",
            hint="import it as a new job without --if-source-changed append",
        )
    _check_configuration(record, job)
    verify_unchanged(source, sink.committed(record.job_id))
    is_done = record.state == "completed"
    return replace(
        record,
        target_hash=job.target_hash(),
        fingerprint=source.fingerprint,
        modified=source.modified,
        size=source.size,
        configuration=without_address(job),
        state="interrupted" if is_done else record.state,
        rows_before=None if is_done else record.rows_before,  # others may have changed the table
    )


def _concerns(record: JobRecord, job: Job) -> bool:
    """Say whether a job has the same target, or is unfinished and shares files and table."""
    if record.target_hash == job.target_hash():
        return True
    configuration = record.configuration
    return (
        record.state != "completed"
        and configuration.get("table") == job.table
        and not set(job.sources).isdisjoint(configuration.get("sources", ()))
    )


def _is_same(record: JobRecord, job: Job, source: Source, sink: Sink) -> bool:
    if (record.fingerprint, record.configuration_hash) != (
        source.fingerprint,
        job.configuration_hash(),
    ):
        return False
    if record.modified == source.modified:
        return True
    try:
        verify_unchanged(source, sink.committed(record.job_id))
    except SourceChangedError:
        return False
    return True


def _check_unchanged(record: JobRecord, job: Job, source: Source) -> None:
    where = f"job {record.job_id}"
    if record.target_hash != job.target_hash():
        raise SourceChangedError(
            "an unfinished job imports some of these files, but not exactly these",
            where=where,
            hint=f"finish it first with `batchimport resume {record.job_id}`; if files were only "
            "added at the end: --if-source-changed append",
        )
    if record.fingerprint != source.fingerprint:
        piped = STANDARD_INPUT in job.sources
        way = f"with `batchimport resume {record.job_id}`" if piped else "with the old file"
        raise SourceChangedError(
            "the source has changed since this unfinished job began",
            where=where,
            hint=f"finish it {way}, or start over with --restart; if it only grew at its end: "
            "--if-source-changed append",
        )
    _check_configuration(record, job)


def _check_configuration(record: JobRecord, job: Job) -> None:
    if record.configuration_hash != job.configuration_hash():
        raise ConfigurationChangedError(
            "schema, transform, table or format options differ from those that this job began with",
            where=f"job {record.job_id}",
            hint=f"continue it as it was with `batchimport resume {record.job_id}`, "
            "or start over with --restart",
        )


def _check_restart(request: Request, record: JobRecord, sink: Sink) -> None:
    if not sink.hints.rows_outlive_the_ledger:
        return
    stored = any(row.successful for row in sink.committed(record.job_id))
    if stored and request.job.if_exists in ("append", "fail") and not request.allow_duplicates:
        raise UsageError(
            "--restart would store again what this job has stored",
            where=f"job {record.job_id}",
            hint="add --if-exists truncate or replace, or --allow-duplicates if you want that",
        )


def verify_unchanged(source: Source, committed: Sequence[Committed]) -> None:
    """Hash the committed parts of the source again: called when the file's times have changed.

    Raises:
        SourceChangedError: If a committed part of the source is not what it was.
    """
    for row in committed:
        if source.digest(row.chunk) != row.digest:
            raise SourceChangedError(
                "records that are already stored have changed in the source",
                where=f"{source.file_at(row.chunk.lo)} line {row.chunk.start.line}",
                hint="finish the job with the old file, or start over with --restart",
            )


def new_job_id(job: Job, source: Source) -> str:
    """Return the id of a new job: the source's stem and a hash of what identifies the job."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem_of(job.sources[0])).strip("-._") or "job"
    facts = [
        job.sources,
        source.fingerprint,
        source.modified,
        redact(job.destination),
        job.table,
        job.configuration_hash(),
    ]
    return f"{stem[:80]}-{hash_of(facts)[:8]}"


def without_address(job: Job) -> dict[str, Any]:
    """Return a job as a dict without its destination, which may hold a password."""
    facts = asdict(job)
    del facts["destination"]
    return facts


def job_from(facts: dict[str, Any], destination: str) -> Job:
    """Return the job that `without_address` wrote into a checkpoint, a ledger or a message.

    Raises:
        FatalError: If it cannot be read.
    """
    try:
        options = SourceOptions(**facts["options"])
        rest = {key: value for key, value in facts.items() if key not in ("options", "destination")}
        rest["sources"], rest["key"] = tuple(rest["sources"]), tuple(rest["key"])
        return replace(Job(**rest, destination=destination), options=options)
    except (KeyError, TypeError) as error:
        raise FatalError(
            "the job's checkpoint cannot be read", hint="use the `run` command again"
        ) from error
