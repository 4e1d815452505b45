"""Texts of a Parquet file that are not valid UTF-8: each is the fault of its row alone.

Polars reads no value of a page that has one. So such a column is read as bytes, and its values become JSON
one by one, in which the bytes stay as they are.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.model import FieldError
from batchimport.sources.parquet.types import MARK, as_json, instance_of, is_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchimport.sources.parquet.footer import Node

_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT = ("text", "json")


def has_text(node: Node) -> bool:
    """Say whether some values of a column are texts."""
    return any(each.meaning in _TEXT for each in node.walk())


def with_text_as(dtype: pl.DataType, text: pl.DataType) -> pl.DataType:
    """Return a type with another one wherever it has text."""
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return text
    if isinstance(dtype, pl.List | pl.Array):
        inner = with_text_as(instance_of(dtype.inner), text)
        return pl.List(inner) if isinstance(dtype, pl.List) else pl.Array(inner, dtype.shape[0])
    if isinstance(dtype, pl.Map):
        key, value = (with_text_as(instance_of(each), text) for each in (dtype.key, dtype.value))
        return pl.Map(key, value)
    if isinstance(dtype, pl.Struct):
        return pl.Struct(
            {field.name: with_text_as(instance_of(field.dtype), text) for field in dtype.fields}
        )
    return dtype


def as_text(values: pl.Series, dtype: pl.DataType | None) -> pl.Series:
    """Return a column of bytes with the texts that they are; as bytes if one is not UTF-8.

    Args:
        dtype: The type that Polars has for the column.
    """
    if dtype is None:
        return values
    values = values.cast(with_text_as(dtype, pl.Binary()))
    try:
        return values.cast(with_text_as(dtype, pl.String()))
    except pl.exceptions.PolarsError:
        return values


def invalid_texts(values: pl.Series, node: Node) -> dict[int, Any]:
    """Return the values of a column that have a text that is not UTF-8, as JSON has them, by their index.

    Such bytes are surrogates in the texts, as Python has them.
    """
    if not (has_text(node) and _has_bytes(values.dtype)) or _is_valid(values, node):
        return {}
    marked = values.to_frame().select(as_json(pl.col(values.name), values.dtype, _marked(node)))
    given = enumerate(map(_unmarked, marked.to_series().to_list()))
    return {at: value for at, value in given if not _is_utf8(value)}


def without(values: pl.Series, places: Collection[int]) -> pl.Series:
    """Return a column with null in some places, of whose values nothing is left under the nulls."""
    kept = pl.Series([None if at in places else at for at in range(len(values))], dtype=pl.UInt32)
    return values.to_frame().select(pl.col(values.name).gather(kept)).to_series()


def error_of(name: str, value: Any) -> FieldError:
    """Return the error of a value that is one of `invalid_texts`."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    written = text.encode(errors="surrogateescape")
    try:
        written.decode()
        at = 0
    except UnicodeDecodeError as error:
        at = error.start
    shown = written.decode(errors="replace")[:80]
    return FieldError("invalid_utf8", name, f"no valid text at byte {at} of the value", shown)


def _is_valid(values: pl.Series, node: Node) -> bool:
    value = pl.col(values.name)
    value = value.cast(pl.String) if is_json(values.dtype, node.meaning) else value
    try:
        values.to_frame().select(as_json(value, values.dtype, node))
    except pl.exceptions.PolarsError:
        return False
    return True


def _is_utf8(value: Any) -> bool:
    if isinstance(value, str):
        return not _SURROGATE.search(value)
    if isinstance(value, list):
        return all(map(_is_utf8, value))
    if isinstance(value, dict):
        return all(map(_is_utf8, value)) and all(map(_is_utf8, value.values()))
    return True


def _has_bytes(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_bytes(instance_of(dtype.inner))
    if isinstance(dtype, pl.Map):
        return any(_has_bytes(instance_of(each)) for each in (dtype.key, dtype.value))
    if isinstance(dtype, pl.Struct):
        return any(_has_bytes(instance_of(field.dtype)) for field in dtype.fields)
    return dtype == pl.Binary


def _marked(node: Node) -> Node:
    """Return the same column with its texts marked as such."""
    meaning = "bytes" if node.meaning in _TEXT else node.meaning
    return replace(node, meaning=meaning, children=tuple(map(_marked, node.children)))


def _unmarked(value: Any) -> Any:
    """Return a value with its texts."""
    if isinstance(value, str):
        if value.startswith(MARK):
            return b64decode(value.removeprefix(MARK)).decode(errors="surrogateescape")
        return value
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    if isinstance(value, dict):
        return {_unmarked(key): _unmarked(each) for key, each in value.items()}
    return value
