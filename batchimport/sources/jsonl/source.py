"""JSON Lines: one JSON object a line, decoded straight into typed columns.

The typed decoder accepts only what certainly fits the columns; every other line is left to the one
authority, the validator, by way of `JsonLines`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import polars as pl

from batchimport.errors import SourceChangedError
from batchimport.model import EXTRA_COLUMN, Chunk, FieldError, Position, Reject, Stage
from batchimport.schema.numbers import integer_of, number_of
from batchimport.sources.base import Batch, OneFile, UnreadableRecordError
from batchimport.sources.bytes.file import HEAD_BYTES, digest_of
from batchimport.sources.jsonl.decoder import repeated_keys, typed_lines
from batchimport.sources.jsonl.shapes import decode, split
from batchimport.sources.text_lines import BLANK, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.bytes.file import Text

_Lines = TypeVar("_Lines", list[bytes], pl.Series)

BOM = b"\xef\xbb\xbf"
SAMPLE_PLACES = 20
_NAMES = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_decode_as_written = msgspec.json.Decoder(float_hook=Decimal).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class JsonLinesSource(OneFile):
    """One file of JSON lines."""

    format = "jsonl"
    declared: dict[str, Any] | None = None

    def __init__(self, text: Text, name: str, options: SourceOptions) -> None:
        self.name = name
        self.size = text.size
        self.fingerprint = text.fingerprint
        self.modified = text.modified
        self.notes = text.notes
        self._text = text
        self._lines = Lines(text)
        self._begin = len(BOM) if text.read_at(0, len(BOM)) == BOM else 0
        self._max_record_bytes = options.max_record_bytes

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` lines that begins at `start`; None at the end.

        The first chunk holds the byte order mark besides.
        """
        if start.position or not self._begin:
            return self._lines.cut(start, limit, max_bytes)
        chunk = self._lines.cut(replace(start, position=self._begin), limit, max_bytes)
        return Chunk(start, chunk.end if chunk else replace(start, position=self.size))

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        size = chunk.hi - chunk.lo
        typed = typed_lines(schema.columns)
        if chunk.records == 1 and size > self._max_record_bytes:
            start, length = self._only_record(chunk)
            if length > self._max_record_bytes:
                head = self._text.read_at(start.position, min(length, HEAD_BYTES))
                place = Chunk(start, chunk.end)
                records = JsonLines(self.name, place, schema.columns, head, longest=0)
                digest = self._text.digest(chunk.lo, chunk.hi)
                return Batch(chunk, typed.empty(), [0], records, digest)
        data = self._text.read_at(chunk.lo, size)
        begin = self._begin if chunk.lo < self._begin else 0
        records = JsonLines(
            self.name, chunk, schema.columns, data, begin, longest=self._max_record_bytes
        )
        valid, frame, deferred = decode(schema, records)
        return Batch(chunk, frame, deferred, records, digest_of(data), valid)

    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        """Return where the one record of a chunk begins, after blank lines, and its bytes."""
        begin = replace(chunk.start, position=max(chunk.lo, self._begin))
        start = self._lines.after_blank_lines(begin, chunk.hi)
        end = self._lines.end_of_line(start.position)
        ended = self._text.read_at(end - 1, 1) == b"\n"
        return start, end - start.position - ended

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, chunk.hi)

    def count(self) -> int:
        """Count the lines that are not blank."""
        return self._lines.count(self._begin)

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from twenty places."""
        for line in self._sample_lines(records):
            record = decode_sample(line)
            if record is not None:
                yield record

    def _sample_lines(self, records: int | None) -> Iterator[bytes]:
        whole = self._lines.cut(Position(), records, 64 * 1024 * 1024) if records else None
        if records is None or (whole is not None and whole.hi == self.size):
            starts, wanted = iter([0]), self.size
        else:
            places = (self.size * place // SAMPLE_PLACES for place in range(1, SAMPLE_PLACES))
            found = map(self._lines.next_line, places)
            starts = chain([0], (at for at in found if at is not None))
            wanted = max(1, records // SAMPLE_PLACES)
        for start in starts:
            at = Position(start)
            left = wanted
            while left > 0 and (chunk := self._lines.cut(at, min(left, 4000), 1 << 24)):
                if chunk.hi - chunk.lo <= 1 << 24:
                    yield from self._lines_of(chunk)
                left -= chunk.records
                at = chunk.end

    def _lines_of(self, chunk: Chunk) -> list[bytes]:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        return data.removeprefix(BOM).split(b"\n")

    def continues(self, fingerprint: str) -> bool:
        """Say whether records were added to the file with this fingerprint."""
        return self._text.continues(fingerprint)

    def close(self) -> None:
        """Close the file."""
        self._text.close()


class JsonLines:
    """The lines of one chunk that are not blank: a list of bytes only once a record is asked for.

    Args:
        data: The chunk's bytes.
        begin: Where its first line begins.
        longest: Bytes that a record may have.
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
        self._name = name
        self._chunk = chunk
        self._columns = columns
        self._data = data
        self._begin = begin
        self._longest = longest

    def __len__(self) -> int:
        """Return the number of records."""
        return self._chunk.records

    @property
    def data(self) -> bytes:
        """Bytes that hold all records, and nothing else but blank lines."""
        return self._data

    @cached_property
    def texts(self) -> pl.Series | None:
        """The records as strings; None if some are not UTF-8.

        Raises:
            SourceChangedError: If these are not as many lines as the chunk has records.
        """
        texts = split(self._data[self._begin :])
        if texts is None or len(texts) == len(self):
            return texts
        texts = texts.filter(texts.str.strip_chars(BLANK.decode()) != "")
        return self._counted(texts)

    @cached_property
    def lines(self) -> list[bytes]:
        """The records.

        Raises:
            SourceChangedError: If these are not as many lines as the chunk has records.
        """
        lines = list(self._all_lines)
        lines[:1] = [line[self._begin :] for line in lines[:1]]
        if len(lines) != len(self):
            lines = [lines[number] for number in self._numbers]
        return self._counted(lines)

    @cached_property
    def too_long(self) -> frozenset[int]:
        """Indices of records that are longer than is allowed."""
        if len(self._data) <= self._longest:
            return frozenset()
        sizes = enumerate(map(len, self.lines))
        return frozenset(index for index, size in sizes if size > self._longest)

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of records that are not to be decoded with the others."""
        return self.too_long

    @cached_property
    def _all_lines(self) -> list[bytes]:
        lines = self._data.split(b"\n")
        return lines if lines[-1] else lines[:-1]

    @cached_property
    def _numbers(self) -> Sequence[int]:
        """Which line of the chunk each record is."""
        if len(self._all_lines) == len(self):
            return range(len(self))
        head = self._all_lines[0][self._begin :]
        lines = enumerate([head, *self._all_lines[1:]])
        return [number for number, line in lines if line.strip(BLANK)]

    def _counted(self, records: _Lines) -> _Lines:
        if len(records) != len(self):
            raise SourceChangedError("the file changed while it was read", where=self._name)
        return records

    def values(self, index: int) -> dict[str, Any]:
        """Return the line's object, if it is one and has no key twice."""
        if index in self.too_long:
            raise unreadable("record_too_long", "longer than --max-record-bytes allows")
        line = self.lines[index]
        try:
            line.decode()
            record = _decode(line)
        except UnicodeDecodeError as error:
            raise unreadable(
                "invalid_utf8", f"no valid text at byte {error.start}: see --encoding"
            ) from error
        except msgspec.DecodeError as error:
            raise unreadable("malformed_json", _explain(line, str(error))) from error
        except RecursionError as error:
            raise unreadable("too_deep", "nested too deeply") from error
        if not isinstance(record, dict):
            found = _NAMES.get(type(record), "a number")
            raise unreadable("not_an_object", f"expected a JSON object, found {found}")
        twice = repeated_keys(line)
        if twice:
            raise UnreadableRecordError(
                *(
                    FieldError("duplicate_key", key, "the key is there more than once")
                    for key in twice
                )
            )
        return record

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns; nested ones as the JSON text that stands there."""
        raw = _decode_raw(self.lines[index])
        row: dict[str, Any] = {}
        for column in self._columns:
            if column.name in raw:
                row[column.name] = _convert(column, raw.pop(column.name))
        if raw:
            pairs = (f"{json.dumps(key)}:{bytes(value).decode()}" for key, value in raw.items())
            row[EXTRA_COLUMN] = "{" + ",".join(pairs) + "}"
        return row

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a line."""
        number = self._numbers[index]
        line = self.lines[index]
        before = self._lengths[number - 1] + number if number else 0
        return Reject(
            record=self._chunk.offset + index,
            source=self._name,
            line=self._chunk.start.line + number,
            byte_offset=self._chunk.lo + before,
            stage=stage,
            errors=tuple(errors),
            raw=(line[:HEAD_BYTES] if index in self.too_long else line).removesuffix(b"\r"),
        )

    @cached_property
    def _lengths(self) -> list[int]:
        """Bytes of all lines up to and with each, blank ones included, line ends apart."""
        return list(accumulate(map(len, self._all_lines)))


