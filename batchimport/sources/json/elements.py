"""Where the elements of a JSON array, or of JSON values one after the other, begin and end.

The rule: an element ends with its brackets, whatever else is wrong with it. If the elements at the head
and at a few places more are all parted by the same bytes with a line end in them, which occur nowhere
else, the file is *regular*, and they part all of its elements: then brackets and quotes that are out of order cost one
element. In a file that is not regular they cost all that follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from batchimport.model import Chunk, Position
from batchimport.sources.bytes.file import BLOCK_BYTES
from batchimport.sources.json.brackets import element_at, end_of_element

if TYPE_CHECKING:
    from batchimport.sources.bytes.file import Text

BOM = b"\xef\xbb\xbf"
SPACE = b" \t\r\n"
HEAD_BYTES = 256 * 1024
PLACES = 4
"""The head, and places further on, where a regular file must show itself as one."""
_space = re.compile(rb"[ \t\r\n]*+").match
_comma = re.compile(rb",[ \t\r\n]*+").match
_space_and_comma = re.compile(rb"[ \t\r\n,]*+").match
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Spans:
    """Elements in a piece of text.

    Attributes:
        stop: Where the next element may begin.
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    stop: int = 0

    def add(self, start: int, end: int, stop: int) -> None:
        """Add an element."""
        self.starts.append(start)
        self.ends.append(end)
        self.stop = stop


