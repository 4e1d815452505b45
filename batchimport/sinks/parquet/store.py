"""Parquet files below a prefix of an object store: a part per chunk, whose presence is its ledger entry.

What makes it exact without locks: see `bucket_ledger`.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from batchimport import failpoints
from batchimport.errors import (
    ChunkError,
    DestinationAwayError,
    FatalError,
    NoSuchDestinationError,
    TransientError,
    UsageError,
)
from batchimport.model import DRY_RUN
from batchimport.sinks.base import FORGOTTEN, Removed, SinkOptions, claimed_again, taken_over
from batchimport.sinks.parquet.bucket import open_bucket
from batchimport.sinks.parquet.bucket_ledger import (
    ANNOUNCED,
    JOBS,
    VOID,
    BucketLedger,
    BucketPart,
    Entry,
    announced_part,
    in_parallel,
    parquet,
    part_of,
    without_rows,
)
from batchimport.sinks.parquet.columns import NO_COLUMNS, common_schema, schema_for
from batchimport.sinks.parquet.dataset import (
    Dataset,
    foreign_file,
    hints_of,
    judge,
    refuse_for_files,
)
from batchimport.sinks.parquet.ledger import (
    CHUNK,
    REJECTS,
    new_row,
    part_footer,
    rejects_in,
    replayed,
)
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from batchimport.model import Chunk, ChunkResult, Committed, Job, Reject
    from batchimport.sinks.base import JobRecord, SinkHints, StoreRequest
    from batchimport.sinks.parquet.bucket_ledger import Jobs
    from batchimport.sinks.parquet.columns import Schema

DELIVERY = "exactly-once, in a store that honours conditions on writes"
WRITERS = 16
"""A request waits for the network most of its time."""
REMOVED_AT_ONCE = 100


class StoreSink(Dataset):
    """One prefix; any number of threads, processes and machines may store into it."""

    hints = hints_of(DELIVERY, WRITERS)

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        if options.ledger_schema:
            raise UsageError("an object store has no schemas", where="--ledger-schema")
        self._bucket = open_bucket(address, dry_run=options.dry_run)
        self._ledger = BucketLedger(self._bucket)
        self._is_checked = options.dry_run
        self._unfinished: dict[tuple[Any, ...], str] = {}
        if options.dry_run:
            self.hints = replace(self.hints, delivery=DRY_RUN)
        if self._bucket.get(JOBS) is None:
            self._bucket.check_place()
            if not options.create:
                raise NoSuchDestinationError(
                    "batchimport has stored nothing there", where=self._bucket.where()
                )

    # -- what is known ------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that the store knows, oldest first."""
        records = [entry.record for entry in self._ledger.jobs().entries.values()]
        return sorted(records, key=lambda record: (record.created_at, record.job_id))

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last; None if there is no such job."""
        entry = self._ledger.jobs().entries.get(job_id)
        return str(entry.row["owner"]) if entry else None

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        return self._ledger.committed(job_id)

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        return self._ledger.first_chunks()

    def has_rows(self, table: str) -> bool:
        """Say whether the files have a row."""
        del table
        jobs = self._ledger.jobs()
        parts = {
            name: meta
            for name, meta in self._bucket.objects().items()
            if (part := part_of(name)) and name not in jobs.voids and not jobs.is_leaving(part)
        }
        return any(map(self._ledger.count, parts.items())) or self._ledger.foreign_rows() > 0

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        return self._ledger.is_committed(job_id, position)

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""
        return self._ledger.reject_frames(job_id, within)

    def common_columns(self) -> Schema:
        """Return the columns of all files; none if there is no file."""
        return self._columns(self._ledger.jobs())

    def _columns(self, jobs: Jobs) -> Schema:
        parts = filter(None, map(part_of, self._bucket.objects()))
        remain = any(part.name not in jobs.voids and not jobs.is_leaving(part) for part in parts)
        schemas = {JOBS: jobs.columns} if jobs.entries or remain else {}
        files = self._ledger.foreign()
        schemas |= {name: self._ledger.schema_of(name, meta) for name, meta in files.items()}
        return common_schema(schemas, self._bucket.where)

    def previewed(self, job: Job) -> AbstractContextManager[None]:
        """Refuse what only databases and directories can do, before anything is read."""
        _refuse_atomic(job)
        return super().previewed(job)

    # -- whose a job is -----------------------------------------------------------------------

    def claim(
        self,
        job: Job,
        record: JobRecord,
        owner: str,
        instead_of: Sequence[JobRecord] = (),
        check: Callable[[], None] = lambda: None,
        replay: Mapping[str, Any] | None = None,
    ) -> StoreClaim:
        """Take the job with a new epoch, then remove what is left of forgotten ones."""
        refuse_for_files(job)
        _refuse_atomic(job)
        if not self._is_checked:
            columns = self._ledger.jobs().columns
            self._bucket.check_conditions(
                ANNOUNCED, lambda word: without_rows(columns, {VOID: word})
            )
            self._is_checked = True
        call = (record.job_id, record.epoch, owner, *(old.job_id for old in instead_of))
        by = self._unfinished.setdefault(call, uuid.uuid4().hex)

        def change(jobs: Jobs) -> bool:
            known = jobs.entries.get(record.job_id)
            if known is not None and known.by == by:
                return False  # it was changed before, and the reply was lost
            check()
            self._forget(jobs, instead_of)
            jobs.entries[record.job_id] = self._claimed(jobs, job, record, owner, by, replay)
            return True

        jobs = self._ledger.change(change)
        failpoints.reach("after-table")
        self._settle(jobs)
        self._unfinished.pop(call, None)
        entry = jobs.entries[record.job_id]
        surplus = 0
        if replay is not None:
            surplus = self._ledger.foreign_rows() - (entry.record.rows_before or 0)
        return StoreClaim(self._ledger, entry.record, self.hints, surplus)

    def join(self, job: Job, record: JobRecord) -> StoreClaim:
        """Share the claim that a record describes, which was made here or in another process."""
        del job
        return StoreClaim(self._ledger, record, self.hints)

    def _forget(self, jobs: Jobs, records: Sequence[JobRecord]) -> None:
        for record in records:
            if record.job_id in jobs.entries:
                entry = jobs.held(record)
                jobs.leaving.append((entry.name, entry.since, entry.token))
                del jobs.entries[record.job_id]

    def _claimed(
        self,
        jobs: Jobs,
        job: Job,
        record: JobRecord,
        owner: str,
        by: str,
        replay: Mapping[str, Any] | None,
    ) -> Entry:
        """Return the entry of a job that is claimed, known or new."""
        known = jobs.entries.get(record.job_id)
        if known is not None and known.record.state == FORGOTTEN:
            _set_aside(jobs, known)
            known = None
        if known is not None:
            claimed = claimed_again(known.record, record, replay)
            name, since = known.name, known.since
        else:
            self._make_dataset(jobs, job, record)
            name, since = record.job_id, jobs.token + 1
            claimed = replace(
                record,
                epoch=1,
                rows_before=self._ledger.foreign_rows(),
                created_at=statements.now(),
            )
        jobs.token += 1
        return Entry(new_row(claimed, job.table, owner), name, since, jobs.token, by)

    def _make_dataset(self, jobs: Jobs, job: Job, record: JobRecord) -> None:
        """Make room as `--if-exists` says; the columns of all parts to come are those of the jobs."""
        schema = schema_for(self._bucket.where(), self._columns(jobs), job, record)
        if job.if_exists in ("truncate", "replace"):
            for name in self._ledger.foreign():
                raise foreign_file(self._bucket.where(name))
            jobs.entries.clear()
            jobs.leaving = [(None, 0, jobs.token)]
        schema = {} if schema == NO_COLUMNS else schema
        if schema != jobs.schema:
            jobs.is_stale |= any(map(part_of, self._bucket.objects()))
        jobs.schema = schema

    # -- what claims leave behind -------------------------------------------------------------

    def _settle(self, jobs: Jobs) -> None:
        """Take the places of parts that earlier claims may still write; remove forgotten parts.

        Whatever it is killed over, the next claim does.
        """
        announced = {
            name: part for name in self._bucket.objects(ANNOUNCED) if (part := announced_part(name))
        }
        over = {name: part for name, part in announced.items() if jobs.is_over(part)}
        there = self._bucket.objects() if over else {}
        taken = {name: part for name, part in over.items() if self._void(jobs, part, there)}
        voids = {part.name for part in taken.values()}
        if jobs.leaving:
            self._remove(jobs, voids)
        if jobs.is_stale:
            self._give_columns(jobs)
        if voids - jobs.voids or jobs.leaving or jobs.is_stale:
            done, schema = list(jobs.leaving), jobs.schema

            def change(now: Jobs) -> bool:
                now.voids |= voids
                now.leaving = [each for each in now.leaving if each not in done]
                now.is_stale &= now.schema != schema
                return True

            self._ledger.change(change)
        self._bucket.delete(taken)

    def _void(self, jobs: Jobs, part: BucketPart, there: Mapping[str, Any]) -> bool:
        """Take the place of a part that may still come; say whether a void has it.

        A part that has come keeps its announcement: another attempt at it may still be asleep, and
        must find its place taken also when the part is removed one day.
        """
        void = without_rows(jobs.columns, {VOID: "1"})
        if jobs.is_leaving(part):
            self._bucket.put(part.name, void)
            return True
        if part.name not in there and self._bucket.create(part.name, void) is not None:
            return True
        size = there[part.name]["size"] if part.name in there else None
        return VOID in (self._ledger.footer(part, size) or {})

    def _remove(self, jobs: Jobs, voids: set[str]) -> None:
        """Remove the parts of forgotten jobs, but not voids: a part may still come to their places."""
        found = filter(None, map(part_of, self._bucket.objects()))
        names = [part.name for part in found if jobs.is_leaving(part)]
        kept = voids | self._ledger.jobs().voids  # those of other claims, too
        names = [name for name in names if name not in kept]
        for first in range(0, len(names), REMOVED_AT_ONCE):
            self._bucket.delete(names[first : first + REMOVED_AT_ONCE])
            failpoints.reach("during-removal")
        failpoints.reach("after-forgetting")

    def _give_columns(self, jobs: Jobs) -> None:
        """Give files without rows the columns that the dataset has now."""

        def give(file: tuple[str, Any]) -> None:
            name, _ = file
            if not self._ledger.count(file) and self._ledger.schema_of(*file) != jobs.columns:
                content = self._bucket.get(name)
                if content is not None:
                    facts = self._ledger.metadata(name, content[0])
                    self._bucket.replace(name, without_rows(jobs.columns, facts), content[1])

        files = self._bucket.objects()
        in_parallel(give, [(name, meta) for name, meta in files.items() if part_of(name)])

    def forget(self, record: JobRecord, *, completely: bool) -> Removed:
        """Remove the rejects of a completed job, and what the ledger knows of it; rows stay.

        Its parts stay as they are: no later job takes them for its own, since they have other tokens.
        """

        def forget(jobs: Jobs) -> bool:
            entry = jobs.held(record)
            if entry.record.state == FORGOTTEN:
                return False
            row = new_row(record.forgotten(), entry.row["table_name"], "", record.updated_at)
            jobs.entries[record.job_id] = replace(entry, row=row)
            return True

        def remove(jobs: Jobs) -> bool:
            return jobs.entries.pop(record.job_id, None) is not None

        self._ledger.change(forget)
        rejects = self._strip(record.job_id)
        failpoints.reach("after-forgetting")
        if completely:
            self._ledger.change(remove)
        return Removed(rejects=rejects)

    def remove_rejects(self, record: JobRecord) -> int:
        """Remove the rejects of a job; return how many they were."""
        self._ledger.jobs().held(record)
        return self._strip(record.job_id)

    def _strip(self, job_id: str) -> int:
        """Write the parts of a job again without their rejects; return how many they were."""
        count = 0
        for part, meta in self._ledger.parts(job_id).items():
            footer = self._ledger.footer(part, meta["size"]) or {}
            if REJECTS in footer:
                content = self._bucket.get(part.name)
                if content is not None:
                    data = parquet(_frame(content[0]), {CHUNK: footer[CHUNK]})
                    if self._bucket.replace(part.name, data, content[1]) is None:
                        raise TransientError("another program has changed the part meanwhile")
                    count += len(rejects_in(footer))
                failpoints.reach("during-removal")
        return count

    def close(self) -> None:
        """Do nothing: no connection is kept that could be closed."""


def _set_aside(jobs: Jobs, known: Entry) -> None:
    """Give a forgotten job another id, since a new job has its own."""
    old = known.record
    other = replace(old, job_id=old.set_aside_id)
    row = new_row(other, known.row["table_name"], "", old.updated_at)
    jobs.entries[other.job_id] = replace(known, row=row)
    del jobs.entries[old.job_id]


def _refuse_atomic(job: Job) -> None:
    if job.atomic:
        raise UsageError(
            "an object store cannot exchange all files at once",
            where="--atomic",
            hint="import to a new prefix, and let readers change to it; or leave it out",
        )


def _frame(data: bytes) -> pl.DataFrame:
    return pl.read_parquet(data, hive_partitioning=False)


class StoreClaim:
    """A job that this process may store into, at one epoch.

    Attributes:
        record: The job as the ledger has it.
        hints: Those of the sink.
    """

    def __init__(
        self, ledger: BucketLedger, record: JobRecord, hints: SinkHints, surplus: int = 0
    ) -> None:
        self.record, self.hints = record, hints
        self._ledger, self._bucket, self._surplus = ledger, ledger.bucket, surplus
        self._place: tuple[Entry, Schema] | None = None

    def _held(self) -> tuple[Entry, Schema]:
        """Return the job's entry and the columns of its parts, if it is still at this epoch.

        Raises:
            JobRunningElsewhereError: If another process has claimed it since.
        """
        jobs = self._ledger.jobs()
        self._place = jobs.held(self.record), jobs.columns
        return self._place

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit rows, ledger row and rejects as one object, or nothing of them."""
        job, chunk = self.record, request.chunk
        entry, schema = self._place or self._held()
        frame, rejects, result = judge(request, job.columns, schema)
        known = self._ledger.overlapping(entry, chunk)
        if request.replayed:
            return self._replay(request, known, frame, rejects, result)
        if known:
            self._held()
            return self._already_committed(chunk, known)
        row = statements.chunk_values(job.job_id, request, result, job.epoch)
        footer = part_footer(row, rejects, job.job_id)
        part = BucketPart(entry.name, chunk.lo, chunk.hi, entry.token)
        data = self._encoded(frame, footer)
        with self._announced(part, schema):
            failpoints.reach("after-ledger-row")  # it is in the footer
            failpoints.reach("after-rows")
            self._held()
            failpoints.reach("before-commit")
            if self._bucket.create(part.name, data) is None:
                # An earlier attempt of this claim, or one whose reply was lost, or a void.
                there = self._ledger.footer(part)
                if there is None or VOID in there:
                    raise taken_over(job)
                if there.get(CHUNK) != footer[CHUNK]:
                    result = self._already_committed(chunk, {part: there})
            self._ledger.add(part)
        return result

    def _already_committed(
        self, chunk: Chunk, known: dict[BucketPart, dict[str, str]]
    ) -> ChunkResult:
        rows = [self._ledger.row(part, footer) for part, footer in known.items()]
        return statements.already_committed(chunk, rows)

    def _encoded(self, frame: pl.DataFrame, footer: dict[str, str]) -> bytes:
        return parquet(frame if self._bucket.keeps_rows else frame.clear(), footer)

    @contextmanager
    def _announced(self, part: BucketPart, schema: Schema) -> Iterator[None]:
        """Announce a part for as long as it may come."""
        name = part.announcement()
        self._bucket.put(name, without_rows(schema, {VOID: "1"}))
        try:
            yield
        except DestinationAwayError:
            raise  # nobody knows whether it comes
        except BaseException:
            with suppress(ChunkError):
                self._bucket.delete([name])
            raise
        with suppress(ChunkError):
            self._bucket.delete([name])

    def _replay(
        self,
        request: StoreRequest,
        known: dict[BucketPart, dict[str, str]],
        frame: pl.DataFrame,
        rejects: Sequence[Reject],
        result: ChunkResult,
    ) -> ChunkResult:
        """Commit the new outcomes of rejects: a part with more rows and fewer rejects takes its place."""
        self._held()
        chunk = request.chunk
        part, footer = next(iter(known.items()), (None, {}))
        content = self._bucket.get(part.name) if part else None
        if part is None or content is None or (part.lo, part.hi) != (chunk.lo, chunk.hi):
            raise FatalError("the ledger has no such chunk", f"positions {chunk.lo} to {chunk.hi}")
        new = replayed(footer, part.name_of_job, result, set(request.replayed), rejects)
        if new is None:
            return self._already_committed(chunk, known)
        rows = _frame(content[0])
        data = self._encoded(pl.concat([rows, frame]) if frame.height else rows, new)
        failpoints.reach("after-ledger-row")  # it is in the footer
        failpoints.reach("after-rows")
        self._held()
        failpoints.reach("before-commit")
        if self._bucket.replace(part.name, data, content[1]) is None:
            self._held()
            there = self._bucket.get(part.name)
            if there is None or there[0] != data:
                raise TransientError("another attempt has replayed the chunk meanwhile")
        return result

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the dataset has."""
        record = self.record
        mismatch = self._ledger.foreign_rows() - (record.rows_before or 0) - self._surplus

        def change(jobs: Jobs) -> bool:
            entry = jobs.held(record)
            ended = replace(
                record,
                state="interrupted" if mismatch else state,
                total_items=entry.row["total_items"] if total_items is None else total_items,
            )
            row = new_row(ended, entry.row["table_name"], entry.row["owner"])
            jobs.entries[record.job_id] = replace(entry, row=row)
            return True

        self._ledger.change(change)
        return mismatch
