"""Where lines begin and end: fast, in bounded memory, the same whatever the chunks are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.job import Chunk, Mark
from batchimport.sources.codec import BLOCK_BYTES

if TYPE_CHECKING:
    from batchimport.sources.codec import TextFile

BLANK = b" \t\r"
_BLANK_LINE = re.compile(rb"\n(?=[ \t\r]*\n)")
"""A line end that is followed by a blank line: lookahead, so that runs of them all count."""


def cut_lines(text: TextFile, start: Mark, limit: int, max_bytes: int) -> Chunk | None:
    """Return the chunk of at most `limit` non-blank lines from `start`; None at the end.

    A chunk has at least one line, even if that alone is longer than `max_bytes`.
    """
    if start.position >= text.size:
        return None
    position, records, lines = start.position, 0, 0
    stop = min(text.size, start.position + max_bytes)
    while position < stop and records < limit:
        whole = _whole_lines(text, position, stop)
        if not whole:
            break
        piece = _take(whole, limit - records)
        position += piece.size
        records += piece.records
        lines += piece.lines
    if position == start.position:
        position, records, lines = _end_of_line(text, start.position), 1, 1
    return Chunk(start, Mark(position, start.record + records, start.line + lines))


@dataclass(frozen=True, slots=True)
class _Piece:
    size: int
    records: int
    lines: int


def _whole_lines(text: TextFile, position: int, stop: int) -> bytes:
    """Return whole lines from `position`, about a block of them; nothing if none ends by `stop`."""
    wanted = BLOCK_BYTES
    while True:
        block = text.read_at(position, min(wanted, stop - position))
        if position + len(block) == text.size:
            return block
        end = block.rfind(b"\n") + 1
        if end or position + len(block) >= stop:
            return block[:end]
        wanted *= 4


def _take(whole: bytes, limit: int) -> _Piece:
    """Take up to `limit` non-blank lines from the head of whole lines."""
    lines = whole.count(b"\n") + (not whole.endswith(b"\n"))
    blanks = _count_blanks(whole)
    if lines - blanks <= limit:
        return _Piece(len(whole), lines - blanks, lines)
    if not blanks:
        rest = whole.split(b"\n", limit)[limit]
        return _Piece(len(whole) - len(rest), limit, limit)
    size = records = taken = 0
    for line in whole.split(b"\n"):
        if records == limit:
            break
        size += len(line) + 1
        taken += 1
        records += bool(line.strip(BLANK))
    return _Piece(min(size, len(whole)), records, taken)


def _count_blanks(whole: bytes) -> int:
    first = whole[: whole.find(b"\n")] if b"\n" in whole else whole
    blanks = len(_BLANK_LINE.findall(whole)) + (not first.strip(BLANK))
    last = whole.rfind(b"\n") + 1
    ends_blank = 0 < last < len(whole) and not whole[last:].strip(BLANK)
    return blanks + ends_blank


def _end_of_line(text: TextFile, position: int) -> int:
    """Find the end of a line that is too long to be held, block by block."""
    for block in text.blocks(position):
        end = block.find(b"\n")
        if end >= 0:
            return position + end + 1
        position += len(block)
    return position


def count_lines(text: TextFile) -> int:
    """Count the non-blank lines of a file; shares nothing with `cut_lines`, so as to check it."""
    records = 0
    blank_so_far = True
    for block in text.blocks():
        first = block.find(b"\n")
        if first < 0:
            blank_so_far = blank_so_far and not block.strip(BLANK)
            continue
        records += block.count(b"\n") - len(_BLANK_LINE.findall(block))
        records -= blank_so_far and not block[:first].strip(BLANK)
        blank_so_far = not block[block.rfind(b"\n") + 1 :].strip(BLANK)
    return records + (not blank_so_far)
