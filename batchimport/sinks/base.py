"""What a sink is: a destination that stores a chunk and its ledger row in one atomic action.

`claim` takes a job for this process and returns a `Claim`, which stores chunks and finishes the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from batchimport.errors import JobRunningElsewhereError
from batchimport.model import hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import polars as pl

    from batchimport.model import Chunk, ChunkResult, Committed, FieldError, Job, Reject
    from batchimport.schema import Column

Rejecter = Callable[[int, "Sequence[FieldError]"], "Reject"]
"""Makes the reject of stage `store` for the row at this 0-based place of the frame."""


@dataclass(frozen=True, slots=True)
class SinkHints:
    """What a sink knows about its own speed and promise.

    Attributes:
        writers: Number of transactions that run side by side with profit. With 1 the engines
            store the chunks in source order.
        preferred_records: Records per transaction that suit it.
        delivery: The promise it can keep, as the summary states it.
        keeps_order: No chunk may be stored while an earlier one is missing: of rows with the same
            key the first one must win, in every run.
        rows_outlive_the_ledger: The rows of a job that is forgotten stay where they are.
        takes_circles: Rows of the job's table may refer to one another, and can be stored together.
        stores_parts: A chunk may have parts, each with a row in the ledger: see `StoreRequest`.
    """

    writers: int
    preferred_records: int
    delivery: str = "exactly-once"
    keeps_order: bool = False
    rows_outlive_the_ledger: bool = True
    takes_circles: bool = False
    stores_parts: bool = False


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How a destination is opened.

    Attributes:
        create: Create the database if it does not exist.
        ledger_schema: Schema of the ledger's tables; None for the default schema.
        dry_run: Do everything as usual, but undo it when the sink is closed.
        max_memory_bytes: What the user said that the process may use; None: nothing was said.
    """

    create: bool = True
    ledger_schema: str | None = None
    dry_run: bool = False
    max_memory_bytes: int | None = None


CONTENTS, BEGAN_EMPTY, DUPLICATES = "contents", "began_empty", "allow_duplicates"
FORMS, REPLAYS = "forms", "replays"
"""What a job's configuration holds besides the job; earlier versions recorded less. Size and
fingerprint of each file; whether its table had no row when it was first claimed; what its user
allowed; how the records of each file are written; what was in force when rejects were replayed."""

STAGED, EMPTIED_AT = "staged", "emptied_at"
"""In the configuration of a job with `--atomic`: the table that it fills, until that is moved; when it
was moved, and the old rows were gone."""

INDEXES = "deferred_indexes"
"""In the configuration of a job with `--defer-indexes`: the statements that build them again."""

MADE_WITH = "made_with"
"""In the configuration of a job that made its table: what was demanded of its rows, in words."""

AFTER_SQL_RAN = "after_sql_ran"
"""In the configuration of a job whose `--after-sql` was run; a source that has grown brings it again."""

