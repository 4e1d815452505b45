"""The schema of a record: columns, a fast proof of validity, and the authoritative errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import polars as pl

from batchimport.errors import UsageError
from batchimport.job import FieldError
from batchimport.schema.columns import DTYPES, Column, Kind, columns_of
from batchimport.schema.compile import ColumnRule, allows_null, compile_rules, is_plain, prove
from batchimport.schema.fallback import explain
from batchimport.schema.infer import infer_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DTYPES", "Column", "Kind", "RecordSchema", "infer_schema"]


class RecordSchema:
    """A JSON Schema (draft 2020-12, or as its `$schema` says) of one record.

    One authority, `jsonschema-rs`, gives every verdict. What vectorises is compiled on top of it
    to *prove* rows of a frame valid; a row without a proof goes to the authority.

    Attributes:
        document: The schema as it was given.
        columns: The columns that its `properties` describe.
        closed: A key without a column is an error.
        vectorised: The compiled rules cover the whole document.

    Args:
        exact: Columns, in lower case, whose numbers are kept as they are written.
    """

    def __init__(self, document: dict[str, Any], exact: frozenset[str] = frozenset()) -> None:
        self.document = document
        try:
            self._validator = jsonschema_rs.validator_for(
                document, validate_formats=True, offline=True
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise _malformed(error) from error
        self.columns: tuple[Column, ...] = tuple(
            replace(column, nullable=allows_null(document, column.name))
            for column in columns_of(document, exact)
        )
        self.closed = document.get("additionalProperties") is False
        self.vectorised = is_plain(document)
        self._rules: Sequence[ColumnRule] = (
            compile_rules(document, self.columns) if self.vectorised else ()
        )

    def proven(self, frame: pl.DataFrame) -> pl.Series:
        """Say of each row whether it is certainly valid.

        The frame has one column of the right type per schema column; required keys were present,
        other nulls were missing keys or allowed nulls, and no record had a key without a column.
        """
        if not self.vectorised:
            return pl.repeat(value=False, n=frame.height, dtype=pl.Boolean, eager=True)
        return prove(self._rules, frame)

    def errors(self, record: Any) -> tuple[FieldError, ...]:
        """Return every error of a record, in order of path; nothing if it is valid."""
        try:
            return explain(self._validator, record)
        except (RecursionError, ValueError, OverflowError) as error:
            return (FieldError("unverifiable", "", f"cannot be validated: {error}"),)


def _malformed(error: Exception) -> UsageError:
    path = getattr(error, "instance_path", None) or []
    place = "/" + "/".join(str(step) for step in path)
    message = str(getattr(error, "message", error)).splitlines()[0]
    return UsageError(
        f"not a valid JSON Schema: {message}", where=f"schema at {place}", hint="mend the schema"
    )
