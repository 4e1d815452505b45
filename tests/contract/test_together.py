"""Chunks of several files that are read and stored as one: each record as if its file were alone."""

from __future__ import annotations

import errno
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport import import_file
from batchimport.errors import AlreadyStoredError, BatchImportError
from batchimport.model import INDEX, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.policy.plan import Plan
from batchimport.schema import RecordSchema
from batchimport.sinks.base import StoreSeparatelyError
from batchimport.sources.base import Batch
from batchimport.sources.jsonl.source import JsonLinesSource
from batchimport.sources.opening import open_source
from tests.contract.test_sinks import database
from tests.helpers.stores import Store, a_reject, a_request, chunk, rows
from tests.helpers.tables import query

__all__ = ["database"]

SCHEMA = RecordSchema(
    {
        "properties": {
            "id": {"type": "integer"},
            "name": {"type": ["string", "null"], "maxLength": 3},
        }
    }
)
LINES = [
    b'{"id": 1, "name": "a"}\n{"id": 2}',  # no line end
    b"",
    b'\xef\xbb\xbf{"id": 3}\n\n \n{"id": "x"}\n',  # byte order mark, blank lines, a reject
    b'{"id": 4, "name": "long"}\n{"id": 5, "name": "\xff"}\n{"id": 6\n',
    b'\r\n{"id": 7, "more": 1}\r\n',
    b"\n\n",
    b'{"id": 8, "name": {"x": 1}}',
]
TABLES = [
    b"id,name\n1,a\n2,",
    b"id,name\n",
    b"name,id\nb,3\n",  # another order
    b'id,name\n4,"x\n5,b\n',  # a quote that is never closed
    b'id,name\n6,"y""z"\n7,"a\nb"\n',
    b"id,name\r\n8,c\r\n9,long\r\n",
    b'id,name\n10,c\n11,"d"\nx,e\n12,d,e\n',
    b'id,name\n13,"\n14,"\n',  # two of them
    b"id,name\n\n15,e\n",
]


