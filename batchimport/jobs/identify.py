"""Identify the job that a call means: a new one, one to resume, or one that is completed.

A job is known by its files, their content, its table and its configuration; what the destination's
ledger says about it decides.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from batchimport.display.units import counted
from batchimport.errors import (
    AlreadyStoredError,
    ConfigurationChangedError,
    FatalError,
    JobRunningElsewhereError,
    RowsGoneError,
    SourceChangedError,
    UsageError,
)
from batchimport.jobs.stored import (
    appends,
    facts_of,
    missing_rows,
    refuse_missing,
    refuse_stored_content,
    same_table,
    stored_in,
)
from batchimport.model import (
    Job,
    RunOptions,
    SourceOptions,
    TemporalOptions,
    hash_of,
)
from batchimport.rules import check_job_id
from batchimport.sinks import redact
from batchimport.sinks.base import BEGAN_EMPTY, CONTENTS, DUPLICATES, FORGOTTEN, FORMS, STAGED
from batchimport.sources.paths import is_kept, short_stem_of, stem_of
from batchimport.state.directory import STATE_PATH, StateDirectory
from batchimport.system import owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchimport.model import Committed
    from batchimport.policy.interrupter import Interrupter
    from batchimport.schema.pydantic import RecordModel
    from batchimport.sinks.base import JobRecord, Sink
    from batchimport.sources.base import Source


@dataclass(frozen=True, slots=True)
class Objects:
    """What a program gives itself, so that it is not loaded by a name.

    Attributes:
        transform: The function that the job's `transform` names.
        model: The model that the job's `model` names.
        write: Writes the records of a frame or an iterator into a file.
    """

    transform: Callable[..., Any] | None = None
    model: RecordModel | None = None
    write: Callable[[Path], None] | None = None


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
        objects: What is not loaded by a name.
        interrupter: Ends the run in good order when it is asked to, from any thread.
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
    objects: Objects = Objects()
    interrupter: Interrupter | None = None

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: If the job id is not valid.
        """
        if self.job_id is not None:
            check_job_id(self.job_id, "--job-id")
        if self.append and self.job.atomic:
            raise UsageError(
                "adds rows to those that are there",
                where="--if-source-changed append",
                hint="leave out --atomic, or import the whole source again",
            )


@contextmanager
def state_of(request: Request) -> Iterator[StateDirectory]:
    """Return where a run keeps its state: a dry run keeps nothing, in the state directory either."""
    if not request.options.dry_run:
        yield request.state
        return
    with TemporaryDirectory(prefix="batchimport-") as scratch:
        yield StateDirectory(Path(scratch))


def lock_of(job: Job) -> str:
    """Return the name of the lock on a job's target, in the state directory."""
    return f"{job.target_hash()}-{hash_of(redact(job.destination))}"


