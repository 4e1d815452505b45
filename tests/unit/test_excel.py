"""Sheets of workbooks: cells as they stand, the table found, rejects by sheet and row."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from batchimport import import_file, replay
from batchimport.errors import UsageError
from batchimport.model import SourceOptions
from batchimport.sources.excel import workbook
from batchimport.sources.opening import open_source

FORMATS = {
    datetime: "yyyy-mm-dd hh:mm:ss",
    date: "dd.mm.yyyy",
    time: "hh:mm",
    timedelta: "[h]:mm",
}


NAIVE = datetime(2024, 2, 1, 3, 4, 5)  # noqa: DTZ001 - a workbook knows no zone


def book(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    """Write a workbook; a cell of "=…" is a formula with its value behind a `|`, None an empty one."""
    made = xlsxwriter.Workbook(path)
    formats = {kind: made.add_format({"num_format": text}) for kind, text in FORMATS.items()}
    for name, rows in sheets.items():
        sheet = made.add_worksheet(name)
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                if type(value) in FORMATS:
                    sheet.write_datetime(y, x, value, formats[type(value)])
                elif isinstance(value, str) and value.startswith("="):
                    formula, _, result = value.partition("|")
                    sheet.write_formula(
                        y, x, formula, None, int(result) if result.isdecimal() else result
                    )
                elif isinstance(value, str):
                    sheet.write_string(y, x, value)
                elif value is not None:
                    sheet.write(y, x, value)
    made.close()
    return path


def table_of(path: Path, **options: Any) -> tuple[list[str], list[tuple[Any, ...]], str]:
    """Return names, records without types, and notes."""
    source = open_source([str(path)], SourceOptions(**options))
    try:
        empty, *records = source.sample(None)
        assert source.count() == len(records)
        return list(empty), [tuple(record.values()) for record in records], "; ".join(source.notes)
    finally:
        source.close()


def test_cells_keep_their_values_and_types(tmp_path: Path) -> None:
    """Whole numbers have no fraction, text that looks like a number is text, an error is missing."""
    path = book(
        tmp_path / "a.xlsx",
        S=[
            ["id", "price", "zip", "code", "ok", "day", "at", "clock", "took", "sum", "bad", "mixed", "none"],
            [1, 2.5, "01234", "12", True, date(2024, 2, 1), NAIVE, time(9, 30), timedelta(hours=30, minutes=5), "=A2+1|2", 7, 5, None],
            [2, 3, "99999", "1.10", False, date(2024, 2, 2), date(2024, 2, 2), time(9), timedelta(minutes=1), "=A3+1|3", "=NA()|#N/A", "x", None],
            [3, 1e-7, "5", "NA", None, None, None, None, None, None, 9.5, True, None],
        ],
    )  # fmt: skip
    import_file(path, to=f"sqlite:///{tmp_path / 'a.db'}", state_dir=tmp_path, progress="none")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        rows = database.execute("SELECT * FROM a").fetchall()
        kinds = [row[2] for row in database.execute("PRAGMA table_info(a)")]
    assert rows == [
        (1, 2.5, "01234", "12", 1, "2024-02-01", "2024-02-01T03:04:05", "09:30:00", "30:05:00", 2, 7.0, "5", None),
        (2, 3.0, "99999", "1.10", 0, "2024-02-02", "2024-02-02T00:00:00", "09:00:00", "0:01:00", 3, None, "x", None),
        (3, 1e-7, "5", "NA", None, None, None, None, None, None, 9.5, "TRUE", None),
    ]  # fmt: skip
    assert kinds[:5] == ["INTEGER", "REAL", "TEXT", "TEXT", "INTEGER"]
    assert table_of(path)[2] == "cells with an error, such as #N/A, are read as empty ones: 1"


ROWS = [[1, "a", 2.5], [2, "b", 3.5], [3, "c", 4.5]]
TEXTS = [("1", "a", "2.5"), ("2", "b", "3.5"), ("3", "c", "4.5")]
NAMES = ["id", "name", "price"]


@pytest.mark.parametrize(
    ("rows", "options", "names", "records"),
    [
        ([NAMES, *ROWS], {}, NAMES, TEXTS),
        ([["Report"], [], NAMES, *ROWS], {}, NAMES, TEXTS),
        ([["Report"], ["as of", date(2024, 1, 1)], ["By:", "me"], NAMES, *ROWS], {}, NAMES, TEXTS),
        ([[], [None, None, *NAMES], *([None, None, *row] for row in ROWS)], {}, NAMES, TEXTS),
        ([NAMES, ROWS[0], [], [], *ROWS[1:], []], {}, NAMES, TEXTS),
        ([["id", None, "name", "price"], *([a, None, b, c] for a, b, c in ROWS)], {}, NAMES, TEXTS),
        ([["id\n", " name", "price "], *ROWS], {}, NAMES, TEXTS),
        ([[1, 2.5], [2, 3.5], [3, 4.5]], {}, ["column_1", "column_2"], [("1", "2.5"), ("2", "3.5"), ("3", "4.5")]),
        ([["x", "y", "z"], NAMES, *ROWS], {"skip_lines": 1}, NAMES, TEXTS),
        ([NAMES, *ROWS], {"header": False}, ["column_1", "column_2", "column_3"], [tuple(NAMES), *TEXTS]),
        ([["id", 2023, 2024], [1, 5, 6], [2, 7, 8]], {}, ["id", "2023", "2024"], [("1", "5", "6"), ("2", "7", "8")]),
        ([["mail"], ["a"], [], ["b"]], {}, ["mail"], [("a",), ("b",)]),
        ([["n"], [1], ["-"], [0]], {"null_string": ("-", "0")}, ["n"], [("1",)]),
        ([], {}, [], []),
    ],
)  # fmt: skip
def test_the_table_is_found(
    tmp_path: Path,
    rows: list[list[Any]],
    options: dict[str, Any],
    names: list[str],
    records: list[tuple[str, ...]],
) -> None:
    """Titles above it, empty rows and columns are no part of it."""
    found = table_of(book(tmp_path / "a.xlsx", S=rows), **options)
    assert (found[0], found[1]) == (names, records)


def test_the_sheet_is_chosen(tmp_path: Path) -> None:
    """The first visible one unless it is named, by name or number; the others are said."""
    path = book(tmp_path / "a.xlsx", One=[["a"], [1]], Two=[["b"], [2]], **{"7": [["c"], [3]]})
    found = table_of(path)
    assert (found[0], found[2]) == (["a"], "sheet: One (others: Two, 7; see --sheet)")
    for wanted, name in (("Two", "b"), ("two", "b"), ("2", "b"), ("7", "c")):
        names, _, notes = table_of(path, sheet=wanted)
        assert (names, notes) == ([name], "")
    with pytest.raises(UsageError, match="has no sheet Tow") as refused:
        table_of(path, sheet="Tow")
    assert refused.value.hint == "did you mean Two?"
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="only excel has this option"):
        table_of(tmp_path / "a.csv", sheet="One")


def test_rejects_name_sheet_and_row_and_are_replayed(tmp_path: Path) -> None:
    """Line ends in cells move nothing; an edited row passes, in a job of two workbooks."""
    rows = [["Title"], NAMES, [1, "two\nlines", 2], [None], ["x", "a\r\nb\n", 3], [3, "c", 4]]
    first = book(tmp_path / "a.xlsx", Data=rows)
    second = book(tmp_path / "b.xlsx", More=[NAMES, ["y", "b", 3.5], [5, "e", 4]])
    options: dict[str, Any] = {"to": f"sqlite:///{tmp_path / 'a.db'}", "state_dir": tmp_path}
    shaped = {"type": ["id=integer"], "add_column": ["row=line"], "progress": "none"}
    job = import_file([first, second], **options, **shaped)
    rejects = [json.loads(line) for line in Path(job.rejects_file).read_text().splitlines()]
    assert [(each["source"], each["line"]) for each in rejects] == [
        ("a.xlsx!Data", 5),
        ("b.xlsx!More", 2),
    ]
    assert rejects[0]["raw"] == '"x","a\r\nb\n",3'
    edited = tmp_path / "edited.jsonl"
    rejects[0]["raw"], rejects[1]["raw"] = '2,"b",3', '4,"d",3'
    edited.write_text("".join(json.dumps(each) + "\n" for each in rejects))
    replay(job.job_id, from_=edited, state_dir=tmp_path)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        found = database.execute('SELECT id, name, "row" FROM a ORDER BY id').fetchall()
    assert [row[0] for row in found] == [1, 2, 3, 4, 5]
    assert [row for row in found if row[0] in (1, 3)] == [(1, "two\nlines", 3), (3, "c", 6)]


def test_the_same_rows_in_another_workbook_are_known(tmp_path: Path) -> None:
    """The content of a sheet is its cells, not the bytes of the file."""
    one = book(tmp_path / "a.xlsx", S=[NAMES, *ROWS])
    other = book(tmp_path / "b.xlsx", Other=[NAMES, *ROWS], More=[["x"]])
    contents = []
    for path in (one, other):
        source = open_source([str(path)], SourceOptions())
        contents.append((source.contents, source.fingerprint))
        source.close()
    assert contents[0] == contents[1]


def test_a_cell_far_away_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would take 17 thousand million cells; empty ones that only have a style are none.

    If nobody sees it coming, only the process that reads the workbook ends.
    """
    path = tmp_path / "a.xlsx"
    for far in ("x", None):
        made = xlsxwriter.Workbook(path)
        sheet = made.add_worksheet("S & T")
        sheet.write_row(0, 0, ["id"])
        sheet.write_row(1, 0, [1])
        sheet.write(1_048_575, 16_383, far, made.add_format({"bold": True}))
        made.close()
        if far:
            with pytest.raises(UsageError, match="sheet S & T has 1,048,576 rows and 16,384"):
                table_of(path)
            with monkeypatch.context() as patch:
                patch.setattr(workbook, "look_at_sheet", lambda *_: None)
                with pytest.raises(UsageError, match="the process that reads it ended"):
                    table_of(path)
    assert table_of(path)[1] == [("1",)]