@pytest.mark.parametrize(
    ("suffix", "texts", "options"),
    [
        ("jsonl", LINES, SourceOptions()),
        ("jsonl", LINES, SourceOptions(flatten=True)),
        ("jsonl", LINES * 2, SourceOptions(rename=("name=name",), max_record_bytes=24)),
        ("csv", TABLES, SourceOptions(delimiter=",")),
        ("csv", [text for text in TABLES if b'"' not in text] * 3, SourceOptions(delimiter=",")),
        ("json", [b"[%s]" % b",".join(text.split(b"\n")[:1]) for text in LINES[:1] * 3], SourceOptions()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limit", [3, 1000])
def test_what_is_read_together_is_what_each_part_is(
    tmp_path: Path, suffix: str, texts: list[bytes], options: SourceOptions, limit: int
) -> None:
    """Rows, rejects with their places, digests, whatever stands at the border of two files."""
    paths = [tmp_path / f"{at:02}.{suffix}" for at in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    source = open_source([str(path) for path in paths], options)
    assert source.reads_together
    plan, groups = Plan(source.size, []), []
    while group := plan.take_together(source.cut, limit, 1 << 20):
        groups.append(group)
        batch = source.read_together(group, SCHEMA)
        alone = [source.read(part, SCHEMA) for part in group]
        assert (batch.digests or (batch.digest,)) == tuple(source.digest(part) for part in group)
        assert (batch.chunk.start, batch.chunk.end) == (group[0].start, group[-1].end)
        expected = list(map(_outcome, alone))
        rows_, rejects = (list(chain(*each)) for each in zip(*expected, strict=True))
        assert _outcome(batch) == (rows_, rejects)
    assert max(map(len, groups)) > 1
    assert groups[-1][-1].hi == source.size
    source.close()


def _outcome(batch: Batch) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return rows, without their nulls, and rejects; of both, the number of the record in the job."""
    frame, rejects = judge(batch, SCHEMA)
    start, found = batch.chunk.offset, []
    for row in frame.to_dicts():
        keys = batch.raw_records.keys(row[INDEX])
        assert keys is None or "id" in keys
        values = {name: value for name, value in row.items() if value is not None}
        found.append(values | {INDEX: row[INDEX] + start})
    return found, sorted(rejects, key=lambda each: each.record)


def test_each_part_has_its_own_row_in_the_ledger(database: Store) -> None:
    """With its own counts, also of what the table refuses; an attempt that comes later changes nothing."""
    sink, claim = database.claimed(database.job(key=("id",)))
    assert claim.hints.stores_parts
    parts = [(chunk(0, 3), "one"), (chunk(3, 1), "two"), (chunk(4, 4), "three")]
    request = replace(
        a_request(chunk(0, 8), rows(1, 2, 2, 3, 4), [a_reject(1), a_reject(4)], filtered=1),
        parts=parts,
        numbers=pl.Series([0, 2, 3, 5, 6]),
        rejecter=lambda place, _: a_reject([0, 2, 3, 5, 6][place], "store"),
    )
    result = claim.store(request)
    assert (result.successful, result.failed, result.filtered) == (4, 3, 1)
    known = [(row.chunk, row.digest, row.successful, row.failed, row.filtered) for row in sink.committed("users-1")]  # fmt: skip
    assert known == [
        (chunk(0, 3), "one", 2, 1, 0),
        (chunk(3, 1), "two", 0, 1, 0),
        (chunk(4, 4), "three", 2, 1, 1),
    ]
    assert [reject.record for reject in sink.rejects("users-1")] == [1, 3, 4]
    again = claim.store(request)
    assert (again.successful, again.failed, again.already_committed) == (4, 3, True)
    claim.store(a_request(chunk(9, 1), rows(9)))
    more = replace(
        a_request(chunk(8, 2), rows(8, 9)),
        parts=[(chunk(8, 1), "a"), (chunk(9, 1), "b")],
        numbers=pl.Series([8, 9]),
    )
    with pytest.raises(StoreSeparatelyError):  # an attempt that was given up has stored one of them
        claim.store(more)
    assert sorted(database.rows("id")) == [(1,), (2,), (3,), (4,), (9,)]


def test_small_files_are_stored_in_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger knows each of them all the same: one of them alone is refused later."""
    monkeypatch.chdir(tmp_path)
    for at in range(30):
        lines = [json.dumps({"id": 10 * at + n}) for n in range(4)]
        Path(f"f{at:02}.jsonl").write_text("\n".join([*lines, '{"id": "x"}']))
    schema = {"properties": {"id": {"type": "integer"}}}
    options: dict[str, Any] = {"to": "sqlite:///t.db", "table": "t", "schema": schema}
    options |= {"sql": "SELECT * FROM records WHERE id % 10 < 3"}
    result = import_file("f*.jsonl", **options)
    assert (result.chunks.committed, result.successful, result.failed) == (1, 90, 30)
    ledger = query(tmp_path / "t.db", "SELECT records, successful, failed, filtered FROM _batchimport_chunks")  # fmt: skip
    assert ledger == [(5, 3, 1, 1)] * 30
    with pytest.raises(AlreadyStoredError, match="3 rows"):
        import_file("f07.jsonl", **options)


def test_what_a_trigger_skips_is_counted_for_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database says only how many rows it left out: then the files are stored one by one."""
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("t.db")) as made:
        made.executescript(
            "CREATE TABLE t (id INTEGER); CREATE TRIGGER skip BEFORE INSERT ON t WHEN NEW.id < 10 "
            "BEGIN SELECT RAISE(IGNORE); END"
        )
    for at in range(3):
        Path(f"f{at}.jsonl").write_text("".join(f'{{"id": {10 * at + n}}}\n' for n in range(4)))
    result = import_file("f*.jsonl", to="sqlite:///t.db", table="t")
    assert (result.successful, result.filtered) == (8, 4)
    ledger = query(tmp_path / "t.db", "SELECT successful, skipped FROM _batchimport_chunks ORDER BY lo")  # fmt: skip
    assert ledger == [(0, 4), (4, None), (4, None)]


def test_a_file_that_cannot_be_read_takes_none_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its chunk are stored; the next run imports it alone."""
    monkeypatch.chdir(tmp_path)
    for at in range(4):
        Path(f"f{at}.jsonl").write_text("".join(f'{{"id": {10 * at + n}}}\n' for n in range(5)))
    options: dict[str, Any] = {"to": "sqlite:///t.db", "table": "t", "max_attempts": 2}
    piece, read = JsonLinesSource.piece, JsonLinesSource.read

    def fails(given: Any) -> Any:
        def call(self: JsonLinesSource, *rest: Any) -> Any:
            if self.name.endswith("f2.jsonl"):
                raise OSError(errno.EIO, "Input/output error")
            return given(self, *rest)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(JsonLinesSource, "piece", fails(piece))
        patch.setattr(JsonLinesSource, "read", fails(read))
        with pytest.raises(BatchImportError, match="Input/output error") as caught:
            import_file("f*.jsonl", **options)
        assert (caught.value.result.successful, caught.value.result.chunks.failed) == (15, 1)
    result = import_file("f*.jsonl", **options)
    assert (result.successful, result.chunks.committed) == (20, 1)
    assert len(query(tmp_path / "t.db", "SELECT id FROM t")) == 20
