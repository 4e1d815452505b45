"""Convert what a transform returns to the types of the table's columns.

A value that cannot be converted without loss is an error of its record; it is never stored as
another value.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.model import EXTRA_COLUMN, FieldError
from batchimport.schema.columns import as_text
from batchimport.schema.numbers import INT64, decimal_of, keeps_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.model import Kind
    from batchimport.schema.columns import Column

UNFIT = (TypeError, ValueError, ArithmeticError, RecursionError)
"""Raised for a value that JSON, or the type of a column, cannot represent."""

_encode = msgspec.json.Encoder(decimal_format="number").encode
_BELOW_MICROSECONDS = r"\.[0-9]{7}"


def plain(value: Any) -> Any:
    """Convert a Python value to JSON types: dates to ISO 8601, bytes to Base64; decimals stay.

    Raises:
        UNFIT: If JSON has no such value: NaN, infinity, an object of an unknown class.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"JSON has no number {value}")
        return value
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | pl.Series):
        return list(map(plain, value))
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=repr)
    return msgspec.to_builtins(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key))


def encoded(value: Any) -> str:
    """Return a value as JSON text.

    Raises:
        UNFIT: If JSON has no such value.
    """
    return _encode(plain(value)).decode()


def encoded_or_none(value: Any) -> str | None:
    """Return a value as JSON text; None if JSON has no such value."""
    try:
        return encoded(value)
    except UNFIT:
        return None


def decoded(text: str) -> Any:
    """Parse JSON; a number with more digits than a double keeps becomes a Decimal."""
    return json.loads(text, parse_float=_number)


def _number(text: str) -> float | Decimal:
    return float(text) if keeps_digits(text) else decimal_of(text)


def typed(frame: pl.DataFrame, column: Column) -> pl.Expr:
    """Parse a text column of kind `date` or `date-time`; no digit of a second is lost."""
    text = pl.col(column.name)
    if column.kind == "date":
        return text.str.to_date("%Y-%m-%d")
    needs_nanoseconds = frame.get_column(column.name).str.contains(_BELOW_MICROSECONDS).any()
    return text.str.to_datetime(time_unit="ns" if needs_nanoseconds else "us", time_zone="UTC")


def kind_of(dtype: pl.DataType) -> Kind:
    """Return the kind of column that stores a Polars type."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_float() or dtype.is_decimal():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype == pl.Date:
        return "date"
    if isinstance(dtype, pl.Datetime):
        return "date-time"
    return "json" if dtype.is_nested() or dtype == pl.Object else "string"


def as_stored(result: pl.DataFrame, column: Column) -> pl.Expr:
    """Convert a column of a result to the type in which it is stored; null where that loses data.

    NaN becomes null: databases have no such number, or store null without an error. So does a
    decimal with more digits than a double keeps.
    """
    if column.name not in result.columns:
        return pl.lit(None, dtype=column.dtype).alias(column.name)
    dtype, value = result.schema[column.name], pl.col(column.name)
    if isinstance(dtype, pl.Array):
        value = value.arr.to_list()
    if dtype.is_nested() or dtype == pl.Object or (column.kind == "json" and dtype != pl.String):
        return value.map_elements(encoded_or_none, return_dtype=pl.String, skip_nulls=True)
    if column.dtype == pl.String:
        return as_text(value, dtype)
    stored = value.cast(column.dtype, strict=False)
    if isinstance(dtype, pl.Decimal):
        return pl.when(stored.cast(dtype, strict=False) == value).then(stored).alias(column.name)
    return stored.fill_nan(None) if column.kind == "number" else stored


def misfits(
    result: pl.DataFrame, rows: pl.DataFrame, columns: Sequence[Column]
) -> dict[int, FieldError]:
    """Return the rows of a result in which `as_stored` made null of a value, with the errors.

    Args:
        rows: The result after the conversion.
    """
    kinds = {column.name: column.kind for column in columns}
    errors: dict[int, FieldError] = {}
    for name in rows.columns:
        if name not in result.columns or rows.get_column(name).null_count() == 0:
            continue
        lost = rows.get_column(name).is_null() & result.get_column(name).is_not_null()
        for row in lost.arg_true().to_list():
            value, kind = result.get_column(name)[row], kinds.get(name, "json")
            message = f"the transform's value does not fit a column of type {kind}"
            errors.setdefault(row, FieldError("type", name, message, str(value)[:200]))
    return errors


def with_extra(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the column of extra keys, all null, to a frame that has none."""
    if EXTRA_COLUMN in frame.columns:
        return frame
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(EXTRA_COLUMN))


def as_record(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Turn a row back into its record: JSON text is parsed, extra keys are keys again."""
    for column in columns:
        value = row.get(column.name)
        if column.kind == "json" and value is not None:
            row[column.name] = decoded(value)
    extra = row.pop(EXTRA_COLUMN, None)
    return row | decoded(extra) if extra else row


def fit(result: Any, columns: Sequence[Column]) -> dict[str, Any] | FieldError:
    """Convert the result of a function to a row of the table, or say why that is impossible."""
    if not isinstance(result, dict):
        name = type(result).__name__
        return FieldError("transform_failed", "", f"returned {name}, expected dict or None")
    row: dict[str, Any] = {}
    rest = dict(result)
    name = EXTRA_COLUMN
    try:
        for column in columns:
            name = column.name
            if name != EXTRA_COLUMN:
                value = rest.pop(name, None)
                row[name] = None if value is None else _fit_value(value, column.kind)
        name = EXTRA_COLUMN
        if rest:
            row[EXTRA_COLUMN] = encoded(rest)
    except UNFIT as error:
        kind = next((column.kind for column in columns if column.name == name), "json")
        value = (rest if name == EXTRA_COLUMN else result).get(name)
        message = f"the value does not fit a column of type {kind}: {error}"
        return FieldError("type", name, message[:200], str(value)[:200])
    return row


def changed(
    row: dict[str, Any], record: dict[str, Any], changes: dict[str, Any], columns: Sequence[Column]
) -> dict[str, Any] | FieldError:
    """Apply the changes that a model made to a record to the record's row.

    Returns:
        The row, or why a changed value does not fit its column.
    """
    names = {column.name for column in columns}
    in_columns = {key: value for key, value in changes.items() if key in names}
    extra = {}
    if len(in_columns) < len(changes):
        extra = {key: value for key, value in (record | changes).items() if key not in names}
    fitted = fit(in_columns | extra, [column for column in columns if column.name in in_columns])
    return fitted if isinstance(fitted, FieldError) else row | fitted


def _fit_value(value: Any, kind: Kind) -> Any:
    convert = _FITS.get(kind)
    return convert(value) if convert else _fit_text(value)


def _fit_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(type(value).__name__)
    if not -INT64 <= value < INT64:
        raise ValueError("beyond 64 bits")
    return value


def _fit_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(type(value).__name__)
    if math.isnan(value):
        raise ValueError("not a number")
    if not math.isinf(value) and not keeps_digits(str(value)):
        raise ValueError("more digits than a number keeps")
    return float(value)


def _fit_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(type(value).__name__)
    return value


def _fit_text(value: Any) -> str:
    converted = value if isinstance(value, str) else plain(value)
    return converted if isinstance(converted, str) else encoded(converted)


_FITS: dict[Kind, Callable[[Any], Any]] = {
    "integer": _fit_integer,
    "number": _fit_number,
    "boolean": _fit_boolean,
    "json": encoded,
}
