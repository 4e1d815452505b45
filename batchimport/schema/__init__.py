"""The schema of a record: columns, a fast proof of validity, and the authoritative errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from batchimport.model import FieldError
from batchimport.schema.columns import DTYPES, Column, Kind, columns_of
from batchimport.schema.diagnose import MALFORMED, malformed
from batchimport.schema.errors import explain
from batchimport.schema.infer import infer_schema
from batchimport.schema.numbers import INFERRED_HINT
from batchimport.schema.references import Node, ResolvedSchema, Types, type_name
from batchimport.schema.vectorise import ColumnRule, accepted, compile_rules, is_vectorisable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from batchimport.schema.pydantic import RecordModel

__all__ = ["DTYPES", "Column", "Kind", "RecordSchema", "Types", "infer_schema", "type_name"]

_STRICT: dict[str, Any] = {"validate_formats": True, "offline": True}


class RecordSchema:
    """A JSON Schema (draft 2020-12, or as its `$schema` says) of one record.

    One authority, `jsonschema-rs`, gives every verdict. What vectorises is compiled on top of it
    to *prove* rows of a frame valid; a row without a proof goes to the authority.

    Attributes:
        document: The schema as it was given.
        columns: What its properties become; not all of a record's keys need to have one.
        types: By column, the JSON types that its values may have.
        closed: A key without a column is an error.
        vectorised: The compiled rules cover the whole document.

    Args:
        exact: Columns, in lower case, whose numbers are kept as they are written.
        inferred: The document was found out by looking at some records.
        model: What the document is the schema of; it decides about what the document refuses.
    """

    def __init__(
        self,
        document: dict[str, Any],
        exact: frozenset[str] = frozenset(),
        *,
        inferred: bool = False,
        model: RecordModel | None = None,
    ) -> None:
        self.document = document
        self._model = model
        self._inferred = inferred
        try:
            self._validator = jsonschema_rs.validator_for(document, **_STRICT)
            self._resolved = ResolvedSchema(document)
        except MALFORMED as error:
            raise malformed(document, error) from error
        self.columns: tuple[Column, ...] = columns_of(self._resolved, exact, inferred=inferred)
        self.types: dict[str, Types] = {
            column.name: self._resolved.types(column.name) for column in self.columns
        }
        self.closed = self._resolved.root.word("additionalProperties", bool) is False
        self._has_code = model is not None and model.has_code
        self.vectorised = is_vectorisable(self._resolved, self.columns) and not self._has_code
        self._rules: Sequence[ColumnRule] = ()
        if self.vectorised:
            validators = jsonschema_rs.validator_map_for(document, **_STRICT)

            def validator_of(node: Node) -> jsonschema_rs.Validator:
                return validators[str(self._resolved.pointer(node))]

            self.columns = tuple(
                replace(
                    column,
                    nullable=validator_of(self._resolved.property(column.name)).is_valid(None),
                )
                for column in self.columns
            )
            self._rules = compile_rules(self._resolved, self.columns, validator_of)

    def accepts_rows(self, frame: pl.DataFrame) -> pl.Series:
        """Say of each row whether it is certainly valid, for a schema that is vectorised.

        The frame has one column of the right type per schema column; required keys were present,
        other nulls were missing keys or allowed nulls, and no record had a key without a column.
        """
        return accepted(self._rules, frame)

    def accepts(self, record: Any) -> bool:
        """Say whether a record is certainly valid, and to be stored as it is."""
        if self._has_code:
            return False
        try:
            return self._validator.is_valid(record)
        except (RecursionError, ValueError, OverflowError):
            return False

    def judge(self, record: Any) -> tuple[tuple[FieldError, ...], dict[str, Any]]:
        """Return every error of a record; if there is none, the values that a model changes."""
        if self._model is None:
            return self.errors(record), {}
        return ((), {}) if self.accepts(record) else self._model.judge(record)

    def errors(self, record: Any) -> tuple[FieldError, ...]:
        """Return every error of a record by its JSON Schema, in order of path."""
        try:
            found = explain(self._validator, record)
        except (RecursionError, ValueError, OverflowError) as error:
            return (FieldError("unverifiable", "", f"cannot be validated: {error}"),)
        return tuple(map(_with_hint, found)) if self._inferred else found


def _with_hint(error: FieldError) -> FieldError:
    """Say that the rule was inferred, and how to have another one."""
    return replace(error, message=f"{error.message}, {INFERRED_HINT}")
