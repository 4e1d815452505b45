"""Chunks of several files that follow each other, read as one: small files cost little more than one.

Reading a few records by themselves costs as much as reading a thousand. So what stands in files that are
written alike is laid end to end before it is parsed, wherever that certainly changes no record.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.model import INDEX, Chunk
from batchimport.sources.base import Batch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from batchimport.model import FieldError, Reject, Stage
    from batchimport.sources.base import Piece, RawRecords


def lines_of(pieces: Sequence[Piece]) -> bytes:
    """Return the lines of all pieces; the last line of a file may lack its end."""
    texts = [piece.data[piece.begin :] for piece in pieces]
    return b"".join(text if text.endswith(b"\n") or not text else text + b"\n" for text in texts)


def whole_of(chunks: Sequence[Chunk]) -> Chunk:
    """Return the chunk that begins with the first of some chunks and ends with the last one."""
    return chunks[0] if len(chunks) == 1 else Chunk(chunks[0].start, chunks[-1].end)


def join(batches: Sequence[Batch]) -> Batch:
    """Return batches that follow each other as one."""
    if len(batches) == 1:
        return batches[0]
    starts = starts_of([batch.chunk for batch in batches])
    frames = [_moved(batch.frame, start) for batch, start in zip(batches, starts, strict=True)]
    proven = [
        _moved(batch.valid, start)
        for batch, start in zip(batches, starts, strict=True)
        if batch.valid is not None
    ]
    return Batch(
        whole_of([batch.chunk for batch in batches]),
        pl.concat(frames, how="diagonal"),
        [at + start for batch, start in zip(batches, starts, strict=True) for at in batch.deferred],
        JoinedRecords([batch.raw_records for batch in batches], starts),
        "",
        pl.concat(proven, how="diagonal") if proven else None,
        tuple(digest for batch in batches for digest in batch.digests or (batch.digest,)),
    )


def starts_of(chunks: Sequence[Chunk]) -> list[int]:
    """Return for each chunk how many records are before it."""
    return list(accumulate((chunk.records for chunk in chunks[:-1]), initial=0))


def _moved(frame: pl.DataFrame, start: int) -> pl.DataFrame:
    return frame.with_columns(pl.col(INDEX) + pl.lit(start, dtype=pl.UInt32)) if start else frame


class JoinedRecords:
    """The raw records of several chunks.

    Args:
        starts: For each of them, how many records are before it.
    """

    def __init__(self, parts: Sequence[RawRecords], starts: Sequence[int]) -> None:
        self._parts, self._starts = parts, starts

    def _at(self, index: int) -> tuple[RawRecords, int]:
        # Of several that begin at the same record, the last one: the others have none.
        at = bisect_right(self._starts, index) - 1
        return self._parts[at], index - self._starts[at]

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values."""
        records, own = self._at(index)
        return records.values(own)

    def row(self, index: int) -> dict[str, Any]:
        """Return a valid record as one value per column."""
        records, own = self._at(index)
        return records.row(own)

    def keys(self, index: int) -> Collection[str] | None:
        """Return the keys that a valid record has; None if all records have all columns."""
        records, own = self._at(index)
        return records.keys(own)

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record, which names its own file."""
        records, own = self._at(index)
        return records.reject(own, stage, errors)
