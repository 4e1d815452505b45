"""A directory of Parquet files: a part per chunk, whose presence is its ledger entry.

A part is written without a name, synced, and then linked into the directory: that is the commit.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl

from batchimport import failpoints
from batchimport.errors import FatalError, NoSuchDestinationError, TransientError, UsageError
from batchimport.model import DRY_RUN
from batchimport.sinks.base import (
    BEGAN_EMPTY,
    EMPTIED_AT,
    FORGOTTEN,
    STAGED,
    Removed,
    SinkHints,
    SinkOptions,
    claimed_again,
)
from batchimport.sinks.parquet.columns import NO_COLUMNS, common_schema, schema_for
from batchimport.sinks.parquet.dataset import (
    Dataset,
    foreign_file,
    hints_of,
    judge,
    refuse_for_files,
)
from batchimport.sinks.parquet.folder import Folder, Part, Scratch
from batchimport.sinks.parquet.ledger import ParquetLedger, part_footer, replayed
from batchimport.sinks.parquet.staging import Staging
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from batchimport.model import Chunk, ChunkResult, Committed, Job, Reject
    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.parquet.columns import Schema

PREFIX = "parquet:///"
DELIVERY = "exactly-once, on a file system with hard links and file locks"


class ParquetSink(Dataset):
    """One directory; any number of threads and processes may store into it."""

    hints = hints_of(DELIVERY, os.cpu_count() or 1)

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        if options.ledger_schema:
            raise UsageError("a directory has no schemas", where="--ledger-schema")
        path = _path_of(address)
        if not options.dry_run:
            Staging(path).recover()
        _check_place(path, create=options.create)
        self._scratch: Scratch | None = None
        if options.dry_run:
            self._scratch = Scratch(path)
            self.hints = replace(self.hints, delivery=DRY_RUN)
        self._folder = self._scratch.folder if self._scratch else Folder(path)
        self._staging = Staging(self._folder.path)
        self._folder.make()
        self._ledger = ParquetLedger(self._folder)

    # -- what is known ------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that the directory knows, oldest first."""
        found: dict[str, JobRecord] = {}
        for ledger in self._ledgers():
            for job_id in ledger.folder.job_ids():
                record = ledger.job(job_id)
                if record and record.state != "abandoned":
                    found.setdefault(job_id, record)
        known = found.values()
        return sorted(known, key=lambda record: (record.created_at, record.job_id))

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last; None if there is no such job."""
        row = self._ledger_of(job_id).job_row(job_id)
        return str(row["owner"]) if row else None

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        return self._ledger_of(job_id).committed(job_id)

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        found: dict[str, Committed] = {}
        for ledger in self._ledgers():
            found = ledger.first_chunks() | found
        return found

    def _ledgers(self) -> list[ParquetLedger]:
        """Return the ledgers of the directories that jobs with `--atomic` fill, then the dataset's."""
        return [*map(ParquetLedger, self._staging.folders()), self._ledger]

    def _ledger_of(self, job_id: str) -> ParquetLedger:
        """Return where the parts of a job are."""
        folder = self._staging.folder_of(job_id)
        return ParquetLedger(folder) if folder else self._ledger

    def has_rows(self, table: str) -> bool:
        """Say whether the files have a row."""
        return (self._staging.named(table) or self._folder).rows() > 0

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        parts = self._ledger_of(job_id).folder.parts_in(job_id, position, position + 1)
        return any(part.lo == position for part in parts)

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""
        return self._ledger_of(job_id).reject_frames(job_id, within)

    # -- whose a job is -----------------------------------------------------------------------

    def claim(
        self,
        job: Job,
        record: JobRecord,
        owner: str,
        instead_of: Sequence[JobRecord] = (),
        check: Callable[[], None] = lambda: None,
        replay: Mapping[str, Any] | None = None,
    ) -> ParquetClaim:
        """Make the directory ready and take the job with a new epoch."""
        refuse_for_files(job)
        with self._folder.locked():
            check()
            self._folder.tidy()
            self._staging.tidy()
            is_staged = job.atomic and self._scratch is None
            if is_staged:
                self._restage(instead_of)
            else:
                self._forget_all(instead_of)
            ledger = self._ledger_of(record.job_id)
            is_new = record.job_id in {old.job_id for old in instead_of}
            known = None if is_new else ledger.job(record.job_id)
            if known is not None and known.state == FORGOTTEN:
                if not is_staged:  # else it goes with the dataset
                    ledger.set_aside(known)
                known = None
            if known is not None:
                claim = self._claim_again(ledger, claimed_again(known, record, replay), job, owner)
                if replay is not None:
                    claim.surplus = ledger.foreign_rows() - (claim.record.rows_before or 0)
                return claim
            if is_staged:
                return self._begin_staged(job, record, owner)
            schema = self._make_dataset(job, record)
            failpoints.reach("after-table")
            record = replace(
                record,
                epoch=1,
                rows_before=self._ledger.foreign_rows(),
                created_at=statements.now(),
            )
            self._ledger.write_job(record, job.table, owner, schema)
            return self._claim_of(self._ledger, record, schema)

    def _claim_again(
        self, ledger: ParquetLedger, record: JobRecord, job: Job, owner: str
    ) -> ParquetClaim:
        schema = ledger.folder.schema(ledger.folder.job_path(record.job_id))
        with nullcontext() if ledger is self._ledger else ledger.folder.locked():
            ledger.write_job(record, job.table, owner, schema)
        return self._claim_of(ledger, record, schema)

    def _claim_of(self, ledger: ParquetLedger, record: JobRecord, schema: Schema) -> ParquetClaim:
        return ParquetClaim(ledger, record, schema, self.hints, self._ledger, self._staging)

    def _restage(self, instead_of: Sequence[JobRecord]) -> None:
        """Remove what jobs have filled that begin anew; what is in the dataset stays until the end."""
        for old in instead_of:
            folder = self._staging.folder_of(old.job_id)
            if folder is not None:
                with folder.locked():
                    ParquetLedger(folder).hold(old)
                    self._staging.remove(folder)

    def _begin_staged(self, job: Job, record: JobRecord, owner: str) -> ParquetClaim:
        """Make the directory that a job with `--atomic` fills."""
        self._refuse_foreign()
        schema = self._schema_for(job, record)
        folder = self._staging.make(record.job_id)
        failpoints.reach("after-table")
        staged = {STAGED: {"table": folder.path.name}, BEGAN_EMPTY: False}
        record = replace(
            record,
            epoch=1,
            rows_before=0,
            created_at=statements.now(),
            configuration=record.configuration | staged,
        )
        ledger = ParquetLedger(folder)
        ledger.write_job(record, job.table, owner, schema)
        return self._claim_of(ledger, record, schema)

    def join(self, job: Job, record: JobRecord) -> ParquetClaim:
        """Share the claim that a record describes, which was made here or in another process."""
        del job
        ledger = self._ledger_of(record.job_id)
        schema = ledger.folder.schema(ledger.folder.job_path(record.job_id))
        return self._claim_of(ledger, record, schema)

    def _forget_all(self, records: Sequence[JobRecord]) -> None:
        """Remove these jobs, and those that a process was killed over removing."""
        self._restage(records)
        known = [record for record in records if self._ledger.job(record.job_id) is not None]
        for record in known:
            self._ledger.hold(record)
        for record in known:
            self._ledger.abandon(record.job_id)
        for job_id in self._folder.job_ids():
            found = self._ledger.job(job_id)
            if found and found.state == "abandoned":
                self._ledger.remove(job_id)
                failpoints.reach("after-forgetting")

    def forget(self, record: JobRecord, *, completely: bool) -> Removed:
        """Remove the rejects of a completed job, and what its own file knows of it."""
        with self._folder.locked():
            self._ledger.hold(record)
            return Removed(rejects=self._ledger.forget(record, completely=completely))

    def remove_rejects(self, record: JobRecord) -> int:
        """Remove the rejects of a job; return how many they were."""
        with self._folder.locked():
            self._ledger.hold(record)
            return self._ledger.remove_rejects(record.job_id)

    # -- the dataset --------------------------------------------------------------------------

    def _make_dataset(self, job: Job, record: JobRecord) -> Schema:
        """Make room as `--if-exists` says; return the columns of all parts to come."""
        schema = self._schema_for(job, record)
        if job.if_exists in ("truncate", "replace"):
            self._empty()
        self._give_columns(schema)
        return schema

    def _schema_for(self, job: Job, record: JobRecord) -> Schema:
        """Return the columns of all parts to come."""
        return schema_for(self._folder.where(), self.common_columns(), job, record)

    def common_columns(self) -> Schema:
        """Return the columns of all files; files of jobs without records do not count."""
        folder = self._folder
        schemas = {path.name: folder.schema(path) for path in folder.files()}
        return common_schema(schemas, lambda name: folder.where(folder.path / name))

    def _give_columns(self, schema: Schema) -> None:
        """Give the files of jobs without records the columns that the dataset gets now."""
        for path in self._folder.files() if schema != NO_COLUMNS else ():
            if self._folder.schema(path) == NO_COLUMNS:
                self._folder.put(path, pl.DataFrame(schema=schema), self._folder.footer(path))

    def _empty(self) -> None:
        """Remove everything that batchimport wrote; the ledger of a job goes before its rows."""
        self._refuse_foreign()
        for job_id in {*self._folder.job_ids(), *(part.job_id for part in self._folder.parts())}:
            self._ledger.remove(job_id)

    def _refuse_foreign(self) -> None:
        for path in self._folder.foreign():
            raise foreign_file(self._folder.where(path))

    def close(self) -> None:
        """Remove what a dry run has made; no file is open between calls."""
        if self._scratch is not None:
            self._scratch.remove()


