"""Where the records of delimited text begin and end, and what their fields are.

One rule for both: a record spans several lines only if all its quotes are in order (each opens
where a field begins, closes where one ends, and is doubled or escaped inside) and it is no longer
than the window; otherwise it is its first line. So a quote that is never closed costs one record,
not the rest of the file. A line ends with LF, CRLF or CR, whichever comes, outside of quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import polars as pl

from batchimport.model import FieldError
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.bytes.file import BLOCK_BYTES
from batchimport.sources.text_lines import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.sources.bytes.file import Text

LINE_END = b"\r\n"
"""The bytes of which line ends are made."""

WORTH_POLARS_BYTES = 64 * 1024
"""Less is looked at faster without Polars."""

Cell = tuple[str, bool]
"""A field's text, and whether it was quoted."""

_LONE_CR = re.compile(rb"\r(?=[^\n])")
_LONE_CR_AT_END = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that give delimited text its form.

    Attributes:
        quote: Empty if there are no quotes.
        escape: Makes a quote, a delimiter or itself plain text; empty if there is none, and quotes
            are doubled only.
        padded: Spaces around a field are no part of it, and a quote may follow them.
    """

    delimiter: str
    quote: str = '"'
    escape: str = ""
    padded: bool = False

    @property
    def are_plain(self) -> bool:
        """Whether this is how RFC 4180 writes, apart from the choice of characters."""
        return not self.escape and not self.padded

    def quoted(self) -> str:
        """Return the pattern of a quoted field, with its inside as a group."""
        mark, escape = re.escape(self.quote), re.escape(self.escape)
        pad = " *+" if self.padded else ""
        more = rf"|{escape}[\s\S]" if escape else ""
        return f"{pad}{mark}((?:[^{mark}{escape}]++|{mark}{mark}{more})*+){mark}{pad}"

    def bare(self) -> str:
        """Return the pattern of a field that is not quoted and ends before its line does."""
        comma, mark, escape = map(re.escape, (self.delimiter, self.quote, self.escape))
        opening = f"(?! *{mark})" if self.padded else ""
        if not escape:
            return rf"{opening}(?:[^{mark}{comma}\r\n][^{comma}\r\n]*+)?"
        pair = rf"{escape}(?:[^\r\n]|(?=[\r\n])|\Z)"
        first, more = rf"[^{mark}{comma}{escape}\r\n]|{pair}", rf"[^{comma}{escape}\r\n]++|{pair}"
        return f"{opening}(?:(?:{first})(?:{more})*+)?"

    def quoted_plainly(self, inside: str = "") -> str:
        """Return the pattern, for Polars, of a quoted field.

        Args:
            inside: What may not stand in quotes besides a quote.
        """
        mark = _code(self.quote)
        part = f"[^{mark}{inside}]*"
        return f"{mark}{part}(?:{mark}{mark}{part})*{mark}"

    def in_order(self, inside: str = "") -> str:
        """Return the pattern, for Polars, of records whose quotes are all in order.

        Args:
            inside: What may not stand in quotes besides a quote.
        """
        mark, comma = _code(self.quote), _code(self.delimiter)
        field = rf"(?:{self.quoted_plainly(inside)}|[^{mark}{comma}\r\n][^{comma}\r\n]*)?"
        return rf"\A(?:{field}(?:{comma}|\r?\n))*{field}\z"


def _code(mark: str) -> str:
    """Return an ASCII character as patterns of all kinds may have it, whatever it means in them."""
    return rf"\x{ord(mark):02x}"


class QuotedLines(Lines):
    """Records of delimited text."""

    line_ends = LINE_END

    def __init__(self, text: Text, marks: Marks, max_record_bytes: int = 16 * 1024 * 1024) -> None:
        super().__init__(text, blank=b"\r")
        self._marks = marks
        self._quote = marks.quote.encode()
        self._window = max(max_record_bytes, BLOCK_BYTES)
        comma, mark = re.escape(marks.delimiter), re.escape(marks.quote)

        def record(after: str, end: str) -> re.Pattern[bytes]:
            quoted = f"{marks.quoted()}(?={comma}|{after})|" if mark else ""
            field = f"(?:{quoted}{marks.bare()})"
            return re.compile(f"{field}(?:{comma}{field})*+(?:{end})".encode())

        self._record = record(r"[\r\n]", r"\r\n|\n|\r(?=[^\n])")
        self._record_at_end = record(r"[\r\n]|\Z", r"\r\n?|\n|\Z")
        fields = f"(?:(?:{marks.quoted()}(?={comma})|{marks.bare()}){comma})*+"
        broken = rf"{fields}{marks.quoted()}[^{comma}{mark}\r\n]"
        self._broken = re.compile(broken.encode() if mark else b"(?!)")
        self._one_line = marks.in_order(r"\r\n") if mark else ""
        self._before = frozenset(marks.delimiter.encode() + b"\n")
        self._after = self._before | {LINE_END[0]}

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

    def is_record(self, part: bytes) -> bool:
        """Say whether a part that `split` gave is a record, and no blank line."""
        return self.keeps_blank or bool(part.strip(LINE_END))

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        if not self._quote or self._quote not in data:
            return _with_feeds(data, at_end=at_end)
        if self._are_lines(data, at_end=at_end):
            return data
        masked = self._mask_regular(data, at_end=at_end) if self._marks.are_plain else None
        if masked is None:
            return self._mask_slowly(data, at_end=at_end)
        too_wide = masked is not data and len(data) > self._window
        if too_wide and max(map(len, masked.split(b"\n"))) >= self._window:
            return self._mask_slowly(data, at_end=at_end)
        return masked

    def _are_lines(self, data: bytes, *, at_end: bool) -> bool:
        """Say whether certainly every record is one line, and the only one; soon, if it is not."""
        whole = data if at_end else data[: data.rfind(b"\n") + 1]
        is_worth_it = self._marks.are_plain and len(data) >= WORTH_POLARS_BYTES
        if not is_worth_it or b"\r" in data[len(whole) : -1]:
            return False
        try:
            text = pl.Series([whole], dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError:  # not UTF-8
            return False
        return bool(text.str.contains(self._one_line).item())

    def _mask_regular(self, data: bytes, *, at_end: bool) -> bytes | None:
        """Mask by parity, at the speed of `split`; None if some quote is out of order."""
        pieces = data.split(self._quote)
        is_open = len(pieces) % 2 == 0
        if is_open and at_end:
            return None
        has_lone = has_lone_cr(data)
        if has_lone:
            last = -1 if is_open else len(pieces) - 1
            pieces[::2] = [
                _with_feeds(piece, at_end=at_end or at != last)
                for at, piece in zip(range(0, len(pieces), 2), pieces[::2], strict=True)
            ]
        if not self._is_regular(pieces, is_open=is_open):
            return None
        inside = self._quote.join(pieces[1::2])
        if b"\n" in inside:
            pieces[1::2] = inside.replace(b"\n", b" ").split(self._quote)
        elif not has_lone:
            return data
        return self._quote.join(pieces)

    def _is_regular(self, pieces: list[bytes], *, is_open: bool) -> bool:
        """Say whether every quoted part begins and ends where a field does.

        Between two quotes that stand for one there is nothing outside. No CR stands alone.
        """
        first, *middle = pieces[::2]
        last = b"" if is_open else middle.pop()
        middle = list(filter(None, middle))
        after = {*map(_first_byte, middle), *last[:1]}
        before = {*map(_last_byte, middle), *first[-1:]}
        return after <= self._after and before <= self._before

    def _mask_slowly(self, data: bytes, *, at_end: bool) -> bytes:
        """Mask record by record, by the rule as it is written."""
        masked = bytearray(data)
        at = 0
        while at < len(data):
            end = self._end(data, at, at_end=at_end)
            stop = len(data) if end is None else end
            masked[at:stop] = data[at:stop].replace(b"\n", b" ")
            if end is None:
                break
            if data[end - 1] in LINE_END:
                masked[end - 1] = LINE_END[1]
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
        return _end_of_line(data, at, at_end=at_end)

    def end_of_record(self, position: int) -> int:
        """Find the end of the record that begins at a position."""
        data = self._text.read_at(position, self._window)
        at_end = position + len(data) == self._text.size
        found = (self._record_at_end if at_end else self._record).match(data)
        return position + found.end() if found else self.end_of_line(position)

    def end_of_line(self, position: int, within: int | None = None) -> int:
        """Find the end of a line, block by block, however long it is.

        Args:
            within: Bytes to look at; the last of them counts as the end if there is none.
        """
        stop = self._text.size if within is None else min(self._text.size, position + within)
        after_cr = False
        for block in self._text.blocks(position, stop):
            if after_cr:
                return position + block.startswith(b"\n")
            end = _end_of_line(block, 0, at_end=False)
            if end is not None:
                return position + end
            after_cr = block.endswith(b"\r")
            position += len(block)
        return position

    def count(self, position: int = 0) -> int:
        """Count the records from a position that begins one."""
        records = 0
        while position < self._text.size:
            raw, masked = self._whole_records(position, min(self._text.size, position + (1 << 25)))
            if raw:
                records += self._take(masked, len(masked) + 1)[1]
                position += len(raw)
            else:
                end = self.end_of_record(position)
                records += self._measure(position, end)[0]
                position = end
        return records


class FieldReader:
    """Fields of one record, with no doubt left about quotes."""

    def __init__(self, marks: Marks) -> None:
        comma, mark, escape = map(re.escape, (marks.delimiter, marks.quote, marks.escape))
        quoted = rf"{marks.quoted()}(?={comma}|\Z)|" if mark else "(?!)()|"
        opening = f"(?! *{mark})" if marks.padded else f"(?!{mark})" if mark else ""
        bare = rf"(?:[^{comma}{escape}]++|{escape}[\s\S]?)*+" if escape else f"[^{comma}]*+"
        self._field = re.compile(rf"(?:{quoted}{opening}({bare}))({comma}|\Z)")
        self._closed = re.compile(marks.quoted() if mark else "(?!)")
        pairs = [f"{escape}([{mark}{escape}{comma}])"] if escape else []
        self._pair = re.compile("|".join([*pairs, mark + mark])) if mark else None
        self._escaped = re.compile(pairs[0]) if pairs else None
        self._marks = marks

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
            inside, bare, delimiter = found.groups()
            cells.append((self._unquoted(inside), True) if bare is None else self._bare(bare))
            if not delimiter:
                return cells
            at = found.end()

    def _unquoted(self, inside: str) -> str:
        if self._marks.escape and self._pair is not None:
            return self._pair.sub(self._plain, inside)
        return inside.replace(self._marks.quote * 2, self._marks.quote)

    def _bare(self, text: str) -> Cell:
        text = text.strip(" ") if self._marks.padded else text
        return (self._escaped.sub(self._plain, text) if self._escaped else text), False

    def _plain(self, pair: re.Match[str]) -> str:
        return str(pair[1] or self._marks.quote)

    def _out_of_order(self, record: str, at: int, number: int) -> UnreadableRecordError:
        if self._closed.match(record, at):
            code, message = "malformed_quote", "text follows the closing quote"
        else:
            code, message = "unclosed_quote", "a quote is opened and not closed"
        error = FieldError(code, "", f"field {number}: {message}", record[at : at + 80])
        return UnreadableRecordError(error)


def write_plainly(cells: Sequence[Cell], marks: Marks) -> str:
    """Return fields as one record of plain marks, without a line end."""
    mark, special = marks.quote, (marks.delimiter, marks.quote, "\r", "\n")

    def written(text: str, *, quoted: bool) -> str:
        if mark and (quoted or any(each in text for each in special)):
            return mark + text.replace(mark, mark * 2) + mark
        return text

    return marks.delimiter.join(written(text, quoted=quoted) for text, quoted in cells)


_first_byte = itemgetter(0)
_last_byte = itemgetter(-1)


def without_end(record: bytes) -> bytes:
    """Return a record without its line end."""
    return record.removesuffix(b"\n").removesuffix(b"\r")


def has_lone_cr(data: bytes) -> bool:
    """Say whether some CR comes without LF."""
    return b"\r" in data and _LONE_CR_AT_END.search(data) is not None


def _with_feeds(data: bytes, *, at_end: bool) -> bytes:
    """Put LF in the place of each CR that is a line end by itself."""
    if not has_lone_cr(data):
        return data
    return (_LONE_CR_AT_END if at_end else _LONE_CR).sub(b"\n", data)


def _end_of_line(data: bytes, at: int, *, at_end: bool) -> int | None:
    """Return where the line at `at` ends; None if that cannot be seen yet."""
    feed = data.find(b"\n", at)
    stop = len(data) if feed < 0 else feed
    back = data.find(b"\r", at, stop)
    if back < 0 or back == feed - 1:
        return feed + 1 if feed >= 0 else len(data) if at_end else None
    return None if back == len(data) - 1 and not at_end else back + 1


def _keep_ends(data: bytes) -> list[bytes]:
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    if not parts[-1]:
        parts.pop()
    return parts
