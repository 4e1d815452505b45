"""Where lines begin and end: fast, in bounded memory, the same whatever the chunks are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchimport.model import Chunk, Position
from batchimport.sources.bytes.file import BLOCK_BYTES

if TYPE_CHECKING:
    from batchimport.sources.bytes.file import Text

BLANK = b" \t\r"
REACH_BYTES = 4 * 1024 * 1024
MARGIN = 1.05
LEAST_BYTES = 4096


class Lines:
    """A text whose records are its lines, blank ones apart.

    Subclasses whose records may span lines say so by `_mask`.

    Attributes:
        line_ends: The bytes that end a line; CR and LF together are one end.
        keeps_blank: Blank lines are records, too.
    """

    line_ends = b"\n"
    keeps_blank = False

    def __init__(self, text: Text, blank: bytes = BLANK) -> None:
        self._text = text
        self._blank = blank
        self._typical_bytes = float(BLOCK_BYTES)
        self._plain = (0, 0)
        blanks = b"[" + re.escape(blank) + b"]*"
        # A line end that a blank line follows: lookahead, so that runs of them all count.
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
            raw, masked = self._whole_records(position, stop, min(BLOCK_BYTES, enough))
            if not raw:
                break
            size, found, ended = self._take(masked, limit - records)
            self._typical_bytes = size / max(1, found)
            lines += ended if masked is raw else self._lines_in(raw[:size])
            is_plain = is_plain and masked is raw
            position += size
            records += found
        if position == start.position:
            position = self.end_of_record(start.position)
            records, lines = self._measure(start.position, position)
        elif is_plain:
            begin, end = self._plain
            self._plain = (begin if end == start.position else start.position, position)
        return Chunk(start, Position(position, start.record + records, start.line + lines))

    def are_plain(self, lo: int, hi: int) -> bool:
        """Say whether `cut` has just seen that each line of `[lo, hi)` is a record, or is blank."""
        return self._plain[0] <= lo and hi <= self._plain[1]

    def _mask(self, data: bytes, *, at_end: bool) -> bytes:
        """Return as many bytes as `data` has, in which LF, and nothing else, ends each record.

        The data themselves if it ends each line, too.
        """
        del at_end
        return data

    def _whole_records(
        self, position: int, stop: int, wanted: int = BLOCK_BYTES
    ) -> tuple[bytes, bytes]:
        """Return whole records from `position`, about so many bytes, and their masked bytes.

        Nothing if none ends by `stop`.
        """
        while True:
            raw = self._text.read_at(position, min(wanted, stop - position))
            at_end = position + len(raw) == self._text.size
            masked = self._mask(raw, at_end=at_end)
            if at_end:
                return raw, masked
            end = masked.rfind(b"\n") + 1
            if end or position + len(raw) >= stop:
                whole = raw[:end]
                return whole, whole if masked is raw else masked[:end]
            wanted *= 4

    def _take(self, masked: bytes, limit: int) -> tuple[int, int, int]:
        """Return the size, number and lines of up to `limit` records at the head of whole ones."""
        ends = masked.count(b"\n")
        lines = ends + (not masked.endswith(b"\n"))
        blanks = self._count_blanks(masked)
        if lines - blanks <= limit:
            return len(masked), lines - blanks, lines
        if not blanks:  # from the right, since what is too much is little
            return len(masked.rsplit(b"\n", ends - limit + 1)[0]) + 1, limit, limit
        size = lines = records = 0
        for line in masked.split(b"\n"):
            if records == limit:
                break
            size += len(line) + 1
            lines += 1
            records += bool(line.strip(self._blank))
        return min(size, len(masked)), records, lines

    def ends_in(self, data: bytes) -> int:
        """Count the line ends in a piece of text."""
        ends = data.count(b"\n")
        if b"\r" in self.line_ends and b"\r" in data:
            ends += data.count(b"\r") - data.count(b"\r\n")
        return ends

    def _lines_in(self, data: bytes) -> int:
        return self.ends_in(data) + (data[-1:] not in self.line_ends)

    def _count_blanks(self, whole: bytes) -> int:
        if self.keeps_blank:
            return 0
        first = whole[: whole.find(b"\n")] if b"\n" in whole else whole
        blanks = len(self._blank_line.findall(whole)) + (not first.strip(self._blank))
        last = whole.rfind(b"\n") + 1
        ends_blank = 0 < last < len(whole) and not whole[last:].strip(self._blank)
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
            within: Bytes to look at; the last of them counts as the end if there is none.
        """
        stop = self._text.size if within is None else min(self._text.size, position + within)
        for block in self._text.blocks(position, stop):
            end = block.find(b"\n")
            if end >= 0:
                return position + end + 1
            position += len(block)
        return position

    def next_line(self, position: int) -> int | None:
        """Return where a line begins from `position` on; None if that is far away."""
        if position == 0:
            return 0
        at = self.end_of_line(position - 1, REACH_BYTES)
        return at if self._text.read_at(max(0, at - 1), 1) in self.line_ends else None

    def count(self, position: int = 0) -> int:
        """Count the lines from a position that are not blank.

        Shares nothing with `cut`, so as to check it.
        """
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
