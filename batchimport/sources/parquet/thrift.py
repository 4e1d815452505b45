"""Thrift's compact protocol, in which the footer of a Parquet file is written: as plain values.

A struct is a dict of field number to `(type, value)`, a list is `(type of its items, items)`. So a footer
can be changed and written again, whatever fields a later version of the format has added.
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEEPEST = 64
"""Levels of structs and lists; a footer has about ten."""

Struct = dict[int, tuple[int, Any]]


class MalformedError(ValueError):
    """These bytes are not of the protocol."""


def decode(data: bytes) -> Struct:
    """Return the struct that begins the data.

    Raises:
        MalformedError: If there is none.
    """
    return decode_first(data)[0]


def decode_first(data: bytes) -> tuple[Struct, int]:
    """Return the struct that begins the data, and its length.

    Raises:
        MalformedError: If there is none.
    """
    reader = _Reader(data)
    try:
        return reader.struct(0), reader.position
    except (IndexError, OverflowError) as error:
        raise MalformedError("it ends too soon") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def position(self) -> int:
        return self._at

    def _varint(self) -> int:
        data, at = self._data, self._at
        byte = data[at]
        value, shift = byte & 127, 7
        while byte & 128:
            at += 1
            byte = data[at]
            value |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise MalformedError("a number is too long")
        self._at = at + 1
        return value

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _bytes(self, length: int) -> bytes:
        start = self._at
        if start + length > len(self._data):
            raise MalformedError("it ends too soon")
        self._at = start + length
        return self._data[start : self._at]

    def struct(self, depth: int) -> Struct:
        if depth > DEEPEST:
            raise MalformedError("it is nested too deeply")
        fields: Struct = {}
        number = 0
        while True:
            header = self._data[self._at]
            self._at += 1
            if not header:
                return fields
            delta, kind = header >> 4, header & 15
            number = number + delta if delta else self._integer()
            fields[number] = (kind, self._value(kind, depth))

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            return self._integer()
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            return self._list(depth + 1)
        if kind in (BYTE, DOUBLE):
            return self._bytes(1 if kind == BYTE else 8)
        raise MalformedError(f"there is no type {kind} in a footer")

    def _list(self, depth: int) -> tuple[int, list[Any]]:
        if depth > DEEPEST:
            raise MalformedError("it is nested too deeply")
        header = self._data[self._at]
        self._at += 1
        kind, length = header & 15, header >> 4
        if length == 15:
            length = self._varint()
        if length > len(self._data):
            raise MalformedError("a list is longer than the footer")
        if kind in (TRUE, FALSE):  # one byte each in a list
            return kind, [self._bytes(1) == b"\x01" for _ in range(length)]
        return kind, [self._value(kind, depth) for _ in range(length)]


def encode(struct: Struct) -> bytes:
    """Return a struct as bytes."""
    parts: list[bytes] = []
    before = 0
    for number in sorted(struct):
        kind, value = struct[number]
        if kind in (TRUE, FALSE):
            kind = TRUE if value else FALSE
        delta = number - before
        if 0 < delta <= 15:
            parts.append(bytes([delta << 4 | kind]))
        else:
            parts += [bytes([kind]), _encoded_integer(number)]
        if kind not in (TRUE, FALSE):
            parts.append(_encoded(kind, value))
        before = number
    return b"".join(parts) + b"\0"


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _encoded_integer(value)
    if kind == BINARY:
        return _encoded_varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return encode(value)
    if kind in (LIST, SET):
        return _encoded_list(*value)
    return bytes(value)


def _encoded_list(kind: int, items: list[Any]) -> bytes:
    head = bytes([min(len(items), 15) << 4 | kind])
    if len(items) >= 15:
        head += _encoded_varint(len(items))
    if kind in (TRUE, FALSE):
        return head + bytes(1 if item else 2 for item in items)
    return head + b"".join(_encoded(kind, item) for item in items)


def _encoded_integer(number: int) -> bytes:
    return _encoded_varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _encoded_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
