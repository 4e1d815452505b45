"""The schema of a record: its columns, a fast check of whole frames, and the errors of one record."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from batchimport.model import FieldError, Kind
from batchimport.schema.columns import DTYPES, Column, columns_of
from batchimport.schema.diagnose import MALFORMED, malformed
from batchimport.schema.errors import Explainer
from batchimport.schema.expansion import refuse_large
from batchimport.schema.forms import CellForm
from batchimport.schema.infer import Inference, infer_schema, notes_about
from batchimport.schema.numbers import INFERRED_HINT
from batchimport.schema.patterns import LinePatterns
from batchimport.schema.references import Node, ResolvedSchema, Types, type_name
from batchimport.schema.vectorise import (
    ColumnRule,
    accepted,
    compile_rule,
    compile_rules,
    is_vectorisable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from batchimport.schema.pydantic import RecordModel

__all__ = [
    "DTYPES",
    "Column",
    "Inference",
    "Kind",
    "RecordSchema",
    "Types",
    "infer_schema",
    "notes_about",
    "type_name",
]

_STRICT: dict[str, Any] = {"validate_formats": True, "offline": True}


class RecordSchema:
    """A JSON Schema of one record: draft 2020-12, or the draft that its `$schema` names.

    The validator, `jsonschema-rs`, decides whether a record is valid. Rules that vectorise are
    compiled to *accept* rows of a frame without it; a row that they do not accept is deferred to it.

    Attributes:
        document: The schema as it was given.
        columns: What its properties become; a record may have keys without a column.
        types: By column, the JSON types that its values may have.
        missing: By column, the cells of delimited text that mean null in it.
        date_formats: By column, how its dates may be written besides ISO 8601.
        forms: By column whose type was inferred from some records, how its cells are written.
        ignored: Keys that are not imported.
        inferred: The document was inferred from some records.
        closed: A key without a column is an error.
        vectorised: The compiled rules cover the whole document.

    Args:
        exact: Columns, in lower case, whose numbers are kept as they are written.
        model: The pydantic model whose schema the document is; it decides about records that the
            document refuses.

    Raises:
        UsageError: If the document is not a valid JSON Schema, or too complex.
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
        self.inferred = inferred
        try:
            self._resolved = ResolvedSchema(document)
            refuse_large(self._resolved)  # first: compiling a large schema takes as much memory
            self._validator = jsonschema_rs.validator_for(document, **_STRICT)
        except MALFORMED as error:
            raise malformed(document, error) from error
        self.columns: tuple[Column, ...] = columns_of(self._resolved, exact, inferred=inferred)
        self.types: dict[str, Types] = {
            column.name: self._resolved.types(column.name) for column in self.columns
        }
        self.missing = {
            name: frozenset(texts) for name, texts in _texts(document, "x-missing").items()
        }
        self.date_formats = _texts(document, "x-date-format")
        self.forms = _forms(document, self.columns) if inferred else {}
        words: Any = document
        ignored = words.get("x-ignored") if isinstance(words, dict) else None
        self.ignored = tuple(map(str, ignored)) if isinstance(ignored, list) else ()
        self.closed = self._resolved.root.word("additionalProperties", bool) is False
        self._has_code = model is not None and model.has_code
        self.vectorised = is_vectorisable(self._resolved, self.columns) and not self._has_code
        self._rules: Sequence[ColumnRule] = ()
        if self.vectorised:
            self._validators = jsonschema_rs.validator_map_for(document, **_STRICT)
            self.columns = tuple(
                replace(
                    column,
                    nullable=self._validator_of(self._resolved.property(column.name)).is_valid(
                        None
                    ),
                )
                for column in self.columns
            )
            self._rules = compile_rules(self._resolved, self.columns, self._validator_of)

    def _validator_of(self, node: Node) -> jsonschema_rs.Validator:
        return self._validators[str(self._resolved.pointer(node))]

    @cached_property
    def patterns(self) -> LinePatterns:
        """The patterns of JSON lines that are certainly valid, except for the rules they name.

        If the schema is not vectorised, they only prove that the values fit the columns.
        """
        if not self.vectorised:
            return LinePatterns(self.columns, None, lambda _column, _proven: None)
        slots = {column: f"c{at}" for at, column in enumerate(self.columns)}
        return LinePatterns(
            self.columns,
            self._resolved.property,
            lambda column, proven: compile_rule(
                self._resolved, column, slots[column], self._validator_of, proven
            ),
        )

    def accepts_rows(self, frame: pl.DataFrame) -> pl.Series:
        """Return for each row whether it is certainly valid, by a schema that is vectorised.

        Args:
            frame: One column of the right type per column of the schema. Required keys were
                present, other nulls are missing keys or allowed nulls, and no record had a key
                without a column.
        """
        return accepted(self._rules, frame)

    def accepts(self, record: Any) -> bool:
        """Return whether a record is certainly valid, and stored as it is."""
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

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.document, self._validator, _STRICT)

    def errors(self, record: Any) -> tuple[FieldError, ...]:
        """Return every error of a record by its JSON Schema, in order of path."""
        try:
            errors = self._explainer.explain(record)
        except (RecursionError, ValueError, OverflowError) as error:
            return (FieldError("unverifiable", "", f"cannot be validated: {error}"),)
        return tuple(map(self._with_hint, errors)) if self.inferred else errors

    def _with_hint(self, error: FieldError) -> FieldError:
        """Say that the rule was inferred, and how to replace it."""
        form = self.forms.get(error.field)
        hint = form.hint(error.field) if form else INFERRED_HINT
        return replace(error, message=f"{error.message}, {hint}")


def _texts(document: Any, word: str) -> dict[str, tuple[str, ...]]:
    """Return what a keyword of ours says, by property; nothing where it is not a list."""
    properties = document.get("properties") if isinstance(document, dict) else None
    return {
        name: tuple(map(str, rule[word]))
        for name, rule in (properties if isinstance(properties, dict) else {}).items()
        if isinstance(rule, dict) and isinstance(rule.get(word), list)
    }


def _forms(document: Any, columns: Sequence[Column]) -> dict[str, CellForm]:
    """Return how the cells of columns are written whose type was inferred."""
    properties = document.get("properties") if isinstance(document, dict) else None
    rules = properties if isinstance(properties, dict) else {}
    marks = {name: rule.get("x-inferred") for name, rule in rules.items() if isinstance(rule, dict)}
    forms = {column.name: CellForm.of(column.kind, marks.get(column.name)) for column in columns}
    return {name: form for name, form in forms.items() if form is not None}
