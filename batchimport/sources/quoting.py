"""Where the records of delimited text begin and end, and what their fields are.

One rule for both: a record spans several lines only if all its quotes are in order (each opens
where a field begins, closes where one ends, and is doubled inside) and it is no longer than the
window; otherwise it is its first line. So a quote that is never closed costs one record, not the
rest of the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchimport.job import FieldError
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.codec import BLOCK_BYTES
from batchimport.sources.framing import Lines

if TYPE_CHECKING:
    from batchimport.sources.codec import TextFile

SEAM = b"\x01"
"""Stands for a quoted part when only what is outside of quotes is looked at."""

Cell = tuple[str, bool]
"""A field's text, and whether it was quoted."""


class QuotedLines(Lines):
    """Records of delimited text."""

    def __init__(
        self, text: TextFile, delimiter: str, quote: str, max_record_bytes: int = 16 * 1024 * 1024
    ) -> None:
        super().__init__(text, blank=b"\r")
        self._quote = quote.encode()
        self._window = max(max_record_bytes, BLOCK_BYTES)
        comma, mark = re.escape(delimiter.encode()), re.escape(self._quote)
        body = rb'"(?:[^"]++|"")*+"'.replace(b'"', mark or b"(?!)")
        bare = rb'[^",\n][^,\n]*+|' if mark else rb"[^,\n]++|"
        bare = bare.replace(b'"', mark).replace(b",", comma)
        after = rb"(?=,|\r?\n)".replace(b",", comma)
        field = b"(?:" + body + after + b"|" + bare + b")"
        last = b"(?:" + body + after[:-1] + rb"|\r?\Z)|" + bare + b")"
        fields, fields_at_end = field + b"(?:" + comma + field + b")*+", last
        fields_at_end += b"(?:" + comma + last + b")*+"
        self._record = re.compile(fields + b"\n")
        self._record_at_end = re.compile(fields_at_end + rb"(?:\n|\Z)")
        broken = rb'[^,\r\n"]|\r[^\n]'.replace(b'"', mark).replace(b",", comma)
        self._broken = re.compile(
            b"(?:" + field + comma + b")*+" + body + b"(?:" + broken + b")" if mark else b"(?!)"
        )
        self._before = (delimiter.encode() + SEAM, b"\n" + SEAM)
        self._after = (SEAM + delimiter.encode(), SEAM + b"\n", SEAM + b"\r\n")

    def split(self, data: bytes) -> list[bytes]:
        """Return the records of a chunk, blank ones included, each with its line end."""
        masked = self._mask(data, at_end=True)
        if masked is data:
            return _keep_ends(data)
        records, at = [], 0
        for line in _keep_ends(masked):
            records.append(data[at : at + len(line)])
            at += len(line)
        return records

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        if not self._quote or self._quote not in data:
            return data
        masked = self._mask_regular(data, at_end=at_end)
        if masked is None:
            return self._mask_slowly(data, at_end=at_end)
        too_wide = masked is not data and len(data) > self._window
        if too_wide and max(map(len, masked.split(b"\n"))) >= self._window:
            return self._mask_slowly(data, at_end=at_end)
        return masked

    def _mask_regular(self, data: bytes, *, at_end: bool) -> bytes | None:
        """Mask by parity, at the speed of `split`; None if some quote is out of order."""
        pieces = data.split(self._quote)
        is_open = len(pieces) % 2 == 0
        if (is_open and at_end) or SEAM in data or not self._is_regular(pieces, is_open=is_open):
            return None
        inside = self._quote.join(pieces[1::2])
        if b"\n" not in inside:
            return data
        pieces[1::2] = inside.replace(b"\n", b" ").split(self._quote)
        return self._quote.join(pieces)

    def _is_regular(self, pieces: list[bytes], *, is_open: bool) -> bool:
        """Say whether every quoted part begins and ends where a field does.

        Between two quotes that stand for one there is nothing outside.
        """
        first, *middle = pieces[::2]
        last = b"" if is_open else middle.pop()
        middle = list(filter(None, middle))
        outside = SEAM.join([first, *middle, last])
        parts = len(middle) + 1
        before = sum(map(outside.count, self._before)) + (not first)
        after = sum(map(outside.count, self._after)) + (not last)
        return before == after == parts

    def _mask_slowly(self, data: bytes, *, at_end: bool) -> bytes:
        """Mask record by record, by the rule as it is written."""
        masked = bytearray(data)
        at = 0
        while at < len(data):
            end = self._end(data, at, at_end=at_end)
            stop = len(data) if end is None else end - 1
            line_end = data.find(b"\n", at, stop)
            if line_end >= 0:
                masked[at:stop] = data[at:stop].replace(b"\n", b" ")
            if end is None:
                break
            at = end
        return bytes(masked)

    def _end(self, data: bytes, at: int, *, at_end: bool) -> int | None:
        """Return where the record at `at` ends; None if more data must be seen first."""
        stop = min(len(data), at + self._window)
        is_last = at_end and stop == len(data)
        found = (self._record_at_end if is_last else self._record).match(data, at, stop)
        if found:
            return found.end()
        is_full = is_last or stop < len(data) or self._broken.match(data, at, stop)
        if not is_full:
            return None
        return data.find(b"\n", at) + 1 or (len(data) if at_end else None)

    def _end_of_record(self, position: int) -> int:
        data = self._text.read_at(position, self._window)
        at_end = position + len(data) == self._text.size
        found = (self._record_at_end if at_end else self._record).match(data)
        return position + found.end() if found else self.end_of_line(position)

    def count(self) -> int:
        """Count the records of the whole file."""
        return self.count_from(0)

    def count_from(self, position: int) -> int:
        """Count the records from a position that begins one."""
        records = 0
        while position < self._text.size:
            raw, masked = self._whole_records(position, min(self._text.size, position + (1 << 25)))
            if raw:
                records += self._take(masked, len(masked) + 1)[1]
                position += len(raw)
            else:
                end = self._end_of_record(position)
                records += self._measure(position, end)[0]
                position = end
        return records