@dataclass(frozen=True, slots=True)
class Found:
    """The job that a call means.

    Attributes:
        known: The job to resume, or one that is completed; None for a new job.
        instead_of: Jobs that a new one replaces (`--restart`).
        jobs: All jobs that the ledger knew: what was found may be otherwise when these change.
    """

    known: JobRecord | None = None
    instead_of: tuple[JobRecord, ...] = ()
    jobs: tuple[JobRecord, ...] = ()

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
        RefusedError: If an unfinished job stands in the way, the table has this content already,
            or the rows of the job are gone.
        UsageError: If there is nothing to continue, or a restart would duplicate rows.
    """
    return _Search(request, source, sink, owner, has_ended).find()


class _Search:
    """Finds the job that one call means in what the ledger knows at this moment."""

    def __init__(
        self,
        request: Request,
        source: Source,
        sink: Sink,
        owner: str,
        has_ended: Callable[[str], bool | None],
    ) -> None:
        self._request, self._job, self._source, self._sink = request, request.job, source, sink
        self._owner, self._has_ended = owner, has_ended
        job, wanted = request.job, request.job_id
        self._jobs = tuple(sink.jobs())
        self._records = [
            record
            for record in self._jobs
            if record.state != FORGOTTEN
            and (record.job_id == wanted if wanted else _concerns(record, job))
        ]
        self._unfinished = [record for record in self._records if record.state != "completed"]
        self._same = [record for record in self._records if _is_same(record, job, source, sink)]

    def find(self) -> Found:
        """Return the job to continue, or what a new one replaces."""
        if self._request.restart:
            return Found(instead_of=self._replaced(), jobs=self._jobs)
        latest = (
            self._unfinished[-1] if self._unfinished else self._same[-1] if self._same else None
        )
        if self._request.append and (
            latest is None or latest.fingerprint != self._source.fingerprint
        ):
            grown = _grown(self._request, self._source, self._sink)
            if grown is not None:
                committed = self._sink.committed(grown.job_id)
                missing = missing_rows(grown, committed, self._sink, self._jobs, is_growing=True)
                refuse_missing(missing, self._job.table)
                if not grown.columns:  # it had no records: no column was known, no row was stored
                    return Found(instead_of=(grown,), jobs=self._jobs)
                return Found(grown, jobs=self._jobs)
        if latest is None:
            self._check_new()
        else:
            self._check_known(latest)
        return Found(latest, jobs=self._jobs)

    def _replaced(self) -> tuple[JobRecord, ...]:
        """Return the jobs that a restart replaces."""
        request = self._request
        replaced = [
            record
            for record in self._records
            if request.job_id or record in [*self._unfinished, *self._same]
        ]
        replaced += [record for record in self._records if self._holds_this(record, replaced)]
        for record in replaced:
            refuse_if_owned(record, self._sink, self._owner, self._has_ended)
            _check_restart(request, record, self._sink, self._jobs)
        self._check_remembered()
        self._refuse_stored(*replaced)
        return tuple(replaced)

    def _holds_this(self, record: JobRecord, replaced: Sequence[JobRecord]) -> bool:
        """Say whether a job on these files stored this content, though with other options."""
        if record in replaced or self._request.allow_duplicates or not appends(self._job):
            return False
        try:
            refuse_stored_content(
                self._job, self._source, self._sink, [record], may_run=lambda _: False
            )
        except AlreadyStoredError:
            return True
        return False

    def _check_new(self) -> None:
        """Refuse to begin a new job where that would store records twice, or lose some."""
        if self._request.must_exist:
            raise UsageError("nothing to continue", hint="see `batchimport jobs`")
        if self._request.job_id and self._records:
            raise SourceChangedError(
                "the source is not the file that this job imported",
                where=f"job {self._request.job_id}",
                hint="choose another --job-id, or start over with --restart",
            )
        self._check_remembered()
        self._refuse_stored()
        if self._job.if_exists in ("truncate", "replace"):
            self._refuse_to_empty()

    def _check_remembered(self) -> None:
        """Refuse to begin anew what the state directory knows, where there is no ledger to ask.

        A ledger that knows other jobs is believed: it may be that of a backup.
        """
        request, job, sink = self._request, self._job, self._sink
        job_id = request.job_id or new_job_id(job, self._source)
        stored = remembered_rows(request, job_id, other_ledger=bool(self._jobs))
        if not stored or request.allow_duplicates:
            return
        is_there = sink.identity_of(job.table) is not None and sink.has_rows(job.table)
        if is_there and sink.hints.rows_outlive_the_ledger:
            if appends(job):
                raise RowsGoneError(
                    f"job {job_id} stored {counted(stored, 'row')}, but there is no ledger that knows it",
                    where=job.table,
                    hint="check --ledger-schema; --if-exists replace starts over, "
                    "--allow-duplicates adds them again",
                )
        elif not request.restart:
            raise RowsGoneError(
                f"what job {job_id} stored ({counted(stored, 'row')}) is gone, and so is its ledger",
                where=job.table,
                hint="--restart imports it again",
            )

    def _check_known(self, latest: JobRecord) -> None:
        """Refuse to go on with a job whose rows, source or configuration are not what they were."""
        committed = self._sink.committed(latest.job_id)
        refuse_missing(missing_rows(latest, committed, self._sink, self._jobs), self._job.table)
        if latest.state == "completed":
            return
        _check_unchanged(latest, self._job, self._source)
        if not stored_in(committed) and not latest.configuration.get(DUPLICATES):
            self._refuse_stored(latest)  # as if it began now

    def _refuse_stored(self, *apart_from: JobRecord) -> None:
        others = [record for record in self._jobs if record not in apart_from]
        if not others or self._request.allow_duplicates or not appends(self._job):
            return
        others = same_table(self._job.table, self._sink, others)
        refuse_stored_content(self._job, self._source, self._sink, others, self._may_run)

    def _may_run(self, record: JobRecord) -> bool:
        return self._has_ended(str(self._sink.owner(record.job_id))) is not True

    def _refuse_to_empty(self) -> None:
        """Refuse to empty a table that another process is writing to."""
        table = self._job.table
        for record in same_table(table, self._sink, self._jobs):
            try:
                refuse_if_owned(record, self._sink, self._owner, self._has_ended)
            except JobRunningElsewhereError as error:
                error.message = f"another program imports into {table}, which would be emptied"
                raise


def remembered_rows(request: Request, job_id: str, *, other_ledger: bool = False) -> int:
    """Return how many rows a job has stored, as the state directory remembers it; 0 if it does not.

    Args:
        other_ledger: Only of a job whose ledger is in another `--ledger-schema`.
    """
    document, job = request.state.load(job_id) or {}, request.job
    try:
        recorded = document["job"]
        is_same = (
            document["destination"] == redact(job.destination)
            and recorded["table"] == job.table
            and tuple(recorded["sources"]) == job.sources
        )
        is_same &= not other_ledger or recorded.get("ledger_schema") != job.ledger_schema
        return int(document["progress"]["successful_items"]) if is_same else 0
    except (KeyError, TypeError, ValueError):
        return 0


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
        if record.state != FORGOTTEN
        and record.configuration.get("table") == job.table
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
        configuration=_still_true(record) | without_address(job) | _facts_of_grown(record, source),
        state="interrupted" if is_done else record.state,
        rows_before=None if is_done else record.rows_before,  # others may have changed the table
    )


def _still_true(record: JobRecord) -> dict[str, Any]:
    """Return what is recorded of a job besides the job, and holds when its source has grown."""
    passed = (DUPLICATES, BEGAN_EMPTY)
    return {name: fact for name, fact in record.configuration.items() if name not in passed}


def _facts_of_grown(record: JobRecord, source: Source) -> dict[str, Any]:
    """Return the facts of a source; the files that were there before are read as they were then."""
    known, facts = record.configuration, facts_of(source, allow_duplicates=False)
    is_longer = len(known.get(CONTENTS, ())) == len(facts[CONTENTS])
    return facts | ({FORMS: known[FORMS]} if is_longer and FORMS in known else {})


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
    if record.fingerprint != source.fingerprint or not _same_configuration(record, job):
        return False
    if record.modified == source.modified:
        return True
    try:
        verify_unchanged(source, sink.committed(record.job_id))
    except SourceChangedError:
        return False
    return True


def _same_configuration(record: JobRecord, job: Job) -> bool:
    """Say whether a job is what a call asks for.

    `--if-exists truncate` is about the beginning of a job: the same command without it means that job.
    """
    if job.if_exists == "append":
        job = replace(job, if_exists=record.configuration.get("if_exists", job.if_exists))
    return record.configuration_hash == job.configuration_hash()


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
        is_copy = any(map(is_kept, job.sources))
        way = f"with `batchimport resume {record.job_id}`" if is_copy else "with the old file"
        raise SourceChangedError(
            "the source has changed since this unfinished job began",
            where=where,
            hint=f"finish it {way}, or start over with --restart; if it only grew at its end: "
            "--if-source-changed append",
        )
    _check_configuration(record, job)


def _check_configuration(record: JobRecord, job: Job) -> None:
    if not _same_configuration(record, job):
        raise ConfigurationChangedError(
            "schema, transform, table or format options differ from those that this job began with",
            where=f"job {record.job_id}",
            hint=f"continue it as it was with `batchimport resume {record.job_id}`, "
            "or start over with --restart",
        )


def _check_restart(
    request: Request, record: JobRecord, sink: Sink, jobs: Sequence[JobRecord]
) -> None:
    """Refuse to store again what a job has stored, unless its rows are gone or are to go."""
    job = request.job
    if not sink.hints.rows_outlive_the_ledger or request.allow_duplicates:
        return
    committed = sink.committed(record.job_id)
    stored = 0 if STAGED in record.configuration else stored_in(committed)
    if not stored or job.if_exists in ("truncate", "replace"):
        return
    missing = missing_rows(record, committed, sink, jobs)
    if missing is None or not missing.are_all:
        raise UsageError(
            f"{job.table} holds {counted(stored, 'row')} of this job: add --if-exists replace",
            hint="or --allow-duplicates, to store them once more",
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
    short = short_stem_of(job.sources[0])
    name = short if job.table == short else stem_of(*job.sources)  # as earlier versions did
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "job"
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
        known = {each.name for each in fields(Job)} - {"options", "destination"}
        rest = {key: value for key, value in facts.items() if key in known}
        rest["sources"], rest["key"] = tuple(rest["sources"]), tuple(rest["key"])
        return replace(Job(**rest, destination=destination), options=options)
    except (KeyError, TypeError) as error:
        raise FatalError(
            "the job's checkpoint cannot be read", hint="use the `run` command again"
        ) from error