FORGOTTEN = "forgotten"
CHUNKS = "chunks"
"""In the configuration of a forgotten job: lo, hi, first record, records, stored, digest of each chunk."""
_REMAINS = ("table", "if_exists", "on_conflict", "limit", CONTENTS, BEGAN_EMPTY, EMPTIED_AT)
"""What of its configuration shows that the table has its content already; nothing personal."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The job's row in the destination.

    Attributes:
        configuration: The job as it was given, without the address; besides it facts
            by the names above.
        schema: The JSON Schema in force, inferred or given.
        columns: The columns of the table that the job writes; empty if the source has no records.
        size: Positions of the source.
        state: `running`, `interrupted`, `completed`, `forgotten` (its line is only there so that its
            content is known) or `abandoned` (by `--restart`, in Parquet).
        epoch: Fencing token: only the claim with the highest may commit.
        rows_before: Rows of the table that no ledger accounts for; None when unknown.
        created_at: Time of the first claim, ISO 8601 in UTC.
        updated_at: Time of the latest claim, chunk or end that the job's row was written for.
    """

    job_id: str
    target_hash: str
    fingerprint: str
    modified: str
    configuration_hash: str
    schema: dict[str, Any]
    columns: tuple[Column, ...]
    total_items: int | None = None
    size: int = 0
    state: str = "running"
    epoch: int = 0
    rows_before: int | None = None
    created_at: str = ""
    updated_at: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether all of it was imported."""
        return self.state in ("completed", FORGOTTEN)

    def forgotten(self, committed: Sequence[Committed] = ()) -> JobRecord:
        """Return what stays of a job that is forgotten: what tells its content from others.

        Args:
            committed: Its chunks, where the ledger does not keep them.
        """
        was = self.configuration
        remains = {name: was[name] for name in _REMAINS if name in was}
        remains["options"] = {"encoding": (was.get("options") or {}).get("encoding")}
        if committed:
            remains[CHUNKS] = [
                [
                    row.chunk.lo,
                    row.chunk.hi,
                    row.chunk.offset,
                    row.chunk.records,
                    row.successful,
                    row.digest,
                ]
                for row in committed
            ]
        return replace(self, state=FORGOTTEN, schema={}, columns=(), configuration=remains)

    @property
    def set_aside_id(self) -> str:
        """The id of a forgotten job once another job gets the one that it had."""
        return f"{self.job_id[:100]}-forgotten-{hash_of(self.created_at)[:8]}"


def table_of(record: JobRecord) -> str:
    """Return the table that has the rows of a job: with `--atomic` another one, until it is completed."""
    staged = record.configuration.get(STAGED) or {}
    return str(staged.get("table") or record.configuration.get("table"))


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of a job.

    Attributes:
        chunks: Rows of the ledger.
        rejects: Rejected records.
    """

    chunks: int = 0
    rejects: int = 0


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """Everything a sink needs to commit a chunk.

    Attributes:
        frame: One column per column of the job's table, in that order; plus `_extra` when some
            record has keys that no column was made for. With `--on-conflict update` also `INDEX`, the
            number of the record in the job, where it is known; and for a column whose key some record
            lacks, one of its name after `ABSENT` that is true for those.
        rejects: Records that earlier stages refused.
        filtered: Records that the transform filtered out.
        rejecter: Makes a reject of a row that the destination refuses.
        digest: Hash of the chunk's bytes in the source.
        attempt: Number of this attempt, from 1.
        timeout_seconds: How long a statement may take in the destination, if it can limit that.
        replayed: Numbers of rejects of a chunk that is in the ledger already: these records get a new
            outcome, all of them or none. Empty for a chunk that is new.
        together: Chunks of the ledger, each with the numbers of its rejects that are tried again. Those of
            them are stored that refer to one another in a circle; all others stay as they are.
        parts: Of a chunk that spans several files, if the sink's hints allow that: the part of each
            file, with the hash of its bytes. Each has its own row in the ledger.
        numbers: Of such a chunk: for each row of the frame, the number of its record in the job,
            ascending.
    """

    chunk: Chunk
    frame: pl.DataFrame
    rejects: Sequence[Reject]
    filtered: int
    digest: str
    attempt: int
    rejecter: Rejecter
    timeout_seconds: float | None = None
    replayed: tuple[int, ...] = ()
    together: tuple[tuple[Chunk, tuple[int, ...]], ...] = ()
    parts: Sequence[tuple[Chunk, str]] = ()
    numbers: pl.Series | None = None


class StoreSeparatelyError(Exception):
    """The parts of a chunk must be stored one by one; nothing of it was stored now."""


def taken_over(record: JobRecord) -> JobRunningElsewhereError:
    """Return the error for a job that another process has claimed since."""
    return JobRunningElsewhereError(
        "another process has taken over this job",
        where=f"job {record.job_id}",
        hint="watch it with: batchimport status --watch",
    )


def claimed_again(
    known: JobRecord, identified: JobRecord, replay: Mapping[str, Any] | None = None
) -> JobRecord:
    """Return the record of a known job that is claimed again, at the next epoch.

    Args:
        identified: The job as the caller identified it: its source may have grown since.
        replay: Its rejects are replayed with these changes, which are added to the record. The job's
            state stays: one that is completed must stay so if the replay is killed.

    Raises:
        JobRunningElsewhereError: If the caller took it for a new job, and another process has
            begun it meanwhile with another source.
    """
    if replay is not None:
        earlier = known.configuration.get(REPLAYS, [])
        is_new = bool(replay) and replay not in earlier[-1:]
        configuration = {**known.configuration, REPLAYS: [*earlier, dict(replay)]}
        return replace(
            known,
            epoch=known.epoch + 1,
            configuration=configuration if is_new else known.configuration,
        )
    if identified.fingerprint != known.fingerprint:
        if not identified.epoch:
            raise taken_over(known)
        known = replace(
            known,
            target_hash=identified.target_hash,
            fingerprint=identified.fingerprint,
            modified=identified.modified,
            size=identified.size,
            configuration=identified.configuration,
            rows_before=identified.rows_before,
        )
    return replace(known, state="running", epoch=known.epoch + 1)


