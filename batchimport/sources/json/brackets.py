"""The end of one JSON value, by its brackets and quotes, however malformed it is inside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NESTING = 5
"""Brackets in brackets that a pattern sees; deeper ones are counted."""

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


def element_at(data: bytes, start: int, *, is_array: bool, at_end: bool) -> int | None:
    """Return where the element at `start` ends; None if its end cannot be seen.

    At the end of the text that is where the last element ends, also if it is broken off.
    """
    found = (_ELEMENT if is_array else _VALUE).match(data, start)
    end = found.end() if found else start
    if is_array and data[end : end + 1] in (b",", b"]"):
        return end
    if not is_array and found:
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


def end_of_element(blocks: Iterable[bytes], *, is_array: bool) -> int | None:
    """Return the length of the element that begins the text, at any depth; None if it has no end.

    Brackets that do not match and line ends in strings have no end.
    """
    brackets = _Brackets(is_array=is_array)
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
    """Brackets that are open outside of strings."""

    def __init__(self, *, is_array: bool) -> None:
        self._is_array = is_array
        self._open = bytearray()
        self.is_broken = False

    def skip(self, data: bytes, at: int) -> int:
        """Return how far there is nothing to take, but for values that are closed again."""
        pattern = _ELEMENT if self._is_array and not self._open else _CLOSED
        found = pattern.match(data, at)
        return found.end() if found else at

    def take(self, mark: bytes) -> bool:
        """Take a mark outside of strings; say whether the element ends with it, or before it."""
        if mark in (b"[", b"{"):
            self._open += mark
        elif self._is_array and not self._open:
            self.is_broken = mark == b"}"
            return not self.is_broken
        elif mark in _CLOSES:
            self.is_broken = self._open[-1:] != _CLOSES[mark]
            del self._open[-1:]
            return not self._open and not self._is_array and not self.is_broken
        return False
