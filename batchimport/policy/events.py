"""Events of a run: engines emit them, displays observe them, and neither knows the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchimport.model import Chunk, ChunkCounts, ChunkResult, ChunkSizes, Counts, Summary


@dataclass(frozen=True, slots=True)
class Preparing:
    """Something is being done before or after the import that may take a while.

    Attributes:
        what: Such as `unpacking users.jsonl.gz`.
        done: Bytes so far; 0 if they are not counted.
        total: Bytes in all; None if that is unknown.
    """

    what: str
    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A run has claimed its job and starts to import.

    Attributes:
        total: Records of the whole job; None until they are counted.
        size: Positions (bytes or rows) of the whole job.
        done: Records that earlier runs committed.
        done_positions: Positions that earlier runs committed.
        unit: What a position is: `bytes` or `rows`.
        columns: A line for each column whose type was inferred; from `looked_at` records.
    """

    job_id: str
    sources: tuple[str, ...]
    destination: str
    table: str
    size: int
    total: int | None = None
    done: Counts = Counts()
    done_positions: int = 0
    notes: tuple[str, ...] = ()
    unit: str = "bytes"
    columns: tuple[str, ...] = ()
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class RecordsCounted:
    """The source was counted to its end."""

    total: int


@dataclass(frozen=True, slots=True)
class SizeDecided:
    """The sizer chose the next chunk's limit and how many chunks may be in flight.

    Attributes:
        chunk_bytes: Maximum size of the chunk in the source; None if the sizer has no opinion.
    """

    limit: int
    in_flight: int
    reason: str
    cpu_usage: float | None = None
    memory_usage: float | None = None
    chunk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkStarted:
    """A chunk is in flight.

    Attributes:
        file: Name of the file that holds it, as users know it.
    """

    chunk: Chunk
    file: str = ""


@dataclass(frozen=True, slots=True)
class ChunkRetried:
    """An attempt failed; another one follows after a wait."""

    chunk: Chunk
    attempt: int
    error: str
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The destination is away or locked, and the job waits for it; repeated while it lasts.

    Attributes:
        destination: What is waited for, as users know it.
        seconds: How long it has lasted.
    """

    destination: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A wait for the destination is over, however short it was.

    Attributes:
        is_back: The destination answers again; else the job gives up.
    """

    seconds: float
    is_back: bool


@dataclass(frozen=True, slots=True)
class ChunkFinished:
    """A chunk is committed."""

    result: ChunkResult
    seconds: float


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """A chunk was given up and stays a gap in the ledger; the others go on."""

    chunk: Chunk
    error: str


@dataclass(frozen=True, slots=True)
class Draining:
    """No more chunks are started; those in flight are finished."""

    reason: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """State of a run that another process carries out; it replaces what was known before.

    Attributes:
        totals: Records of the whole job, earlier runs included.
        positions: Source positions that are committed.
        file: The file of the chunk that started last.
        elapsed: Seconds since the run began; None if that is unknown.
    """

    stage: str
    total: int | None
    totals: Counts
    this_run: Counts
    positions: int
    in_flight: int
    chunks: ChunkCounts
    sizes: ChunkSizes
    decision: SizeDecided | None = None
    file: str = ""
    elapsed: float | None = None
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Noted:
    """A message to the user that changes nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The run has ended, whatever its outcome."""

    summary: Summary


Event = (
    Preparing
    | JobStarted
    | RecordsCounted
    | SizeDecided
    | ChunkStarted
    | ChunkRetried
    | Waiting
    | WaitEnded
    | ChunkFinished
    | ChunkFailed
    | Draining
    | Advanced
    | Noted
    | JobFinished
)
Observer = Callable[[Event], None]
