"""The ledger of a Parquet dataset, which is in its files: footers hold the rows that SQL tables hold.

A part's presence is its ledger entry. Its footer holds the chunk's ledger row and its rejects. The
job's own file, `_job-ID.parquet`, has no rows; its columns are those of the dataset, and its footer
holds the row of the job.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport import failpoints
from batchimport.errors import FatalError
from batchimport.sinks.base import FORGOTTEN, taken_over
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from batchimport.model import Chunk, ChunkResult, Committed, Reject
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.parquet.columns import Schema
    from batchimport.sinks.parquet.folder import Folder, Part

JOB, CHUNK, REJECTS = "batchimport.job", "batchimport.chunk", "batchimport.rejects"
"""Keys in the footers; they are a file format."""

JOB_NAMES = statements.JOB_COLUMNS.split(", ")
_CHUNK_NAMES = statements.CHUNK_COLUMNS.split(", ")


class ParquetLedger:
    """Reads and writes the ledger of a directory. What changes it is called under its lock."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    # -- jobs ----------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRecord | None:
        """Return the record of a job; None if the directory does not know it."""
        row = self.job_row(job_id)
        return statements.job_record([row.get(name) for name in JOB_NAMES]) if row else None

    def job_row(self, job_id: str) -> dict[str, Any] | None:
        """Return the row of a job by the names of its columns."""
        path = self.folder.job_path(job_id)
        return dict(json.loads(self.folder.footer(path)[JOB])) if path.exists() else None

    def write_job(
        self, record: JobRecord, table: str, owner: str, schema: Schema, *, at: str = ""
    ) -> None:
        """Write a job's own file, over the one that is there."""
        row = new_row(record, table, owner, at)
        path = self.folder.job_path(record.job_id)
        self.folder.put(path, pl.DataFrame(schema=schema), {JOB: json.dumps(row)})

    def update_job(self, record: JobRecord) -> None:
        """Write a job's file again: the record changes; table, owner and columns stay."""
        row = self.job_row(record.job_id) or {}
        schema = self.folder.schema(self.folder.job_path(record.job_id))
        self.write_job(record, row["table_name"], row["owner"], schema)

    def hold(self, record: JobRecord) -> None:
        """Make sure that a job is still at this epoch, for as long as the lock is held.

        Raises:
            JobRunningElsewhereError: If another process has claimed it since.
        """
        row = self.job_row(record.job_id)
        expected = (record.epoch, record.created_at)  # a job that begins again has epoch 1 again
        if row is None or (row["epoch"], row["created_at"]) != expected:
            raise taken_over(record)

    def abandon(self, job_id: str) -> None:
        """Close a job to its owner; it is forgotten once its files are removed."""
        record = self.job(job_id)
        if record and record.state != "abandoned":
            self.update_job(replace(record, state="abandoned", epoch=record.epoch + 1))

    def remove(self, job_id: str) -> None:
        """Remove a job's files. Killed over it, the job stays abandoned until this is done."""
        self.abandon(job_id)
        parts = [self.folder.path / part.name for part in self.folder.parts(job_id)]
        if parts:
            self.folder.remove(*parts)
        if self.folder.job_path(job_id).exists():
            self.folder.remove(self.folder.job_path(job_id))

    def forget(self, record: JobRecord, *, completely: bool) -> int:
        """Remove the rejects of a job, and what its own file knows of it; rows stay where they are.

        Its parts say what they hold until it is forgotten completely: then they get another name, of
        which there is no job. Killed over it, the job is forgotten, and this may be done again.

        Returns:
            The number of rejects.
        """
        if record.state != FORGOTTEN:
            path = self.folder.job_path(record.job_id)
            schema = self.folder.schema(path)
            table = str(record.configuration["table"])
            self.write_job(record.forgotten(), table, "", schema, at=record.updated_at)
        rejects = self.remove_rejects(record.job_id, keeps_digests=not completely)
        failpoints.reach("after-forgetting")
        if completely:
            self._rename_parts(record)
            self.folder.remove(self.folder.job_path(record.job_id))
        return rejects

    def remove_rejects(self, job_id: str, *, keeps_digests: bool = True) -> int:
        """Write the parts of a job again without their rejects; return how many they were."""
        count = 0
        for part in self.folder.parts(job_id):
            footer = self.footer(part)
            if keeps_digests and REJECTS not in footer:
                continue
            count += len(rejects_in(footer))
            row = json.loads(footer[CHUNK])
            if not keeps_digests:
                row[_CHUNK_NAMES.index("digest")] = ""
            path = self.folder.path / part.name
            self.folder.put(path, self.folder.frame(path), {CHUNK: json.dumps(row)})
            failpoints.reach("during-removal")
        return count

    def set_aside(self, record: JobRecord) -> None:
        """Give a forgotten job another id, since a new job has its own; may be done again."""
        table = str(record.configuration["table"])
        schema = self.folder.schema(self.folder.job_path(record.job_id))
        other = replace(record, job_id=record.set_aside_id)
        self.write_job(other, table, "", schema, at=record.updated_at)
        self._rename_parts(record)
        self.folder.remove(self.folder.job_path(record.job_id))

    def _rename_parts(self, record: JobRecord) -> None:
        for part in self.folder.parts(record.job_id):
            other = replace(part, job_id=record.set_aside_id)
            self.folder.rename(part.name, other.name)

    # -- chunks --------------------------------------------------------------------------------

    def committed(self, job_id: str) -> list[Committed]:
        """Return the chunks of a job, in order of position."""
        return [self._chunk(part) for part in self.folder.parts(job_id)]

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        return {part.job_id: self._chunk(part) for part in self.folder.parts() if part.lo == 0}

    def overlapping(self, job_id: str, chunk: Chunk) -> list[Committed]:
        """Return the chunks of a job that share positions with this one."""
        return [self._chunk(part) for part in self.folder.parts_in(job_id, chunk.lo, chunk.hi)]

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""
        for part in self.folder.parts(job_id):
            if within is None or part.lo == within.lo:
                yield statements.reject_rows(job_id, reject_rows_in(self.footer(part)))

    def foreign_rows(self) -> int:
        """Count the rows that no ledger accounts for."""
        return self.folder.rows() - sum(
            self._chunk(part).successful for part in self.folder.parts()
        )

    def _chunk(self, part: Part) -> Committed:
        return statements.committed(json.loads(self.footer(part)[CHUNK]))

    def footer(self, part: Part) -> dict[str, str]:
        """Return the footer of a part.

        Raises:
            FatalError: If it has no row of the ledger.
        """
        path = self.folder.path / part.name
        footer = self.folder.footer(path)
        if CHUNK not in footer:
            raise no_row(self.folder.where(path))
        return footer