class Elements:
    """A text whose records are elements.

    A chunk begins where, after spaces, an element begins or the array ends. Its last one holds the
    end of the array, and what follows it: one more record, if that is not blank. An array that is not
    closed has a record of no bytes at its end, which takes a position of its own.

    Attributes:
        is_array: There are brackets round the elements and commas between them.
        size: Bytes, and one position if the end of the array is missing.
    """

    def __init__(self, text: Text, max_record_bytes: int) -> None:
        self._text = text
        self._window = max(max_record_bytes, BLOCK_BYTES)
        head = text.read_at(0, HEAD_BYTES)
        skipped = len(BOM) if head.startswith(BOM) else 0
        skipped = _space(head, skipped).end()  # type: ignore[union-attr]  # matches nothing as well
        self.is_array = head[skipped : skipped + 1] == b"["
        self.first = skipped + self.is_array
        self.size = text.size + (self.is_array and not _is_closed(text))
        self._skip = _space if self.is_array else _space_and_comma
        self._joint: re.Pattern[bytes] | None = None
        self._joint = self._find_joint(head)

    def _find_joint(self, head: bytes) -> re.Pattern[bytes] | None:
        """Return what parts the elements of a regular file; None if it is not regular."""
        spans = Spans(stop=self.first)  # by brackets alone, as long as no joint is known
        self._walk(head, spans, len(head), at_end=False)
        starts = [*spans.starts[1:], self._skip(head, spans.stop).end()]  # type: ignore[union-attr]
        if head[starts[-1] : starts[-1] + 1] in (b"]", b""):
            starts.pop()
        parts = {head[end:start] for end, start in zip(spans.ends, starts, strict=False)}
        if len(parts) != 1 or b"\n" not in (part := parts.pop()):
            return None
        begins = rb"(?=[^ \t\r\n])" if self.is_array else rb"(?=\{)"
        joint = re.compile(re.escape(part) + begins)
        if len(joint.findall(head, spans.starts[0], starts[-1] + 1)) != len(starts):
            return None
        places = (self._text.size * at // PLACES for at in range(1, PLACES))
        return joint if all(self._agrees(joint, place) for place in places) else None

    def _agrees(self, joint: re.Pattern[bytes], place: int) -> bool:
        """Say whether joints part the elements at a place as their brackets do, so far as in order."""
        data = self._text.read_at(place, HEAD_BYTES // PLACES)
        first = joint.search(data)
        if first is None:
            return True
        spans = Spans(stop=first.end())
        self._walk(data, spans, len(data), at_end=False)
        return all(
            joint.match(data, end) and not joint.search(data, start, end)
            for start, end in zip(spans.starts[:-1], spans.ends[:-1], strict=True)
        )

    @property
    def is_regular(self) -> bool:
        """Say whether elements can be found from anywhere in the text."""
        return self._joint is not None

    # -- chunks -------------------------------------------------------------------------------

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` elements from `start`; None at the end.

        A chunk has at least one element, even if that alone is longer than `max_bytes`.
        """
        size = self._text.size
        if start.position >= size:
            missing_end = Chunk(start, Position(self.size, start.record + 1, start.line))
            return missing_end if start.position < self.size else None
        position, records, lines = start.position, 0, 0
        stop = min(size, start.position + max_bytes)
        while position < stop and records < limit:
            data, spans = self._some(position, stop, limit - records)
            if spans.stop == 0:
                break
            lines += data.count(b"\n", 0, spans.stop)
            position += spans.stop
            records += len(spans.starts)
        if position == start.position:
            position, records, lines = self._one(position)
        return Chunk(start, Position(position, start.record + records, start.line + lines))

    def _some(self, position: int, stop: int, limit: int) -> tuple[bytes, Spans]:
        """Return up to `limit` elements from `position` that end by `stop`, about a block of them."""
        wanted = BLOCK_BYTES
        while True:
            data = self._text.read_at(position, min(wanted, stop - position))
            at_end = position + len(data) == self._text.size
            spans = self.spans(data, self._begin(position), len(data), at_end=at_end)
            if spans.stop or at_end or position + len(data) >= stop or wanted > self._window:
                return data, _first(spans, limit)
            wanted *= 4

    def _begin(self, position: int) -> int:
        return max(0, self.first - position)

    def _one(self, position: int) -> tuple[int, int, int]:
        """Return where the element at `position` ends that no block holds, records and lines."""
        data, spans = self._some(position, self._text.size, 1)
        if spans.stop:
            return position + spans.stop, len(spans.starts), data.count(b"\n", 0, spans.stop)
        begin = position + self._begin(position)
        begin += self._skip(self._text.read_at(begin, HEAD_BYTES)).end()  # type: ignore[union-attr]
        records, end = 1, self._text.size
        if self.is_array and self._text.read_at(begin, 1) == b"]":
            records = any(block.strip(SPACE) for block in self._text.blocks(begin + 1))
        else:
            end = self._end_of_long(begin)
        lines = sum(block.count(b"\n") for block in self._text.blocks(position, end))
        return end, int(records), lines

    def _end_of_long(self, position: int) -> int:
        if self._joint is not None:
            return self._next_joint(position)
        end = end_of_element(self._text.blocks(position), is_array=self.is_array)
        if end is None:
            return self._text.size
        comma = self.is_array and self._text.read_at(position + end, 1) == b","
        return position + end + comma

    def _next_joint(self, position: int) -> int:
        """Return where the next element of a regular file begins, block by block."""
        assert self._joint is not None  # noqa: S101 - the callers looked
        before = b""
        for block in self._text.blocks(position):
            found = self._joint.search(before + block)
            if found:
                return position - len(before) + found.end()
            position += len(block)
            before = (before + block)[-len(self._joint.pattern) :]
        return self._text.size

    def next_element(self, position: int) -> int:
        """Return where the first element after a position of a regular file begins."""
        return self.first if position <= self.first else self._next_joint(position)

    def count(self) -> int:
        """Count the elements, in blocks of another size than `cut` takes."""
        at, records = Position(), 0
        while chunk := self.cut(at, 1 << 40, 3 * BLOCK_BYTES + 7):
            records += chunk.records
            at = chunk.end
        return records

    # -- elements -----------------------------------------------------------------------------

    def spans(self, data: bytes, begin: int, upto: int, *, at_end: bool) -> Spans:
        """Return the elements that begin in `[begin, upto)` and whose end can be seen.

        Args:
            at_end: The text ends where the data does.
        """
        spans = Spans()
        if self._joint is not None:
            self._part(data, begin, spans)
        elif self.is_array:
            _decode(data, begin, spans)
        spans.stop = spans.stop or begin
        is_whole = at_end or upto < len(data)  # a chunk ends there
        if self._joint is None or is_whole:
            self._walk(data, spans, upto, at_end=at_end)
        if not spans.starts and spans.stop == begin and not at_end:
            spans.stop = 0  # nothing can be said yet
        return spans

    def _part(self, data: bytes, begin: int, spans: Spans) -> None:
        """Add all elements of a regular file but for the last one."""
        assert self._joint is not None  # noqa: S101 - the caller looked
        joints = [joint.span() for joint in self._joint.finditer(data, begin)]
        if joints:
            start = min(_space(data, begin).end(), joints[0][0])  # type: ignore[union-attr]  # same
            spans.starts = [start, *(end for _, end in joints[:-1])]
            spans.ends = [start for start, _ in joints]
            spans.stop = joints[-1][1]

    def _walk(self, data: bytes, spans: Spans, upto: int, *, at_end: bool) -> None:
        """Add elements by their brackets, one at a time."""
        while spans.stop < upto:
            start = self._skip(data, spans.stop).end()  # type: ignore[union-attr]  # always matches
            if start >= upto:
                spans.stop = upto if at_end else spans.stop
                return
            if self.is_array and data[start : start + 1] == b"]":
                _close(data, start, spans, at_end=at_end)
                return
            end = element_at(data, start, is_array=self.is_array, at_end=at_end)
            if end is None:
                return
            if self._joint is not None and not self._is_last(data, end):
                end = len(data)
            spans.add(start, start + len(data[start:end].rstrip(SPACE)), end)
            if self.is_array and data[end : end + 1] == b",":
                spans.stop += 1

    def _is_last(self, data: bytes, end: int) -> bool:
        """Say whether no more elements follow."""
        rest = data[_space_and_comma(data, end).end() :][:1]  # type: ignore[union-attr]  # same
        return rest == b"" or (self.is_array and rest == b"]")


def _is_closed(text: Text) -> bool:
    """Say whether the last byte that is not blank closes an array."""
    stop = text.size
    while stop > 0:
        start = max(0, stop - HEAD_BYTES)
        end = text.read_at(start, stop - start).rstrip(SPACE)
        if end:
            return end.endswith(b"]")
        stop = start
    return False


def _first(spans: Spans, limit: int) -> Spans:
    """Return the first elements; the next one begins where the following did."""
    if len(spans.starts) <= limit:
        return spans
    return Spans(spans.starts[:limit], spans.ends[:limit], spans.starts[limit])


def _close(data: bytes, at: int, spans: Spans, *, at_end: bool) -> None:
    """Take the end of an array, and what follows it as one more record, if that can be seen."""
    if not at_end:
        return
    if data[at + 1 :].strip(SPACE):
        spans.add(at, len(data.rstrip(SPACE)), len(data))
    spans.stop = len(data)


def _decode(data: bytes, begin: int, spans: Spans) -> None:
    """Add elements that are valid and parted by the same bytes, as fast as they can be decoded."""
    begin = _space(data, begin).end()  # type: ignore[union-attr]  # always matches
    end = element_at(data, begin, is_array=True, at_end=False)
    if end is None:
        return
    first = data[begin:end].rstrip(SPACE)
    comma = _comma(data, end)
    if comma is None:
        return
    part = data[begin + len(first) : comma.end()]
    joint, last = first[-1:] + part + first[:1], len(data)
    for _ in range(3):  # the last one may be in a string or a nested array
        last = data.rfind(joint, begin, last)
        if last < 0:
            return
        try:
            raw = _decode_array(b"[" + data[begin : last + 1] + b"]")
        except (msgspec.DecodeError, RecursionError):
            continue
        texts = list(map(bytes, raw))
        if part.join(texts) == data[begin : last + 1]:
            for text in texts:
                spans.add(begin, begin + len(text), begin + len(text) + len(part))
                begin = spans.stop
        return
