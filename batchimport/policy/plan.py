"""The work that is left: gaps in the ledger, cut into chunks on demand. Pure apart from the cutter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.errors import AccountsError
from batchimport.model import Chunk, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Cutter = Callable[[Position, int, int], Chunk | None]
    """Takes `(start, limit, max_bytes)`; returns the chunk that begins there, None at the end."""


class Plan:
    """Hands out the chunks that no ledger row covers, in order of position.

    Args:
        size: Positions of the source: bytes, or rows for Parquet.
        committed: Chunks of the ledger, in any order.
        limit: Maximum number of records of the job; None for all.
    """

    def __init__(self, size: int, committed: Iterable[Chunk], limit: int | None = None) -> None:
        self._gaps = find_gaps(size, committed)
        self._limit = limit
        self._next: Position | None = None

    def skip_to(self, start: Position) -> None:
        """Hand out nothing before this position: it was handed out already."""
        while self._gaps and (stop := self._gaps[0][1]) and stop.position <= start.position:
            self._gaps.pop(0)
        if self._gaps and self._gaps[0][0].position < start.position:
            self._next = start

    def take(self, cut: Cutter, limit: int, max_bytes: int) -> Chunk | None:
        """Return the next chunk of at most `limit` records; None when nothing is left."""
        while self._gaps:
            start, stop = self._gaps[0]
            begin = self._next or start
            room = limit
            if stop is not None:
                room = min(room, stop.record - begin.record)
                max_bytes = min(max_bytes, stop.position - begin.position)
            if self._limit is not None:
                room = min(room, self._limit - begin.record)
            if stop is not None and stop.record == begin.record:  # nothing but blank lines
                chunk: Chunk | None = _cut_blank(cut, begin, stop)
            else:
                chunk = cut(begin, room, max_bytes) if room > 0 else None
            if chunk is None:
                self._gaps.pop(0)
                self._next = None
                continue
            self._next = chunk.end
            if stop is not None and chunk.end.position >= stop.position:
                self._gaps.pop(0)
                self._next = None
            return chunk
        return None

    def take_together(self, cut: Cutter, limit: int, max_bytes: int) -> list[Chunk]:
        """Return the next chunks that follow each other, until they are at least half of what is asked for.

        For a source that cuts at the end of each file: small files are stored together. Empty when
        nothing is left.
        """
        chunks: list[Chunk] = []
        records = size = 0
        while 2 * records < limit and 2 * size < max_bytes:
            chunk = self.take(cut, limit - records, max_bytes - size)
            if chunk is None:
                break
            chunks.append(chunk)
            records += chunk.records
            size += chunk.hi - chunk.lo
            if self._next is None:  # the gap is filled
                break
        return chunks


def _cut_blank(cut: Cutter, start: Position, stop: Position) -> Chunk:
    """Return the chunk without records that begins at `start`: to `stop`, or to its file's end."""
    chunk = cut(start, 1, stop.position - start.position)
    if chunk is not None and not chunk.records and chunk.hi <= stop.position:
        return chunk
    return Chunk(start, stop)


def find_gaps(size: int, committed: Iterable[Chunk]) -> list[tuple[Position, Position | None]]:
    """Return the start and the stop of each uncommitted interval, in order of position.

    The stop of a gap that reaches the end of the source is None: its records are not counted yet.

    Raises:
        AccountsError: If two committed chunks overlap.
    """
    gaps: list[tuple[Position, Position | None]] = []
    reached = Position()
    for chunk in sorted(committed, key=lambda chunk: (chunk.lo, chunk.hi)):
        if chunk.lo < reached.position:
            raise AccountsError(
                f"the ledger has overlapping chunks at position {chunk.lo}",
                hint="import it again from its beginning with --restart",
            )
        if chunk.lo > reached.position:
            gaps.append((reached, chunk.start))
        reached = chunk.end
    if reached.position < size:
        gaps.append((reached, None))
    return gaps
