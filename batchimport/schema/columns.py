"""Columns: what a record's keys become in a Polars frame and in a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

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


_KINDS: dict[str, Kind] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "string": "string",
}
_FORMATS: dict[str, Kind] = {"date": "date", "date-time": "date-time", "uuid": "uuid"}


def columns_of(document: dict[str, Any], exact: frozenset[str] = frozenset()) -> tuple[Column, ...]:
    """Return the columns that the top-level properties of a schema describe.

    Args:
        exact: Columns, in lower case, whose numbers are carried as JSON text, lest digits get lost.
    """
    properties = document.get("properties")
    if not isinstance(properties, dict):
        return ()
    required = document.get("required")
    names = set(required) if isinstance(required, list) else set()
    columns = (_column(name, rule, name in names) for name, rule in properties.items())
    return tuple(
        replace(column, kind="json")
        if column.name.lower() in exact and column.kind in ("integer", "number")
        else column
        for column in columns
    )


def _column(name: str, rule: Any, required: bool) -> Column:
    given = rule.get("type") if isinstance(rule, dict) else None
    types = [given] if isinstance(given, str) else list(given or ())
    scalars = [kind for kind in types if kind != "null"]
    kind: Kind = "json"
    if set(scalars) == {"integer", "number"}:
        kind = "number"
    elif len(scalars) == 1:
        kind = _KINDS.get(scalars[0], "json")
    if kind == "string":
        kind = _FORMATS.get(str(rule.get("format")), "string")
    return Column(name, kind, required, nullable=not types or "null" in types)
