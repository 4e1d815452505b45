"""What any source must guarantee: a check for each promise, which raises AssertionError if it is broken.

A check takes files that hold `RECORDS`, in this order. With pytest:

    @pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__)
    def test_the_contract(check, tmp_path):
        (tmp_path / "a.mine").write_bytes(written(RECORDS))
        case = SourceCase([tmp_path / "a.mine"])
        check(case)
        case.source.close()
"""

from __future__ import annotations

import json
import re
from itertools import product
from typing import TYPE_CHECKING, Any

from batchimport.model import INDEX, Chunk, Position, Reject, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema
from batchimport.sources.opening import open_source
from batchimport.sources.registry import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from batchimport.sources.base import Source

SCHEMA = RecordSchema(
    {
        "properties": {
            "id": {"type": "integer"},
            "name": {"type": ["string", "null"], "maxLength": 20},
            "data": {"type": ["object", "null"]},
        }
    }
)
RECORDS: list[dict[str, Any]] = [
    {"id": at, "name": f"ü {at}" if at % 7 else "x" * 21, "data": {"n": [at, None]}}
    for at in range(61)
]
"""What the files must hold; every seventh record is a reject."""


class SourceCase:
    """A source under test, with the bytes of its files by the names that rejects give."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.source = open_source([str(path) for path in paths], SourceOptions())
        self.files = {path.name: path.read_bytes() for path in paths}


def cut_all(source: Source, limit: int, max_bytes: int = 1 << 20) -> list[Chunk]:
    """Return the chunks of a source, cut at this size."""
    chunks, at = [], Position()
    while chunk := source.cut(at, limit, max_bytes):
        chunks.append(chunk)
        at = chunk.end
    return chunks


def read(source: Source, chunks: list[Chunk]) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Return the rows and the rejects of some chunks."""
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for chunk in chunks:
        frame, more = judge(source.read(chunk, SCHEMA), SCHEMA)
        assert frame.height + len(more) == chunk.records
        rows += frame.drop(INDEX).to_dicts()
        rejects += more
    return rows, rejects


def chunks_tile_the_source(case: SourceCase) -> None:
    """Without gap or overlap, within their limit; count agrees."""
    for limit, max_bytes in product((1, 2, 7, 60, 1000), (1, 100, 1 << 20)):
        chunks = cut_all(case.source, limit, max_bytes)
        at = Position()
        for chunk in chunks:
            assert chunk.start == at
            assert chunk.hi > chunk.lo
            assert chunk.records <= limit
            at = chunk.end
        assert (at.position, at.record) == (case.source.size, len(RECORDS))
        assert case.source.count() == len(RECORDS)


def chunks_of_any_size_give_the_same(case: SourceCase) -> None:
    """Rows and rejects, with all that a reject tells."""
    whole = read(case.source, cut_all(case.source, 1000))
    assert [row["id"] for row in whole[0]] == [at for at in range(61) if at % 7]
    assert all(json.loads(row["data"]) == {"n": [row["id"], None]} for row in whole[0])
    for limit in (1, 2, 7, 60):
        assert read(case.source, cut_all(case.source, limit)) == whole


def a_reject_names_its_place(case: SourceCase) -> None:
    """Record, file, line and byte are those of the original, which is kept as it stands."""
    _, rejects = read(case.source, cut_all(case.source, 4))
    assert [reject.record for reject in rejects] == list(range(0, 61, 7))
    for reject in rejects:
        if case.source.format == "parquet":
            assert json.loads(reject.raw) == RECORDS[reject.record]
            assert (reject.byte_offset, reject.line) == (reject.record, None)
            continue
        if case.source.format in FORMATS and FORMATS[case.source.format].text:
            assert reject.source.startswith(case.paths[0].name)
            assert b"xxxxx" in reject.raw
            continue
        data = case.files[reject.source]
        assert data[reject.byte_offset :].startswith(reject.raw)
        assert b"xxxxx" in reject.raw
        is_binary = case.source.format in FORMATS and FORMATS[case.source.format].magic
        line = None if is_binary else data.count(b"\n", 0, reject.byte_offset) + 1
        assert reject.line == line


def a_digest_stays(case: SourceCase) -> None:
    """What `read` says is what `digest` says later, also of the source opened anew."""
    chunks = cut_all(case.source, 5)
    digests = [case.source.read(chunk, SCHEMA).digest for chunk in chunks]
    assert [case.source.digest(chunk) for chunk in chunks] == digests
    again = open_source([str(path) for path in case.paths], SourceOptions())
    assert [again.digest(chunk) for chunk in chunks] == digests
    facts = [(each.fingerprint, each.modified, each.size) for each in (again, case.source)]
    again.close()
    assert facts[0] == facts[1]


def a_chunk_may_be_cut_from_any_border(case: SourceCase) -> None:
    """As after a resume, by a source that has not seen what comes before."""
    marks = [chunk.end for chunk in cut_all(case.source, 7)]
    for mark in marks[:-1]:
        chunk = case.source.cut(mark, 3, 1 << 20)
        assert chunk is not None
        assert (chunk.start, chunk.records) == (mark, min(3, chunk.records))


def a_sample_shows_the_fields(case: SourceCase) -> None:
    """Of records that can be read."""
    for records in (None, 10, 1000):
        sample = list(case.source.sample(records))
        assert {name for record in sample for name in record} == {"id", "name", "data"}
        if records is None:
            assert sum(record["id"] is not None for record in sample) == len(RECORDS)


def every_position_has_a_file(case: SourceCase) -> None:
    """By the name that users know."""
    for chunk in cut_all(case.source, 7):
        assert re.split("[ !]", case.source.file_at(chunk.lo))[0] in case.files


SOURCE_CHECKS: tuple[Callable[[SourceCase], None], ...] = (
    chunks_tile_the_source,
    chunks_of_any_size_give_the_same,
    a_reject_names_its_place,
    a_digest_stays,
    a_chunk_may_be_cut_from_any_border,
    a_sample_shows_the_fields,
    every_position_has_a_file,
)
"""All checks."""
