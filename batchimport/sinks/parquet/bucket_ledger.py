"""The ledger of a Parquet dataset in an object store, which has no locks: only conditions on writes.

- A part is an object that is created on the condition that it is not there. Its presence is its ledger
  entry; its footer holds the chunk's ledger row and its rejects.
- The jobs are in one object, `_jobs.parquet`, which is only changed on the condition that it is still
  what was read. Every claim gives its job a new *token*, a number that only grows; the names of the
  claim's parts have it.
- A writer announces a part (an object in `_batchimport/`), then looks whether its claim is still the
  job's latest one, then creates the part. A claim changes the jobs first, then looks for
  announcements. So either the writer sees the claim and gives up, or the claim sees the announcement
  and creates a file without rows, a *void*, in the place of the part that may still come. Whichever of
  the two is there first stays.

Everything below the prefix is a Parquet file of the dataset's columns, so that readers may read it all.
"""

from __future__ import annotations

import io
import json
import re
import threading
import uuid
from bisect import bisect_left, insort
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.errors import FatalError
from batchimport.sinks.base import taken_over
from batchimport.sinks.parquet.columns import NO_COLUMNS
from batchimport.sinks.parquet.ledger import CHUNK, JOB_NAMES, no_row, reject_rows_in
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchimport.model import Chunk, Committed
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.parquet.bucket import Bucket, Content, Version
    from batchimport.sinks.parquet.columns import Schema

JOBS, ANNOUNCED = "_jobs.parquet", "_batchimport"
LEDGER, VOID = "batchimport.jobs", "batchimport.void"
"""Keys in the footers; they are a file format, as are the names of the objects."""
FORMAT = 1
TAIL_BYTES = 64 * 1024
READERS = 16
MOST_CONFLICTS = 100