def swapped(package: bytes, one: bytes, other: bytes) -> bytes:
    """Return a workbook with something else in its XML."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as read, zipfile.ZipFile(made, "w") as written:
        for name in read.namelist():
            written.writestr(name, read.read(name).replace(one, other))
    return made.getvalue()


def test_what_is_no_workbook_is_said(tmp_path: Path) -> None:
    """Damaged, encrypted, text, another office document: words, and no traceback."""
    whole = book(tmp_path / "a.xlsx", S=[NAMES, *ROWS]).read_bytes()
    document = io.BytesIO()
    with zipfile.ZipFile(document, "w") as made:
        made.writestr("[Content_Types].xml", "<x/>")
        made.writestr("word/document.xml", "<x/>")
    encrypted = b"\xd0\xcf\x11\xe0" + bytes(2000) + "EncryptedPackage".encode("utf-16-le")
    for name, content, said in (
        ("cut.xlsx", whole[: len(whole) // 2], "not a readable workbook"),
        ("odd.xlsx", b"PK\x03\x04" + bytes(500), "not a readable workbook"),
        ("old.xls", b"\xd0\xcf\x11\xe0" + bytes(5000), "not a readable workbook"),
        (
            "abort.xlsx",
            swapped(whole, b'r="A3"', b'r="A99999999997"'),
            "is not a readable workbook|GB",
        ),
        ("locked.xlsx", encrypted, "is encrypted"),
        ("page.xls", b"<html></html>", "is not a workbook"),
        ("a.docx", document.getvalue(), "is an Office document"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            table_of(path)
    member = tmp_path / "a.zip"
    with zipfile.ZipFile(member, "w") as made:
        made.writestr("in/book.xlsx", whole)
    assert table_of(member)[0] == NAMES