class FieldReader:
    """Fields of one record, with no doubt left about quotes."""

    def __init__(self, delimiter: str, quote: str) -> None:
        self._quote = quote
        comma, mark = re.escape(delimiter), re.escape(quote)
        quoted = f"{mark}((?:[^{mark}]++|{mark}{mark})*+){mark}(?={comma}|\\Z)|" if quote else ""
        bare = f"((?!{mark})[^{comma}]*+)" if quote else f"([^{comma}]*+)"
        self._field = re.compile(f"(?:{quoted}{bare})(?:{comma}|\\Z)", re.DOTALL)
        self._closed = re.compile(f"{mark}(?:[^{mark}]++|{mark}{mark})*+{mark}") if quote else None
        self._delimiter = delimiter

    def read(self, record: str) -> list[Cell]:
        """Return the fields of a record, which comes without its line end.

        Raises:
            UnreadableRecordError: If its quotes are out of order.
        """
        cells: list[Cell] = []
        at = 0
        while True:
            found = self._field.match(record, at)
            if found is None:
                raise self._out_of_order(record, at, len(cells) + 1)
            groups = found.groups()
            if len(groups) == 2 and groups[0] is not None:
                cells.append((groups[0].replace(self._quote * 2, self._quote), True))
            else:
                cells.append((groups[-1], False))
            at = found.end()
            if at == len(record) and not found[0].endswith(self._delimiter):
                return cells
            if at == len(record):
                cells.append(("", False))
                return cells

    def _out_of_order(self, record: str, at: int, number: int) -> UnreadableRecordError:
        closed = self._closed is not None and self._closed.match(record, at)
        if closed:
            code, message = "malformed_quote", "text follows the closing quote"
        else:
            code, message = "unclosed_quote", "a quote is opened and not closed"
        error = FieldError(code, "", f"field {number}: {message}", record[at : at + 80])
        return UnreadableRecordError(error)


def _keep_ends(data: bytes) -> list[bytes]:
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    if not parts[-1]:
        parts.pop()
    return parts