def _decode(line: bytes) -> Any:
    """Return the values of a line; a number beyond a double is a Decimal."""
    try:
        return msgspec.json.decode(line)
    except msgspec.ValidationError:  # number out of range
        return _decode_as_written(line)


def _convert(column: Column, raw: msgspec.Raw) -> Any:
    text = bytes(raw).decode()
    if text == "null":
        return None
    if column.kind == "json":
        return text
    if column.kind not in ("integer", "number"):
        return msgspec.json.decode(raw)
    value = integer_of(text, column) if column.kind == "integer" else number_of(text, column)
    if isinstance(value, FieldError):
        raise UnreadableRecordError(value)
    return value


def decode_sample(text: bytes) -> dict[str, Any] | None:
    """Return a record with its numbers as they are written; None if it is none."""
    try:
        record = _decode_as_written(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def unreadable(code: str, message: str) -> UnreadableRecordError:
    """Return the error of a record that has one reason."""
    return UnreadableRecordError(FieldError(code, "", message))


def _explain(line: bytes, message: str) -> str:
    if "truncated" in message and b"\\u" in line:
        return "ends too soon, or has half of a surrogate pair"
    message = message.removeprefix("JSON is malformed: ")
    if message.startswith("trailing characters"):
        return f"something follows the object: {message}"
    return message[:1].lower() + message[1:]