class Claim(Protocol):
    """A job that this process may store into, at one epoch: until another claim fences it off."""

    @property
    def record(self) -> JobRecord:
        """The job as the destination knows it; its epoch is the one that was claimed."""
        ...

    @property
    def hints(self) -> SinkHints:
        """What suits this job's table: fewer writers, maybe, than other tables of the sink."""
        ...

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them.

        Where rejects are replayed, they leave the ledger in that transaction, those that are refused
        again come back to it, and the counts of the chunk's row change by the new outcomes.

        May be called from several threads at once.

        Raises:
            JobRunningElsewhereError: If another process has claimed the job since.
            TransientError: If another attempt may succeed.
            FatalError: If no attempt can.
        """
        ...

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows the table has more than it should.

        Negative if it has fewer; None if that cannot be known. With more or fewer the job is
        recorded as interrupted, not as completed.

        Args:
            state: `completed` or `interrupted`.
            total_items: Records of the job; None leaves what is recorded.

        Raises:
            JobRunningElsewhereError: If another process has claimed the job since.
        """
        ...


class Sink(Protocol):
    """A destination. Its methods may be called from several threads at once."""

    @property
    def hints(self) -> SinkHints:
        """What is known before the table is."""
        ...

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that this destination knows, oldest first."""
        ...

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        ...

    def identity_of(self, table: str) -> str | None:
        """Return what all names of one table have in common; None if there is no such table."""
        ...

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables, to suggest one; none if that is not known."""
        ...

    def has_rows(self, table: str) -> bool:
        """Say whether a table that exists has a row."""
        ...

    def surplus(self, record: JobRecord) -> int | None:
        """Return how many rows more the job's table has than the ledgers account for.

        Negative if it has fewer; None if it cannot be known, since others may write to it.
        """
        ...

    def claim(
        self,
        job: Job,
        record: JobRecord,
        owner: str,
        instead_of: Sequence[JobRecord] = (),
        check: Callable[[], None] = lambda: None,
        replay: Mapping[str, Any] | None = None,
    ) -> Claim:
        """Make ledger and table ready and take the job with a new epoch.

        All of it is one atomic action, and no two claims on one ledger run at the same time.

        Args:
            check: Called first in that action. It may look at the ledger, which nobody else can
                claim a job of until the action ends; what it raises ends the claim.
            instead_of: Jobs whose ledgers are forgotten in the same atomic action. Their rows
                stay, unless the hints or `--if-exists` say otherwise.
            replay: The known job's rejects are replayed with these changes: see `claimed_again`.
                `finish` then compares the number of rows with that of now.

        Raises:
            UsageError: If the table cannot take the job's columns, has no unique index on the
                job's key, or exists and `--if-exists fail` was asked for.
            JobRunningElsewhereError: If a living process owns the job, or one has claimed a job
                that is to be forgotten since it was looked at.
        """
        ...

    def join(self, job: Job, record: JobRecord) -> Claim:
        """Share a claim that was made here or in another process, at that record's epoch.

        Takes nothing: any number of processes may join one epoch, and a later claim fences them
        all.
        """
        ...

    def previewed(self, job: Job) -> AbstractContextManager[None]:
        """Show the tables as `--before-sql` will leave them; at the end nothing of it has happened."""
        ...

    def analyze_for(self, job: Job) -> None:
        """Let the database look at the job's table, if that was asked for or batchimport made it."""
        ...

    def columns_of(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns, in lower case; none if it does not exist."""
        ...

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold numbers exactly as they are written."""
        ...

    def text_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold text."""
        ...

    def made_here(self, table: str) -> bool:
        """Say whether an import has created a table: nobody else chose the types of its columns."""
        ...

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        ...

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        ...

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last; None if there is no such job."""
        ...

    def rejects(self, job_id: str, within: Chunk | None = None) -> Iterator[Reject]:
        """Yield the rejects of a job, or of one of its committed chunks, in order of record."""
        ...

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the same as rows of the ledger, with the columns of `statements.REJECT_COLUMNS`."""
        ...

    def forget(self, record: JobRecord, *, completely: bool) -> Removed:
        """Remove the ledger and the rejects of a completed job; the rows of its table stay.

        One line stays, which knows the job's content, unless it is to be forgotten completely. May be
        called again after a kill.

        Raises:
            JobRunningElsewhereError: If the job was claimed since it was looked at.
        """
        ...

    def remove_rejects(self, record: JobRecord) -> int:
        """Remove the rejects of a job; return how many they were."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
