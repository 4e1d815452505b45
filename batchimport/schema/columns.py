"""Columns: what a record's keys become in a Polars frame and in a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from batchimport.model import EXTRA_COLUMN, INDEX, Kind

if TYPE_CHECKING:
    from batchimport.schema.references import ResolvedSchema, Types

DTYPES: dict[Kind, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "string": pl.String(),
    "date": pl.String(),
    "date-time": pl.String(),
    "uuid": pl.String(),
    "json": pl.String(),
}
"""Dates stay strings as written until a transform or a sink converts them."""


@dataclass(frozen=True, slots=True)
class Column:
    """A named column.

    Attributes:
        required: Every record has the key.
        nullable: The value may be null (a missing key is null in the table either way).
        inferred: The column was inferred from some records, not declared.
    """

    name: str
    kind: Kind
    required: bool = False
    nullable: bool = True
    inferred: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """Polars type of the column in a frame."""
        return DTYPES[self.kind]


RESERVED = frozenset({EXTRA_COLUMN, INDEX, ""})
"""Keys that cannot be columns; their values are kept in the column of extra keys."""

_KINDS: dict[str, Kind] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "string": "string",
}
_FORMATS: dict[str, Kind] = {"date": "date", "date-time": "date-time", "uuid": "uuid"}


def columns_of(
    resolved: ResolvedSchema, exact: frozenset[str] = frozenset(), *, inferred: bool = False
) -> tuple[Column, ...]:
    """Return a column for each property that a schema describes or requires.

    Args:
        exact: Columns, in lower case, whose numbers and booleans are kept as JSON text, as they are
            written.
    """
    columns = (
        replace(_column(resolved, name), inferred=inferred)
        for name in resolved.names
        if name not in RESERVED and "\0" not in name
    )
    return tuple(
        replace(column, kind="json")
        if column.name.lower() in exact and column.kind in ("integer", "number", "boolean")
        else column
        for column in columns
    )


def _column(resolved: ResolvedSchema, name: str) -> Column:
    types = resolved.types(name)
    return Column(
        name,
        _kind(types, resolved.format(name)),
        name in resolved.required,
        nullable=types is None or "null" in types,
    )


def _kind(types: Types, format_name: str | None) -> Kind:
    scalars = (types or frozenset()) - {"null"}
    if scalars == {"integer", "number"}:
        return "number"
    if len(scalars) != 1:
        return "json"
    kind: Kind = _KINDS.get(next(iter(scalars)), "json")
    return _FORMATS.get(str(format_name), kind) if kind == "string" else kind


def as_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Convert values to strings; points in time keep all digits of their seconds."""
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone:
            return value.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        return value.dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
    if dtype == pl.Time:
        return value.dt.strftime("%H:%M:%S%.f")
    if dtype == pl.Duration:
        return value.dt.to_string("iso")
    if dtype == pl.Binary:
        return value.bin.encode("base64")
    return value.cast(pl.String, strict=False)
