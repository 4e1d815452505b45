"""JSON Lines: one JSON object a line."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from batchimport.errors import SourceChangedError
from batchimport.model import Chunk, Position
from batchimport.sources.base import Batch, Piece
from batchimport.sources.bytes.file import HEAD_BYTES, digest_of
from batchimport.sources.flat import FlatRecords
from batchimport.sources.joined import JoinedRecords, lines_of, starts_of, whole_of
from batchimport.sources.json_records import JsonRecords
from batchimport.sources.json_shapes import decode, split
from batchimport.sources.json_source import JsonSource
from batchimport.sources.text_lines import BLANK, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import FieldError, Reject, SourceOptions, Stage
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.bytes.file import TextFile

_Lines = TypeVar("_Lines", list[bytes], pl.Series)


class JsonLinesSource(JsonSource):
    """One file of JSON lines."""

    format = "jsonl"

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        super().__init__(text, name, options)
        self._lines = Lines(text)

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` lines that begins at `start`; None at the end.

        The first chunk also holds the byte order mark.
        """
        begin = self._text.begin
        if start.position or not begin:
            return self._lines.cut(start, limit, max_bytes)
        chunk = self._lines.cut(replace(start, position=begin), limit, max_bytes)
        return Chunk(start, chunk.end if chunk else replace(start, position=self.size))

    def _records(self, chunk: Chunk, columns: tuple[Column, ...]) -> tuple[bytes, LineRecords]:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        begin, longest = self._begin_in(chunk), self._max_record_bytes
        return data, LineRecords(self.name, chunk, columns, data, begin, longest=longest)

    def piece(self, chunk: Chunk) -> Piece | None:
        """Return a chunk to be parsed with those of other files."""
        if self._may_be_too_long(chunk):
            return None
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        likeness = self._flatten, self._max_record_bytes
        return Piece(self, chunk, data, self._begin_in(chunk), digest_of(data), likeness)

    @staticmethod
    def read_pieces(pieces: Sequence[Piece], schema: RecordSchema) -> Batch:
        """Parse chunks of several files, their lines laid end to end."""
        is_flat, longest = pieces[0].likeness
        records = JoinedLines(pieces, schema.columns, longest)
        shown = FlatRecords(records, schema.columns) if is_flat else records
        valid, frame, deferred = decode(schema, shown)
        digests = tuple(piece.digest for piece in pieces)
        return Batch(records.place[1], frame, deferred, shown, "", valid, digests)

    def records_of(self, piece: Piece) -> LineRecords:
        """Return the records of a chunk of this file that was parsed with others, for their rejects."""
        longest = self._max_record_bytes
        return LineRecords(self.name, piece.chunk, (), piece.data, piece.begin, longest=longest)

    def _begin_in(self, chunk: Chunk) -> int:
        """Return where the first line of a chunk begins: after the byte order mark, if it is there."""
        return max(0, self._text.begin - chunk.lo)

    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        begin = replace(chunk.start, position=max(chunk.lo, self._text.begin))
        start = self._lines.after_blank_lines(begin, chunk.hi)
        end = self._lines.end_of_line(start.position)
        ended = self._text.read_at(end - 1, 1) == b"\n"
        return start, end - start.position - ended

    def _head(self, chunk: Chunk, head: bytes, columns: tuple[Column, ...]) -> LineRecords:
        return LineRecords(self.name, chunk, columns, head, longest=0)

    def count(self) -> int:
        """Count the lines that are not blank."""
        return self._lines.count(self._text.begin)

    def _next_record(self, position: int) -> int | None:
        return self._lines.next_line(position)

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        return self._samples(data[self._begin_in(chunk) :].split(b"\n"))

    def continues(self, fingerprint: str) -> bool:
        """Say whether lines were added to the file with this fingerprint."""
        return self._text.continues(fingerprint)


