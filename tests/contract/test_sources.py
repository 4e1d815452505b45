"""One suite that every source passes: any chunks give what the whole gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter

from batchimport.errors import SourceChangedError, UsageError
from batchimport.model import Position, SourceOptions
from batchimport.sources.many import OPEN_FILES
from batchimport.sources.opening import open_source
from batchimport.testing.sources import RECORDS, SOURCE_CHECKS, SourceCase
from tests.helpers.toy_source import write_boxes


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


def _excel(folder: Path) -> list[Path]:
    """A title above, empty rows between, line ends in cells."""
    book = xlsxwriter.Workbook(folder / "a.xlsx")
    sheet = book.add_worksheet("Data")
    sheet.write_string(0, 1, "A title")
    sheet.write_row(2, 1, ["data", "name", "id"])
    for at, record in enumerate(RECORDS):
        data = json.dumps(record["data"], indent=at % 2 or None)
        sheet.write_row(3 + at + at // 9, 1, [data, record["name"], record["id"]])
    book.close()
    return [folder / "a.xlsx"]


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


MAKERS: dict[str, Callable[[Path], list[Path]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "array": _array,
    "pretty array": _pretty_array,
    "values": _values,
    "parquet": _parquet,
    "excel": _excel,
    "many": _many,
    "box": _box,
}
"""To prove a new source: one line here. `box` is the one that docs/adding.md makes."""


@pytest.fixture(params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceCase]:
    """Every kind of source, with the same records."""
    paths = MAKERS[request.param](tmp_path)
    case = SourceCase(paths)
    yield case
    case.source.close()


@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case: SourceCase, check: Callable[[SourceCase], None]) -> None:
    """What any source must guarantee, also one of another package."""
    check(case)


def test_a_file_that_changed_while_it_was_not_held_open_is_refused(tmp_path: Path) -> None:
    """More files than are held open: the descriptor is closed meanwhile, what is known of the file is not."""
    paths = [_write(tmp_path, f"{at:03}.jsonl", b'{"id": 1}\n') for at in range(2 * OPEN_FILES)]
    source = open_source([str(path) for path in paths], SourceOptions())
    assert source.count() == len(paths)
    paths[0].write_bytes(b'{"id": 2}\n')
    with pytest.raises(SourceChangedError, match="while the job ran"):
        source.cut(Position(), 1, 1000)
    paths[1].unlink()
    with pytest.raises(UsageError, match="no such file"):
        source.cut(Position(10, 1), 1, 1000)
    source.close()
