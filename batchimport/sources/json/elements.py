"""Where the elements of a JSON array, or of JSON values one after the other, begin and end.

The rule: an element ends with its brackets, whatever else is wrong with it. If the elements at the head
and at a few more places are all separated by the same bytes, which contain a line end, the file is
*regular*: there, an element whose brackets or quotes are out of order, or not closed within `REACH_BYTES`,
ends where these bytes follow. In a file that is not regular it ends with the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from batchimport.model import Chunk, Position
from batchimport.sources.bytes.file import BLOCK_BYTES
from batchimport.sources.counting import count_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchimport.sources.bytes.file import TextFile

SPACE = b" \t\r\n"
HEAD_BYTES = 256 * 1024
REACH_BYTES = 256 * 1024
"""How far to look for the end of an element that is perhaps not closed."""

PLACES = 4
"""The head and places further on, which decide whether a file is regular."""
_space = re.compile(rb"[ \t\r\n]*+").match
_comma = re.compile(rb",[ \t\r\n]*+").match
_space_and_comma = re.compile(rb"[ \t\r\n,\x1e]*+").match
"""What may be between values one after the other, with the record separators of RFC 7464."""
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_singles = msgspec.json.Decoder(list[tuple[msgspec.Raw]]).decode

COUNTED_NESTING = 3
"""Depth of brackets in an object that the count sees; the size of its pattern doubles with each."""

COUNTED_BYTES = 1024 * 1024
NESTING = 5
"""Depth of brackets that the patterns see; deeper ones are followed one by one."""

_STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'


def _nested(depth: int) -> bytes:
    inner = b"|" + _nested(depth - 1) if depth else b""
    body = rb'(?:[^"\[\]{}]++|' + _STRING + inner + b")*+"
    return rb"\{" + body + rb"\}|\[" + body + rb"\]"


_VALUE = re.compile(_nested(NESTING))
_ELEMENT = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + b"|" + _nested(NESTING) + rb")*+")
_CLOSED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + b"|" + _nested(NESTING) + rb")*+")
_TOKEN = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'(?:[^"\\\n]++|\\[^\n])*+')
_CLOSES = {b"}": b"{", b"]": b"["}


_COUNTED_STRING = r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"'


def _counted(brackets: str, depth: int) -> str:
    """Return the pattern, for Polars, of an object or array with brackets nested up to a depth."""
    inner = "".join(f"|{_counted(pair, depth - 1)}" for pair in ("{}", "[]")) if depth else ""
    return rf"\{brackets[0]}(?:[^\"\[\]{{}}]|{_COUNTED_STRING}{inner})*\{brackets[1]}"


_COUNTED = _counted("{}", COUNTED_NESTING)
_GAP, _GAPS = r"[ \t\r\n]*", r"[ \t\r\n,\x1e]*"
_END_OF_ARRAY = rf"\A{_GAP}(?:{_COUNTED})?{_GAP}\]{_GAP}\z"
_END_OF_VALUES = rf"\A{_GAPS}(?:{_COUNTED})?{_GAPS}\z"


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
    """Cuts a text into elements.

    A chunk begins where, after spaces, an element begins or the array ends. The last chunk holds the end
    of the array and what follows it, which is one more record unless it is blank. An array that is not
    closed has a record without bytes at its end, with a position of its own.

    Attributes:
        is_array: The elements have brackets around them and commas between them.
        size: Bytes, and one position if the end of the array is missing.
    """

    def __init__(self, text: TextFile, max_record_bytes: int) -> None:
        self._text = text
        self._window = max(max_record_bytes, BLOCK_BYTES)
        head = text.read_at(0, text.begin + HEAD_BYTES)
        skipped = _space(head, text.begin).end()  # type: ignore[union-attr]  # matches nothing as well
        if head[skipped : skipped + 1] == b"\x1e":
            skipped = _space_and_comma(head, skipped).end()  # type: ignore[union-attr]  # likewise
        self.is_array = head[skipped : skipped + 1] == b"["
        self.first = skipped + self.is_array
        self.size = text.size + (self.is_array and not _is_closed(text))
        self._skip = _space if self.is_array else _space_and_comma
        self._separator: re.Pattern[bytes] | None = None
        self._separator = self._find_separator(head)

    def _find_separator(self, head: bytes) -> re.Pattern[bytes] | None:
        """Return what separates the elements of a regular file; None if it is not regular."""
        spans = Spans(stop=self.first)  # by brackets alone, since no separator is known yet
        self._walk(head, spans, len(head), at_end=False)
        starts = [*spans.starts[1:], self._skip(head, spans.stop).end()]  # type: ignore[union-attr]
        if head[starts[-1] : starts[-1] + 1] in (b"]", b""):
            starts.pop()
        parts = {head[end:start] for end, start in zip(spans.ends, starts, strict=False)}
        if len(parts) != 1 or b"\n" not in (part := parts.pop()):
            return None
        begins = rb"(?=[^ \t\r\n])" if self.is_array else rb"(?=\{)"
        separator = re.compile(re.escape(part) + begins)
        if any(map(partial(separator.search, head), spans.starts, spans.ends)):
            return None
        places = (self._text.size * at // PLACES for at in range(1, PLACES))
        return separator if all(self._agrees(separator, place) for place in places) else None

    def _agrees(self, separator: re.Pattern[bytes], place: int) -> bool:
        """Say whether separators and brackets agree at a place, as far as the brackets are in order."""
        data = self._text.read_at(place, HEAD_BYTES // PLACES)
        first = separator.search(data)
        if first is None:
            return True
        spans = Spans(stop=first.end())
        self._walk(data, spans, len(data), at_end=False)
        return all(
            separator.match(data, end) and not separator.search(data, start, end)
            for start, end in zip(spans.starts[:-1], spans.ends[:-1], strict=True)
        )

    @property
    def is_regular(self) -> bool:
        """Say whether elements can be found from anywhere in the text."""
        return self._separator is not None

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
        """Return about a block of elements from `position`: at most `limit`, none beyond `stop`."""
        wanted = BLOCK_BYTES
        while True:
            data = self._text.read_at(position, min(wanted, stop - position))
            at_end = position + len(data) == self._text.size
            spans = self.spans(data, self._begin(position), len(data), at_end=at_end, limit=limit)
            if spans.stop or at_end or position + len(data) >= stop or wanted > self._window:
                return data, _first(spans, limit)
            wanted *= 4

    def _begin(self, position: int) -> int:
        return max(0, self.first - position)

    def _one(self, position: int) -> tuple[int, int, int]:
        """Return the end of the element at `position`, which is longer than a block; records and lines."""
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
        if self._separator is not None:
            return self._next_separator(position)
        end = end_of_element(self._text.blocks(position), is_array=self.is_array)
        if end is None:
            return self._text.size
        comma = self.is_array and self._text.read_at(position + end, 1) == b","
        return position + end + comma

    def _next_separator(self, position: int) -> int:
        """Return where the next element of a regular file begins, block by block."""
        assert self._separator is not None  # noqa: S101 - the callers looked
        before = b""
        for block in self._text.blocks(position):
            match = self._separator.search(before + block)
            if match:
                return position - len(before) + match.end()
            position += len(block)
            before = (before + block)[-len(self._separator.pattern) :]
        return self._text.size

    def next_element(self, position: int) -> int:
        """Return where the first element after a position of a regular file begins."""
        return self.first if position <= self.first else self._next_separator(position)

    def count(self) -> int:
        """Count the elements, without `cut` if all of them are objects that are in order.

        A file with anything else in it, or with deeper nesting than `COUNTED_NESTING`, is cut again, in
        another size: what its elements are is a matter of the rule alone.
        """
        position, records = self.first, 0
        while position < self._text.size:
            count, size = self._count_objects(position)
            if not size:
                return self._count_by_cutting()
            position += size
            records += count
        return records if self.size == self._text.size else self._count_by_cutting()

    def _count_by_cutting(self) -> int:
        at, records = Position(), 0
        while chunk := self.cut(at, 1 << 40, 3 * BLOCK_BYTES + 7):
            records += chunk.records
            at = chunk.end
        return records

    def _count_objects(self, position: int) -> tuple[int, int]:
        """Return how many objects begin at a position and follow each other, and their bytes."""
        data = self._text.read_at(position, COUNTED_BYTES)
        element = _GAP + _COUNTED + (f"{_GAP}," if self.is_array else _GAPS)
        end = _END_OF_ARRAY if self.is_array else _END_OF_VALUES
        records, size = count_records(data[: max(0, data.rfind(b"}"))], element)
        is_last = not size and position + len(data) == self._text.size
        if is_last and _matches(data, end):
            return int(b"{" in data), len(data)
        return records, size

    # -- elements -----------------------------------------------------------------------------

    def spans(
        self, data: bytes, begin: int, upto: int, *, at_end: bool, limit: int | None = None
    ) -> Spans:
        """Return the elements that begin in `[begin, upto)` and whose end is in the data.

        Args:
            at_end: The text ends where the data does.
            limit: That many are enough; there may be more.
        """
        spans = Spans()
        if self._separator is not None:
            self._separate(data, begin, spans, limit, is_whole=at_end or upto < len(data))
            if limit is not None and len(spans.starts) >= limit:
                return spans
        elif self.is_array:
            _decode(data, begin, spans)
        spans.stop = spans.stop or begin
        is_whole = at_end or upto < len(data)  # a chunk ends there
        if self._separator is None or is_whole:
            self._walk(data, spans, upto, at_end=at_end)
        if not spans.starts and spans.stop == begin and not at_end:
            spans.stop = 0  # more data is needed
        return spans

    def _separate(
        self, data: bytes, begin: int, spans: Spans, limit: int | None, *, is_whole: bool
    ) -> None:
        """Add all elements of a regular file but for the last one, or as many as are enough.

        Args:
            is_whole: No element of the data goes on after them.
        """
        assert self._separator is not None  # noqa: S101 - the caller looked
        found = self._separator.finditer(data, begin)
        separators = [separator.span() for separator in islice(found, limit)]
        if not separators:
            return
        start = min(_space(data, begin).end(), separators[0][0])  # type: ignore[union-attr]  # same
        starts = [start, *(end for _, end in separators[:-1])]
        ends = [start for start, _ in separators]
        if _are_elements(data, starts, ends):
            spans.starts, spans.ends, spans.stop = starts, ends, separators[-1][1]
            return
        closed, seen = None, -1
        # Those inside of an element separate nothing.
        for end, following in chain(separators, map(re.Match.span, found)):
            if limit is not None and len(spans.starts) >= limit:
                return
            if seen != start:
                closed, seen = self._closed_at(data, start), start
                if closed is None and not is_whole and start + REACH_BYTES > len(data):
                    return
            if end >= (start if closed is None else closed):
                spans.add(start, end, following)
                start = following

    def _closed_at(self, data: bytes, start: int) -> int | None:
        """Return where the element at `start` is closed, without spaces; None if it is not."""
        stop = start + REACH_BYTES
        match = (_ELEMENT if self.is_array else _VALUE).match(data, start, stop)
        end = match.end() if match else stop
        if match and (not self.is_array or data[end : end + 1] in (b",", b"]")) and end < stop:
            return start + len(match[0].rstrip(SPACE))
        part = data[start:stop]  # the whole truth, which is slow
        length = element_at(part, 0, is_array=self.is_array, at_end=False)
        return None if length is None else start + len(part[:length].rstrip(SPACE))

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
            if self._separator is not None and not self._is_last(data, end):
                end = len(data)
            spans.add(start, start + len(data[start:end].rstrip(SPACE)), end)
            if self.is_array and data[end : end + 1] == b",":
                spans.stop += 1

    def _is_last(self, data: bytes, end: int) -> bool:
        """Say whether no more elements follow."""
        rest = data[_space_and_comma(data, end).end() :][:1]  # type: ignore[union-attr]  # same
        return rest == b"" or (self.is_array and rest == b"]")


def _is_closed(text: TextFile) -> bool:
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
    """Return the first `limit` elements."""
    if len(spans.starts) <= limit:
        return spans
    return Spans(spans.starts[:limit], spans.ends[:limit], spans.starts[limit])


def _close(data: bytes, at: int, spans: Spans, *, at_end: bool) -> None:
    """Take the end of an array, and what follows it as one more record."""
    if not at_end:
        return
    if data[at + 1 :].strip(SPACE):
        spans.add(at, len(data.rstrip(SPACE)), len(data))
    spans.stop = len(data)


def _decode(data: bytes, begin: int, spans: Spans) -> None:
    """Add valid elements that are separated by the same bytes, as fast as they can be decoded."""
    begin = _space(data, begin).end()  # type: ignore[union-attr]  # always matches
    end = element_at(data, begin, is_array=True, at_end=False)
    if end is None:
        return
    first = data[begin:end].rstrip(SPACE)
    comma = _comma(data, end)
    if comma is None:
        return
    part = data[begin + len(first) : comma.end()]
    separator, last = first[-1:] + part + first[:1], len(data)
    for _ in range(3):  # the last one may be inside a string or a nested array
        last = data.rfind(separator, begin, last)
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


def _are_elements(data: bytes, starts: list[int], ends: list[int]) -> bool:
    """Say whether each part is one JSON value."""
    parts = [data[start:end] for start, end in zip(starts, ends, strict=True)]
    try:  # in an array each, so that no two parts make a value together
        _decode_singles(b"[[" + b"],[".join(parts) + b"]]")
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _matches(data: bytes, pattern: str) -> bool:
    try:
        text = pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:  # not UTF-8
        return False
    return bool(text.str.contains(pattern).item())


def element_at(data: bytes, start: int, *, is_array: bool, at_end: bool) -> int | None:
    """Return where the element at `start` ends; None if its end is not in the data.

    At the end of the text the last element ends in any case, even if it is cut off.
    """
    match = (_ELEMENT if is_array else _VALUE).match(data, start)
    end = match.end() if match else start
    if is_array and data[end : end + 1] in (b",", b"]"):
        return end
    if not is_array and match:
        return end
    if is_array and end == len(data):
        return end if at_end else None
    if not is_array and data[start : start + 1] not in (b"{", b"["):
        line_end = data.find(b"\n", start)
        return line_end if line_end >= 0 else len(data) if at_end else None
    length = end_of_element((data[start:],), is_array=is_array)
    if length is not None and start + length < len(data):
        return start + length
    return len(data) if at_end else None


def end_of_element(blocks: Iterable[bytes], *, is_array: bool, opened: bytes = b"") -> int | None:
    """Return the length of the element at the beginning of the text; None if it has no end.

    It has none if its brackets do not match or a string in it contains a line end.

    Args:
        opened: Brackets that are open already: the end is that of the first one.
    """
    brackets = _Brackets(is_array=is_array, opened=opened)
    position, in_string, before = 0, False, b""
    for block in blocks:
        data, at, before = before + block, 0, b""
        while at < len(data) and not brackets.is_broken:
            if in_string:
                at = _IN_STRING.match(data, at).end()  # type: ignore[union-attr]  # always matches
                brackets.is_broken = data[at : at + 2] == b"\\\n" or data[at : at + 1] == b"\n"
                before = data[at:]
                in_string = not before.startswith(b'"')
                before = before if in_string else b""
                at += 1
                continue
            at = brackets.skip(data, at)
            token = _TOKEN.search(data, at)
            at = token.end() if token else len(data)
            in_string = token is not None and token[0] == b'"'
            if token and not in_string and brackets.take(token[0]):
                return position + at - is_array
        position += len(data) - len(before)
    return None


class _Brackets:
    """The brackets that are open, outside of strings."""

    def __init__(self, *, is_array: bool, opened: bytes = b"") -> None:
        self._is_array = is_array
        self._open = bytearray(opened)
        self.is_broken = False

    def skip(self, data: bytes, at: int) -> int:
        """Return the end of the text that leaves the open brackets as they are."""
        pattern = _ELEMENT if self._is_array and not self._open else _CLOSED
        match = pattern.match(data, at)
        return match.end() if match else at

    def take(self, token: bytes) -> bool:
        """Take a bracket or comma outside of strings; say whether the element ends there."""
        if token in (b"[", b"{"):
            self._open += token
        elif self._is_array and not self._open:
            self.is_broken = token == b"}"
            return not self.is_broken
        elif token in _CLOSES:
            self.is_broken = self._open[-1:] != _CLOSES[token]
            del self._open[-1:]
            return not self._open and not self._is_array and not self.is_broken
        return False
