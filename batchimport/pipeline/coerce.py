"""Values that a transform returns, made to fit the columns of the table."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.model import EXTRA_COLUMN, FieldError
from batchimport.pipeline.plain import UNFIT, decoded, encoded, encoded_or_none, plain
from batchimport.schema.columns import as_text
from batchimport.schema.numbers import INT64, keeps_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.schema.columns import Column, Kind


_BELOW_MICROSECONDS = r"\.[0-9]{7}"


def typed(frame: pl.DataFrame, column: Column) -> pl.Expr:
    """Return a text column as the date or point in time that it says, to its last digit."""
    text = pl.col(column.name)
    if column.kind == "date":
        return text.str.to_date("%Y-%m-%d")
    fine = frame.get_column(column.name).str.contains(_BELOW_MICROSECONDS).any()
    return text.str.to_datetime(time_unit="ns" if fine else "us", time_zone="UTC")


def kind_of(dtype: pl.DataType) -> Kind:
    """Return what a column of a Polars type holds."""
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
    """Return a column of a result in the type in which it is stored; null where it does not fit.

    NaN does not fit: databases have no such number, or make it null unasked. Nor does a decimal with
    more digits than a double keeps.
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


def with_extra(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame that has a column of extra keys, be it empty."""
    if EXTRA_COLUMN in frame.columns:
        return frame
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(EXTRA_COLUMN))


def as_record(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Return a row as the record it came from: JSON text decoded, extra keys in their place."""
    for column in columns:
        value = row.get(column.name)
        if column.kind == "json" and value is not None:
            row[column.name] = decoded(value)
    extra = row.pop(EXTRA_COLUMN, None)
    return row | decoded(extra) if extra else row


def fit(result: Any, columns: Sequence[Column]) -> dict[str, Any] | FieldError:
    """Return a function's result as a row of the table, or why it is none."""
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
        message = f"the value does not fit a column of {kind}: {error}"
        return FieldError("type", name, message[:200], str(value)[:200])
    return row


def _fit_value(value: Any, kind: Kind) -> Any:
    fitting = _FITS.get(kind)
    return fitting(value) if fitting else _fit_text(value)


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
    found = value if isinstance(value, str) else plain(value)
    return found if isinstance(found, str) else encoded(found)


_FITS: dict[Kind, Callable[[Any], Any]] = {
    "integer": _fit_integer,
    "number": _fit_number,
    "boolean": _fit_boolean,
    "json": encoded,
}


def changed(
    row: dict[str, Any], record: dict[str, Any], changes: dict[str, Any], columns: Sequence[Column]
) -> dict[str, Any] | FieldError:
    """Return the row of a record, some of whose values were changed; or why they do not fit."""
    named = {column.name for column in columns}
    given = {key: value for key, value in changes.items() if key in named}
    extra = {}
    if len(given) < len(changes):
        extra = {key: value for key, value in (record | changes).items() if key not in named}
    fitted = fit(given | extra, [column for column in columns if column.name in given])
    return fitted if isinstance(fitted, FieldError) else row | fitted
