"""A JSON array of objects, or JSON objects one after the other, on any number of lines.

An element is decoded like a line of JSON Lines; one that spans lines is first rewritten on one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchimport.errors import SourceChangedError, UsageError
from batchimport.model import Position
from batchimport.sources.base import (
    SAMPLE_CHUNK_BYTES,
    Content,
    unreadable,
)
from batchimport.sources.bytes.file import HEAD_BYTES
from batchimport.sources.json.elements import Elements
from batchimport.sources.json.envelope import inside
from batchimport.sources.json_records import JsonRecords, on_one_line
from batchimport.sources.json_source import JsonSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchimport.model import Chunk, SourceOptions
    from batchimport.schema import Column
    from batchimport.sources.bytes.file import TextFile


class JsonValuesSource(JsonSource):
    """One file of JSON that is not one object a line."""

    format = "json"

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        super().__init__(text, name, options)
        if options.records is not None:
            self._text = text = inside(text, options.records)
        self._elements = Elements(text, options.max_record_bytes)
        is_array, first = self._elements.is_array, self._elements.first
        if not is_array and text.read_at(first, 1) not in (b"{", b""):
            begin = text.read_at(first, 40).decode(errors="replace").partition("\n")[0]
            raise UsageError(
                f"begins with {begin!r}: neither a JSON array nor JSON objects",
                where=text.path,
                hint="check the file, and --format",
            )
        self.size = self._elements.size
        self.contents = (Content(self.size, text.content),)
        layout = (
            f"the array {options.records}"
            if options.records
            else "one JSON array"
            if is_array
            else "JSON objects one after the other"
        )
        self.notes = (*text.notes, f"layout: {layout}")

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` elements that begins at `start`; None at the end."""
        return self._elements.cut(start, limit, max_bytes)

    def _records(self, chunk: Chunk, columns: tuple[Column, ...]) -> tuple[bytes, ElementRecords]:
        data, starts, ends = self._split(chunk)
        longest = self._max_record_bytes
        return data, ElementRecords(self.name, chunk, columns, data, starts, ends, longest=longest)

    def _split(self, chunk: Chunk) -> tuple[bytes, list[int], list[int]]:
        """Return the bytes of a chunk, and where its elements begin and end in them."""
        size = min(chunk.hi, self._text.size) - chunk.lo
        if size <= 0:
            return b"", [0], [0]
        more = self._text.read_at(chunk.lo, size + 1)  # one byte more shows the end of the last one
        begin = max(0, self._elements.first - chunk.lo)
        spans = self._elements.spans(more, begin, size, at_end=len(more) == size)
        if len(spans.starts) != chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self.name)
        return more[:size], spans.starts, spans.ends

    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        begin = max(chunk.lo, self._elements.first)
        # What separates elements is in the chunk, too: allow for as much as the head of a record.
        length = chunk.hi - begin - HEAD_BYTES
        return Position(begin, chunk.start.record, chunk.start.line), length

    def _head(self, chunk: Chunk, head: bytes, columns: tuple[Column, ...]) -> ElementRecords:
        return ElementRecords(self.name, chunk, columns, head, [0], [len(head)], longest=0)

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, max(chunk.lo, min(chunk.hi, self._text.size)))

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the first bytes, for each number of them."""
        ends = {stop: min(stop, self._text.size) for stop in stops}
        digests = super().head_digests(file, ends.values())
        return {stop: digests[end] for stop, end in ends.items()}

    def count(self) -> int:
        """Count the elements."""
        return self._elements.count()

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from all over the file."""
        if records is None or self._elements.is_regular:
            yield from super().sample(records)
            return
        at = Position()  # the elements of other files can only be found from the beginning
        while chunk := self.cut(at, 1 << 40, SAMPLE_CHUNK_BYTES):
            share = max(1.0, records * (chunk.hi - chunk.lo) / self.size)
            step = max(1, int(chunk.records / share))
            if chunk.hi - chunk.lo <= 2 * SAMPLE_CHUNK_BYTES:
                yield from self._samples(self._elements_of(chunk)[::step])
            at = chunk.end

    def _next_record(self, position: int) -> int | None:
        return self._elements.next_element(position)

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        return self._samples(self._elements_of(chunk))

    def _elements_of(self, chunk: Chunk) -> list[bytes]:
        data, starts, ends = self._split(chunk)
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]


class ElementRecords(JsonRecords):
    """The elements of one chunk, one at a time.

    Attributes:
        lines: The elements, each on one line.
        malformed: Elements over several lines that are malformed.
        too_long: Indices of elements that are longer than is allowed, as they stand in the file.

    Args:
        longest: Maximum number of bytes of an element.
    """

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        data: bytes,
        starts: Sequence[int],
        ends: Sequence[int],
        *,
        longest: int,
    ) -> None:
        super().__init__(name, chunk, columns)
        self._data, self._starts, self._ends = data, starts, ends
        self._counted = (0, 0)
        self.malformed: set[int] = set()
        self.lines = [data[start:end] for start, end in zip(starts, ends, strict=True)]
        self.too_long = frozenset(
            at for at, element in enumerate(self.lines) if len(element) > longest
        )
        self._is_changed = b"\n" in data and any(b"\n" in line for line in self.lines)
        if self._is_changed:
            self.lines = [on_one_line(line) for line in self.lines]
            self.malformed = {at for at, line in enumerate(self.lines) if b"\n" in line}

    @property
    def data(self) -> bytes:
        """Bytes that hold all elements, each on one line."""
        return super().data if self._is_changed else self._data

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of elements to defer in any case."""
        return self.too_long | self.malformed

    def values(self, index: int) -> dict[str, Any]:
        """Return the element's object, if it is one and has no key twice."""
        if self._chunk.hi - self._chunk.lo == 1 and not self._data:
            message = "the file ends before its array does: it may be truncated"
            raise unreadable("truncated_array", message)
        return super().values(index)

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        start, end = self._starts[index], self._ends[index]
        if index in self.too_long:
            end = min(end, start + HEAD_BYTES)
        line = self._chunk.start.line + self._lines_before(start)
        return line, self._chunk.lo + start, self._data[start:end]

    def _lines_before(self, start: int) -> int:
        """Count the line ends before a place, from the place that was asked for last."""
        known, lines = self._counted if self._counted[0] <= start else (0, 0)
        self._counted = start, lines + self._data.count(b"\n", known, start)
        return self._counted[1]
