"""A JSON array of objects, or JSON objects one after the other, over any lines.

An element is decoded like a line of JSON lines; one that spans lines is put on one before.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import SourceChangedError, UsageError
from batchimport.model import Chunk, Position, Reject, Stage
from batchimport.sources.base import Batch, OneFile
from batchimport.sources.bytes.file import HEAD_BYTES, digest_of
from batchimport.sources.json.elements import Elements
from batchimport.sources.jsonl.decoder import typed_lines
from batchimport.sources.jsonl.shapes import decode
from batchimport.sources.jsonl.source import JsonLines, decode_sample, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import FieldError, SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.bytes.file import Text

SAMPLE_PLACES = 20
SAMPLE_CHUNK_BYTES = 1 << 22


class JsonValuesSource(OneFile):
    """One file of JSON that is not one object a line."""

    format = "json"
    declared: dict[str, Any] | None = None

    def __init__(self, text: Text, name: str, options: SourceOptions) -> None:
        self._elements = Elements(text, options.max_record_bytes)
        if not self._elements.is_array and self._first_byte(text) not in (b"{", b""):
            raise UsageError(
                "is one JSON value, neither an array nor objects",
                where=text.path,
                hint="check --format",
            )
        self.name = name
        self.size = self._elements.size
        self.fingerprint = text.fingerprint
        self.modified = text.modified
        self.notes = (*text.notes, *self._layout())
        self._text = text
        self._max_record_bytes = options.max_record_bytes

    def _first_byte(self, text: Text) -> bytes:
        return text.read_at(self._elements.first, 1)

    def _layout(self) -> tuple[str, ...]:
        if not self._elements.is_array:
            return ("layout: JSON objects one after the other",)
        return ("layout: one JSON array",)

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` elements that begins at `start`; None at the end."""
        return self._elements.cut(start, limit, max_bytes)

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        columns = schema.columns
        typed = typed_lines(columns)
        size = chunk.hi - chunk.lo
        if chunk.records == 1 and size > self._max_record_bytes + HEAD_BYTES:
            head = self._text.read_at(chunk.lo, HEAD_BYTES)
            begin = max(0, self._elements.first - chunk.lo)
            origin = ElementRecords(
                self.name, chunk, columns, head, [begin], [len(head)], longest=0
            )
            return Batch(chunk, typed.empty(), [0], origin, self.digest(chunk))
        data, starts, ends = self._read(chunk)
        origin = ElementRecords(
            self.name, chunk, columns, data, starts, ends, longest=self._max_record_bytes
        )
        valid, frame, deferred = decode(schema, origin)
        return Batch(chunk, frame, deferred, origin, digest_of(data), valid)

    def _read(self, chunk: Chunk) -> tuple[bytes, list[int], list[int]]:
        """Return the bytes of a chunk, and where its elements begin and end in them."""
        size = min(chunk.hi, self._text.size) - chunk.lo
        if size <= 0:
            return b"", [0], [0]
        more = self._text.read_at(chunk.lo, size + 1)  # the end of the last one shows after it
        begin = max(0, self._elements.first - chunk.lo)
        spans = self._elements.spans(more, begin, size, at_end=len(more) == size)
        if len(spans.starts) != chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self.name)
        return more[:size], spans.starts, spans.ends

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, max(chunk.lo, min(chunk.hi, self._text.size)))

    def count(self) -> int:
        """Count the elements."""
        return self._elements.count()

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from all over the file."""
        for element in self._sample_elements(records):
            record = decode_sample(element)
            if record is not None:
                yield record

    def _sample_elements(self, records: int | None) -> Iterator[bytes]:
        is_small = self.size <= SAMPLE_CHUNK_BYTES
        if records is None or is_small or not self._elements.is_regular:
            yield from self._evenly(records)
            return
        each = max(1, records // SAMPLE_PLACES)
        for place in range(SAMPLE_PLACES):
            start = self._elements.next_element(self.size * place // SAMPLE_PLACES)
            at, left = Position(start), each
            while left > 0 and (chunk := self.cut(at, left, SAMPLE_CHUNK_BYTES)):
                yield from self._elements_of(chunk)
                left -= max(1, chunk.records)
                at = chunk.end

    def _evenly(self, records: int | None) -> Iterator[bytes]:
        """Go through the whole file, since elements cannot be found from its midst."""
        at, wanted = Position(), 0.0
        while chunk := self.cut(at, 1 << 40, SAMPLE_CHUNK_BYTES):
            share = max(1.0, (records or 0) * (chunk.hi - chunk.lo) / self.size)
            step = 1.0 if records is None else max(1.0, chunk.records / share)
            for number, element in enumerate(self._elements_of(chunk)):
                if number >= wanted:
                    yield element
                    wanted += step
            wanted = 0.0
            at = chunk.end

    def _elements_of(self, chunk: Chunk) -> Iterator[bytes]:
        if chunk.hi - chunk.lo <= 2 * SAMPLE_CHUNK_BYTES:
            data, starts, ends = self._read(chunk)
            yield from (data[start:end] for start, end in zip(starts, ends, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._text.close()


class ElementRecords(JsonLines):
    """The elements of one chunk, one at a time.

    Attributes:
        lines: Each element on one line.
        broken: Elements over several lines that are malformed.
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
        super().__init__(name, chunk, columns, data, longest=longest)
        self._starts, self._ends = starts, ends
        self.broken: set[int] = set()
        self.lines = [data[start:end] for start, end in zip(starts, ends, strict=True)]
        self._is_changed = b"\n" in data and any(b"\n" in line for line in self.lines)
        if self._is_changed:
            self.lines = [self._on_one_line(at, line) for at, line in enumerate(self.lines)]

    @property
    def data(self) -> bytes:
        """Bytes that hold all elements, each on one line."""
        return b"\n".join(self.lines) if self._is_changed else self._data

    @cached_property
    def texts(self) -> pl.Series | None:
        """The elements as strings; None if some are not UTF-8."""
        try:
            return pl.Series(self.lines, dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError:
            return None

    @cached_property
    def too_long(self) -> frozenset[int]:
        """Indices of elements that are longer than is allowed, as they stand in the file."""
        spans = enumerate(zip(self._starts, self._ends, strict=True))
        return frozenset(at for at, (start, end) in spans if end - start > self._longest)

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of elements that are not to be decoded with the others."""
        return self.too_long | self.broken

    def _on_one_line(self, index: int, element: bytes) -> bytes:
        if b"\n" not in element:
            return element
        try:
            return msgspec.json.format(element, indent=-1)
        except (ValueError, RecursionError):
            self.broken.add(index)
            return element

    def values(self, index: int) -> dict[str, Any]:
        """Return the element's object, if it is one and has no key twice."""
        if self._chunk.hi - self._chunk.lo == 1 and not self._data:
            message = "the file ends before its array does: it may have been cut off"
            raise unreadable("truncated_array", message)
        return super().values(index)

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of an element, as it stands in the file."""
        start, end = self._starts[index], self._ends[index]
        if index in self.too_long:
            end = min(end, start + HEAD_BYTES)
        return Reject(
            record=self._chunk.offset + index,
            source=self._name,
            line=self._chunk.start.line + self._lines_before[index],
            byte_offset=self._chunk.lo + start,
            stage=stage,
            errors=tuple(errors),
            raw=self._data[start:end],
        )

    @cached_property
    def _lines_before(self) -> list[int]:
        """Line ends of the chunk before each element."""
        pairs = pairwise([0, *self._starts])
        return list(accumulate(self._data.count(b"\n", *pair) for pair in pairs))