class LineRecords(JsonRecords):
    """The lines of one chunk that are not blank, split only when a record is asked for.

    Args:
        data: The chunk's bytes.
        begin: Where its first line begins.
        longest: Maximum number of bytes of a record.
    """

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        data: bytes,
        begin: int = 0,
        *,
        longest: int,
    ) -> None:
        super().__init__(name, chunk, columns)
        self._data = data
        self._begin = begin
        self._longest = longest

    @property
    def data(self) -> bytes:
        """The chunk's bytes."""
        return self._data

    @cached_property
    def texts(self) -> pl.Series | None:
        """The records as strings; None if some are not UTF-8.

        Raises:
            SourceChangedError: If the number of lines is not the chunk's number of records.
        """
        texts = self._all_texts
        if texts is None or len(texts) == len(self):
            return texts
        return self._counted(texts.gather(pl.Series(self._numbers, dtype=pl.UInt32)))

    @cached_property
    def lines(self) -> list[bytes]:  # type: ignore[override]  # computed once, then an attribute
        """The records.

        Raises:
            SourceChangedError: If the number of lines is not the chunk's number of records.
        """
        lines = self._all_lines
        if len(lines) != len(self):
            lines = [lines[number] for number in self._numbers]
        return self._counted(lines)

    def line(self, index: int) -> bytes:
        """Return one record, without splitting the others."""
        number = self._numbers[index]
        return self._data[self._starts[number] : self._starts[number + 1] - 1]

    @cached_property
    def too_long(self) -> frozenset[int]:  # type: ignore[override]  # the same
        """Indices of records that are longer than is allowed."""
        if len(self._data) <= self._longest:
            return frozenset()
        sizes = self._sizes.gather(pl.Series(self._numbers, dtype=pl.UInt32))
        return frozenset((sizes > self._longest).arg_true().to_list())

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        number, raw = self._numbers[index], self.line(index)
        raw = raw[:HEAD_BYTES] if index in self.too_long else raw
        before = self._starts[number] if number else 0
        return self._chunk.start.line + number, self._chunk.lo + before, raw.removesuffix(b"\r")

    @cached_property
    def _all_texts(self) -> pl.Series | None:
        """All lines, the first one without the byte order mark; None if some are not UTF-8."""
        return split(self._data[self._begin :])

    @cached_property
    def _all_lines(self) -> list[bytes]:
        """The same as bytes."""
        lines = self._data[self._begin :].split(b"\n")
        return lines if lines[-1] else lines[:-1]

    @cached_property
    def _sizes(self) -> pl.Series:
        """For each line, its bytes without the line end."""
        if self._all_texts is None:
            return pl.Series(map(len, self._all_lines), dtype=pl.Int64)
        return self._all_texts.str.len_bytes().cast(pl.Int64)

    @cached_property
    def _starts(self) -> list[int]:
        """For each line, and for the one that would follow, where it begins in the chunk."""
        ends = (self._sizes + 1).cum_sum() + self._begin
        return [self._begin, *ends.to_list()]

    @cached_property
    def _numbers(self) -> Sequence[int]:
        """For each record, the number of its line in the chunk."""
        if len(self._sizes) == len(self):
            return range(len(self))
        if self._all_texts is None:
            lines = enumerate(self._all_lines)
            return [number for number, line in lines if line.strip(BLANK)]
        return (self._all_texts.str.strip_chars(BLANK.decode()) != "").arg_true().to_list()

    def _counted(self, records: _Lines) -> _Lines:
        if len(records) != len(self):
            raise SourceChangedError("the file changed while it was read", where=self._name)
        return records


class JoinedLines(LineRecords):
    """The lines of several files, one after the other; a reject names its own file."""

    def __init__(self, pieces: Sequence[Piece], columns: tuple[Column, ...], longest: int) -> None:
        chunk = whole_of([piece.chunk for piece in pieces])
        name = pieces[0].source.name
        super().__init__(name, chunk, columns, lines_of(pieces), longest=longest)
        self._pieces = pieces

    @cached_property
    def _parts(self) -> JoinedRecords:
        parts = [piece.source.records_of(piece) for piece in self._pieces]
        return JoinedRecords(parts, starts_of([piece.chunk for piece in self._pieces]))

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record."""
        return self._parts.reject(index, stage, errors)
