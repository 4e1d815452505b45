"""How a frame's columns become those of a Parquet dataset, and which values do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batchimport.errors import UsageError
from batchimport.model import EXTRA_COLUMN, FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchimport.model import Job
    from batchimport.schema import Column, Kind
    from batchimport.sinks.base import JobRecord

Schema = dict[str, pl.DataType]

NO_COLUMNS: Schema = {EXTRA_COLUMN: pl.String()}
"""The columns of a dataset that has no records yet: a Parquet file needs at least one."""

_TYPES: dict[Kind, pl.DataType] = {
    "date": pl.Date(),
    "date-time": pl.Datetime("us", "UTC"),
}
"""Columns of other kinds have the same type as in a frame."""


def type_of(column: Column) -> pl.DataType:
    """Return the type of a column in a new dataset."""
    return _TYPES.get(column.kind, column.dtype)


def new_schema(columns: Sequence[Column], *, has_extra: bool) -> Schema:
    """Return the schema of a new dataset."""
    schema = {column.name: type_of(column) for column in columns}
    return schema | NO_COLUMNS if has_extra or not schema else schema


def schema_for(where: str, known: Schema, job: Job, record: JobRecord) -> Schema:
    """Return the columns of a new job's parts, as `--if-exists` says.

    Args:
        known: The columns of the dataset; none if there is none.

    Raises:
        UsageError: If the dataset cannot take the job's columns, or must not exist.
    """
    if known and job.if_exists == "fail":
        raise UsageError(
            "the dataset exists", where=where, hint="--if-exists append, truncate or replace"
        )
    if known and job.if_exists != "replace":
        check_schema(where, known, record.columns)
        return known
    is_closed = record.schema.get("additionalProperties") is False
    has_extra = not is_closed or job.transform is not None
    has_extra &= job.new_columns != "reject"
    return new_schema(record.columns, has_extra=has_extra)


def common_schema(schemas: Mapping[str, Schema], where: Callable[[str], str]) -> Schema:
    """Return the columns that all files have; files of jobs without records do not count.

    Args:
        schemas: The columns of each file by its name.
        where: Returns what users call a file.

    Raises:
        UsageError: If they differ.
    """
    schemas = {name: schema for name, schema in schemas.items() if schema != NO_COLUMNS}
    if not schemas:
        return {}
    first, common = next(iter(schemas.items()))
    for name, schema in schemas.items():
        if schema != common:
            raise UsageError(
                f"its columns differ from those of {first}",
                where=where(name),
                hint="a dataset has one schema: choose another directory",
            )
    return common


def check_schema(where: str, known: Mapping[str, pl.DataType], columns: Sequence[Column]) -> None:
    """Check that a dataset of this schema can take the columns.

    Raises:
        UsageError: If not.
    """
    missing = [column.name for column in columns if column.name not in known]
    if missing and len(missing) == len(columns):  # another dataset, or another file, was meant
        raise UsageError(
            f"the dataset has no column {', '.join(missing)}",
            where=where,
            hint="choose another directory, or drop the keys with --sql",
        )
    for column in columns:
        if column.name in known and not _fits(column, known[column.name]):
            raise UsageError(
                f"the dataset's column {column.name} of type {known[column.name]} cannot take "
                f"{column.kind} values",
                where=where,
                hint="name the type in a --schema, or choose another directory",
            )


def _fits(column: Column, dtype: pl.DataType) -> bool:
    if column.kind == "integer":
        return dtype.is_integer() or dtype == pl.Float64
    return dtype == type_of(column)


def as_stored(
    frame: pl.DataFrame, columns: Sequence[Column], schema: Schema
) -> tuple[pl.DataFrame, dict[int, list[FieldError]]]:
    """Return a chunk's rows as the dataset has them, and the errors of those that do not fit."""
    kinds = {column.name: column.kind for column in columns}
    stored = frame.select(
        _stored(name, kinds.get(name, "string"), dtype)
        if name in frame.columns
        else pl.repeat(None, frame.height, dtype=dtype).alias(name)
        for name, dtype in schema.items()
    )
    refused: dict[int, list[FieldError]] = {}
    for name in frame.columns:
        lost = frame.get_column(name).is_not_null()
        if name in schema:
            lost &= stored.get_column(name).is_null()
        for place in lost.arg_true().to_list():
            error = _error(name, schema, frame.get_column(name)[place])
            refused.setdefault(place, []).append(error)
    if refused:
        stored = stored[[place for place in range(frame.height) if place not in refused]]
    return stored, refused


def _stored(name: str, kind: Kind, dtype: pl.DataType) -> pl.Expr:
    """Convert a column; a value that does not fit becomes null."""
    value = pl.col(name)
    if kind == "date":
        return value.str.to_date("%Y-%m-%d", strict=False)
    if kind == "date-time":  # RFC 3339; only a transform makes times without a zone: they are UTC
        zoned = value.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        plain = value.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
        return pl.coalesce(zoned, plain.dt.replace_time_zone("UTC"))
    return value.cast(dtype, strict=False)


def _error(name: str, schema: Schema, value: object) -> FieldError:
    if name not in schema:
        field = "" if name == EXTRA_COLUMN else name
        message = (
            "the dataset has no column for this key: import it into another directory, or drop the "
            "key with --sql"
        )
        return FieldError("unknown_key", field, message, str(value)[:200])
    message = f"does not fit the dataset's column of type {schema[name]}"
    return FieldError("type", name, message, str(value)[:200])
