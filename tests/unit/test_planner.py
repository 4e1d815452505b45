"""What is left to do is found and cut, whatever was committed before."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.errors import AccountsError
from batchimport.model import Chunk, Position
from batchimport.policy.plan import Plan, find_gaps


def mark(record: int) -> Position:
    """Every record takes ten positions and one line."""
    return Position(record * 10, record, record + 1)


def cutter(records: int):
    def cut(start: Position, limit: int, max_bytes: int) -> Chunk | None:
        if start.record >= records:
            return None
        taken = max(1, min(limit, max_bytes // 10, records - start.record))
        return Chunk(start, mark(start.record + taken))

    return cut


@given(
    records=st.integers(0, 60),
    borders=st.sets(st.integers(0, 60)),
    kept=st.sets(st.integers(0, 60)),
    limits=st.lists(st.integers(1, 20), min_size=1),
    max_bytes=st.integers(1, 300),
)
def test_committed_and_planned_chunks_tile_the_source(
    records: int, borders: set[int], kept: set[int], limits: list[int], max_bytes: int
) -> None:
    """Any subset of any earlier cutting is completed by chunks of any sizes."""
    cuts = sorted({0, records, *(at for at in borders if at < records)})
    earlier = [Chunk(mark(a), mark(b)) for a, b in pairwise(cuts)]
    committed = [chunk for at, chunk in enumerate(earlier) if at in kept]
    plan, done, turn = Plan(records * 10, committed), list(committed), 0
    while chunk := plan.take(cutter(records), limits[turn % len(limits)], max_bytes):
        done.append(chunk)
        turn += 1
    assert find_gaps(records * 10, done) == []
    assert sum(chunk.records for chunk in done) == records


def test_a_limit_ends_the_plan() -> None:
    """`--limit 7` plans seven records and no more."""
    plan, taken = Plan(100, [], limit=7), []
    while chunk := plan.take(cutter(10), 4, 1000):
        taken.append(chunk.records)
    assert taken == [4, 3]


def test_overlapping_chunks_are_no_plan() -> None:
    """A ledger that contradicts itself stops the job."""
    with pytest.raises(AccountsError, match="overlapping"):
        find_gaps(100, [Chunk(mark(0), mark(5)), Chunk(mark(4), mark(6))])
