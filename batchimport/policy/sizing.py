"""How many records the next chunk takes, and how many chunks are in flight. Pure.

A sizer sees load readings and nothing else, so that a recorded series replays in a test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from batchimport.policy.events import SizeDecided

if TYPE_CHECKING:
    from batchimport.model import RunOptions

BUSY_CPU = 0.8
MODERATE_CPU = 0.5
SHORT_MEMORY = 0.9
"""Share of its memory limit above which a process takes one chunk at a time."""
MEMORY_PER_BYTE = 8
"""Bytes of memory that a chunk in flight takes for each byte of its source, at most: measured."""
BASE_BYTES = 150 * 1024 * 1024
"""Memory of the process without chunks."""
LEAST_CHUNK_BYTES = 1 << 20
"""No chunk is made smaller than this to save memory."""
WIDE_RECORD_BYTES = 315
"""A chunk of wider records has fewer of them: about 6 MiB where the destination likes 20,000."""


@dataclass(frozen=True, slots=True)
class LoadReading:
    """The machine at one moment; shares are 0 to 1.

    Attributes:
        cpu: CPU in use by everything.
        own_cpu: CPU in use by this process and its children.
        memory: Memory in use by everything.
        process_bytes: Resident memory of this process.
        limit_bytes: Memory that this process may use.
        cpus: Processors that this process may run on.
    """

    cpu: float
    own_cpu: float
    memory: float
    process_bytes: int
    limit_bytes: int
    cpus: int

    @property
    def others(self) -> float:
        """CPU in use by other programs."""
        return max(0.0, self.cpu - self.own_cpu)

    @property
    def memory_is_short(self) -> bool:
        """Say whether this process is close to its limit."""
        return self.process_bytes > SHORT_MEMORY * self.limit_bytes


class Sizer(Protocol):
    """Decides before each chunk is cut."""

    def decide(self, reading: LoadReading) -> SizeDecided:
        """Return the limit of the next chunk and the number of chunks in flight."""
        ...


def _decided(limit: int, in_flight: int, reason: str, reading: LoadReading) -> SizeDecided:
    if reading.memory_is_short:
        in_flight, reason = 1, "memory is short: one chunk at a time"
    return SizeDecided(limit, in_flight, reason, reading.cpu, reading.memory)


@dataclass(frozen=True, slots=True)
class FixedSizer:
    """Always the same limit; when memory is short, still one chunk at a time."""

    limit: int
    max_parallel: int

    def decide(self, reading: LoadReading) -> SizeDecided:
        """Return the fixed size."""
        return _decided(self.limit, self.max_parallel, "fixed size", reading)


@dataclass(frozen=True, slots=True)
class LoadSizer:
    """CPU below 50 %: the maximum; below 80 %: the middle; else the minimum."""

    smallest: int
    largest: int
    max_parallel: int

    def decide(self, reading: LoadReading) -> SizeDecided:
        """Apply the rule to the CPU load of the whole machine."""
        if reading.cpu < MODERATE_CPU:
            limit = self.largest
        elif reading.cpu < BUSY_CPU:
            limit = (self.smallest + self.largest) // 2
        else:
            limit = self.smallest
        return _decided(limit, self.max_parallel, f"cpu at {reading.cpu:.0%}", reading)


@dataclass(frozen=True, slots=True)
class AutoSizer:
    """The size that suits the sink and the width of records; smaller while others need the CPU.

    Attributes:
        preferred: Records per transaction that suit the sink.
        writers: Transactions that the sink can run side by side.
        bytes_per_record: Mean width of the records at the head of the source; 0 if unknown.
    """

    smallest: int
    largest: int
    max_parallel: int
    preferred: int
    writers: int
    bytes_per_record: float = 0.0

    def decide(self, reading: LoadReading) -> SizeDecided:
        """Return a size that bounds the bytes of a chunk and leaves room for other programs."""
        limit, reason = self.preferred, "what suits the destination"
        if self.bytes_per_record > WIDE_RECORD_BYTES:
            limit = int(limit * WIDE_RECORD_BYTES / self.bytes_per_record)
            reason = "wide records"
        in_flight = min(self.max_parallel, reading.cpus + self.writers)
        if reading.others >= BUSY_CPU:
            limit, in_flight = limit // 4, 1
            reason = f"other programs use {reading.others:.0%} of the CPU"
        elif reading.others >= MODERATE_CPU:
            limit, in_flight = limit // 2, max(1, in_flight // 2)
            reason = f"other programs use {reading.others:.0%} of the CPU"
        limit = max(self.smallest, min(self.largest, limit))
        return _decided(limit, in_flight, reason, reading)


@dataclass(frozen=True, slots=True)
class MemoryGuard:
    """Takes fewer and smaller chunks than a sizer wants if all of them would not fit into memory.

    A reading shows the memory of chunks only once they are read, and all may have started by then.

    Attributes:
        bytes_per_record: Mean width of the records at the head of the source; 0 if unknown.
        chunk_bytes: Maximum size of a chunk in the source.
        block_bytes: What reading any chunk takes besides; see `Source.block_bytes`.
    """

    sizer: Sizer
    bytes_per_record: float
    chunk_bytes: int
    block_bytes: int = 0

    def decide(self, reading: LoadReading) -> SizeDecided:
        """Return the sizer's decision, with chunks that together fit into memory."""
        decision = self.sizer.decide(reading)
        width = min(self.bytes_per_record * decision.limit, self.chunk_bytes) * MEMORY_PER_BYTE
        width += self.block_bytes
        # while the others are read, one more is cut, or counted
        free = SHORT_MEMORY * reading.limit_bytes - BASE_BYTES - self.block_bytes
        fitting = max(1, int(free / width)) if width else decision.in_flight
        in_flight = min(fitting, decision.in_flight)
        share = (free / in_flight - self.block_bytes) / MEMORY_PER_BYTE
        chunk_bytes = min(self.chunk_bytes, max(LEAST_CHUNK_BYTES, int(share)))
        reason = decision.reason
        if fitting < decision.in_flight:
            reason = f"{reason}; memory for {fitting} in flight"
        return replace(decision, in_flight=in_flight, reason=reason, chunk_bytes=chunk_bytes)


def choose_sizer(
    options: RunOptions,
    *,
    preferred: int,
    writers: int,
    bytes_per_record: float,
    block_bytes: int = 0,
) -> Sizer:
    """Return the sizer that the options ask for, under the memory guard."""
    sizer = _chosen(options, preferred, writers, bytes_per_record)
    return MemoryGuard(sizer, bytes_per_record, options.chunk_bytes, block_bytes)


def _chosen(options: RunOptions, preferred: int, writers: int, bytes_per_record: float) -> Sizer:
    if options.chunk_size is not None:
        return FixedSizer(options.chunk_size, options.max_parallel)
    if options.adaptive == "off":
        middle = max(options.min_chunk_size, min(options.max_chunk_size, preferred))
        return FixedSizer(middle, options.max_parallel)
    if options.adaptive == "load":
        return LoadSizer(options.min_chunk_size, options.max_chunk_size, options.max_parallel)
    return AutoSizer(
        options.min_chunk_size,
        options.max_chunk_size,
        options.max_parallel,
        preferred,
        writers,
        bytes_per_record,
    )