class ParquetClaim:
    """A job that this process may store into, at one epoch.

    Attributes:
        record: The job as the ledger has it.
        hints: Those of the sink.
        surplus: Rows that the dataset had too many when the job was claimed to replay its rejects.
    """

    surplus = 0

    def __init__(
        self,
        ledger: ParquetLedger,
        record: JobRecord,
        schema: Schema,
        hints: SinkHints,
        dataset: ParquetLedger | None = None,
        staging: Staging | None = None,
    ) -> None:
        self.record, self.hints = record, hints
        self._dataset, self._staging = dataset or ledger, staging
        self._ledger, self._folder, self._schema = ledger, ledger.folder, schema

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit rows, ledger row and rejects as one file, or nothing of them."""
        job, chunk = self.record, request.chunk
        frame, rejects, result = judge(request, job.columns, self._schema)
        if request.replayed:
            return self._replay(request, frame, rejects, result)
        row = statements.chunk_values(job.job_id, request, result, job.epoch)
        with self._folder.temporary(frame, part_footer(row, rejects, job.job_id)) as file:
            failpoints.reach("after-ledger-row")  # it is in the footer
            failpoints.reach("after-rows")
            with self._folder.locked():
                self._ledger.hold(job)
                known = self._ledger.overlapping(job.job_id, chunk)
                if known:
                    return statements.already_committed(chunk, known)
                failpoints.reach("before-commit")
                self._folder.add(file, Part(job.job_id, chunk.lo, chunk.hi))
        self._folder.sync()
        return result

    def _replay(
        self,
        request: StoreRequest,
        frame: pl.DataFrame,
        rejects: Sequence[Reject],
        result: ChunkResult,
    ) -> ChunkResult:
        """Commit the new outcomes of rejects: a part with more rows and fewer rejects takes its place."""
        part = Part(self.record.job_id, request.chunk.lo, request.chunk.hi)
        footer = self._ledger.footer(part)
        new = replayed(footer, part.job_id, result, set(request.replayed), rejects)
        if new is None:
            known = self._ledger.overlapping(part.job_id, request.chunk)
            return statements.already_committed(request.chunk, known)
        rows = self._folder.frame(self._folder.path / part.name)
        whole = pl.concat([rows, frame]) if frame.height else rows
        with self._folder.temporary(whole, new) as file:
            failpoints.reach("after-ledger-row")  # it is in the footer
            failpoints.reach("after-rows")
            with self._folder.locked():
                self._ledger.hold(self.record)
                if self._ledger.footer(part) != footer:
                    raise TransientError("another attempt has replayed the chunk meanwhile")
                failpoints.reach("before-commit")
                self._folder.supersede(file, part)
        return result

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the dataset has.

        With `--atomic` and the completion, what was filled takes the place of the dataset.
        """
        job_id = self.record.job_id
        with ExitStack() as stack:
            stack.enter_context(self._dataset.folder.locked())
            folder = self._staging.folder_of(job_id) if self._staging else None
            ledger = ParquetLedger(folder) if folder else self._dataset
            if folder:
                stack.enter_context(folder.locked())
            ledger.hold(self.record)
            mismatch = ledger.foreign_rows() - (self.record.rows_before or 0) - self.surplus
            if total_items is None:
                row = ledger.job_row(job_id) or {}
                total_items = row["total_items"]
            state = "interrupted" if mismatch else state
            record = replace(self.record, state=state, total_items=total_items)
            if STAGED in record.configuration and state == "completed":
                record = self._published(record, folder)
                ledger = self._dataset
            ledger.update_job(record)
        return mismatch

    def _published(self, record: JobRecord, folder: Folder | None) -> JobRecord:
        """Put what was filled in the place of the dataset, unless it is there; return the record."""
        if folder is not None and self._staging is not None:
            there = self._dataset.folder
            others = there.files() if record.configuration["if_exists"] == "fail" else []
            others += there.foreign()
            if others:
                raise FatalError(
                    "another program has put this file there since the job began",
                    where=there.where(others[0]),
                    hint="remove it, and run the same command again",
                )
            with folder.translated():
                self._staging.publish(folder)
        facts = record.configuration | {BEGAN_EMPTY: True, EMPTIED_AT: statements.now()}
        del facts[STAGED]
        return replace(record, configuration=facts)


def _path_of(address: str) -> Path:
    path = unquote(address.removeprefix(PREFIX))
    if not address.startswith(PREFIX) or not path:
        raise UsageError(
            "a Parquet address has three slashes and a directory",
            where=f"--to {address}",
            hint="relative: parquet:///users, absolute: parquet:////data/users",
        )
    return Path(path).absolute()


def _check_place(path: Path, *, create: bool) -> None:
    if path.is_dir():
        return
    if path.exists():
        raise UsageError("is not a directory", where=str(path))
    if not create:
        raise NoSuchDestinationError("no such directory", where=str(path))
    if not path.parent.is_dir():
        raise UsageError(
            "the directory above it does not exist",
            where=str(path),
            hint="create it first, or choose another place",
        )
