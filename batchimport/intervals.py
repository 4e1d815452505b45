"""Sets of half-open intervals of whole numbers. Pure; knows nothing of files or ledgers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Interval = tuple[int, int]
"""`(lo, hi)`: lo is inside, hi is not."""


class IntervalSet:
    """A set of disjoint half-open intervals, kept sorted and merged where they touch."""

    __slots__ = ("_highs", "_lows")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        for lo, hi in sorted(intervals):
            self.add(lo, hi)

    def __iter__(self) -> Iterator[Interval]:
        return iter(zip(self._lows, self._highs, strict=True))

    def __len__(self) -> int:
        return len(self._lows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)})"

    def add(self, lo: int, hi: int) -> None:
        """Add `[lo, hi)`, merging it with what it touches.

        Raises:
            ValueError: If `hi < lo`.
        """
        if hi < lo:
            raise ValueError(f"interval ends before it begins: [{lo}, {hi})")
        if lo == hi:
            return
        first = bisect_left(self._highs, lo)
        last = bisect_right(self._lows, hi)
        if first < last:
            lo = min(lo, self._lows[first])
            hi = max(hi, self._highs[last - 1])
        self._lows[first:last] = [lo]
        self._highs[first:last] = [hi]

    def overlaps(self, lo: int, hi: int) -> bool:
        """Say whether any number of `[lo, hi)` is in the set."""
        at = bisect_right(self._highs, lo)
        return lo < hi and at < len(self._lows) and self._lows[at] < hi

    def covers(self, lo: int, hi: int) -> bool:
        """Say whether every number of `[lo, hi)` is in the set."""
        if lo >= hi:
            return True
        at = bisect_right(self._lows, lo) - 1
        return at >= 0 and self._highs[at] >= hi

    def gaps(self, lo: int, hi: int) -> list[Interval]:
        """Return what of `[lo, hi)` is not in the set, in order."""
        gaps: list[Interval] = []
        for low, high in self:
            if high <= lo:
                continue
            if low >= hi:
                break
            if low > lo:
                gaps.append((lo, low))
            lo = max(lo, high)
        if lo < hi:
            gaps.append((lo, hi))
        return gaps

    def count(self) -> int:
        """Return how many numbers are in the set."""
        return sum(self._highs) - sum(self._lows)
