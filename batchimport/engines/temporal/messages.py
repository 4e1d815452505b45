"""What client, workflow and workers say to each other: JSON of a few hundred bytes, no credentials.

All of it is kept in the workflow's history, and read by workers of other versions: a field may be
added, with a default, but none may change its meaning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from batchimport.errors import BatchImportError, find_class
from batchimport.model import Chunk, ChunkResult, Position, Progress, RunOptions, Summary
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
OWNER_PREFIX = "temporal|"
TURN_SECONDS = 2.0
"""So long may a chunk hold a slot while it waits for the chunk before it."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as the history may keep it.

    Attributes:
        job: JSON of the job without its destination, as `identity.without_address` gives it; a
            text, since Temporal sorts the keys of objects, and these are the order of columns.
        destination: Address without the password; workers find that in their environment.
        starter_host: Where the job was started: a destination that is a file must be there.
        heartbeat_seconds: A worker that is silent for longer has lost its chunks.
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
        found: dict[str, Any] = json.loads(self.job)
        return found


@dataclass(frozen=True, slots=True)
class Owner:
    """The workflow that a job's row in the destination names as its owner."""

    address: str
    namespace: str
    workflow_id: str

    def __str__(self) -> str:
        return f"{OWNER_PREFIX}{self.address}|{self.namespace}|{self.workflow_id}"

    @staticmethod
    def parse(text: str) -> Owner:
        """Return the owner that was written by `str`."""
        return Owner(*text.removeprefix(OWNER_PREFIX).split("|"))


@dataclass(frozen=True, slots=True)
class JobRef:
    """A claimed job; all that it is stands in the destination.

    Attributes:
        store_seconds: How long a statement of the destination may take.
    """

    job_id: str
    epoch: int
    destination: str
    starter_host: str
    ledger_schema: str | None
    store_seconds: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The load of one worker.

    Attributes:
        worker: Host and process.
        slots: Chunks that it takes at once.
        peak_bytes: The most memory that the process ever had.
    """

    worker: str
    host: str
    load: LoadReading
    slots: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the workflow must know of a job that was claimed for it.

    Attributes:
        writers: Transactions that help side by side; with 1, chunks are stored in source order.
        preferred_records: Records per transaction that suit the destination.
    """

    ref: JobRef
    started: JobStarted
    reading: Reading
    resumed: bool
    delivery: str
    writers: int
    preferred_records: int
    bytes_per_record: float


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Cut the source from a mark onwards, where no ledger row covers it."""

    ref: JobRef
    start: Position
    limit: int
    max_bytes: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Page:
    """Chunks in order of position; `is_last` when nothing is left behind them."""

    chunks: list[Chunk]
    is_last: bool


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """Import one chunk.

    Attributes:
        after: Position of the chunk that must be committed before this one; None if none must.
    """

    ref: JobRef
    chunk: Chunk
    after: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """How an attempt ended.

    Attributes:
        result: None if the chunk must wait for another one: it is to be started again.
    """

    result: ChunkResult | None
    reading: Reading
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FinishRequest:
    """Record how the job ended; check the accounts first if every chunk is committed."""

    ref: JobRef
    is_whole: bool
    total: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """One of our errors, in words."""

    kind: str
    message: str
    where: str | None = None
    hint: str | None = None

    @staticmethod
    def of(error: BatchImportError) -> Failure:
        """Return an error in words."""
        return Failure(type(error).__name__, error.message, error.where, error.hint)

    def revive(self) -> BatchImportError:
        """Return the error that these are the words of."""
        return find_class(self.kind)(self.message, self.where, self.hint)


@dataclass(frozen=True, slots=True)
class SoFar:
    """What one run of the workflow hands to the next, so that its history stays short.

    Attributes:
        at: Every chunk before this mark was started, and has ended.
        is_cut: Nothing is left behind that mark.
        began_at: When the first run began, in seconds since 1970.
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
    """What a run of the workflow begins with."""

    spec: JobSpec
    so_far: SoFar | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """The answer to the query `account`: what a display needs; `started` is None at first."""

    started: JobStarted | None
    advanced: Advanced


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of the workflow; `advanced` is the account at its end."""

    summary: Summary
    exit_code: int
    error: Failure | None = None
    advanced: Advanced | None = None

    def progress(self) -> Progress:
        """Return the last moment of the job."""
        tally = Tally()
        if self.advanced is not None:
            tally(self.advanced)
        tally(JobFinished(self.summary))
        return replace(tally.progress(), job_id=self.summary.job_id)


@dataclass(frozen=True, slots=True)
class Finished:
    """What was found when the job was finished."""

    rejects_by_code: dict[str, int]
