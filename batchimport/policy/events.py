"""What engines tell and displays hear; keeps the two from knowing each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchimport.model import Chunk, ChunkCounts, ChunkResult, ChunkSizes, Counts, Summary


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A run has claimed its job and begins to work.

    Attributes:
        total: Records of the whole job; None until they are counted.
        size: Positions (bytes or rows) of the whole job.
        done: Records that earlier runs committed.
        done_positions: Positions that earlier runs committed.
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


@dataclass(frozen=True, slots=True)
class RecordsCounted:
    """The source was counted to its end."""

    total: int


@dataclass(frozen=True, slots=True)
class SizeDecided:
    """The sizer chose the next chunk's limit and how many chunks may be in flight."""

    limit: int
    in_flight: int
    reason: str
    cpu_usage: float | None = None
    memory_usage: float | None = None


@dataclass(frozen=True, slots=True)
class ChunkStarted:
    """A chunk entered the window.

    Attributes:
        file: What users call the file that it lies in.
    """

    chunk: Chunk
    file: str = ""


@dataclass(frozen=True, slots=True)
class ChunkRetried:
    """An attempt failed and another one follows after a wait."""

    chunk: Chunk
    attempt: int
    wait_seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class ChunkFinished:
    """A chunk is committed."""

    result: ChunkResult
    seconds: float


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """A chunk ran out of attempts and stays a gap; the others go on."""

    chunk: Chunk
    error: str


@dataclass(frozen=True, slots=True)
class Draining:
    """No more chunks are started; those in flight end."""

    reason: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far a run has got that is followed from elsewhere; all counts since it began.

    Attributes:
        totals: Records of the whole job, earlier runs included.
        positions: Source positions that are committed.
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


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that users should know, and no more."""

    text: str


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The run is over, for better or worse."""

    summary: Summary


Event = (
    JobStarted
    | RecordsCounted
    | SizeDecided
    | ChunkStarted
    | ChunkRetried
    | ChunkFinished
    | ChunkFailed
    | Draining
    | Advanced
    | Noted
    | JobFinished
)
Observer = Callable[[Event], None]
