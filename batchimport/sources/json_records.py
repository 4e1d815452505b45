"""JSON objects as records, one at a time: for the validator and for rejects.

Shared by all sources whose records are JSON objects; `json_decoder` is the fast way for whole chunks.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.model import EXTRA_COLUMN, FieldError
from batchimport.schema.numbers import decimal_of, integer_of, number_of
from batchimport.sources.base import (
    LocatedRecords,
    UnreadableRecordError,
    decode_utf8,
    too_long,
    unreadable,
)
from batchimport.sources.json_decoder import decode_raw, is_read_as_text, repeated_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from batchimport.model import Chunk
    from batchimport.schema import Column

_NAMES = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_decode_as_written = msgspec.json.Decoder(float_hook=decimal_of).decode


class JsonRecords(LocatedRecords):
    """The records of one chunk, one at a time.

    Attributes:
        lines: The records, one JSON text each; a subclass sets them, or splits them when first asked.
        too_long: Indices of those that are longer than is allowed.
    """

    lines: list[bytes]
    too_long: frozenset[int] = frozenset()

    def __init__(self, name: str, chunk: Chunk, columns: tuple[Column, ...]) -> None:
        super().__init__(name, chunk)
        self._columns = columns

    def __len__(self) -> int:
        """Return the number of records."""
        return self._chunk.records

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of records to defer in any case."""
        return self.too_long

    @property
    def data(self) -> bytes:
        """Bytes that hold all records, and nothing else with a quote or a colon."""
        return b"\n".join(self.lines)

    @cached_property
    def texts(self) -> pl.Series | None:
        """The records as strings; None if some are not UTF-8."""
        try:
            return pl.Series(self.lines, dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError:
            return None

    def line(self, index: int) -> bytes:
        """Return one record, without splitting the others."""
        return self.lines[index]

    def values(self, index: int) -> dict[str, Any]:
        """Return the line's object, if it is one and has no key twice."""
        if index in self.too_long:
            raise too_long()
        line = self.line(index)
        decode_utf8(line)
        try:
            record = _decode(line)
        except msgspec.DecodeError as error:
            raise unreadable("malformed_json", _explain(line, str(error))) from error
        except RecursionError as error:
            raise unreadable("too_deep", "nested too deeply") from error
        if not isinstance(record, dict):
            kind = _NAMES.get(type(record), "a number")
            raise unreadable("not_an_object", f"expected a JSON object, found {kind}")
        twice = repeated_keys(line, len(record))
        if twice:
            raise UnreadableRecordError(
                *(
                    FieldError("duplicate_key", key, "the key is there more than once")
                    for key in twice
                )
            )
        return record

    def keys(self, index: int) -> Collection[str] | None:
        """Return the keys of the line's object."""
        return decode_raw(self.line(index))

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns; nested ones as the JSON text that stands there."""
        raw = decode_raw(self.line(index))
        row: dict[str, Any] = {}
        for column in self._columns:
            if column.name in raw:
                row[column.name] = _convert(column, raw.pop(column.name))
        if raw:
            pairs = (f"{json.dumps(key)}:{bytes(value).decode()}" for key, value in raw.items())
            row[EXTRA_COLUMN] = "{" + ",".join(pairs) + "}"
        return row


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
    if text == "-0" and not is_read_as_text(column):
        text = "0"  # the decoder of chunks takes it for an integer, which has no sign
    value = integer_of(text, column) if column.kind == "integer" else number_of(text, column)
    if isinstance(value, FieldError):
        raise UnreadableRecordError(value)
    return value


def on_one_line(record: bytes) -> bytes:
    """Return a JSON value on one line, if it can be read; one that is on one line stays as it is."""
    if b"\n" not in record:
        return record
    try:
        return msgspec.json.format(record, indent=-1)
    except (ValueError, RecursionError):
        return record


def decode_samples(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the texts that are objects, with their numbers as they are written."""
    for text in texts:
        try:
            record = _decode_as_written(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _explain(line: bytes, message: str) -> str:
    if "truncated" in message and b"\\u" in line:
        return "ends too soon, or has half of a surrogate pair"
    if b"NaN" in line or b"Infinity" in line:
        found: list[str] = []
        with suppress(ValueError, RecursionError):
            json.loads(line, parse_constant=found.append)
        if found:
            return f"{found[0]} is not a JSON number"
    message = message.removeprefix("JSON is malformed: ")
    if message.startswith("trailing characters"):
        return f"something follows the object: {message}"
    return message[:1].lower() + message[1:]
