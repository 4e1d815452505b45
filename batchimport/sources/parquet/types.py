"""Polars types as JSON: the schema of a column, and its values as JSON."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchimport.schema.columns import as_text

EXACT_DIGITS = 15
"""Decimals of at most this many digits survive the way to a double and back."""

SCALAR_BYTES = 8
"""Weight of a number, and of the name of a string."""


def rule_of(dtype: pl.DataType) -> dict[str, Any]:
    """Return the JSON Schema of a column of this type; every column may be null."""
    rule = _type(_type_name(dtype))
    if dtype == pl.Date:
        rule["format"] = "date"
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        rule["format"] = "date-time"
    return rule


def _type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Decimal):
        return "number" if _is_exact(dtype) else "string"
    if isinstance(dtype, pl.List | pl.Array):
        return "array"
    names = {
        "integer": dtype.is_integer(),
        "number": dtype.is_float(),
        "boolean": dtype == pl.Boolean,
        "object": isinstance(dtype, pl.Struct),
    }
    return next((name for name, holds in names.items() if holds), "string")


def _type(name: str) -> dict[str, Any]:
    return {"type": [name, "null"]}


def _is_exact(dtype: pl.Decimal) -> bool:
    return dtype.precision <= EXACT_DIGITS


def as_json(value: pl.Expr, dtype: pl.DataType, kind: str = "json") -> pl.Expr:
    """Return values as Polars writes them in JSON without loss.

    Args:
        kind: What the schema wants; a long decimal is a number only where one is wanted.
    """
    if isinstance(dtype, pl.Decimal):
        is_number = _is_exact(dtype) or kind in ("integer", "number")
        return value.cast(pl.Float64 if is_number else pl.String)
    if dtype.is_nested():
        return _nested_as_json(value, dtype)
    if dtype.is_temporal():
        return as_text(value, dtype)
    if dtype == pl.Binary:
        return value.bin.encode("base64")
    if dtype == pl.Float32:
        return value.cast(pl.Float64)
    plain = dtype.is_integer() or dtype in (pl.Float64, pl.Boolean, pl.String, pl.Null)
    return value if plain else value.cast(pl.String)


def weight_of(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return about how many bytes each value is once it is decoded.

    A column is small in its file, and even in memory, where a dictionary holds one large value that
    many rows refer to; as JSON, each row has its own.
    """
    if dtype == pl.Binary:
        weight = value.bin.size() * 4 // 3
    elif isinstance(dtype, pl.Array):
        return weight_of(value.arr.to_list(), pl.List(dtype.inner))
    elif isinstance(dtype, pl.List):
        weight = value.list.eval(weight_of(pl.element(), _instance(dtype.inner))).list.sum()
    elif isinstance(dtype, pl.Struct):
        fields = (
            weight_of(value.struct.field(field.name), _instance(field.dtype))
            for field in dtype.fields
        )
        weight = pl.sum_horizontal(pl.lit(0, pl.Int64), *fields)
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        weight = value.cast(pl.String).str.len_bytes()
    else:
        return pl.lit(SCALAR_BYTES, pl.Int64)
    return weight.cast(pl.Int64).fill_null(0) + SCALAR_BYTES


def _nested_as_json(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Array):
        return as_json(value.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List):
        return value.list.eval(as_json(pl.element(), _instance(dtype.inner)))
    assert isinstance(dtype, pl.Struct)  # noqa: S101 - there are no other nested types
    fields = [
        as_json(value.struct.field(field.name), _instance(field.dtype)).alias(field.name)
        for field in dtype.fields
    ]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def has_no_number(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Say which values contain NaN or infinity, which JSON does not have."""
    if dtype.is_float():
        return ~value.is_finite().fill_null(value=True)
    if isinstance(dtype, pl.Array):
        return has_no_number(value.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List) and _has_floats(dtype):
        inner = has_no_number(pl.element(), _instance(dtype.inner))
        return value.list.eval(inner).list.any().fill_null(value=False)
    if isinstance(dtype, pl.Struct) and _has_floats(dtype):
        parts = [
            has_no_number(value.struct.field(field.name), _instance(field.dtype))
            for field in dtype.fields
        ]
        return pl.any_horizontal(parts)
    return pl.lit(value=False)


def _has_floats(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_floats(_instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_has_floats(_instance(field.dtype)) for field in dtype.fields)
    return dtype.is_float()


def _instance(dtype: Any) -> pl.DataType:
    """Return the instance of a type that may be given as its class."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
