"""Framing of delimited text: the fast way and the rule agree, whatever the chunks are."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.model import Position
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.bytes.file import TextFile
from batchimport.sources.csv.grammar import Dialect, FieldReader
from batchimport.sources.csv.records import QuotedLines
from tests.helpers.properties import tried

LINE_ENDS = re.compile(rb"\r\n?|\n")
hostile = st.text(alphabet='ab,"\n\r \x01', max_size=60).map(str.encode)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quoting") / "records.csv"


def records_in_chunks(place: Path, data: bytes, limit: int, max_bytes: int) -> list[bytes]:
    place.write_bytes(data)
    text = TextFile(str(place))
    try:
        lines, at, records = QuotedLines(text, Dialect(",")), Position(), []
        while chunk := lines.cut(at, limit, max_bytes):
            assert chunk.start == at
            assert chunk.hi > chunk.lo
            parts = lines.split(data[chunk.lo : chunk.hi])
            kept = [part for part in parts if part.strip(b"\r\n")]
            assert len(kept) == chunk.records
            ends = [len(LINE_ENDS.findall(part)) for part in parts]
            ends = [n + (part[-1:] not in b"\r\n") for n, part in zip(ends, parts, strict=True)]
            assert chunk.end.line - at.line == sum(ends)
            records += kept
            at = chunk.end
        assert at.position == len(data)
        assert lines.count() == len(records)
        return records
    finally:
        text.close()


@tried(400)
@given(data=hostile, limit=st.integers(1, 5), max_bytes=st.integers(1, 80))
def test_chunks_of_any_size_give_the_same_records(
    place: Path, data: bytes, limit: int, max_bytes: int
) -> None:
    """Arbitrary bytes are tiled, and cut into the same records at every size."""
    whole = records_in_chunks(place, data, 1000, 1 << 20)
    assert records_in_chunks(place, data, limit, max_bytes) == whole
    assert b"".join(whole).replace(b"\n", b"").replace(b"\r", b"") == data.replace(
        b"\n", b""
    ).replace(b"\r", b"")


@tried(500)
@given(data=hostile, by_polars=st.booleans(), at_end=st.booleans())
def test_the_fast_mask_follows_the_rule(
    place: Path, data: bytes, by_polars: bool, at_end: bool
) -> None:
    """Where records are looked at together, each ends where the rule as it is written says."""
    place.write_bytes(b"")
    text = TextFile(str(place))
    lines = QuotedLines(text, Dialect(","))
    text.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "batchimport.sources.csv.records.WORTH_POLARS_BYTES", 0 if by_polars else 10**9
        )
        fast = lines._mask(data, at_end=at_end)
    slow = lines._mask_slowly(data, at_end=at_end)
    ends = [at for at, byte in enumerate(fast) if byte == 10]
    assert ends == [at for at, byte in enumerate(slow) if byte == 10]


@tried(300)
@given(
    rows=st.lists(
        st.lists(st.text(alphabet='ab,"\n\r x', max_size=6), min_size=2, max_size=4), max_size=6
    ),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_a_writer_wrote_is_read_back(place: Path, rows: list[list[str]], ending: str) -> None:
    """Every row that Python's csv writes comes back cell by cell."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(rows)
    records = records_in_chunks(place, stream.getvalue().encode(), 2, 1 << 20)
    reader = FieldReader(Dialect(","))
    ends = ending.encode()
    found = [[text for text, _ in reader.read(r.removesuffix(ends).decode())] for r in records]
    assert found == rows


def test_a_quote_that_is_never_closed_costs_its_own_line(place: Path) -> None:
    """The lines after it are records of their own."""
    data = b'a,b\n1,"open\n2,x\n3,"y\nz"\n4,w\n'
    records = records_in_chunks(place, data, 1, 1 << 20)
    assert records[1] == b'1,"open\n'
    assert records[-2:] == [b'3,"y\nz"\n', b"4,w\n"] or records[-1] == b"4,w\n"


def test_a_quoted_field_longer_than_the_window_is_held_unclosed(place: Path) -> None:
    """Whatever follows, its first line is the record, at every chunk size."""
    text = b'1,"' + b"x\n" * (1 << 20) + b'"\n2,b\n'
    small = records_in_chunks(place, text, 100_000, 1 << 16)
    assert small == records_in_chunks(place, text, 1 << 30, 1 << 30)


@pytest.mark.parametrize(
    ("record", "code"),
    [('"a"b,c', "malformed_quote"), ('a,"b', "unclosed_quote"), ('"a""', "unclosed_quote")],
)
def test_quotes_out_of_order_are_explained(record: str, code: str) -> None:
    """The reason tells an unclosed quote from text after a closing one."""
    with pytest.raises(UnreadableRecordError) as caught:
        FieldReader(Dialect(",")).read(record)
    assert caught.value.errors[0].code == code


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        ("", [("", False)]),
        (",", [("", False), ("", False)]),
        ('"",', [("", True), ("", False)]),
        ('5" pipe,"a""b"', [('5" pipe', False), ('a"b', True)]),
        ('"a,b"', [("a,b", True)]),
    ],
)
def test_fields_are_read(record: str, cells: list[tuple[str, bool]]) -> None:
    """Empty and quoted empty differ; a quote inside of a bare field is text."""
    assert FieldReader(Dialect(",")).read(record) == cells
