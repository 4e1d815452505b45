"""Values that a transform returns, made to fit the columns of the table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.job import EXTRA_COLUMN, FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.schema.columns import Column, Kind

INT64 = 2**63
_PYTHON_TYPES: dict[Kind, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def typed(name: str, kind: Kind) -> pl.Expr:
    """Return a text column as the date or point in time that it says."""
    if kind == "date":
        return pl.col(name).str.to_date("%Y-%m-%d")
    return pl.col(name).str.to_datetime(time_unit="us", time_zone="UTC")


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
    return "json" if dtype.is_nested() else "string"


def as_stored(result: pl.DataFrame, column: Column) -> pl.Expr:
    """Return a column of a result in the type in which it is stored; null where it does not fit.

    NaN does not fit: databases have no such number, or make it null unasked.
    """
    if column.name not in result.columns:
        return pl.lit(None, dtype=column.dtype).alias(column.name)
    dtype, value = result.schema[column.name], pl.col(column.name)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone:
            return value.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        return value.dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
    if dtype.is_nested():
        return value.map_elements(_json_of, return_dtype=pl.String, skip_nulls=True)
    if column.kind == "json" and dtype != pl.String:
        return value.map_elements(_json_of, return_dtype=pl.String, skip_nulls=True)
    stored = value.cast(column.dtype, strict=False)
    return stored.fill_nan(None) if column.kind == "number" else stored


def with_extra(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame that has a column of extra keys, be it empty."""
    if EXTRA_COLUMN in frame.columns:
        return frame
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(EXTRA_COLUMN))


def _json_of(value: Any) -> str:
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return json.dumps(plain, ensure_ascii=False, default=str)


def as_record(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Return a row as the record it came from: JSON text decoded, extra keys in their place."""
    for column in columns:
        value = row.get(column.name)
        if column.kind == "json" and value is not None:
            row[column.name] = json.loads(value)
    extra = row.pop(EXTRA_COLUMN, None)
    return row | json.loads(extra) if extra else row


def fit(result: Any, columns: Sequence[Column]) -> dict[str, Any] | FieldError:
    """Return a function's result as a row of the table, or why it is none."""
    if not isinstance(result, dict):
        name = type(result).__name__
        return FieldError("transform_failed", "", f"returned {name}, expected dict or None")
    row: dict[str, Any] = {}
    rest = dict(result)
    for column in columns:
        if column.name == EXTRA_COLUMN:
            continue
        value = rest.pop(column.name, None)
        allowed = _PYTHON_TYPES.get(column.kind)
        if value is None:
            row[column.name] = None
        elif column.kind == "json":
            row[column.name] = _json_of(value)
        elif allowed:
            if not isinstance(value, allowed) or not _is_storable(column, value):
                message = f"the value does not fit a column of {column.kind}"
                return FieldError("type", column.name, message, str(value)[:200])
            row[column.name] = value
        else:
            row[column.name] = value if isinstance(value, str) else str(value)
    if rest:
        row[EXTRA_COLUMN] = _json_of(rest)
    return row


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


def _is_storable(column: Column, value: Any) -> bool:
    if column.kind == "boolean":
        return True
    if isinstance(value, bool) or value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return False
    return column.kind != "integer" or -INT64 <= value < INT64
