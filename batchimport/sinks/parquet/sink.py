"""A directory of Parquet files: a part per chunk, whose presence is its ledger entry.

A part is written without a name, synced, and then linked into the directory: that is the commit.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl

from batchimport import failpoints
from batchimport.errors import NoSuchDestinationError, TransientError, UsageError
from batchimport.model import DRY_RUN
from batchimport.sinks.base import SinkHints, SinkOptions, claimed_again
from batchimport.sinks.parquet.columns import (
    NO_COLUMNS,
    Schema,
    as_stored,
    check_schema,
    new_schema,
)
from batchimport.sinks.parquet.folder import Folder, Part, Scratch
from batchimport.sinks.parquet.ledger import ParquetLedger, part_footer
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from batchimport.model import Chunk, ChunkResult, Committed, Job, Reject
    from batchimport.sinks.base import JobRecord, StoreRequest

PREFIX = "parquet:///"
DELIVERY = "exactly-once, on a file system with hard links and file locks"


class ParquetSink:
    """One directory; any number of threads and processes may store into it."""

    hints = SinkHints(
        writers=os.cpu_count() or 1,
        preferred_records=122_880,
        delivery=DELIVERY,
        rows_outlive_the_ledger=False,
    )

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        if options.ledger_schema:
            raise UsageError("a directory has no schemas", where="--ledger-schema")
        path = _path_of(address)
        _check_place(path, create=options.create)
        self._scratch: Scratch | None = None
        if options.dry_run:
            self._scratch = Scratch(path)
            self.hints = replace(self.hints, delivery=DRY_RUN)
        self._folder = self._scratch.folder if self._scratch else Folder(path)
        self._folder.make()
        self._ledger = ParquetLedger(self._folder)

    # -- what is known ------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that the directory knows, oldest first."""
        records = [self._ledger.job(job_id) for job_id in self._folder.job_ids()]
        known = [record for record in records if record and record.state != "abandoned"]
        return sorted(known, key=lambda record: (record.created_at, record.job_id))

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last; None if there is no such job."""
        row = self._ledger.job_row(job_id)
        return str(row["owner"]) if row else None

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        return self._ledger.committed(job_id)

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        return self._ledger.first_chunks()

    def identity_of(self, table: str) -> str | None:
        """Return the same for all names: a directory holds one table."""
        del table
        return ""

    def table_names(self) -> tuple[str, ...]:
        """Return none: a directory holds one table, whatever it is called."""
        return ()

    def has_rows(self, table: str) -> bool:
        """Say whether the files have a row."""
        del table
        return self._folder.rows() > 0

    def surplus(self, record: JobRecord) -> int | None:
        """Return None: rows leave the directory with their ledger."""
        del record
        return None

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        parts = self._folder.parts_in(job_id, position, position + 1)
        return any(part.lo == position for part in parts)

    def rejects(self, job_id: str, within: Chunk | None = None) -> Iterator[Reject]:
        """Yield the rejects of a job, or of one of its committed chunks, in order of record."""
        return self._ledger.rejects(job_id, within)

    def columns_of(self, table: str) -> frozenset[str]:
        """Return the names of the dataset's columns, in lower case; none if there is no file."""
        del table
        return frozenset(map(str.lower, self._common_schema()))

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return no column: numbers are doubles."""
        del table
        return frozenset()

    def text_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold text."""
        del table
        schema = self._common_schema()
        return frozenset(name.lower() for name, dtype in schema.items() if dtype == pl.String)

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
        if job.key or job.on_conflict != "error":
            raise UsageError(
                "a Parquet dataset cannot keep keys unique",
                where="--key" if job.key else f"--on-conflict {job.on_conflict}",
                hint="leave it out, or import into a database",
            )
        with self._folder.locked():
            check()
            self._folder.tidy()
            self._forget_all(instead_of)
            known = self._ledger.job(record.job_id)
            if known is not None:
                schema = self._folder.schema(self._folder.job_path(record.job_id))
                record = claimed_again(known, record, replay)
            else:
                schema = self._make_dataset(job, record)
                failpoints.reach("after-table")
                record = replace(
                    record,
                    epoch=1,
                    rows_before=self._ledger.foreign_rows(),
                    created_at=statements.now(),
                )
            self._ledger.write_job(record, job.table, owner, schema)
            claim = ParquetClaim(self._ledger, record, schema, self.hints)
            if replay is not None:
                claim.surplus = self._ledger.foreign_rows() - (record.rows_before or 0)
        return claim

    def join(self, job: Job, record: JobRecord) -> ParquetClaim:
        """Share the claim that a record describes, which was made here or in another process."""
        del job
        schema = self._folder.schema(self._folder.job_path(record.job_id))
        check_schema(self._folder.where(), schema, record.columns)
        return ParquetClaim(self._ledger, record, schema, self.hints)

    def _forget_all(self, records: Sequence[JobRecord]) -> None:
        """Remove these jobs, and those that a process was killed over removing."""
        for record in records:
            self._ledger.hold(record)
        for record in records:
            self._ledger.abandon(record.job_id)
        for job_id in self._folder.job_ids():
            known = self._ledger.job(job_id)
            if known and known.state == "abandoned":
                self._ledger.remove(job_id)
                failpoints.reach("after-forgetting")

    # -- the dataset --------------------------------------------------------------------------

    def _make_dataset(self, job: Job, record: JobRecord) -> Schema:
        """Make room as `--if-exists` says; return the columns of all parts to come."""
        schema, where = self._common_schema(), self._folder.where()
        if schema and job.if_exists == "fail":
            raise UsageError(
                "the dataset exists", where=where, hint="--if-exists append, truncate or replace"
            )
        if schema and job.if_exists != "replace":
            check_schema(where, schema, record.columns)
        else:
            is_closed = record.schema.get("additionalProperties") is False
            has_extra = not is_closed or job.transform is not None
            has_extra &= job.new_columns != "reject"
            schema = new_schema(record.columns, has_extra=has_extra)
        if job.if_exists in ("truncate", "replace"):
            self._empty()
        self._give_columns(schema)
        return schema

    def _common_schema(self) -> Schema:
        """Return the columns of all files; files of jobs without records do not count."""
        schemas = {path: self._folder.schema(path) for path in self._folder.files()}
        schemas = {path: schema for path, schema in schemas.items() if schema != NO_COLUMNS}
        if not schemas:
            return {}
        first, common = next(iter(schemas.items()))
        for path, schema in schemas.items():
            if schema != common:
                raise UsageError(
                    f"its columns differ from those of {first.name}",
                    where=self._folder.where(path),
                    hint="a dataset has one schema: choose another directory",
                )
        return common

    def _give_columns(self, schema: Schema) -> None:
        """Give the files of jobs without records the columns that the dataset gets now."""
        for path in self._folder.files() if schema != NO_COLUMNS else ():
            if self._folder.schema(path) == NO_COLUMNS:
                self._folder.put(path, pl.DataFrame(schema=schema), self._folder.footer(path))

    def _empty(self) -> None:
        """Remove everything that batchimport wrote; the ledger of a job goes before its rows."""
        foreign = self._folder.foreign()
        if foreign:
            raise UsageError(
                "batchimport did not write this file, and does not remove it",
                where=self._folder.where(foreign[0]),
                hint="remove it yourself, or choose another directory",
            )
        for job_id in {*self._folder.job_ids(), *(part.job_id for part in self._folder.parts())}:
            self._ledger.remove(job_id)

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
        self, ledger: ParquetLedger, record: JobRecord, schema: Schema, hints: SinkHints
    ) -> None:
        self.record, self.hints = record, hints
        self._ledger, self._folder, self._schema = ledger, ledger.folder, schema

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit rows, ledger row and rejects as one file, or nothing of them."""
        job, chunk = self.record, request.chunk
        frame, refused = as_stored(request.frame, job.columns, self._schema)
        rejects = [*request.rejects, *(request.rejecter(*each) for each in sorted(refused.items()))]
        result = statements.outcome(request, rejects, len(refused))
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
        replayed = self._ledger.replayed(part, result, set(request.replayed), rejects)
        if replayed is None:
            known = self._ledger.overlapping(part.job_id, request.chunk)
            return statements.already_committed(request.chunk, known)
        rows = self._folder.frame(self._folder.path / part.name)
        whole = pl.concat([rows, frame]) if frame.height else rows
        with self._folder.temporary(whole, replayed) as file:
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
        """Record how the run ended; return how many rows too many the dataset has."""
        with self._folder.locked():
            self._ledger.hold(self.record)
            mismatch = self._ledger.foreign_rows() - (self.record.rows_before or 0) - self.surplus
            if total_items is None:
                row = self._ledger.job_row(self.record.job_id) or {}
                total_items = row["total_items"]
            state = "interrupted" if mismatch else state
            self._ledger.update_job(replace(self.record, state=state, total_items=total_items))
        return mismatch


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