def no_row(where: str) -> FatalError:
    """Return the error for a part whose footer has no row of the ledger."""
    return FatalError(
        "its footer has no row of the ledger",
        where=where,
        hint="was it written by another program? Remove it, then run again",
    )


def new_row(record: JobRecord, table: str, owner: str, at: str = "") -> dict[str, Any]:
    """Return the row of a job by the names of its columns.

    Args:
        at: When it was last changed; now if empty.
    """
    values = statements.job_values(record, table, owner, at or statements.now())
    return dict(zip(JOB_NAMES, values, strict=True))


def replayed(
    footer: Mapping[str, str],
    part_job_id: str,
    result: ChunkResult,
    replayed: Collection[int],
    rejects: Sequence[Reject],
) -> dict[str, str] | None:
    """Return the footer of a part once rejects are replayed; None if some of them are not there.

    Args:
        footer: The one that the part has.
        result: The outcomes of the replayed records.
        rejects: Those of them that are refused again.
    """
    known = rejects_in(footer)
    if not set(replayed) <= {reject.record for reject in known}:
        return None
    row = dict(zip(_CHUNK_NAMES, json.loads(footer[CHUNK]), strict=True))
    row["successful"] += result.successful
    row["failed"] += result.failed - len(replayed)
    row["filtered"] += result.filtered
    kept = [reject for reject in known if reject.record not in replayed]
    return part_footer(list(row.values()), [*kept, *rejects], part_job_id)


def part_footer(row: Sequence[Any], rejects: Sequence[Reject], job_id: str) -> dict[str, str]:
    """Return the footer of a part.

    Args:
        row: The ledger row, in the order of `CHUNK_COLUMNS`.
    """
    footer = {CHUNK: json.dumps(row)}
    if rejects:
        footer[REJECTS] = _packed(rejects, job_id)
    return footer


def _packed(rejects: Sequence[Reject], job_id: str) -> str:
    """Return rejects as text for a footer, in order of record."""
    ordered = sorted(rejects, key=lambda reject: reject.record)
    rows = json.dumps(statements.rejects_frame(job_id, ordered).rows())
    return base64.b64encode(zlib.compress(rows.encode(), 1)).decode()


def rejects_in(footer: Mapping[str, str]) -> list[Reject]:
    """Return the rejects of a part."""
    return statements.rejects(reject_rows_in(footer))


def reject_rows_in(footer: Mapping[str, str]) -> list[list[Any]]:
    """Return the rows of a part's rejects."""
    if REJECTS not in footer:
        return []
    rows: list[list[Any]] = json.loads(zlib.decompress(base64.b64decode(footer[REJECTS])))
    return rows
