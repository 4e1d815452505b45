"""Where lines begin and end: fast, in bounded memory, and independent of the size of chunks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchimport.model import Chunk, Position
from batchimport.sources.bytes.file import BLOCK_BYTES
from batchimport.sources.counting import count_line_ends, count_line_starts

if TYPE_CHECKING:
    from batchimport.sources.bytes.file import TextFile

BLANK = b" \t\r"
REACH_BYTES = 4 * 1024 * 1024
MARGIN = 1.05
LEAST_BYTES = 4096
WORTH_POLARS_BYTES = 128 * 1024
"""Fewer bytes are looked at one by one in less time."""


class Lines:
    """Cuts a text whose records are its lines, except blank ones.

    Subclasses whose records may span lines override `_mask`.

    Attributes:
        line_ends: The bytes that end a line; CR followed by LF is one end.
        keeps_blank: Blank lines are records.
    """

    line_ends = b"\n"
    keeps_blank = False

    def __init__(self, text: TextFile, blank: bytes = BLANK) -> None:
        self._text = text
        self._blank = blank
        self._typical_bytes = float(BLOCK_BYTES)
        self._plain = (0, 0)
        blanks = b"[" + re.escape(blank) + b"]*"
        # A line end followed by a blank line; the lookahead makes each of several in a row match.
        self._blank_line = re.compile(rb"\n(?=" + blanks + rb"\n)")

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records from `start`; None at the end.

        A chunk has at least one record, even if that alone is longer than `max_bytes`.
        """
        if start.position >= self._text.size:
            return None
        position, records, lines = start.position, 0, 0
        is_plain = True
        stop = min(self._text.size, start.position + max_bytes)
        while position < stop and records < limit:
            enough = int(self._typical_bytes * (limit - records) * MARGIN) + LEAST_BYTES
            raw, masked, end = self._whole_records(position, stop, min(BLOCK_BYTES, enough))
            if not end:
                break
            size, taken, ended = self._take(masked, end, limit - records)
            self._typical_bytes = size / max(1, taken)
            lines += ended if masked is raw else self._lines_in(raw[:size])
            is_plain = is_plain and masked is raw
            position += size
            records += taken
        if position == start.position:
            position = self.end_of_record(start.position)
            records, lines = self._measure(start.position, position)
        elif is_plain:
            begin, end = self._plain
            self._plain = (begin if end == start.position else start.position, position)
        return Chunk(start, Position(position, start.record + records, start.line + lines))

    def are_plain(self, lo: int, hi: int) -> bool:
        """Say whether the last calls of `cut` saw that every line of `[lo, hi)` is a record or blank."""
        return self._plain[0] <= lo and hi <= self._plain[1]

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        """Return a copy of `data`, of the same length, in which every LF ends a record.

        `data` itself if every line is one record.
        """
        del at_end
        return data

    def _whole_records(
        self, position: int, stop: int, wanted: int = BLOCK_BYTES
    ) -> tuple[bytes, bytes, int]:
        """Return about `wanted` bytes from `position`, the same bytes masked, and where records end.

        Of what follows the last record that is whole, nothing ends a record; 0 if none ends by `stop`.
        """
        while True:
            raw = self._text.read_at(position, min(wanted, stop - position))
            at_end = position + len(raw) == self._text.size
            masked = self._mask(raw, at_end=at_end)
            end = len(raw) if at_end else masked.rfind(b"\n") + 1
            if end or position + len(raw) >= stop:
                return raw, masked, end
            wanted *= 4

    def _take(self, masked: bytes, end: int, limit: int) -> tuple[int, int, int]:
        """Return the bytes, number and lines of the first `limit` records before `end`, or of fewer."""
        if len(masked) < WORTH_POLARS_BYTES:
            ends, may_be_blank = masked.count(b"\n"), True
        else:
            ends, may_be_blank = count_line_ends(masked)
        lines = ends + (masked[end - 1 : end] != b"\n")
        blanks = self._count_blanks(masked, end, within=may_be_blank)
        if lines - blanks <= limit:
            return end, lines - blanks, lines
        if not blanks:  # from the right, since only a few are too many
            return len(masked.rsplit(b"\n", ends - limit + 1)[0]) + 1, limit, limit
        size = lines = records = 0
        for line in masked.split(b"\n"):
            if records == limit:
                break
            size += len(line) + 1
            lines += 1
            records += bool(line.strip(self._blank))
        return min(size, end), records, lines

    def ends_in(self, data: bytes) -> int:
        """Count the line ends in a piece of text."""
        ends = data.count(b"\n")
        if b"\r" in self.line_ends and b"\r" in data:
            ends += data.count(b"\r") - data.count(b"\r\n")
        return ends

    def _lines_in(self, data: bytes) -> int:
        return self.ends_in(data) + (data[-1:] not in self.line_ends)

    def _count_blanks(self, masked: bytes, end: int, *, within: bool) -> int:
        """Count the blank lines before `end`.

        Args:
            within: Lines between the first and the last one may be blank.
        """
        if self.keeps_blank:
            return 0
        first = masked.find(b"\n", 0, end)
        blanks = len(self._blank_line.findall(masked)) if within else 0
        blanks += not masked[: first if first >= 0 else end].strip(self._blank)
        last = masked.rfind(b"\n", 0, end) + 1
        ends_blank = 0 < last < end and not masked[last:end].strip(self._blank)
        return blanks + ends_blank

    def end_of_record(self, position: int) -> int:
        """Find the end of the record that begins at a position."""
        return self.end_of_line(position)

    def _measure(self, lo: int, hi: int) -> tuple[int, int]:
        """Return whether there is a record in `[lo, hi)`, 0 or 1, and how many lines it takes."""
        is_blank, lines, last = True, 0, b""
        for block in self._text.blocks(lo, hi):
            is_blank = is_blank and not block.strip(self._blank + b"\n")
            is_one_end = last + block[:1] == b"\r\n" and b"\r" in self.line_ends
            lines += self.ends_in(block) - is_one_end
            last = block[-1:]
        return int(self.keeps_blank or not is_blank), lines + (last not in self.line_ends)

    def after_blank_lines(self, start: Position, stop: int) -> Position:
        """Return where the first line of `[start, stop)` begins that is not blank."""
        end = position = start.position
        for block in self._text.blocks(position, stop) if not self.keeps_blank else ():
            blank = block[: len(block) - len(block.lstrip(self._blank + self.line_ends))]
            last = max(map(blank.rfind, self.line_ends))
            end = position + last + 1 if last >= 0 else end
            if len(blank) < len(block):
                break
            position += len(block)
        blanks = self._text.read_at(start.position, end - start.position)
        return Position(end, start.record, start.line + self.ends_in(blanks))

    def end_of_line(self, position: int, within: int | None = None) -> int:
        """Find the end of a line, block by block, however long it is.

        Args:
            within: Number of bytes to search; if there is no line end, the last of them counts as one.
        """
        stop = self._text.size if within is None else min(self._text.size, position + within)
        for block in self._text.blocks(position, stop):
            end = block.find(b"\n")
            if end >= 0:
                return position + end + 1
            position += len(block)
        return position

    def next_line(self, position: int) -> int | None:
        """Return where the next line from `position` on begins; None if that is not within 4 MiB."""
        if position == 0:
            return 0
        at = self.end_of_line(position - 1, REACH_BYTES)
        return at if self._text.read_at(max(0, at - 1), 1) in self.line_ends else None

    def count(self, position: int = 0) -> int:
        """Count the lines from a position that are not blank.

        Shares no code with `cut`, so that it can check it.
        """
        records, before = 0, ord("\n")
        for block in self._text.blocks(position):
            starts = count_line_starts(block, before)
            if starts is None:
                return self._count_one_by_one(position)
            records, before = records + starts, block[-1]
        return records

    def _count_one_by_one(self, position: int) -> int:
        """Count the same where lines begin with white space."""
        records = 0
        blank_so_far = True
        for block in self._text.blocks(position):
            first = block.find(b"\n")
            if first < 0:
                blank_so_far = blank_so_far and not block.strip(self._blank)
                continue
            records += block.count(b"\n") - len(self._blank_line.findall(block))
            records -= blank_so_far and not block[:first].strip(self._blank)
            blank_so_far = not block[block.rfind(b"\n") + 1 :].strip(self._blank)
        return records + (not blank_so_far)
