"""What a sink is: a destination that stores a chunk and its ledger row in one atomic action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from batchimport.errors import JobRunningElsewhereError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from batchimport.model import Chunk, ChunkResult, Committed, FieldError, Job, Reject
    from batchimport.schema import Column

Rejecter = Callable[[int, "Sequence[FieldError]"], "Reject"]
"""Makes the reject of stage `store` for the row at this position of the frame."""


@dataclass(frozen=True, slots=True)
class SinkHints:
    """What a sink knows about its own speed and promise.

    Attributes:
        writers: Transactions that help when they run side by side.
        preferred_records: Records per transaction that suit it.
        delivery: The promise it can keep, in words for the summary.
        rows_outlive_the_ledger: A job that is forgotten leaves its rows where they are.
    """

    writers: int
    preferred_records: int
    delivery: str = "exactly-once"
    rows_outlive_the_ledger: bool = True


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How a destination is opened.

    Attributes:
        create: Make the database if it is not there.
        ledger_schema: Schema of the ledger's tables, if not where unqualified names are.
        dry_run: Do all as usual, but keep none of it when the sink is closed.
    """

    create: bool = True
    ledger_schema: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The job's row in the destination.

    Attributes:
        job: The job as it was given, without the address.
        schema: The JSON Schema in force, inferred or given.
        columns: The columns of the table that the job writes; empty until decided.
        state: `running`, `completed` or `abandoned` (by `--restart`, in Parquet).
        epoch: Fencing number: who holds the highest may commit.
        rows_before: Rows of the table that no ledger accounts for; None when unknown.
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
    configuration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """All that a sink needs to commit a chunk.

    Attributes:
        frame: One column per column of the job's table, in that order; plus `_extra` when some
            record has keys that no column was made for.
        rejects: Records that earlier stages refused.
        filtered: Records that the transform filtered out.
        rejecter: Makes a reject of a row that the destination refuses.
        timeout_seconds: After so long the destination may give up a statement, if it can.
    """

    chunk: Chunk
    frame: pl.DataFrame
    rejects: Sequence[Reject]
    filtered: int
    digest: str
    attempt: int
    rejecter: Rejecter
    timeout_seconds: float | None = None


def taken_over(record: JobRecord) -> JobRunningElsewhereError:
    """Return what is said when a job has another epoch than it had here."""
    return JobRunningElsewhereError(
        "another process has taken over this job",
        where=f"job {record.job_id}",
        hint="watch it with: batchimport status --watch",
    )


def go_on(known: JobRecord, found: JobRecord) -> JobRecord:
    """Return the record of a known job that is claimed again.

    Args:
        found: The job as it was identified: its source may have grown since.

    Raises:
        JobRunningElsewhereError: If it was identified as a new one, and another process has begun
            it since with another source.
    """
    if found.fingerprint != known.fingerprint:
        if not found.epoch:
            raise taken_over(known)
        known = replace(
            known,
            target_hash=found.target_hash,
            fingerprint=found.fingerprint,
            modified=found.modified,
            size=found.size,
            configuration=found.configuration,
            rows_before=found.rows_before,
        )
    return replace(known, state="running", epoch=known.epoch + 1)


class Sink(Protocol):
    """A destination. `store` may be called from several threads at once."""

    hints: SinkHints

    def jobs(self, target_hash: str | None = None) -> list[JobRecord]:
        """Return the jobs that this destination knows, oldest first."""
        ...

    def claim(
        self, job: Job, record: JobRecord, owner: str, instead_of: Sequence[JobRecord] = ()
    ) -> JobRecord:
        """Make ledger and table ready and take the job with a new epoch.

        Args:
            instead_of: Jobs whose ledgers are forgotten in the same atomic action. Their rows
                stay, unless the hints or `--if-exists` say otherwise.

        Raises:
            UsageError: If the table cannot take the job's columns, has no unique index on the
                job's key, or exists and `--if-exists fail` was asked for.
            JobRunningElsewhereError: If a living process owns the job, or one has claimed a job
                that is to be forgotten since it was looked at.
        """
        ...

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job that `claim` took, here or in another process, at that record's epoch.

        Takes nothing: any number of processes may join one epoch, and a later claim fences them
        all.
        """
        ...

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold numbers exactly as they are written."""
        ...

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        ...

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        ...

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them.

        Raises:
            JobRunningElsewhereError: If another process has taken the job since.
            TransientError: If another attempt may succeed.
            FatalError: If no attempt can.
        """
        ...

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last."""
        ...

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """Yield the rejects of a job in order of record."""
        ...

    def finish(self, job_id: str, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows the table has more than it should.

        If it has more or fewer, the job is not recorded as completed.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
