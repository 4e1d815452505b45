"""A directory of Parquet files: a part is a chunk, and its being there is the ledger.

A part is written without a name, synced, and then linked into the directory: that is the commit.
Its footer holds the chunk's ledger row and its rejects. The job's own file, `_job-ID.parquet`, has
no rows; its columns are those of the dataset, and its footer holds what a job's row holds in SQL.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from batchimport import failpoints
from batchimport.errors import FatalError, UsageError
from batchimport.model import DRY_RUN
from batchimport.sinks.base import SinkHints, SinkOptions, go_on, taken_over
from batchimport.sinks.parquet.columns import (
    NO_COLUMNS,
    Schema,
    as_stored,
    check_schema,
    new_schema,
)
from batchimport.sinks.parquet.folder import Folder, Part, Scratch
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import ChunkResult, Committed, Job, Reject
    from batchimport.sinks.base import JobRecord, StoreRequest

PREFIX = "parquet:///"
DELIVERY = "exactly-once, on a file system with hard links and file locks"
JOB, CHUNK, REJECTS = "batchimport.job", "batchimport.chunk", "batchimport.rejects"
"""Keys in the footers."""


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
        self._job: JobRecord | None = None
        self._schema: Schema = {}
        self._scratch: Scratch | None = None
        if options.dry_run:
            self._scratch = Scratch(path)
            self.hints = replace(self.hints, delivery=DRY_RUN)
        self._folder = self._scratch.folder if self._scratch else Folder(path)
        self._folder.make()

    # -- the job ------------------------------------------------------------------------------

    def jobs(self, target_hash: str | None = None) -> list[JobRecord]:
        """Return the jobs that the directory knows, oldest first."""
        found = [self._record(job_id) for job_id in self._folder.job_ids()]
        records = [record for record in found if record and record.state != "abandoned"]
        wanted = [record for record in records if target_hash in (None, record.target_hash)]
        return sorted(wanted, key=lambda record: (record.created_at, record.job_id))

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last."""
        facts = self._facts(job_id)
        return str(facts["owner"]) if facts else None

    def claim(
        self, job: Job, record: JobRecord, owner: str, instead_of: Sequence[JobRecord] = ()
    ) -> JobRecord:
        """Make the directory ready and take the job with a new epoch."""
        if job.key or job.on_conflict != "error":
            raise UsageError(
                "a Parquet dataset cannot keep keys unique",
                where="--key" if job.key else f"--on-conflict {job.on_conflict}",
                hint="leave it out, or import into a database",
            )
        with self._folder.locked():
            self._folder.tidy()
            self._forget_all(instead_of)
            known = self._record(record.job_id)
            if known is not None:
                schema = self._folder.schema(self._folder.job_path(record.job_id))
                record = go_on(known, record)
            else:
                schema = self._make_dataset(job, record)
                failpoints.reach("after-table")
                record = replace(
                    record, epoch=1, rows_before=self._foreign_rows(), created_at=statements.now()
                )
            self._write_job(record, job.table, owner, schema)
        self.join(job, record)
        return record

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record."""
        del job
        self._job = record
        self._schema = self._folder.schema(self._folder.job_path(record.job_id))

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
            schema = new_schema(record.columns, has_extra=has_extra)
        if job.if_exists in ("truncate", "replace"):
            self._empty()
        self._give_columns(schema)
        return schema

    def _common_schema(self) -> Schema:
        """Return the columns of all files; those of jobs without records have none as yet."""
        found = {path: self._folder.schema(path) for path in self._folder.files()}
        found = {path: schema for path, schema in found.items() if schema != NO_COLUMNS}
        if not found:
            return {}
        first, common = next(iter(found.items()))
        for path, schema in found.items():
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
        """Remove all that batchimport wrote: first the ledgers, so that none speaks of less."""
        foreign = self._folder.foreign()
        if foreign:
            raise UsageError(
                "batchimport did not write this file, and does not remove it",
                where=self._folder.where(foreign[0]),
                hint="remove it yourself, or choose another directory",
            )
        for job_id in {*self._folder.job_ids(), *(part.job_id for part in self._folder.parts())}:
            self._remove(job_id)

    def _foreign_rows(self) -> int:
        """Count the rows that no ledger accounts for."""
        return self._folder.rows() - self._stored_rows()

    def _stored_rows(self) -> int:
        return sum(self._committed(part).successful for part in self._folder.parts())

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return no column: numbers are doubles."""
        del table
        return frozenset()

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        return [self._committed(part) for part in self._folder.parts(job_id)]

    def _committed(self, part: Part) -> Committed:
        return statements.committed(json.loads(self._footer(part)[CHUNK]))

    def _footer(self, part: Part) -> dict[str, str]:
        path = self._folder.path / part.name
        footer = self._folder.footer(path)
        if CHUNK not in footer:
            raise FatalError(
                "its footer has no row of the ledger",
                where=self._folder.where(path),
                hint="was it written by another program? Remove it, then run again",
            )
        return footer

    def _forget_all(self, records: Sequence[JobRecord]) -> None:
        """Remove these jobs, and those which a process that was killed over it has left."""
        for record in records:
            self._check_epoch(record)
        for record in records:
            self._abandon(record.job_id)
        for job_id in self._folder.job_ids():
            known = self._record(job_id)
            if known and known.state == "abandoned":
                self._remove(job_id)
                failpoints.reach("after-forgetting")

    def _abandon(self, job_id: str) -> None:
        record, facts = self._record(job_id), self._facts(job_id)
        if record and facts and record.state != "abandoned":
            schema = self._folder.schema(self._folder.job_path(job_id))
            gone = replace(record, state="abandoned", epoch=record.epoch + 1)
            self._write_job(gone, facts["table_name"], facts["owner"], schema)

    def _remove(self, job_id: str) -> None:
        """Remove a job's files. Killed over it, the job stays abandoned until this is done."""
        self._abandon(job_id)
        parts = [self._folder.path / part.name for part in self._folder.parts(job_id)]
        if parts:
            self._folder.remove(*parts)
        if self._folder.job_path(job_id).exists():
            self._folder.remove(self._folder.job_path(job_id))

    def finish(self, job_id: str, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the dataset has."""
        with self._folder.locked():
            job = self._fence()
            facts = self._facts(job_id) or {}
            if total_items is None:
                total_items = facts["total_items"]
            surplus = self._foreign_rows() - (job.rows_before or 0)
            state = "interrupted" if surplus else state
            ended = replace(job, state=state, total_items=total_items)
            self._write_job(ended, facts["table_name"], facts["owner"], self._schema)
            return surplus

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit rows, ledger row and rejects as one file, or nothing of them."""
        job, chunk = self._claimed(), request.chunk
        frame, misfits = as_stored(request.frame, job.columns, self._schema)
        rejects = [*request.rejects, *(request.rejecter(at, misfits[at]) for at in sorted(misfits))]
        result = statements.outcome(request, rejects, len(misfits))
        row = statements.chunk_values(job.job_id, request, result, job.epoch)
        footer = {CHUNK: json.dumps(row)}
        if rejects:
            footer[REJECTS] = _packed(rejects, job.job_id)
        with self._folder.drafted(frame, footer) as draft:
            failpoints.reach("after-ledger-row")  # it is in the footer
            failpoints.reach("after-rows")
            with self._folder.locked():
                self._fence()
                known = self._overlaps(request)
                if known:
                    return statements.already_committed(chunk, known)
                failpoints.reach("before-commit")
                draft.publish(Part(job.job_id, chunk.lo, chunk.hi).name)
        self._folder.sync()
        return result

    def _overlaps(self, request: StoreRequest) -> list[Committed]:
        chunk = request.chunk
        return [
            self._committed(part)
            for part in self._folder.parts(self._claimed().job_id)
            if part.lo < chunk.hi and part.hi > chunk.lo
        ]

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """Yield the rejects of a job in order of record."""
        for part in self._folder.parts(job_id):
            footer = self._footer(part)
            if REJECTS in footer:
                yield from _unpacked(footer[REJECTS])

    # -- the job's own file -------------------------------------------------------------------

    def _facts(self, job_id: str) -> dict[str, Any] | None:
        path = self._folder.job_path(job_id)
        if not path.exists():
            return None
        return dict(json.loads(self._folder.footer(path)[JOB]))

    def _record(self, job_id: str) -> JobRecord | None:
        facts = self._facts(job_id)
        return statements.job_record([facts.get(name) for name in _JOB_NAMES]) if facts else None

    def _write_job(self, record: JobRecord, table: str, owner: str, schema: Schema) -> None:
        values = statements.job_values(record, table, owner, statements.now())
        facts = dict(zip(_JOB_NAMES, values, strict=True))
        frame = pl.DataFrame(schema=schema)
        path = self._folder.job_path(record.job_id)
        self._folder.put(path, frame, {JOB: json.dumps(facts)})

    def _claimed(self) -> JobRecord:
        assert self._job is not None, "claim comes first"  # noqa: S101 - a mistake in this program
        return self._job

    def _fence(self) -> JobRecord:
        """Make sure that the job is still ours, for as long as the lock is held."""
        return self._check_epoch(self._claimed())

    def _check_epoch(self, record: JobRecord) -> JobRecord:
        facts = self._facts(record.job_id)
        wanted = (record.epoch, record.created_at)  # a job that begins again has epoch 1 again
        if facts is None or (facts["epoch"], facts["created_at"]) != wanted:
            raise taken_over(record)
        return record

    def close(self) -> None:
        """Let go of what a dry run has made; no file is open between calls."""
        if self._scratch is not None:
            self._scratch.remove()


_JOB_NAMES = statements.JOB_COLUMNS.split(", ")


def _packed(rejects: Sequence[Reject], job_id: str) -> str:
    """Return rejects as text for a footer, in order of record."""
    ordered = sorted(rejects, key=lambda reject: reject.record)
    rows = json.dumps([statements.reject_values(job_id, reject) for reject in ordered])
    return base64.b64encode(zlib.compress(rows.encode(), 1)).decode()


def _unpacked(text: str) -> Iterator[Reject]:
    return map(statements.reject, json.loads(zlib.decompress(base64.b64decode(text))))


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
    if path.exists() or not create:
        raise UsageError(
            "is not a directory" if path.exists() else "no such directory", where=str(path)
        )
    if not path.parent.is_dir():
        raise UsageError(
            "the directory above it does not exist",
            where=str(path),
            hint="make it first, or choose another place",
        )
