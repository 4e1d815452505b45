"""Messages between client, workflow and workers: JSON of a few hundred bytes, no credentials.

The workflow's history keeps them, and workers of other versions read them: a field may be added with
a default, or removed if its readers do without it, but none may change its name or meaning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from batchimport.engines import OWNED_BY_TEMPORAL
from batchimport.errors import BatchImportError, find_class
from batchimport.model import Chunk, ChunkResult, Counts, Position, Progress, RunOptions, Summary
from batchimport.policy.events import Advanced, JobFinished, JobStarted
from batchimport.policy.progress import Tally
from batchimport.policy.sizing import LoadReading

WORKFLOW = "ImportJob"
OPEN, COUNT, CUT, PROCESS, FINISH = (
    "open_job",
    "count_records",
    "cut_chunks",
    "process_chunk",
    "finish_job",
)
PROGRESS, ACCOUNT = "progress", "account"
PAUSE, RESUME = "pause", "resume"
TURN_SECONDS = 2.0
"""A chunk that waits longer for the chunk before it gives its slot back, and is started again."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as it was requested, without secrets.

    Attributes:
        job: The job without its destination (`identify.without_address`) as a JSON string: an
            object would not do, since Temporal sorts keys, and theirs is the order of columns.
        destination: Address without the password; workers have that in their environment.
        starter_host: Host that started the job; a destination that is a file must be there.
        heartbeat_seconds: A worker that is silent for longer loses its chunks to others.
    """

    job_id: str
    job: str
    destination: str
    starter_host: str
    options: RunOptions = RunOptions()
    restart: bool = False
    allow_duplicates: bool = False
    must_exist: bool = False
    append: bool = False
    heartbeat_seconds: float = 10.0

    def facts(self) -> dict[str, Any]:
        """Return the job as a dict."""
        facts: dict[str, Any] = json.loads(self.job)
        return facts


@dataclass(frozen=True, slots=True)
class Owner:
    """A workflow as the owner of a job; as a string, it stands in the ledger."""

    address: str
    namespace: str
    workflow_id: str

    def __str__(self) -> str:
        return f"{OWNED_BY_TEMPORAL}{self.address}|{self.namespace}|{self.workflow_id}"

    @staticmethod
    def parse(text: str) -> Owner:
        """Return the owner that `str` wrote."""
        return Owner(*text.removeprefix(OWNED_BY_TEMPORAL).split("|"))


@dataclass(frozen=True, slots=True)
class JobRef:
    """A claimed job: what a worker needs to read the rest from the destination.

    Attributes:
        epoch: Fencing token of the claim; a later claim makes it invalid.
        store_seconds: Time limit of a statement in the destination.
        wait_seconds: How long to wait for a destination that is away.
    """

    job_id: str
    epoch: int
    destination: str
    starter_host: str
    ledger_schema: str | None
    store_seconds: float
    wait_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The load of one worker.

    Attributes:
        worker: Host and process id.
        slots: Maximum number of chunks at once.
        peak_bytes: Peak resident memory of the process.
    """

    worker: str
    host: str
    load: LoadReading
    slots: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the workflow needs to know of a job that was claimed for it.

    Attributes:
        writers: Transactions that are faster side by side; with 1, chunks are stored in order.
        preferred_records: Records per transaction that suit the destination.
        bytes_per_record: Mean width of the first records; 0 if there are none.
        block_bytes: What reading any chunk takes besides its records.
        keeps_order: No chunk may be stored while an earlier one is missing.
    """

    ref: JobRef
    started: JobStarted
    reading: Reading
    resumed: bool
    delivery: str
    writers: int
    preferred_records: int
    bytes_per_record: float
    keeps_order: bool = False
    block_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Cut the next chunks from a position onwards, where no ledger row covers the source.

    Attributes:
        limit: Maximum number of records in a chunk.
        max_bytes: Maximum size of a chunk, unless one record is larger.
        chunks: Maximum number of chunks.
    """

    ref: JobRef
    start: Position
    limit: int
    max_bytes: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Page:
    """Chunks in order of position; `is_last` if nothing is left after them."""

    chunks: list[Chunk]
    is_last: bool


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """Import one chunk.

    Attributes:
        after: Position of the chunk that must be committed first; None if none must.
    """

    ref: JobRef
    chunk: Chunk
    after: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """How an attempt ended.

    Attributes:
        result: None if the chunk still has to wait for the one before it: start it again.
        attempt: Number of the attempt, from 1.
        seconds: Duration of the attempt.
        waited_seconds: How long this worker has waited for the destination of the job so far.
    """

    result: ChunkResult | None
    reading: Reading
    attempt: int
    seconds: float
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FinishRequest:
    """Record how the job ended, as `finish.finish_job` does."""

    ref: JobRef
    is_whole: bool
    total: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """One of our errors, serialised."""

    kind: str
    message: str
    where: str | None = None
    hint: str | None = None

    @staticmethod
    def of(error: BatchImportError) -> Failure:
        """Return an error as a message."""
        return Failure(type(error).__name__, error.message, error.where, error.hint)

    def revive(self) -> BatchImportError:
        """Return the error that this message was made of."""
        return find_class(self.kind)(self.message, self.where, self.hint)


@dataclass(frozen=True, slots=True)
class SoFar:
    """What a run of the workflow hands to the next one, so that each history stays short.

    Attributes:
        at: Every chunk before this position has ended.
        is_cut: Nothing is left after that position.
        began_at: Start of the first run, in seconds since 1970.
        peak_bytes: Peak resident memory of any worker so far.
    """

    claimed: Claimed
    advanced: Advanced
    at: Position
    is_cut: bool
    failures_in_a_row: int
    began_at: float
    peak_bytes: int
    is_paused: bool
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """The input of the workflow; `so_far` is None in the first run of a job."""

    spec: JobSpec
    so_far: SoFar | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """The answer to the query `account`; `started` is None until the job is claimed."""

    started: JobStarted | None
    advanced: Advanced


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of the workflow; `advanced` is its final progress."""

    summary: Summary
    exit_code: int
    error: Failure | None = None
    advanced: Advanced | None = None

    def progress(self) -> Progress:
        """Return the final progress of the job."""
        tally = Tally()
        if self.advanced is not None:
            tally(self.advanced)
        tally(JobFinished(self.summary))
        return replace(tally.progress(), job_id=self.summary.job_id)


@dataclass(frozen=True, slots=True)
class Finished:
    """What the rejects and the other outcomes were when the job was finished.

    Attributes:
        totals: Records by outcome; None if a worker of an earlier version finished the job.
    """

    rejects_by_code: dict[str, int]
    outcomes: dict[str, Any] = field(default_factory=dict)
    totals: Counts | None = None
