"""Infer a JSON Schema from records, as a careful person would type them.

An inferred schema never rejects null or a missing key: the records of the sample may not have
shown them.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from batchimport.schema.numbers import EXACT_IN_FLOAT, INT64, prints_alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WITNESSES_FOR_FORMAT = 20
"""Minimum number of values, all of the format, that make strings dates or UUIDs."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]*)?\.[0-9]+([eE][+-]?[0-9]{1,3})?")
_POWER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.?[eE][+-]?[0-9]{1,3}|\.)|\+[1-9][0-9]{0,17}")
"""A number only in a column with decimals: by itself, `1e5` could be a name, `+49` a prefix, `1.` an item."""
_BOOLEANS = ({"true", "false"}, {"True", "False"}, {"TRUE", "FALSE"})
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


MISSING = frozenset(
    {"", "-", "--", ".", "?", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "NaN", "nan", "NAN"}
    | {"NULL", "null", "Null", "None", "none", "<NA>", "\\N"}
)
"""What people write in a column of numbers where there is none. In a column of words it may be a word."""

LEAST_NUMBERS = 3


class Words(str):
    """A cell that is not a number in its file, though it would be one in others."""

    __slots__ = ()


def infer_schema(records: Iterable[dict[str, Any]], *, text: bool = False) -> dict[str, Any]:
    """Return a schema that accepts the records.

    Args:
        text: The values are cells of delimited text: their types follow from how they are written.
    """
    columns: dict[str, _Evidence] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, _Evidence()).add(value, text=text)
    properties = {name: evidence.rule(text=text) for name, evidence in columns.items()}
    return {"$schema": DIALECT, "type": "object", "properties": properties}


class _Evidence:
    """What the values of one column have in common."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.spellings: set[str] = set()
        self.missing: Counter[str] = Counter()

    def add(self, value: Any, *, text: bool) -> None:
        if value is None:
            return
        if text and value and (marker := value.strip(" \t")) in MISSING:
            self.missing[marker] += 1
            return
        kind = _type_of_text(value) if text else _type_of(value)
        if kind == "boolean" and text:
            self.spellings.add(value)
        self.types[kind] += 1
        if isinstance(value, str) and (format_name := _format_of(value)):
            self.formats[format_name] += 1

    def rule(self, *, text: bool) -> dict[str, Any]:
        missing = self._missing_numbers(set(self.types))
        if self.missing and not missing:
            self.types["string"] += self.missing.total()
        kinds = set(self.types)
        if not kinds:
            return {"type": ["string", "null"]} if text else {}
        kinds = self._narrowed(kinds, text=text)
        if len(kinds) > 1 or kinds & {"huge"}:
            return {}
        kind = kinds.pop()
        rule: dict[str, Any] = {"type": [kind, "null"]}
        if missing:
            rule["x-missing"] = missing
        total = self.types.total()
        if kind == "string" and total >= WITNESSES_FOR_FORMAT:
            name, seen = next(iter(self.formats.most_common(1)), ("", 0))
            if seen == total:
                rule["format"] = name
        return rule

    def _narrowed(self, kinds: set[str], *, text: bool) -> set[str]:
        """Return the one kind that holds all values; several if there is none."""
        if kinds <= {"integer", "long"}:
            kinds = {"integer"}
        elif "number" in kinds and kinds <= {"integer", "number", "power"}:
            kinds = {"number"}
        elif "power" in kinds:
            kinds = {"string"}
        return {"string"} if text and (len(kinds) > 1 or not self._one_spelling()) else kinds

    def _missing_numbers(self, kinds: set[str]) -> list[str]:
        """Return what stands for missing numbers; nothing if the column may not be one of numbers."""
        numbers = self.types.total()
        are_numbers = kinds & {"integer", "number"} and kinds <= {"integer", "number", "power"}
        is_safe = numbers >= LEAST_NUMBERS and numbers >= self.missing.total()
        return sorted(self.missing) if are_numbers and is_safe else []

    def _one_spelling(self) -> bool:
        return any(self.spellings <= spelling for spelling in _BOOLEANS)


def notes_about(document: dict[str, Any]) -> tuple[str, ...]:
    """Return what users should know about an inferred schema."""
    marked = {
        name: " ".join(map(repr, rule["x-missing"]))
        for name, rule in document.get("properties", {}).items()
        if "x-missing" in rule
    }
    return tuple(
        f"column {name}: numbers; {markers} means missing" for name, markers in marked.items()
    )


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if abs(value) <= EXACT_IN_FLOAT:
            return "integer"
        return "long" if -INT64 <= value < INT64 else "huge"
    if isinstance(value, float | Decimal):
        return "number" if prints_alike(str(value)) else "huge"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _type_of_text(value: str) -> str:
    if isinstance(value, Words):
        return "string"
    number = value.strip(" \t")
    if _INTEGER.fullmatch(number):
        return "integer"
    for shape, kind in ((_DECIMAL, "number"), (_POWER, "power")):
        if shape.fullmatch(number):
            return kind if prints_alike(number) else "string"
    return "boolean" if any(value in spelling for spelling in _BOOLEANS) else "string"


def _format_of(value: str) -> str | None:
    for name, shape, parse in _FORMATS:
        if shape.fullmatch(value):
            try:
                parse(value)
            except ValueError:
                return None
            return name
    return None


_FORMATS: tuple[tuple[str, re.Pattern[str], Callable[[str], object]], ...] = (
    ("date", _DATE, date.fromisoformat),
    ("date-time", _DATE_TIME, datetime.fromisoformat),
    ("uuid", _UUID, str),
)
