"""Cells of text as values of a schema: one at a time, and by the column with the same outcome.

A cell is read as the narrowest type that its column's schema allows; where the schema allows no
type that the text has the form of, it stays text, and the validator says so.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.schema import type_name
from batchimport.schema.numbers import numbers_of

if TYPE_CHECKING:
    from batchimport.schema import Column, Types

_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_number = re.compile(_NUMBER).fullmatch
_json_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_TRUE_FORMS, _FALSE_FORMS = (
    [form for word in words for form in {word, word.title(), word.upper()}]
    for words in (_TRUE, _FALSE)
)
_BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)


def value_of(text: str, types: Types) -> Any:
    """Return a cell as a JSON value."""
    for read in (_read_json, _read_number, _read_boolean):
        value = read(text, types)
        if value is not None:
            return value
    return text


def _read_json(text: str, types: Types) -> Any:
    """Read an object or array; where text is allowed besides, only if that is what it is."""
    wanted = types is None or not types.isdisjoint(("object", "array"))
    if not wanted or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if types is None or type_name(value) in types else None


def _read_number(text: str, types: Types) -> int | float | None:
    if types is None or types.isdisjoint(("integer", "number")):
        return None
    exact = "string" in types
    found = _json_number(text) if exact else _number(text := text.strip())
    if not found:
        return None
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        return None
    if "number" not in types:
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return value


def _read_boolean(text: str, types: Types) -> bool | None:
    if types is None or "boolean" not in types:
        return None
    if types <= {"boolean", "null"}:
        return _BOOLEANS.get(text.strip().lower())
    return {"true": True, "false": False}.get(text)


def json_text(text: str, types: Types) -> str:
    """Return a cell as JSON text: what is JSON as it stands there, all else encoded."""
    value = value_of(text, types)
    is_json = isinstance(value, dict | list) or (
        isinstance(value, int | float) and _json_number(text)
    )
    return text if is_json else json.dumps(value, ensure_ascii=False)


def readable(column: Column) -> bool:
    """Say whether Polars may read a column's cells as its type at once.

    Where a column of numbers was only inferred, it is seen by the text that no digit gets lost.
    """
    return column.kind in ("integer", "boolean") or (
        column.kind == "number" and not column.inferred
    )


def typed(cells: pl.Series, column: Column, types: Types) -> tuple[pl.Series, pl.Series | None]:
    """Return a column of cells in its type, and which rows certainly fit; None for all.

    Polars reads no number that `value_of` does not read, and none otherwise than `value_of` does,
    apart from those that `surely_fit` doubts.

    Args:
        cells: Texts, or values of the column's type already; null where there is nothing.
    """
    if column.kind == "json":
        return _json_texts(cells, types), None
    if column.kind == "number":
        return numbers_of(cells, exact=column.inferred)
    if cells.dtype == column.dtype:
        return cells, None
    if column.kind == "integer":
        values = cells.cast(pl.Int64, strict=False)
        are_all = values.null_count() == cells.null_count()
        return values, None if are_all else values.is_not_null() | cells.is_null()
    values = cells.is_in(_TRUE_FORMS)
    return values, (values | cells.is_in(_FALSE_FORMS)).fill_null(value=True)


def _json_texts(texts: pl.Series, types: Types) -> pl.Series:
    given = texts.to_list()
    only_nested = types is not None and types <= {"object", "array", "null"}
    decode = _NESTED.get((types or frozenset()) - {"null"}) if only_nested else None
    if decode is None:
        cells = [None if text is None else json_text(text, types) for text in given]
        return pl.Series(cells, dtype=pl.String)
    left = iter(given)
    while True:
        try:  # at the speed of C up to the next one that is null, or not of the type
            deque(map(decode, left), maxlen=0)
        except (TypeError, ValueError, RecursionError):
            at = len(given) - operator.length_hint(left) - 1
            text = given[at]
            given[at] = None if text is None else json_text(text, types)
        else:
            return pl.Series(given, dtype=pl.String)


_NESTED = {
    frozenset({"object"}): msgspec.json.Decoder(dict).decode,
    frozenset({"array"}): msgspec.json.Decoder(list).decode,
    frozenset({"object", "array"}): msgspec.json.Decoder(dict | list).decode,
}
