"""What is left to do: gaps of the ledger, cut into chunks on demand. Pure apart from the cutter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.errors import AccountsError
from batchimport.model import Chunk, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Cutter = Callable[[Position, int, int], Chunk | None]
    """`(start, limit, max_bytes)` to the chunk that begins there; None at the end."""


class Plan:
    """Hands out the chunks that no ledger row covers, in order of position."""

    def __init__(self, size: int, committed: Iterable[Chunk], limit: int | None = None) -> None:
        self._gaps = find_gaps(size, committed)
        self._limit = limit
        self._at: Position | None = None

    def skip_to(self, mark: Position) -> None:
        """Hand out nothing before this mark: it was handed out already."""
        while self._gaps and (stop := self._gaps[0][1]) and stop.position <= mark.position:
            self._gaps.pop(0)
        if self._gaps and self._gaps[0][0].position < mark.position:
            self._at = mark

    def take(self, cut: Cutter, limit: int, max_bytes: int) -> Chunk | None:
        """Return the next chunk of at most `limit` records; None when nothing is left."""
        while self._gaps:
            start, stop = self._gaps[0]
            at = self._at or start
            room = limit
            if stop is not None:
                room = min(room, stop.record - at.record)
                max_bytes = min(max_bytes, stop.position - at.position)
            if self._limit is not None:
                room = min(room, self._limit - at.record)
            if stop is not None and stop.record == at.record:  # nothing but blank lines
                chunk: Chunk | None = _cut_blank(cut, at, stop)
            else:
                chunk = cut(at, room, max_bytes) if room > 0 else None
            if chunk is None:
                self._gaps.pop(0)
                self._at = None
                continue
            self._at = chunk.end
            if stop is not None and chunk.end.position >= stop.position:
                self._gaps.pop(0)
                self._at = None
            return chunk
        return None


def _cut_blank(cut: Cutter, at: Position, stop: Position) -> Chunk:
    """Return the chunk from `at` that has no records: to `stop`, or to the end of its file."""
    chunk = cut(at, 1, stop.position - at.position)
    ends_before = chunk is not None and not chunk.records and chunk.hi <= stop.position
    return chunk if chunk is not None and ends_before else Chunk(at, stop)


def find_gaps(size: int, committed: Iterable[Chunk]) -> list[tuple[Position, Position | None]]:
    """Return what is not committed: where each gap begins and, but for the last, where it ends.

    Raises:
        AccountsError: If two committed chunks overlap.
    """
    gaps: list[tuple[Position, Position | None]] = []
    at = Position()
    for chunk in sorted(committed, key=lambda chunk: (chunk.lo, chunk.hi)):
        if chunk.lo < at.position:
            raise AccountsError(
                f"the ledger has overlapping chunks at position {chunk.lo}",
                hint="start over with --restart",
            )
        if chunk.lo > at.position:
            gaps.append((at, chunk.start))
        at = chunk.end
    if at.position < size:
        gaps.append((at, None))
    return gaps
