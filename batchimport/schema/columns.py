"""Columns: what a record's keys become in a Polars frame and in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

Kind = Literal["integer", "number", "boolean", "string", "date", "date-time", "uuid", "json"]
"""What a column holds. `date`, `date-time` and `uuid` are strings of that JSON Schema format;
`json` is everything without one scalar type: its column holds JSON text."""

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
"""Dates stay text, as given, until a transform or a sink wants them typed."""


@dataclass(frozen=True, slots=True)
class Column:
    """A named column.

    Attributes:
        required: Every record has the key.
        nullable: The value may be null (a missing key is null in the table either way).
    """

    name: str
    kind: Kind
    required: bool = False
    nullable: bool = True

    @property
    def dtype(self) -> pl.DataType:
        """Type of the column in a frame."""
        return DTYPES[self.kind]
