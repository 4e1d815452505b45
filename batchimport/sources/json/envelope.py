"""Find the array of records inside of a JSON object, by the keys that lead to it."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING

import msgspec

from batchimport.errors import UsageError, hint_for
from batchimport.sources.json.elements import SPACE, end_of_element

if TYPE_CHECKING:
    from batchimport.sources.bytes.file import TextFile

LONGEST_KEY = 64 * 1024
_STRING_END = re.compile(rb'(?:[^"\\]|\\[\s\S])*+"')
_SCALAR_END = re.compile(rb"[,\]}\s]")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]++|\\[\s\S])*+")[ \t\r\n]*:[ \t\r\n]*')
_NOT_FOUND = "see the keys with `head`, and check --records"


def inside(text: TextFile, path: str) -> TextFile:
    """Return the part of a text that is the array at the end of a path; it has the text's positions.

    Raises:
        UsageError: If there is no such array, or more follows the object.
    """
    return _Envelope(text, path).part()


class _Envelope:
    def __init__(self, text: TextFile, path: str) -> None:
        self._text, self._path = text, path

    def part(self) -> TextFile:
        """Return the part of the text that is the array."""
        at, keys = self._after_space(self._text.begin), self._path.split(".")
        for depth, key in enumerate(keys):
            if self._byte(at) != b"{":
                raise self._refused(f"{'.'.join(keys[:depth]) or 'the file'} is not a JSON object")
            at = self._value_of(key, at + 1)
        if self._byte(at) != b"[":
            raise self._refused(f"{self._path} is not an array")
        part = copy(self._text)
        part.begin = at
        end = self._end(at + 1, b"[")
        if end is not None:
            part.size = end
            self._check_end(end, len(keys))
        return part

    def _check_end(self, end: int, depth: int) -> None:
        """Check that nothing follows the object."""
        after = self._end(end, b"{" * depth)
        if after is not None and any(block.strip(SPACE) for block in self._text.blocks(after)):
            raise UsageError(
                "more follows the first JSON object",
                where=self._text.path,
                hint="--records reads one object; a file of several must be split before",
            )

    def _value_of(self, wanted: str, at: int) -> int:
        """Return where the value of a key begins, in the members of an object that begin at `at`."""
        seen: list[str] = []
        while True:
            match = _KEY.match(self._text.read_at(at, LONGEST_KEY))
            if match is None:
                hint = hint_for(wanted, seen, f"keys: {', '.join(seen[:20])}")
                raise self._refused(f"there is no key {wanted}", hint)
            key, at = str(msgspec.json.decode(match[1])), at + match.end()
            if key == wanted:
                return at
            seen.append(key)
            at = self._after_space(self._end_of_value(at))
            if self._byte(at) == b",":
                at += 1

    def _end_of_value(self, at: int) -> int:
        first = self._byte(at)
        if first in (b"{", b"["):
            end = self._end(at + 1, first)
            if end is None:
                raise self._refused("the JSON is malformed before the array")
            return end
        pattern, begin = (_STRING_END, at + 1) if first == b'"' else (_SCALAR_END, at)
        wanted = LONGEST_KEY
        while True:
            data = self._text.read_at(begin, wanted)
            match = pattern.match(data) if first == b'"' else pattern.search(data)
            if match:
                return begin + (match.end() if first == b'"' else match.start())
            if begin + len(data) >= self._text.size:
                raise self._refused("the JSON is malformed before the array")
            wanted *= 4

    def _end(self, at: int, opened: bytes) -> int | None:
        """Return where the first of some open brackets is closed; None if it is not."""
        length = end_of_element(self._text.blocks(at), is_array=False, opened=opened)
        return None if length is None else at + length

    def _after_space(self, at: int) -> int:
        for block in self._text.blocks(at):
            left = block.lstrip(SPACE)
            at += len(block) - len(left)
            if left:
                break
        return at

    def _byte(self, at: int) -> bytes:
        return self._text.read_at(at, 1)

    def _refused(self, why: str, hint: str = _NOT_FOUND) -> UsageError:
        return UsageError(f"--records {self._path}: {why}", where=self._text.path, hint=hint)
