"""A mistake in cutting that loses a record is noticed at the end of the job, whatever the format."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter

from batchimport.importer import import_file
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.model import INDEX, Job, SourceOptions
from batchimport.sources.csv.records import QuotedLines
from batchimport.sources.json.elements import Elements
from batchimport.sources.opening import open_source
from batchimport.sources.parquet.source import ParquetSource
from batchimport.sources.text_lines import Lines
from batchimport.state.directory import StateDirectory
from tests.helpers import toy_source
from tests.helpers.breaks import lose_a_line
from tests.helpers.toy_source import BoxSource, write_boxes

RECORDS = [{"id": at, "name": f"name, {at}"} for at in range(50)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
Break = Callable[[pytest.MonkeyPatch], None]


def _lose_a_line(patch: pytest.MonkeyPatch) -> None:
    lose_a_line(patch.setattr)


def _join_two_records(patch: pytest.MonkeyPatch) -> None:
    """Overlook the end of a record in the middle of the file."""
    mask = QuotedLines._mask

    def mask_more(self: QuotedLines, data: bytes, *, at_end: bool) -> bytes:
        masked = bytearray(mask(self, data, at_end=at_end))
        if (end := data.find(b"\n9,")) >= 0:
            masked[end : end + 1] = b" "
        return bytes(masked)

    patch.setattr(QuotedLines, "_mask", mask_more)


def _lose_an_element(patch: pytest.MonkeyPatch) -> None:
    """Leave out the second element of a piece of text."""
    spans = Elements.spans

    def fewer(self: Elements, *arguments: Any, **more: Any) -> Any:
        found = spans(self, *arguments, **more)
        del found.starts[1:2], found.ends[1:2]
        return found

    patch.setattr(Elements, "spans", fewer)


def _lose_a_row(patch: pytest.MonkeyPatch) -> None:
    """Cut and read as if the first row of a chunk were not there."""
    cut, read = ParquetSource.cut, ParquetSource.read

    def cut_less(self: ParquetSource, *arguments: Any) -> Any:
        chunk = cut(self, *arguments)
        return chunk and replace(chunk, end=replace(chunk.end, record=chunk.end.record - 1))

    def read_less(self: ParquetSource, *arguments: Any) -> Any:
        batch = read(self, *arguments)
        rows = batch.frame.slice(1).with_columns(pl.col(INDEX) - 1)
        return replace(batch, frame=rows)

    patch.setattr(ParquetSource, "cut", cut_less)
    patch.setattr(ParquetSource, "read", read_less)


def _lose_a_box(patch: pytest.MonkeyPatch) -> None:
    """Take two boxes for one, in cutting and in reading."""
    cut, starts = BoxSource.cut, toy_source._starts

    def cut_less(self: BoxSource, *arguments: Any) -> Any:
        chunk = cut(self, *arguments)
        return chunk and replace(chunk, end=replace(chunk.end, record=chunk.end.record - 1))

    patch.setattr(BoxSource, "cut", cut_less)
    patch.setattr(toy_source, "_starts", lambda data, at: starts(data, at)[:-1])


def _excel(folder: Path) -> Path:
    book = xlsxwriter.Workbook(folder / "a.xlsx")
    sheet = book.add_worksheet()
    for at, row in enumerate([("id", "name"), *((at, f"name {at}") for at in range(50))]):
        sheet.write_row(at, 0, row)
    book.close()
    return folder / "a.xlsx"


def _boxes(folder: Path) -> Path:
    (folder / "a.box").write_bytes(write_boxes([json.dumps(each).encode() for each in RECORDS]))
    return folder / "a.box"


def _csv(*, quote: str) -> bytes:
    rows = [f"{at},{quote}name {at}{quote}" for at in range(50)]
    return "\n".join(["id,name", *rows, ""]).encode()


def _text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def _parquet(folder: Path) -> Path:
    pl.DataFrame(RECORDS).write_parquet(folder / "a.parquet", row_group_size=10)
    return folder / "a.parquet"


CASES: dict[str, tuple[Callable[[Path], Path], Break]] = {
    "jsonl": (_text("a.jsonl", LINES), _lose_a_line),
    "jsonl, compressed": (_text("a.jsonl.gz", gzip.compress(LINES.encode())), _lose_a_line),
    "csv": (_text("a.csv", _csv(quote="")), _join_two_records),
    "csv in quotes": (_text("a.csv", _csv(quote='"')), _join_two_records),
    "csv over lines": (
        _text("a.csv", _csv(quote='"').replace(b"name ", b"name\n")),
        _join_two_records,
    ),
    "csv, utf-16": (_text("a.csv", _csv(quote='"').decode().encode("utf-16")), _join_two_records),
    "json array": (_text("a.json", json.dumps(RECORDS)), _lose_an_element),
    "json array, pretty": (_text("a.json", json.dumps(RECORDS, indent=2)), _lose_an_element),
    "json values": (
        _text("a.json", "\n".join(json.dumps(record, indent=1) for record in RECORDS)),
        _lose_an_element,
    ),
    "parquet": (_parquet, _lose_a_row),
    "excel": (_excel, _join_two_records),
    "box": (_boxes, _lose_a_box),
}


def run(path: Path) -> Outcome:
    """Import a file in this process."""
    job = Job((str(path),), f"sqlite:///{path.parent}/t.db", "t")
    return import_file(
        Request(job, state=StateDirectory(path.parent / "state"), handle_signals=False)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_lost_record_ends_with_exit_7(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbroken, the same file is completed."""
    make, break_cutting = CASES[case]
    (tmp_path / "whole").mkdir()
    outcome = run(make(tmp_path / "whole"))
    assert (outcome.exit_code, outcome.summary.successful) == (0, 50), outcome.error
    (tmp_path / "broken").mkdir()
    break_cutting(monkeypatch)
    outcome = run(make(tmp_path / "broken"))
    assert outcome.exit_code == 7, outcome
    assert "the source has 50 records" in str(outcome.error)


@pytest.mark.parametrize("case", CASES)
def test_regular_files_are_counted_without_cutting(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no mistake in cutting can be repeated by the count."""
    make, _ = CASES[case]
    source = open_source([str(make(tmp_path))], SourceOptions())
    monkeypatch.setattr(Lines, "_whole_records", None)
    monkeypatch.setattr(Elements, "cut", None)
    monkeypatch.setattr(ParquetSource, "cut", None)
    monkeypatch.setattr(BoxSource, "cut", None)
    assert source.count() == 50
    source.close()
