"""Any bytes as a source: the same records at every chunk size, each with one outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchimport.errors import BatchImportError
from tests.helpers.reading import read_all

PIECES = {
    "jsonl": [
        b'{"id": 1, "text": "a"}', b'{"id": "x"}', b'{"text": "\\ud800"}', b'{"id": 1e999}', b"[]",
        b"{", b"}", b'"', b"\\", b"\n", b"\n", b"\r\n", b"\r", b" ", b"\t", b"\xff", b"\xc3", b"\0",
        b"\xef\xbb\xbf", b"null", b'{"id": 1, "id": 2}', b'{"a": {"b": [1.10, {}]}}', b",", b"x" * 70,
    ],
    "csv": [
        b"id,text\n", b"1,a\n", b"2", b",", b";", b"\t", b'"', b'""', b'"a,b"', b'"a\nb"', b"\n",
        b"\n", b"\r\n", b"\r", b" ", b"\\", b"\xff", b"\xc3", b"\0", b"\xef\xbb\xbf", b"'", b"#",
        b"x" * 70, b"x^", b"\x1f\x8b\x08", b";;", b"\x01", b"\\N", b"\\.\n", b"\\t", b"\n# c\n",
        b"1.234,5", b"31.12.2023", b",,",
    ],
}  # fmt: skip
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "jsonl": [
        {}, {}, {"flatten": True}, {"rename": ("text=name", "x=text")},
        {"types": ("id=string", "text=date-time")}, {"columns": ("text", "id"), "flatten": True},
    ],
    "csv": [
        {}, {}, {}, {"comment": "#"}, {"ragged": "pad"}, {"ragged": "pad", "comment": "#"},
        {"delimiter": ";;"}, {"delimiter": ";;", "quote": "", "ragged": "pad"},
        {"delimiter": "\\x01"}, {"decimal": ","}, {"thousands": "."}, {"format": "copy"},
        {"format": "copy", "delimiter": ",", "has_header": True, "ragged": "pad"},
        {"date_formats": ("%d.%m.%Y",), "rename": ("id=text", "text=id")}, {"null_string": ("", "a")},
        {"columns": ("text",), "comment": "id", "null_string": "1"},
    ],
}  # fmt: skip
SCHEMA = {"properties": {"id": {"type": "integer"}, "text": {"type": "string"}}}
SLICES = ((1, 1 << 20), (2, 1 << 20), (3, 1 << 20), (7, 1 << 20), (1000, 40), (1000, 1))
"""Records a chunk, bytes a chunk."""

Outcome = tuple[list[dict[str, Any]], list[tuple[int, bytes, str]]] | str


def outcome(path: Path, limit: int, max_bytes: int, options: dict[str, Any]) -> Outcome:
    """Return rows and rejects, or why the file is none."""
    try:
        rows, rejects = read_all(
            path, SCHEMA, limit=limit, max_bytes=max_bytes, max_record_bytes=60, **options
        )
    except BatchImportError as error:
        return error.message
    return rows, [(each.record, each.raw, each.stage) for each in rejects]


def check(path: Path, data: bytes, options: dict[str, Any]) -> None:
    path.write_bytes(data)
    whole = outcome(path, 1000, 1 << 20, options)
    for limit, max_bytes in SLICES:
        assert outcome(path, limit, max_bytes, options) == whole


def fuzz(suffix: str, examples: int, path: Path) -> Callable[[], None]:
    """Return a test of so many files made of pieces."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.sampled_from(PIECES[suffix]) | st.binary(max_size=3), max_size=24),
        st.sampled_from(OPTIONS[suffix]),
    )
    def test(pieces: list[bytes], options: dict[str, Any]) -> None:
        check(path, b"".join(pieces), options)

    return test


@pytest.mark.parametrize(
    ("suffix", "data", "records"),
    [
        ("jsonl", b'\xef\xbb\xbf\n\n{"id": 1}', 1),
        ("jsonl", b"\xef\xbb\xbf", 0),
        ("csv", b"id,text\n\n" + b"x" * 70, 1),
        ("csv", b"id,text\n" + b"\n" * 70 + b"1,a\n" + b"\n" * 70, 1),
        ("csv", b"#" + b"x" * 70 + b"\nid,text\n1,a\n", 1),
        ("csv", b"id,text\n#" + b"x" * 70 + b"\n1,a\n2,b\n", 2),
        ("csv", b"id,text\n\x1f\x8bid,text\n1,a\n", 2),
    ],
)
def test_bytes_that_once_were_wrong(tmp_path: Path, suffix: str, data: bytes, records: int) -> None:
    """A blank line after a byte order mark, blank lines about a record, comments, what looks compressed."""
    path = tmp_path / f"u.{suffix}"
    options = {"comment": "#"} if b"#" in data else {}
    check(path, data, options)
    found = outcome(path, 1000, 1 << 20, options)
    assert not isinstance(found, str)
    assert len(found[0]) + len(found[1]) == records


@pytest.mark.parametrize("suffix", PIECES)
def test_any_bytes(tmp_path: Path, suffix: str) -> None:
    """A fixed budget."""
    fuzz(suffix, 50, tmp_path / f"u.{suffix}")()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suffix", PIECES)
def test_any_bytes_for_long(tmp_path: Path, suffix: str) -> None:
    """A larger one."""
    fuzz(suffix, 20_000, tmp_path / f"u.{suffix}")()
