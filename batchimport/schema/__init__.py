"""The schema of a record: columns, a fast proof of validity, and the authoritative errors."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from batchimport.model import FieldError
from batchimport.schema.columns import DTYPES, Column, Kind, columns_of
from batchimport.schema.diagnose import MALFORMED, malformed
from batchimport.schema.errors import explain
from batchimport.schema.infer import infer_schema
from batchimport.schema.numbers import WAY_OUT
from batchimport.schema.patterns import LinePatterns
from batchimport.schema.references import Node, Outline, Types, type_name
from batchimport.schema.vectorise import ColumnRule, compile_rule, compile_rules, is_plain, prove

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
            self._outline = Outline(document)
        except MALFORMED as error:
            raise malformed(document, error) from error
        self.columns: tuple[Column, ...] = columns_of(self._outline, exact, inferred=inferred)
        self.types: dict[str, Types] = {
            column.name: self._outline.types(column.name) for column in self.columns
        }
        self.closed = self._outline.root.word("additionalProperties", bool) is False
        self._has_code = model is not None and model.has_code
        self.vectorised = is_plain(self._outline, self.columns) and not self._has_code
        self._rules: Sequence[ColumnRule] = ()
        if self.vectorised:
            self._validators = jsonschema_rs.validator_map_for(document, **_STRICT)
            self.columns = tuple(
                replace(
                    column,
                    nullable=self._validator_of(self._outline.property(column.name)).is_valid(None),
                )
                for column in self.columns
            )
            self._rules = compile_rules(self._outline, self.columns, self._validator_of)

    def _validator_of(self, node: Node) -> jsonschema_rs.Validator:
        return self._validators[str(self._outline.pointer(node))]

    @cached_property
    def patterns(self) -> LinePatterns:
        """The patterns of lines of JSON that are certainly valid, but for the rules they name.

        If the schema is not vectorised, they prove no more than that the values fit the columns.
        """
        if not self.vectorised:
            return LinePatterns(self.columns, None, lambda _column, _proven: None)
        slots = {column: f"c{at}" for at, column in enumerate(self.columns)}
        return LinePatterns(
            self.columns,
            self._outline.property,
            lambda column, proven: compile_rule(
                self._outline, column, slots[column], self._validator_of, proven
            ),
        )

    def accepts_rows(self, frame: pl.DataFrame) -> pl.Series:
        """Say of each row whether it is certainly valid, for a schema that is vectorised.

        The frame has one column of the right type per schema column; required keys were present,
        other nulls were missing keys or allowed nulls, and no record had a key without a column.
        """
        return prove(self._rules, frame)

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
        return tuple(map(_with_way_out, found)) if self._inferred else found


def _with_way_out(error: FieldError) -> FieldError:
    """Say that the rule was inferred, and how to have another one."""
    return replace(error, message=f"{error.message}, {WAY_OUT}")
