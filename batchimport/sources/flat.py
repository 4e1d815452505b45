"""Nested JSON objects as keys of the record itself: `{"a": {"b": 1}}` as `{"a.b": 1}`.

Arrays stay as they are. Values keep the characters that they have in the file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from batchimport.sources.json_decoder import decode_raw, repeated_keys
from batchimport.sources.json_records import JsonRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from batchimport.model import FieldError, Reject, Stage
    from batchimport.schema import Column

JOINT = "."


def flatten(line: bytes, columns: Collection[str] = ()) -> bytes:
    """Return a record without nested objects; as it is if it is not an object.

    A key that is there twice stays there twice. Null and `{}` are left out where other records have keys
    inside of an object.

    Args:
        columns: The keys that have columns.
    """
    if line.count(b"{") <= 1 and b"null" not in line:
        return line
    try:
        items = list(_items(line, "", 0))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    outer = _outer(columns) - set(columns)
    pairs = (
        json.dumps(name).encode() + b":" + value
        for name, value in items
        if name not in outer or value not in (b"null", b"{}")
    )
    return b"{" + b",".join(pairs) + b"}"


def _items(line: bytes, prefix: str, depth: int) -> Iterator[tuple[str, bytes]]:
    for name in repeated_keys(line):
        yield prefix + name, b"null"  # once more, which is an error of the record
    for name, raw in decode_raw(line).items():
        value = bytes(raw)
        if value.startswith(b"{") and value.strip(b"{} \t\r\n"):
            yield from _items(value, f"{prefix}{name}{JOINT}", depth + 1)
        else:
            yield prefix + name, value


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a record of a sample without nested objects; an empty one is null."""
    items: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and value:
            items |= flat(value, f"{prefix}{name}{JOINT}")
        else:
            items[prefix + name] = None if value == {} else value
    return items


def without_outer(document: dict[str, Any]) -> dict[str, Any]:
    """Return an inferred schema without columns that were null wherever they were not an object."""
    rules = document["properties"]
    outer = _outer(rules)
    kept = {name: rule for name, rule in rules.items() if rule or name not in outer}
    return document | {"properties": kept}


def _outer(names: Collection[str]) -> set[str]:
    """Return the keys that have others inside of them."""
    return {name[:at] for name in names for at, character in enumerate(name) if character == JOINT}


class FlatRecords(JsonRecords):
    """The records of a chunk without nested objects; a reject shows them as they are in the file."""

    def __init__(self, records: JsonRecords, columns: tuple[Column, ...]) -> None:
        super().__init__(*records.place, columns)
        self._records = records
        self.too_long, self._excluded = records.too_long, records.excluded
        names = frozenset(column.name for column in columns)
        self.lines = [
            line if at in self._excluded else flatten(line, names)
            for at, line in enumerate(records.lines)
        ]

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of records to defer in any case."""
        return self._excluded

    def values(self, index: int) -> dict[str, Any]:
        """Return the record's keys; what is wrong with the record itself comes first."""
        self._records.values(index)
        return super().values(index)

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record."""
        return self._records.reject(index, stage, errors)

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        return self._records._locate(index)  # noqa: SLF001 - of the same family
