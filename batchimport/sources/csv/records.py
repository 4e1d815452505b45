"""Where the records of delimited text begin and end, and the records of one chunk.

A record spans several lines only if all its quotes are in order and it is no longer than the window;
otherwise it is its first line. So a quote that is never closed costs one record, not the rest of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.errors import SourceChangedError
from batchimport.model import Position
from batchimport.sources.base import LocatedRecords, decode_utf8, too_long
from batchimport.sources.bytes.file import BLOCK_BYTES, HEAD_BYTES
from batchimport.sources.counting import count_line_starts, count_records
from batchimport.sources.csv.grammar import LONE_CR, has_lone_cr, without_end
from batchimport.sources.text_lines import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Chunk
    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.csv.grammar import Cell, Dialect, FieldReader
    from batchimport.sources.csv.table import Table

LINE_END = b"\r\n"
"""The bytes of which line ends are made."""

WORTH_POLARS_BYTES = 64 * 1024
"""Shorter data is checked faster without Polars."""

_LONE_CR_WITHIN = re.compile(rb"\r(?=[^\n])")
"""Not at the end of the data, where LF may follow."""


class QuotedLines(Lines):
    """Cuts delimited text into records."""

    line_ends = LINE_END

    def __init__(
        self,
        text: TextFile,
        dialect: Dialect,
        max_record_bytes: int = 16 * 1024 * 1024,
        comment: str = "",
    ) -> None:
        """Prepare for a text.

        Args:
            comment: A line that begins with it is read like a blank one.
        """
        super().__init__(text, blank=b"\r")
        self._dialect = dialect
        self._comment = comment.encode()
        self._quote = dialect.quotechar.encode()
        self._window = max(max_record_bytes, BLOCK_BYTES)
        self._record = re.compile(dialect.record(at_end=False).encode())
        self._record_at_end = re.compile(dialect.record(at_end=True).encode())
        self._broken = re.compile(dialect.broken().encode())
        self._one_line = (
            dialect.plain_records(one_line=True) if self._quote and dialect.is_plain else ""
        )
        self._before = frozenset(dialect.delimiter.encode() + b"\n")
        self._after = self._before | {LINE_END[0]}

    @property
    def has_comments(self) -> bool:
        """Whether some lines are comments."""
        return bool(self._comment)

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
        """Say whether a part that `split` returned is a record and not a blank line or a comment."""
        if self._comment and part.startswith(self._comment):
            return False
        return self.keeps_blank or bool(part.strip(LINE_END))

    def may_have_comments(self, data: bytes) -> bool:
        """Say whether some line may be a comment, in data that begins with a line."""
        comment = self._comment
        if not comment or comment not in data:
            return False
        return data.startswith(comment) or any(end + comment in data for end in (b"\n", b"\r"))

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        if self.may_have_comments(data):
            return self._mask_slowly(data, at_end=at_end)
        if not self._quote or self._quote not in data:
            return _with_feeds(data, at_end=at_end)
        if self._are_lines(data, at_end=at_end):
            return data
        masked = self._mask_regular(data, at_end=at_end) if self._dialect.is_plain else None
        if masked is None:
            return self._mask_slowly(data, at_end=at_end)
        too_wide = masked is not data and len(data) > self._window
        if too_wide and max(map(len, masked.split(b"\n"))) >= self._window:
            return self._mask_slowly(data, at_end=at_end)
        return masked

    def _are_lines(self, data: bytes, *, at_end: bool) -> bool:
        """Say whether certainly every line is one record; quick to say no."""
        whole = data if at_end else data[: data.rfind(b"\n") + 1]
        is_worth_it = self._dialect.is_plain and len(data) >= WORTH_POLARS_BYTES
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

        Between the two quotes of a doubled one there is nothing outside.
        """
        first, *middle = pieces[::2]
        last = b"" if is_open else middle.pop()
        middle = list(filter(None, middle))
        after = {*map(_first_byte, middle), *last[:1]}
        before = {*map(_last_byte, middle), *first[-1:]}
        return after <= self._after and before <= self._before

    def _mask_slowly(self, data: bytes, *, at_end: bool) -> bytes:
        """Mask record by record, exactly by the rule."""
        masked = bytearray(data)
        at = 0
        while at < len(data):
            is_comment = bool(self._comment) and data.startswith(self._comment, at)
            if is_comment:
                end = _end_of_line(data, at, at_end=at_end)
            else:
                end = self._end(data, at, at_end=at_end)
            stop = len(data) if end is None else end
            masked[at:stop] = data[at:stop].replace(b"\n", b" ")
            if is_comment:  # as if it were blank
                masked[at:stop] = b"\r" * (stop - at)
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
        match = (self._record_at_end if is_last else self._record).match(data, at, stop)
        if match:
            return match.end()
        is_full = is_last or stop < len(data) or self._broken.match(data, at, stop)
        if not is_full:
            return None
        return _end_of_line(data, at, at_end=at_end)

    def end_of_record(self, position: int) -> int:
        """Find the end of the record that begins at a position."""
        data = self._text.read_at(position, self._window)
        if self._comment and data.startswith(self._comment):
            return self.end_of_line(position)
        at_end = position + len(data) == self._text.size
        match = (self._record_at_end if at_end else self._record).match(data)
        return position + match.end() if match else self.end_of_line(position)

    def after_blank_lines(self, start: Position, stop: int) -> Position:
        """Return where the first line of `[start, stop)` begins that is neither blank nor a comment."""
        at, size = super().after_blank_lines(start, stop), len(self._comment)
        while (
            size and at.position < stop and self._text.read_at(at.position, size) == self._comment
        ):
            end = Position(self.end_of_line(at.position), at.record, at.line + 1)
            at = super().after_blank_lines(end, stop)
        return at

    def _measure(self, lo: int, hi: int) -> tuple[int, int]:
        records, lines = super()._measure(lo, hi)
        begin = self._text.read_at(lo, len(self._comment))
        return (0 if self._comment and begin == self._comment else records), lines

    def end_of_line(self, position: int, within: int | None = None) -> int:
        """Find the end of a line, block by block, however long it is.

        Args:
            within: Number of bytes to search; if there is no line end, the last of them counts as one.
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
        """Count the records from a position that begins one, without `cut` wherever that is possible.

        Only `_are_lines` is shared, since it costs half of a count. A block with quotes that are out of
        order, or of a dialect that is not plain, is cut again, in another size.
        """
        records = 0
        while position < self._text.size:
            data = self._text.read_at(position, BLOCK_BYTES)
            count, size = self._count_in(data, at_end=position + len(data) == self._text.size)
            if not size:
                count, size = self._count_by_cutting(position)
            records += count
            position += size
        return records

    def _count_in(self, data: bytes, *, at_end: bool) -> tuple[int, int]:
        """Return how many whole records a block begins with, and their bytes; 0 if unknown."""
        if self.may_have_comments(data):
            return 0, 0
        size = len(data) if at_end else max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        whole = data[:size]
        if not self._quote or self._quote not in data:
            return self._count_lines(whole), size
        if not self._dialect.is_plain or not size:
            return 0, 0
        if self._are_lines(whole, at_end=True):
            return self._count_lines(whole), size
        if whole[-1] not in LINE_END:
            whole += b"\n"
        content = self._dialect.plain_record()
        record = rf"[\r\n]*{content}[\r\n]"
        if self.keeps_blank:
            record = rf"(?:{content})?(?:\r\n|\n|\r)"
        records, counted = count_records(whole, record)
        return records, min(size, counted)

    def _count_lines(self, whole: bytes) -> int:
        """Count lines that are not blank, or all of them if blank lines are records."""
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self.keeps_blank:
            return whole.count(b"\n") + (not whole.endswith(b"\n"))
        starts = count_line_starts(whole, before=ord("\n"))
        return sum(map(bool, whole.split(b"\n"))) if starts is None else starts

    def _count_by_cutting(self, position: int) -> tuple[int, int]:
        stop = min(self._text.size, position + (1 << 25))
        _, masked, end = self._whole_records(position, stop)
        if end:
            return self._take(masked, end, end + 1)[1], end
        end = self.end_of_record(position)
        return self._measure(position, end)[0], end - position


@dataclass(frozen=True, slots=True)
class Layout:
    """What all chunks of a file share.

    Attributes:
        name: What users call the file.
        most_bytes: A longer record is rejected.
    """

    name: str
    lines: QuotedLines
    fields: FieldReader
    most_bytes: int


class DelimitedRecords(LocatedRecords):
    """The records of one chunk; separated only when one of them is asked for.

    Args:
        first: Where the data begin.
        data: The chunk without the header.
        is_cut: The data are the beginning of a single record that is too long.
    """

    def __init__(
        self,
        layout: Layout,
        table: Table,
        chunk: Chunk,
        first: Position,
        data: bytes,
        *,
        is_cut: bool = False,
    ) -> None:
        super().__init__(layout.name, chunk)
        self._layout, self._table, self._first = layout, table, first
        self._data, self._is_cut = data, is_cut

    @cached_property
    def _parts(self) -> Sequence[bytes]:
        """Records and blank lines in order, with their line ends."""
        return [self._data] if self._is_cut else self._layout.lines.split(self._data)

    @cached_property
    def _kept(self) -> Sequence[int]:
        """Which parts are records."""
        if len(self._parts) == self._chunk.records:
            return range(len(self._parts))
        is_record = self._layout.lines.is_record
        kept = [at for at, part in enumerate(self._parts) if self._is_cut or is_record(part)]
        if len(kept) != self._chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self._name)
        return kept

    @cached_property
    def records(self) -> Sequence[bytes]:
        """The records, with their line ends.

        Raises:
            SourceChangedError: If they are not as many as they were.
        """
        parts, kept = self._parts, self._kept
        return parts if len(kept) == len(parts) else [parts[at] for at in kept]

    @cached_property
    def too_long(self) -> frozenset[int]:
        """Which records are longer than is allowed."""
        if self._is_cut:
            return frozenset({0})
        most = self._layout.most_bytes
        if len(self._data) <= most:
            return frozenset()
        return frozenset(at for at, part in enumerate(self.records) if len(part) > most)

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values, by the types that the schema allows."""
        return self._table.values(self._cells(index))

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns."""
        return self._table.row(self._cells(index))

    def _cells(self, index: int) -> list[Cell]:
        if index in self.too_long:
            raise too_long()
        return self._layout.fields.read(decode_utf8(without_end(self.records[index])))

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        part = self._kept[index]
        raw = self._parts[part]
        raw = without_end(raw[:HEAD_BYTES] if index in self.too_long else raw)
        line = self._first.line + self._lines_before[part]
        return line, self._first.position + self._bytes_before[part], raw

    @cached_property
    def _lines_before(self) -> Sequence[int]:
        ends_in, parts = self._layout.lines.ends_in, self._parts
        if ends_in(self._data) == len(parts) - (not ends_in(self._data[-1:])):
            return range(len(parts))  # each part is one line
        return list(accumulate(map(ends_in, parts), initial=0))

    @cached_property
    def _bytes_before(self) -> list[int]:
        return list(accumulate(map(len, self._parts), initial=0))


_first_byte = itemgetter(0)
_last_byte = itemgetter(-1)


def _with_feeds(data: bytes, *, at_end: bool) -> bytes:
    """Replace each CR that is a line end by itself by LF."""
    if not has_lone_cr(data):
        return data
    return (LONE_CR if at_end else _LONE_CR_WITHIN).sub(b"\n", data)


def _end_of_line(data: bytes, at: int, *, at_end: bool) -> int | None:
    """Return where the line that begins at `at` ends; None if more data is needed to know."""
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
