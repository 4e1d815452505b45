"""What becomes of each record of a source, compared between chunk sizes.

The outcome of a record is what the slow code says that judges one record at a time: it sees nothing but the
bytes of the record and where they are, so that no chunk can change it. What `read` accepts in a chunk is
compared with that, record by record. This proves more than to compare chunk sizes with each other, where
one mistake at every size goes unnoticed.
"""

from __future__ import annotations

import random
from dataclasses import replace

from batchimport.model import EXTRA_COLUMN, INDEX, Chunk, Position
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema
from batchimport.sources.base import Batch, Source

SIZES = (1, 2, 3, 7)
_ALL = 1 << 40


def outcomes(batch: Batch, schema: RecordSchema) -> list[str]:
    """Return for each record of a chunk its row without nulls, or its reject; -0.0 is not 0.0."""
    frame, rejects = judge(batch, schema)
    columns = {INDEX, *(column.name for column in schema.columns)}
    found = {reject.record - batch.chunk.offset: repr(reject) for reject in rejects}
    for row in frame.to_dicts():
        assert row.keys() == columns or row.keys() == {*columns, EXTRA_COLUMN}
        at = row.pop(INDEX)
        found[at] = repr({name: value for name, value in row.items() if value is not None})
    assert frame.height + len(rejects) == len(found) == batch.chunk.records
    return [found[at] for at in range(batch.chunk.records)]


def one_by_one(batch: Batch, schema: RecordSchema) -> list[str]:
    """Return the same, with nothing accepted by the column."""
    none = replace(batch, frame=batch.frame.clear(), deferred=[*range(batch.chunk.records)])
    return outcomes(replace(none, valid=None), schema)


def tiles(source: Source, limit: int) -> list[Chunk]:
    """Return the chunks of a size, which cover the source."""
    chunks: list[Chunk] = []
    at = Position()
    while chunk := source.cut(at, limit, _ALL):
        assert chunk.start == at
        assert chunk.records <= limit
        chunks.append(chunk)
        at = chunk.end
    assert at.position == source.size
    return chunks


def assert_one_outcome(
    source: Source, schema: RecordSchema, *, most: int | None = None, seed: int = 0
) -> None:
    """Check that no chunk size decides what becomes of a record.

    A chunk that several sizes cut alike is read once: it is the same call.

    Args:
        most: How many chunks to read, besides the whole; those are chosen at random, which costs a
            long sweep over random files a fifth, and finds as much. None: all of them.
    """
    whole, *none = tiles(source, _ALL)
    assert not none
    batch = source.read(whole, schema)
    expected = one_by_one(batch, schema)
    assert outcomes(batch, schema) == expected
    assert source.count() == whole.records
    chunks = {
        (chunk.lo, chunk.hi, chunk.records): chunk
        for size in SIZES
        for chunk in tiles(source, size)
    }
    chunks.pop((whole.lo, whole.hi, whole.records), None)
    chosen = list(chunks.values())
    if most is not None and most < len(chosen):
        chosen = random.Random(seed).sample(chosen, most)
    for chunk in chosen:
        found = outcomes(source.read(chunk, schema), schema)
        assert found == expected[chunk.offset : chunk.offset + chunk.records], chunk
