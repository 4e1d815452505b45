"""One suite that every source passes: any chunks give what the whole gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.model import INDEX, Chunk, Position, Reject, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema
from batchimport.sources import open_source
from batchimport.sources.base import Source
from batchimport.sources.registry import FORMATS
from tests.helpers.toy_source import write_boxes

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
"""Every seventh is a reject."""


def _lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def _table(records: list[dict[str, Any]]) -> bytes:
    rows = ["name,data,id"]
    for record in records:
        data = json.dumps(record["data"]).replace('"', '""')
        rows.append(f'"{record["name"]}","{data}",{record["id"]}')
    return "\n".join(rows).encode()


def _jsonl(folder: Path) -> list[Path]:
    return [_write(folder, "a.jsonl", b"\n" + _lines(RECORDS).replace(b"\n", b"\r\n\n", 5))]


def _csv(folder: Path) -> list[Path]:
    return [_write(folder, "a.csv", _table(RECORDS))]


def _array(folder: Path) -> list[Path]:
    text = json.dumps(RECORDS, ensure_ascii=False)
    return [_write(folder, "a.json", f" {text}\n\n".encode())]


def _pretty_array(folder: Path) -> list[Path]:
    return [_write(folder, "a.json", json.dumps(RECORDS, indent=2, ensure_ascii=False).encode())]


def _values(folder: Path) -> list[Path]:
    texts = [json.dumps(record, indent=1, ensure_ascii=False) for record in RECORDS]
    return [_write(folder, "a.json", ("\n" + "\n\n".join(texts)).encode())]


def _parquet(folder: Path) -> list[Path]:
    pl.DataFrame(RECORDS).write_parquet(folder / "a.parquet", row_group_size=10)
    return [folder / "a.parquet"]


def _box(folder: Path) -> list[Path]:
    return [_write(folder, "a.box", write_boxes(_lines(RECORDS).splitlines()))]


def _many(folder: Path) -> list[Path]:
    return [
        _write(folder, "a.jsonl", b""),
        _write(folder, "b.jsonl", _lines(RECORDS[:30]) + b"\n\n"),
        _write(folder, "c.csv", b"id,name,data\n"),
        _write(folder, "d.csv", _table(RECORDS[30:60])),
        _write(folder, "e.json", json.dumps(RECORDS[60:]).encode()),
        _write(folder, "f.jsonl", b""),
    ]


def _write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@dataclass(frozen=True)
class Case:
    """A source under test, and the bytes of its files by the names that rejects give."""

    source: Source
    files: dict[str, bytes]


MAKERS: dict[str, Callable[[Path], list[Path]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "array": _array,
    "pretty array": _pretty_array,
    "values": _values,
    "parquet": _parquet,
    "many": _many,
    "box": _box,
}
"""To prove a new source: one line here. `box` is the one that docs/adding.md makes."""


@pytest.fixture(params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Every kind of source, with the same records."""
    paths = MAKERS[request.param](tmp_path)
    source = open_source([str(path) for path in paths], SourceOptions())
    yield Case(source, {path.name: path.read_bytes() for path in paths})
    source.close()


def cut_all(source: Source, limit: int, max_bytes: int = 1 << 20) -> list[Chunk]:
    chunks, at = [], Position()
    while chunk := source.cut(at, limit, max_bytes):
        chunks.append(chunk)
        at = chunk.end
    return chunks


def read(source: Source, chunks: list[Chunk]) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for chunk in chunks:
        frame, more = judge(source.read(chunk, SCHEMA), SCHEMA)
        assert frame.height + len(more) == chunk.records
        rows += frame.drop(INDEX).to_dicts()
        rejects += more
    return rows, rejects


@pytest.mark.parametrize("limit", [1, 2, 7, 60, 1000])
@pytest.mark.parametrize("max_bytes", [1, 100, 1 << 20])
def test_chunks_tile_the_source(case: Case, limit: int, max_bytes: int) -> None:
    """Without gap or overlap, within their limit; count agrees."""
    chunks = cut_all(case.source, limit, max_bytes)
    at = Position()
    for chunk in chunks:
        assert chunk.start == at
        assert chunk.hi > chunk.lo
        assert chunk.records <= limit
        at = chunk.end
    assert (at.position, at.record) == (case.source.size, len(RECORDS))
    assert case.source.count() == len(RECORDS)


@pytest.mark.parametrize("limit", [1, 2, 7, 60])
def test_chunks_of_any_size_give_the_same(case: Case, limit: int) -> None:
    """Rows and rejects, with all that a reject tells."""
    whole = read(case.source, cut_all(case.source, 1000))
    assert [row["id"] for row in whole[0]] == [at for at in range(61) if at % 7]
    assert all(json.loads(row["data"]) == {"n": [row["id"], None]} for row in whole[0])
    assert read(case.source, cut_all(case.source, limit)) == whole
    assert read(case.source, cut_all(case.source, limit)[::-1])[1] != []


def test_a_reject_names_its_place(case: Case) -> None:
    """Record, file, line and byte are those of the original, which is kept as it stands."""
    _, rejects = read(case.source, cut_all(case.source, 4))
    assert [reject.record for reject in rejects] == list(range(0, 61, 7))
    for reject in rejects:
        if case.source.format == "parquet":
            assert json.loads(reject.raw) == RECORDS[reject.record]
            assert (reject.byte_offset, reject.line) == (reject.record, None)
            continue
        data = case.files[reject.source]
        assert data[reject.byte_offset :].startswith(reject.raw)
        assert b"xxxxx" in reject.raw
        is_binary = case.source.format in FORMATS and FORMATS[case.source.format].magic
        line = None if is_binary else data.count(b"\n", 0, reject.byte_offset) + 1
        assert reject.line == line


def test_a_digest_stays(case: Case, tmp_path: Path) -> None:
    """What `read` says is what `digest` says later, also of the source opened anew."""
    chunks = cut_all(case.source, 5)
    digests = [case.source.read(chunk, SCHEMA).digest for chunk in chunks]
    assert [case.source.digest(chunk) for chunk in chunks] == digests
    again = open_source([str(tmp_path / name) for name in case.files], SourceOptions())
    assert [again.digest(chunk) for chunk in chunks] == digests
    facts = [(each.fingerprint, each.modified, each.size) for each in (again, case.source)]
    again.close()
    assert facts[0] == facts[1]


def test_a_chunk_may_be_cut_from_any_border(case: Case) -> None:
    """As after a resume, by a source that has not seen what comes before."""
    marks = [chunk.end for chunk in cut_all(case.source, 7)]
    for mark in marks[:-1]:
        chunk = case.source.cut(mark, 3, 1 << 20)
        assert chunk is not None
        assert (chunk.start, chunk.records) == (mark, min(3, chunk.records))


@pytest.mark.parametrize("records", [None, 10, 1000])
def test_a_sample_shows_the_fields(case: Case, records: int | None) -> None:
    """Of records that can be read."""
    sample = list(case.source.sample(records))
    assert {name for record in sample for name in record} == {"id", "name", "data"}
    if records is None:
        assert sum(record["id"] is not None for record in sample) == len(RECORDS)


def test_every_position_has_a_file(case: Case) -> None:
    """By the name that users know."""
    for chunk in cut_all(case.source, 7):
        assert case.source.file_at(chunk.lo).partition(" ")[0] in case.files
