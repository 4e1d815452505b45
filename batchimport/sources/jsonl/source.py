"""JSON Lines: one JSON object a line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchimport.errors import SourceChangedError
from batchimport.model import Chunk, Position
from batchimport.sources.base import Batch, TextSource
from batchimport.sources.bytes.file import digest_of
from batchimport.sources.json_decoder import decoder_of
from batchimport.sources.json_records import JsonRecords, decode_samples
from batchimport.sources.text_lines import BLANK, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from batchimport.model import SourceOptions
    from batchimport.schema import RecordSchema
    from batchimport.sources.bytes.file import TextFile


class JsonLinesSource(TextSource):
    """One file of JSON lines."""

    format = "jsonl"

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        super().__init__(text, name, options.max_record_bytes)
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

    def _read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        all_lines, lines = self._split(data, chunk.lo)
        numbers: Sequence[int] = range(len(lines))
        if len(lines) != chunk.records:
            numbers = [number for number, line in enumerate(lines) if line.strip(BLANK)]
            lines = [lines[number] for number in numbers]
        if len(lines) != chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self.name)
        too_long: frozenset[int] = frozenset()
        if max(map(len, lines), default=0) > self._max_record_bytes:
            sizes = enumerate(map(len, lines))
            too_long = frozenset(at for at, size in sizes if size > self._max_record_bytes)
        records = JsonRecords(self.name, chunk, schema.columns, lines, too_long, numbers, all_lines)
        accepted, deferred = decoder_of(schema.columns).decode(lines, data, too_long)
        return Batch(chunk, accepted, deferred, records, digest_of(data))

    def _split(self, data: bytes, start: int) -> tuple[list[bytes], list[bytes]]:
        """Return the lines of a chunk, and the same without the byte order mark."""
        all_lines = lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if start < self._text.begin:
            lines = [lines[0][self._text.begin :], *lines[1:]]
        return all_lines, lines

    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        begin = replace(chunk.start, position=max(chunk.lo, self._text.begin))
        start = self._lines.after_blank_lines(begin, chunk.hi)
        end = self._lines.end_of_line(start.position)
        ended = self._text.read_at(end - 1, 1) == b"\n"
        return start, end - start.position - ended

    def _too_long(
        self, chunk: Chunk, head: bytes, schema: RecordSchema
    ) -> tuple[pl.DataFrame, JsonRecords]:
        records = JsonRecords(self.name, chunk, schema.columns, [head], frozenset({0}))
        return decoder_of(schema.columns).empty(), records

    def count(self) -> int:
        """Count the lines that are not blank."""
        return self._lines.count(self._text.begin)

    def _next_record(self, position: int) -> int | None:
        return self._lines.next_line(position)

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        _, lines = self._split(data, chunk.lo)
        return decode_samples(lines)

    def continues(self, fingerprint: str) -> bool:
        """Say whether lines were added to the file with this fingerprint."""
        return self._text.continues(fingerprint)