_PART = re.compile(r"part-(.+)-(\d{16})-(\d{16})-(\d{6,})\.parquet")
_ANNOUNCEMENT = re.compile(rf"{ANNOUNCED}/(part-.+)-[0-9a-f]{{32}}\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class BucketPart:
    """The name of a part: the job, the positions whose records it holds, and the claim's token."""

    name_of_job: str
    lo: int
    hi: int
    token: int

    @property
    def name(self) -> str:
        """Name of the object; names sort as the records do."""
        return f"part-{self.name_of_job}-{self.lo:016}-{self.hi:016}-{self.token:06}.parquet"

    def announcement(self) -> str:
        """Return the name of a new object that says that the part may come: each attempt has its own."""
        stem = self.name.removesuffix(".parquet")
        return f"{ANNOUNCED}/{stem}-{uuid.uuid4().hex}.parquet"


def part_of(name: str) -> BucketPart | None:
    """Return the part that an object of this name is; None if it is none."""
    match = _PART.fullmatch(name)
    return BucketPart(match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


def announced_part(name: str) -> BucketPart | None:
    """Return the part that an announcement of this name announces."""
    match = _ANNOUNCEMENT.fullmatch(name)
    return part_of(f"{match[1]}.parquet") if match else None


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in the ledger.

    Attributes:
        row: The row of the job, by the names of its columns.
        name: What its parts call it: the id that it had when it began.
        since: The token of its first claim: older parts of the name are not its own.
        token: That of its latest claim.
        by: Which call made the latest claim.
    """

    row: dict[str, Any]
    name: str
    since: int
    token: int
    by: str

    @property
    def record(self) -> JobRecord:
        """The record of the job."""
        return statements.job_record([self.row.get(name) for name in JOB_NAMES])

    def holds(self, record: JobRecord) -> bool:
        """Say whether the job is still at the epoch of a record."""
        known = (
            self.row["epoch"],
            self.row["created_at"],
        )  # one that begins again has epoch 1 again
        return known == (record.epoch, record.created_at)

    def has(self, part: BucketPart) -> bool:
        """Say whether a part is one of the job's."""
        return part.name_of_job == self.name and self.since <= part.token <= self.token


@dataclass(slots=True)
class Jobs:
    """What the object of the jobs says.

    Attributes:
        schema: The columns of the dataset; none while no job had records.
        token: The highest that was given.
        leaving: Parts that are still to be removed: name of the job (None for all), first and last token.
        voids: The names of the voids.
        is_stale: There may be files without rows that have other columns.
    """

    schema: Schema = field(default_factory=dict)
    token: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    leaving: list[tuple[str | None, int, int]] = field(default_factory=list)
    voids: set[str] = field(default_factory=set)
    is_stale: bool = False

    @property
    def columns(self) -> Schema:
        """The columns of a file; each needs one at least."""
        return self.schema or NO_COLUMNS

    def is_leaving(self, part: BucketPart) -> bool:
        """Say whether a part is to be removed."""
        return any(
            name in (None, part.name_of_job) and since <= part.token <= until
            for name, since, until in self.leaving
        )

    def is_over(self, part: BucketPart) -> bool:
        """Say whether the claim of a part is no longer in force; one that came later always is."""
        return part.token <= self.token and not any(
            (entry.name, entry.token) == (part.name_of_job, part.token)
            for entry in self.entries.values()
        )

    def held(self, record: JobRecord) -> Entry:
        """Return the entry of a job that is still at the epoch of a record.

        Raises:
            JobRunningElsewhereError: If another process has claimed it since.
        """
        entry = self.entries.get(record.job_id)
        if entry is None or not entry.holds(record):
            raise taken_over(record)
        return entry


class BucketLedger:
    """Reads and writes the ledger below one prefix."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._guard = threading.Lock()
        self._known: Content | None = None
        self._decoded: tuple[Content | None, Jobs] = (None, Jobs())
        self._rows: dict[tuple[str, str], Committed | None] = {}
        self._index: tuple[tuple[str, int], list[BucketPart]] | None = None

    # -- jobs ----------------------------------------------------------------------------------

    def jobs(self) -> Jobs:
        """Return what the ledger says about all jobs; it is not to be changed."""
        content = self._read()
        with self._guard:
            if self._decoded[0] is not content:
                self._decoded = (content, self._decode(content))
            return self._decoded[1]

    def _read(self) -> Content | None:
        content = self._known = self.bucket.get(JOBS, self._known)
        return content

    def change(self, change: Callable[[Jobs], bool]) -> Jobs:
        """Change the jobs, on the condition that nobody else does meanwhile; return them.

        Args:
            change: Changes what it is given; returns False if nothing is to be changed. Called again
                if somebody else was faster, or if the reply was lost: then its change may be there.

        Raises:
            FatalError: If somebody else was faster a hundred times.
        """
        for _ in range(MOST_CONFLICTS):
            content = self._read()
            jobs = self._decode(content)
            if not change(jobs):
                return jobs
            data = _encoded(jobs)
            version: Version | None
            if content is None:
                version = self.bucket.create(JOBS, data)
            else:
                version = self.bucket.replace(JOBS, data, content[1])
            if version is not None:
                return jobs
        raise FatalError(
            "other programs change the ledger all the time",
            where=self.bucket.where(JOBS),
            hint="run the same command again",
        )

    def _decode(self, content: Content | None) -> Jobs:
        return _decoded(content[0], self.bucket.where(JOBS)) if content else Jobs()

    # -- parts ---------------------------------------------------------------------------------

    def parts(self, job_id: str | None = None) -> dict[BucketPart, Any]:
        """Return the parts of a job, or of all, in order, and what is known of the objects.

        Among them may be voids whose claim was killed over them.
        """
        jobs = self.jobs()
        entries = list(jobs.entries.values())
        if job_id is not None:
            entries = [jobs.entries[job_id]] if job_id in jobs.entries else []
        return self._parts_of(entries, jobs, self.bucket.objects()) if entries else {}

    def _parts_of(
        self, entries: list[Entry], jobs: Jobs, objects: dict[str, Any]
    ) -> dict[BucketPart, Any]:
        found = ((part_of(name), meta) for name, meta in objects.items() if name not in jobs.voids)
        parts = {
            part: meta
            for part, meta in found
            if part is not None and any(entry.has(part) for entry in entries)
        }
        return dict(sorted(parts.items()))

    def committed(self, job_id: str) -> list[Committed]:
        """Return the chunks of a job, in order of position."""
        return list(self._chunks(self.parts(job_id)).values())

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        entries = self.jobs().entries
        parts = {part: meta for part, meta in self.parts().items() if part.lo == 0}
        return {
            job_id: chunk
            for part, chunk in self._chunks(parts).items()
            for job_id, entry in entries.items()
            if entry.has(part)
        }

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        jobs = self.jobs()
        entry = jobs.entries.get(job_id)
        if entry is None:
            return False
        near = self.bucket.objects_after(f"part-{entry.name}-{position:016}")
        parts = self._parts_of([entry], jobs, near)
        return bool(self._chunks({at: meta for at, meta in parts.items() if at.lo == position}))

    def overlapping(self, entry: Entry, chunk: Chunk) -> dict[BucketPart, dict[str, str]]:
        """Return the parts of a job that share positions with a chunk, and their footers.

        The store is listed once for each claim: parts of earlier claims cannot come any more, and of
        this one no two have different borders, since its chunks are cut once.
        """
        key = (entry.name, entry.token)
        if self._index is None or self._index[0] != key:
            listed = list(self._parts_of([entry], self.jobs(), self.bucket.objects()))
            with self._guard:
                if self._index is None or self._index[0] != key:
                    self._index = key, listed
        with self._guard:
            index = self._index[1]
            first = max(0, bisect_left(index, BucketPart(entry.name, chunk.lo, 0, 0)) - 1)
            last = bisect_left(index, BucketPart(entry.name, chunk.hi, 0, 0), first)
            found = [part for part in index[first:last] if part.hi > chunk.lo]
        rows = ((part, self.footer(part)) for part in found)
        return {part: footer for part, footer in rows if footer and VOID not in footer}

    def add(self, part: BucketPart) -> None:
        """Remember a part that was created."""
        with self._guard:
            if self._index is not None and self._index[0] == (part.name_of_job, part.token):
                index = self._index[1]
                if index[bisect_left(index, part) :][:1] != [part]:
                    insort(index, part)

    def _chunks(self, parts: dict[BucketPart, Any]) -> dict[BucketPart, Committed]:
        """Return the ledger rows of parts that are no voids; each version is read once."""
        keys = {part: (part.name, _stamp(meta)) for part, meta in parts.items()}
        new = [part for part, key in keys.items() if key not in self._rows]

        def read(part: BucketPart) -> Committed | None:
            footer = self.footer(part, parts[part]["size"])
            return None if footer is None or VOID in footer else self.row(part, footer)

        for part, row in zip(new, in_parallel(read, new), strict=True):
            self._rows[keys[part]] = row
        found = ((part, self._rows[key]) for part, key in keys.items())
        return {part: row for part, row in found if row is not None}

    def row(self, part: BucketPart, footer: dict[str, str]) -> Committed:
        """Return the ledger row of a part.

        Raises:
            FatalError: If its footer has none.
        """
        if CHUNK not in footer:
            raise no_row(self.bucket.where(part.name))
        return statements.committed(json.loads(footer[CHUNK]))

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""
        for part, meta in self.parts(job_id).items():
            if within is None or part.lo == within.lo:
                rows = reject_rows_in(self.footer(part, meta["size"]) or {})
                yield statements.reject_rows(job_id, rows)

    # -- files ---------------------------------------------------------------------------------

    def foreign(self) -> dict[str, Any]:
        """Return the Parquet objects that batchimport did not write, and what is known of them."""
        return {
            name: meta
            for name, meta in self.bucket.objects().items()
            if name.endswith(".parquet")
            and not (name.startswith(".") or name == JOBS or part_of(name))
        }

    def foreign_rows(self) -> int:
        """Count the rows that no ledger accounts for."""
        return sum(in_parallel(self.count, list(self.foreign().items())))

    def count(self, file: tuple[str, Any]) -> int:
        """Return the number of rows of a file, given by its name and what is known of it."""
        tail = self.tail(file[0], file[1]["size"])
        with self.reading(file[0]):
            return int(pl.scan_parquet(io.BytesIO(tail)).select(pl.len()).collect().item())

    def schema_of(self, name: str, meta: Any) -> Schema:
        """Return the columns of a file."""
        tail = self.tail(name, meta["size"])
        with self.reading(name):
            return dict(pl.read_parquet_schema(io.BytesIO(tail)))

    def footer(self, part: BucketPart, size: int | None = None) -> dict[str, str] | None:
        """Return the key-value metadata of a part's footer; None if there is no such object.

        Args:
            size: Of the object; else all of it is read.
        """
        if size is None:
            content = self.bucket.get(part.name)
            return self.metadata(part.name, content[0]) if content else None
        tail = self.tail(part.name, size)
        return self.metadata(part.name, tail) if tail else None

    def metadata(self, name: str, data: bytes) -> dict[str, str]:
        """Return the key-value metadata of a file, or of its end."""
        with self.reading(name):
            return pl.read_parquet_metadata(io.BytesIO(data))

    def tail(self, name: str, size: int) -> bytes:
        """Return the end of a file, its footer included; nothing if it is gone."""
        tail = self.bucket.part_of(name, max(0, size - TAIL_BYTES), size) or b""
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == b"PAR1" and len(tail) < length <= size:
            tail = self.bucket.part_of(name, size - length, size) or b""
        return tail

    def reading(self, name: str) -> _Reading:
        """Turn what a damaged file leads to into an error."""
        return _Reading(self.bucket.where(name))


class _Reading:
    """Turns what a damaged file leads to into an error."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, (pl.exceptions.PolarsError, OSError)):
            text = str(error).partition("\n")[0]
            raise FatalError(f"is damaged: {text}", where=self._where) from error


def in_parallel(work: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    """Return the results of `work` for each of the values: requests take long, and wait."""
    if len(values) < 2:
        return list(map(work, values))
    with ThreadPoolExecutor(min(READERS, len(values))) as pool:
        return list(pool.map(work, values))


def parquet(frame: pl.DataFrame, facts: dict[str, str]) -> bytes:
    """Return a Parquet file with these facts in its footer."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata=facts)
    return buffer.getvalue()


def without_rows(schema: Schema, facts: dict[str, str]) -> bytes:
    """Return a Parquet file that has only columns and a footer."""
    return parquet(pl.DataFrame(schema=schema), facts)


def _stamp(meta: Any) -> str:
    return str(meta.get("version") or meta.get("e_tag"))


def _encoded(jobs: Jobs) -> bytes:
    entries = {
        job_id: [entry.row, entry.name, entry.since, entry.token, entry.by]
        for job_id, entry in jobs.entries.items()
    }
    document = {
        "format": FORMAT,
        "written": uuid.uuid4().hex,  # an ETag may be a hash of the content: no two may be equal
        "token": jobs.token,
        "leaving": jobs.leaving,
        "voids": sorted(jobs.voids),
        "is_stale": jobs.is_stale,
        "jobs": entries,
    }
    return without_rows(jobs.columns, {LEDGER: json.dumps(document)})


def _decoded(data: bytes, where: str) -> Jobs:
    try:
        schema = dict(pl.read_parquet_schema(io.BytesIO(data)))
        document = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[LEDGER])
        known = document["format"]
        if known == FORMAT:
            return Jobs(
                {} if schema == NO_COLUMNS else schema,
                document["token"],
                {job_id: Entry(*facts) for job_id, facts in document["jobs"].items()},
                [(name, since, until) for name, since, until in document["leaving"]],
                set(document["voids"]),
                document["is_stale"],
            )
    except (LookupError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        raise FatalError(
            "cannot be read: it was damaged or changed by another program",
            where=where,
            hint="restore an earlier version of it",
        ) from error
    raise FatalError(
        f"the ledger has format {known}, this version knows {FORMAT}",
        where=where,
        hint="use the version of batchimport that began the job",
    )
