"""JSON lines: every trap is a reject with its reason, or kept without loss."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.model import Position
from batchimport.sources.bytes.file import TextFile
from batchimport.sources.text_lines import Lines
from tests.helpers.properties import tried
from tests.helpers.reading import codes, read_all

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "integer"},
        "x": {"type": "number"},
        "s": {"type": ["string", "null"]},
        "o": {"type": ["object", "null"]},
        "any": {},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jsonl") / "records.jsonl"


@pytest.mark.parametrize("first", ["[]", '[{"id": 0}]'])
def test_an_array_above_objects_is_one_bad_line(place: Path, first: str) -> None:
    """It does not make a JSON array of the whole file."""
    place.write_text(f'{first}\n{{"id": 1}}\n{{"id": 2}}\n', encoding="utf-8")
    rows, rejects = read_all(place, SCHEMA)
    assert ([row["id"] for row in rows], codes(rejects)) == ([1, 2], ["not_an_object"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id": 1,', "malformed_json"),
        (b'{"id": 1} {"id": 2}', "malformed_json"),
        (b'{"id": NaN}', "malformed_json"),
        (b'{"id": Infinity}', "malformed_json"),
        (b"{'id': 1}", "malformed_json"),
        (b"[1, 2]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"id": 1, "id": 2}', "duplicate_key"),
        (b'{"id": 1, "i\\u0064": 2}', "duplicate_key"),
        (b'{"id" : 1, "id"\t: 2}', "duplicate_key"),
        (b'{"id": 1, "s": "\\ud800"}', "malformed_json"),
        (b'{"id": 1, "s": "\xff"}', "invalid_utf8"),
        (b'{"id": 1, "o": {"a": "\xff"}}', "invalid_utf8"),
        (b'{"id": 9223372036854775808}', "integer_out_of_range"),
        (b'{"id": 1, "x": 1e999}', "number_out_of_range"),
        (b'{"id": "1"}', "type"),
        (b'{"id": true}', "type"),
        (b'{"id": 1.5}', "type"),
        (b'{"id": 1, "s": 5}', "type"),
        (b'{"id": 1, "s": {"a": 1}}', "type"),
        (b'{"id": null}', "type"),
        (b'{"id": 1, "x": null}', "type"),
        (b"{}", "required"),
        (b'{"id": 1, "any": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    ],
)
def test_a_bad_line_is_rejected_alone(place: Path, line: bytes, code: str) -> None:
    """It is named by record, line, byte and reason; its neighbours are stored."""
    place.write_bytes(b'{"id": 7}\n\n' + line + b'\n{"id": 8}\n')
    rows, rejects = read_all(place, SCHEMA)
    assert [row["id"] for row in rows] == [7, 8]
    (reject,) = rejects
    assert codes(rejects) == [code]
    assert (reject.record, reject.line, reject.byte_offset) == (1, 3, 11)
    assert reject.raw == line


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b'{"id": 1.0}', {"id": 1}),
        (b'{"id": 1, "x": 3}', {"id": 1, "x": 3.0}),
        (b'{"id": -9223372036854775808}', {"id": -(2**63)}),
        (b'{"id": 1, "s": ""}', {"id": 1, "s": ""}),
        (b'{"id": 1, "s": "007"}', {"id": 1, "s": "007"}),
        (b'{"id": 1, "s": "a\\u0000b"}', {"id": 1, "s": "a\0b"}),
        (b'{"id": 1, "s": "\\ud83d\\ude00"}', {"id": 1, "s": "\U0001f600"}),
        (b'{"id": 1, "s": "a\\": b\\": c"}', {"id": 1, "s": 'a": b": c'}),
        (b'{"id": 1, "s": null, "o": null}', {"id": 1}),
        (
            b'{"id": 1, "o": {"n": 0.12345678901234567890123, "n": 1.10}}',
            {"id": 1, "o": '{"n": 0.12345678901234567890123, "n": 1.10}'},
        ),
        (b'{"id": 1, "any": "text"}', {"id": 1, "any": '"text"'}),
        (b'{"id": 1, "new": [1, 2]}', {"id": 1, "_extra": '{"new":[1, 2]}'}),
        (b' {"id": 1}\t\r', {"id": 1}),
    ],
)
def test_what_is_kept_is_kept_without_loss(place: Path, line: bytes, row: dict[str, Any]) -> None:
    """Nested values keep their text, unknown keys go to `_extra`."""
    place.write_bytes(line)
    rows, rejects = read_all(place, SCHEMA)
    assert (rows, rejects) == ([row], [])


def test_a_byte_order_mark_is_no_part_of_the_first_record(place: Path) -> None:
    """The first line is read, and its place counts the mark."""
    place.write_bytes(b'\xef\xbb\xbf{"id": 1}\n{"id": "x"}\n')
    rows, rejects = read_all(place, SCHEMA)
    assert rows == [{"id": 1}]
    assert rejects[0].byte_offset == 13


def test_a_line_that_is_too_long_is_rejected_without_being_held(place: Path) -> None:
    """Its raw bytes are cut, its neighbours are stored."""
    place.write_bytes(b'{"id": 1}\n{"id": 2, "s": "' + b"x" * 300_000 + b'"}\n{"id": 3}\n')
    for max_bytes in (100, 1 << 20):
        rows, rejects = read_all(place, SCHEMA, max_record_bytes=1000, max_bytes=max_bytes)
        assert [row["id"] for row in rows] == [1, 3]
        assert codes(rejects) == ["record_too_long"]
        assert len(rejects[0].raw) <= 65536


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
records = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "x", "s", "o", "y"), values))
junk = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))
lines = st.lists(records.map(lambda record: json.dumps(record).encode()) | junk, max_size=12)


@tried(200)
@given(lines=lines, limit=st.integers(1, 4), max_bytes=st.integers(1, 60), end=st.booleans())
def test_chunks_of_any_size_give_the_same_rows(
    place: Path, lines: list[bytes], limit: int, max_bytes: int, end: bool
) -> None:
    """Chunked parse equals whole parse: rows, rejects and their places."""
    head = b'{"id": 0}'
    place.write_bytes(b"\n".join([head, *lines]) + b"\n" * end)
    whole = read_all(place, SCHEMA)
    assert read_all(place, SCHEMA, limit=limit, max_bytes=max_bytes) == whole


@tried(200)
@given(lines=st.lists(records, max_size=8))
def test_the_fast_way_agrees_with_the_validator(place: Path, lines: list[dict[str, Any]]) -> None:
    """A schema that is not compiled, and says the same, has the same verdicts and rows."""
    place.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in [{"id": 0}, *lines]))
    slow = {**SCHEMA, "minProperties": 0}
    fast_rows, fast_rejects = read_all(place, SCHEMA)
    slow_rows, slow_rejects = read_all(place, slow)
    assert fast_rows == slow_rows
    assert fast_rejects == slow_rejects


@tried(200)
@given(
    data=st.lists(
        st.sampled_from([b"\n", b"\n", b" ", b"\t", b"\r\n", b"{}", b"x", b"\xff"]), max_size=30
    ).map(b"".join),
    limit=st.integers(1, 4),
    block=st.integers(1, 9),
)
def test_blank_lines_are_no_records_at_any_size(
    place: Path, data: bytes, limit: int, block: int
) -> None:
    """Counted together or one by one, in blocks of any size: the lines that hold more than white space."""
    place.write_bytes(data)
    expected = sum(bool(line.strip(b" \t\r")) for line in data.split(b"\n"))
    with closing(TextFile(str(place))) as text, pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchimport.sources.bytes.file.BLOCK_BYTES", block)
        patch.setattr("batchimport.sources.text_lines.WORTH_POLARS_BYTES", 0)
        lines, at = Lines(text), Position()
        while chunk := lines.cut(at, limit, 1 << 20):
            at = chunk.end
        assert (at.position, at.record) == (len(data), expected)
        assert lines.count() == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_a_reject_says_where_it_stands(place: Path, head: bytes, end: bytes) -> None:
    """Its line and byte are those of the file, whatever the ends of lines, before and after a blank one."""
    lines = [b'{"id": 1}', b'{"id": "a"}', b"", b'{"id": "\xc3\xa9"}', b"x", b'{"id": 2}', b'{"id"']
    data = head + end.join(lines)
    place.write_bytes(data)
    _, rejects = read_all(place, SCHEMA)
    assert [reject.raw for reject in rejects] == [lines[at] for at in (1, 3, 4, 6)]
    for reject in rejects:
        assert data[reject.byte_offset :].startswith(reject.raw)
        assert data[: reject.byte_offset].count(b"\n") + 1 == reject.line
