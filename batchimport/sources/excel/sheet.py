"""A sheet of a workbook as delimited text: a line for each row, blank if the row is empty.

Text is in quotes, and all else is not: so the text says which type a cell has in the workbook. A workbook
cannot be read from the middle, so this is done once, as a compressed file is unpacked once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from batchimport.policy.preparing import announce, metered
from batchimport.schema.numbers import EXACT_IN_FLOAT
from batchimport.sources.bytes.unpack import UnpackedFile
from batchimport.sources.csv.header import (
    LEAST_ROWS,
    LONGEST_PREAMBLE,
    Header,
    Record,
    find_header,
    join_names,
    notes_about,
)
from batchimport.sources.excel.workbook import Workbook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchimport.model import SourceOptions
    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.csv.grammar import Cell

ROWS_TO_LOOK_AT = 300
PIECE_BYTES = 1024 * 1024
_LINE_END = re.compile(r"\r\n?|\n")


class SheetText(UnpackedFile):
    """The text of a sheet, and what it does not say.

    The fingerprint is that of the text. So if another version of the library reads a workbook in another
    way, an unfinished job is refused, and does not go on in the middle of another text.

    Attributes:
        sheet: Its name.
        table: Where its names and columns are.
    """

    def __init__(self, file: TextFile, options: SourceOptions, folder: Path | None) -> None:
        announce(f"reading {file.path.rpartition('/')[2]}", 0, file.size)
        with closing(Workbook(file, options.sheet)) as workbook:
            self.sheet, self.table = workbook.sheet, Table(workbook, options)
            self._after, self._surplus = [0], [0]
            pieces = metered(self._pieces(), f"reading sheet {self.sheet}")
            super().__init__(file, pieces, (*workbook.notes, *self.table.notes), folder)
        self.fingerprint = self.content

    def _pieces(self) -> Iterator[bytes]:
        """Yield the text, and remember where its lines part from the rows: a cell may have several."""
        lines: list[str] = []
        size, surplus = 0, 0
        for row, line in enumerate(self.table.lines(), start=1):
            lines.append(line)
            size += len(line)
            if "\n" in line or "\r" in line:
                surplus += len(_LINE_END.findall(line))
                self._after.append(row + 1 + surplus)
                self._surplus.append(surplus)
            if size > PIECE_BYTES:
                yield _joined(lines)
                lines, size = [], 0
        yield _joined(lines)

    def row_of(self, line: int) -> int:
        """Return the row, from 1, that begins at a line of the text."""
        return line - self._surplus[bisect_right(self._after, line) - 1]


def _joined(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


class Table:
    """The table in a sheet.

    Attributes:
        header: Where the names are; the text has them in one line.
        preamble: Number of rows before that line, apart from those that `--skip-lines` skips.
        notes: What was found, for the user.
        width: Number of columns.
    """

    def __init__(self, workbook: Workbook, options: SourceOptions) -> None:
        self._rows = workbook.rows
        self._nulls = _nulls(options)
        self._skipped = options.skip_lines or 0
        records = self._head()
        at, self.header = self._find_header(records, options)
        is_blank = not any(record.size for record in records[:at])
        preamble = 0 if options.skip_lines is not None or is_blank else at
        is_found = options.header and not options.has_header
        self.notes = notes_about(self.header, preamble, is_found=is_found)
        self._first = self._skipped + at + self.header.records
        self.preamble = at + max(0, self.header.records - 1)
        self._names = self._read_names(self._skipped + at)
        types = self._types()
        self._columns = [
            at for at, known in enumerate(types) if known or any(self._names[at : at + 1])
        ]
        self._with_time = frozenset(at for at in self._columns if datetime in types[at])
        self.width = len(self._columns)

    @staticmethod
    def _find_header(records: Sequence[Record], options: SourceOptions) -> tuple[int, Header]:
        """Return which of the rows that are not skipped is the first one of the table, and its header."""
        first = next((at for at, record in enumerate(records) if record.size), 0)
        if not any(record.size for record in records):
            return 0, Header(Record((), 0, 0), records=0)
        if not options.header:
            return first, Header(records[first], records=0)
        width = max(len(record.cells) for record in records)
        above = _rows_above(records, width)
        header = find_header(records[above:], width, is_certain=options.has_header)
        header = replace(header, preamble=header.preamble + above)
        if header.preamble and options.skip_lines is not None:
            return first, Header(records[first])
        return next(at for at, record in enumerate(records) if record is header.first), header

    def _head(self) -> list[Record]:
        """Return the first rows, without the columns that hardly one of them fills.

        A row above the table that fills half of it or less, such as a title, ends with its last cell.
        """
        rows = [
            [self._text(value) for value in row]
            for row in islice(self._rows(), self._skipped, self._skipped + ROWS_TO_LOOK_AT)
        ]
        filled = [sum(map(bool, column)) for column in zip(*rows, strict=True)]
        least = 1 if sum(map(any, rows)) < 4 else 2
        columns = [at for at, count in enumerate(filled) if count >= least]
        records, is_above = [], True
        for row in rows:
            texts = [row[at] for at in columns]
            is_above = is_above and 2 * sum(map(bool, texts)) <= len(columns)
            while is_above and texts and not texts[-1]:
                texts.pop()
            size = sum(map(len, texts)) if any(texts) else 0
            records.append(Record([_cell(text) for text in texts] if size else (), size, 1))
        return records

    def _read_names(self, at: int) -> list[str]:
        """Return the names in the rows of the header, one for each column of the sheet."""
        rows = [
            [" ".join(_cell(self._text(value))[0].split()) for value in row]
            for row in islice(self._rows(), at, at + self.header.records)
        ]
        return join_names(*rows) if len(rows) == 2 else [name for row in rows for name in row]

    def _types(self) -> list[set[type]]:
        """Return of which types the values are, below the header, by column."""
        types: list[set[type]] = []
        for row in islice(self._rows(), self._first, None):
            types = types or [set() for _ in row]
            for known, value in zip(types, row, strict=True):
                if value != "":
                    known.add(value.__class__)
        return types or [set() for _ in self._names]

    def lines(self) -> Iterator[str]:
        """Yield a line of text for each row of the sheet."""
        columns, with_time, text = self._columns, self._with_time, self._text
        for at, row in enumerate(self._rows()):
            if at >= self._first:
                cells = [text(row[column], with_time=column in with_time) for column in columns]
                yield ",".join(cells) if any(cells) else ""
            elif at == self._first - 1 and self.header.records:
                yield ",".join(self._quoted(self._names[column]) for column in columns)
            else:
                yield ""

    def _text(self, value: Any, *, with_time: bool = False) -> str:
        """Return a cell of text; dates have a time in columns where others have."""
        if value.__class__ is str:
            return "" if not value or value in self._nulls else self._quoted(value)
        if value.__class__ is float or value.__class__ is int:
            number = number_text(value)
            return "" if number in self._nulls else number
        if value.__class__ is bool:
            return "TRUE" if value else "FALSE"
        if isinstance(value, timedelta):
            return _duration(value)
        if isinstance(value, date) and not isinstance(value, datetime) and with_time:
            value = datetime.combine(value, time())
        return str(value.isoformat())

    @staticmethod
    def _quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'


def _rows_above(records: Sequence[Record], width: int) -> int:
    """Return how many rows are above the names, where a title is, and other facts may be below it.

    A fact is one cell, or two of which one is no text or ends with a colon. The names are texts, one for
    each column. Anything else is left to the rules for all delimited text.
    """
    titled = False
    for at, record in enumerate(records[:LONGEST_PREAMBLE]):
        filled = [(text, is_text) for text, is_text in record.cells if text.strip()]
        if titled and len(filled) == width > 2 and all(is_text for _, is_text in filled):
            names = {text.strip() for text, _ in filled}
            return at if len(names) == width and len(records) > at + LEAST_ROWS else 0
        is_title = len(filled) == 1
        if (
            filled
            and not is_title
            and not (titled and len(filled) == 2 < width and _is_fact(filled))
        ):
            return 0
        titled = titled or is_title
    return 0


def _is_fact(cells: Sequence[Cell]) -> bool:
    (label, label_is_text), (_, is_text) = cells
    return label_is_text and (not is_text or label.rstrip().endswith(":"))


def _nulls(options: SourceOptions) -> frozenset[str]:
    """Return the cells that mean null, besides empty ones."""
    given = options.null_string or ()
    return frozenset([given] if isinstance(given, str) else given)


def _cell(text: str) -> tuple[str, bool]:
    """Return a cell of the text as a reader of the text would."""
    quoted = text.startswith('"')
    return (text[1:-1].replace('""', '"') if quoted else text), quoted


def number_text(value: float) -> str:
    """Return a number as it stands in the sheet: whole ones without a fraction."""
    if abs(value) <= EXACT_IN_FLOAT and value == int(value):
        return str(int(value))
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")  # a decimal also by itself


def _duration(value: timedelta) -> str:
    """Return hours, minutes and seconds, as `[h]:mm:ss` shows them."""
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    minutes, seconds = divmod(value.days * 86_400 + value.seconds, 60)
    fraction = f".{value.microseconds:06}" if value.microseconds else ""
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{seconds:02}{fraction}"
