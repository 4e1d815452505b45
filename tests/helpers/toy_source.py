"""The source that docs/adding.md makes: a binary format in which each record has its length in front.

A file begins with `BOX1`. Each record is four bytes, the length as a big-endian number, and a JSON
object of that length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from batchimport.errors import SourceChangedError, UsageError
from batchimport.model import Chunk, Position, SourceOptions
from batchimport.schema import Column, RecordSchema
from batchimport.sources.base import Batch, Content, OneFile, unreadable
from batchimport.sources.bytes.file import HEAD_BYTES, TextFile, digest_of
from batchimport.sources.json_decoder import decoder_of
from batchimport.sources.json_records import JsonRecords, decode_samples
from batchimport.sources.json_source import reread

MAGIC = b"BOX1"
LENGTH = struct.Struct(">I")


class BoxSource(OneFile):
    """One file of boxes. Positions are bytes."""

    format = "box"
    reread = staticmethod(reread)
    notes: tuple[str, ...] = ()

    def __init__(self, file: TextFile, name: str, options: SourceOptions) -> None:
        self.name, self._max_record_bytes = name, options.max_record_bytes
        self._file = file
        self.size = self._file.size
        self.fingerprint, self.modified = self._file.fingerprint, self._file.modified
        self.contents: tuple[Content, ...] = (Content(self.size, self._file.content),)
        if self._file.read_at(0, len(MAGIC)) != MAGIC:
            self._file.close()
            raise UsageError("does not begin with BOX1", where=file.path, hint="is it a box file?")

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` boxes that begins at `start`; None at the end."""
        if start.position >= self.size:
            return None
        at, records = max(start.position, len(MAGIC)), 0
        while at < self.size and records < limit:
            end = self._end_of_box(at)
            if records and end - start.position > max_bytes:
                break
            at, records = end, records + 1
        return Chunk(start, replace(start, position=at, record=start.record + records))

    def _end_of_box(self, at: int) -> int:
        length = self._file.read_at(at, LENGTH.size)
        if len(length) < LENGTH.size:
            return self.size
        return min(self.size, at + LENGTH.size + LENGTH.unpack(length)[0])

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        start = max(chunk.lo, len(MAGIC))
        if chunk.records == 1 and chunk.hi - start > self._max_record_bytes + LENGTH.size:
            head = self._file.read_at(start + LENGTH.size, HEAD_BYTES)
            boxes = BoxRecords(self.name, chunk, schema.columns, [head], frozenset({0}), [start])
            return Batch(chunk, decoder_of(schema.columns).empty(), [0], boxes, self.digest(chunk))
        data = self._file.read_at(chunk.lo, chunk.hi - chunk.lo)
        starts = _starts(data, start - chunk.lo)
        if len(starts) != chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self.name)
        bodies = [data[at + LENGTH.size : end] for at, end in pairwise([*starts, len(data)])]
        too_long = {at for at, body in enumerate(bodies) if len(body) > self._max_record_bytes}
        places = [chunk.lo + at for at in starts]
        boxes = BoxRecords(self.name, chunk, schema.columns, bodies, frozenset(too_long), places)
        # The decoder takes lines: a box with a line end in it, or cut off, is deferred.
        without = too_long | {at for at, body in enumerate(bodies) if b"\n" in body}
        if starts and chunk.hi == self.size and _is_cut_off(data, starts[-1]):
            boxes.cut_off = len(starts) - 1
            without.add(boxes.cut_off)
        accepted, deferred = decoder_of(schema.columns).decode(
            bodies, b"\n".join(bodies), frozenset(without)
        )
        return Batch(chunk, accepted, deferred, boxes, digest_of(data))

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._file.digest(chunk.lo, chunk.hi)

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the first bytes, for each number of them."""
        del file  # there is one
        return self._file.head_digests(stops)

    def count(self) -> int:
        """Count the boxes, by their lengths in a walk of its own over the blocks of the file."""
        records, skip, rest = 0, len(MAGIC), b""
        for block in self._file.blocks():
            rest += block
            while len(rest) - skip >= LENGTH.size:
                records, skip = records + 1, skip + LENGTH.size + LENGTH.unpack_from(rest, skip)[0]
                if skip > len(rest):
                    break
            rest, skip = rest[skip:], max(0, skip - len(rest))
        return records + bool(rest)

    def _next_record(self, position: int) -> int | None:
        """Say that none is nearby: nothing in the middle of the file shows where a box begins."""
        del position

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        data = self._file.read_at(chunk.lo, chunk.hi - chunk.lo)
        starts = _starts(data, max(0, len(MAGIC) - chunk.lo))
        return decode_samples(
            data[at + LENGTH.size : end] for at, end in pairwise([*starts, len(data)])
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BoxRecords(JsonRecords):
    """The boxes of one chunk, one at a time.

    Attributes:
        cut_off: Index of a box that is longer than what is left of the file.
    """

    cut_off: int | None = None

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        bodies: Sequence[bytes],
        too_long: frozenset[int],
        places: Sequence[int],
    ) -> None:
        super().__init__(name, chunk, columns)
        self.lines, self.too_long, self._places = list(bodies), too_long, places

    def values(self, index: int) -> dict[str, Any]:
        """Return the object in a box."""
        if index == self.cut_off:
            raise unreadable("cut_off", "the file ends in the middle of this record")
        return super().values(index)

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        raw = self.lines[index]
        place = self._places[index] + LENGTH.size
        return None, place, raw[:HEAD_BYTES] if index in self.too_long else raw


def _starts(data: bytes, at: int) -> list[int]:
    """Return where the boxes begin."""
    starts = []
    while at < len(data):
        starts.append(at)
        length = data[at : at + LENGTH.size]
        at += LENGTH.size + (LENGTH.unpack(length)[0] if len(length) == LENGTH.size else len(data))
    return starts


def _is_cut_off(data: bytes, at: int) -> bool:
    length = data[at : at + LENGTH.size]
    return len(length) < LENGTH.size or at + LENGTH.size + LENGTH.unpack(length)[0] > len(data)


def write_boxes(records: Sequence[bytes]) -> bytes:
    """Return a file with these records."""
    return MAGIC + b"".join(LENGTH.pack(len(record)) + record for record in records)
