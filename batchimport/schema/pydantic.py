"""Validate records by a pydantic model: by its JSON Schema if that states all rules, else by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchimport import user_code
from batchimport.errors import UsageError
from batchimport.model import FieldError
from batchimport.schema.errors import LONGEST_TEXT, field_path, shorten

if TYPE_CHECKING:
    from pydantic import BaseModel

WHERE = "--schema"
_encode = msgspec.json.Encoder(decimal_format="number").encode
_CODES = {
    "missing": "required",
    "extra_forbidden": "additional_properties",
    "greater_than": "exclusive_minimum",
    "greater_than_equal": "minimum",
    "less_than": "exclusive_maximum",
    "less_than_equal": "maximum",
    "string_too_short": "min_length",
    "string_too_long": "max_length",
    "string_pattern_mismatch": "pattern",
    "too_short": "min_items",
    "too_long": "max_items",
    "literal_error": "enum",
}
"""JSON Schema's names for pydantic's errors, so that rejects have the same codes."""

_PLAIN: dict[str, frozenset[str]] = {
    "any": frozenset(),
    "none": frozenset(),
    "bool": frozenset(),
    "int": frozenset({"ge", "gt", "le", "lt", "multiple_of"}),
    "float": frozenset({"ge", "gt", "le", "lt", "allow_inf_nan"}),
    "str": frozenset({"min_length", "max_length", "pattern"}),
    "date": frozenset(),
    "datetime": frozenset({"microseconds_precision"}),
    "uuid": frozenset(),
    "literal": frozenset({"expected"}),
    "enum": frozenset({"cls", "members", "sub_type"}),
    "list": frozenset({"items_schema", "min_length", "max_length"}),
    "dict": frozenset({"keys_schema", "values_schema", "min_length", "max_length"}),
    "nullable": frozenset({"schema"}),
    "union": frozenset({"choices"}),
    "default": frozenset({"schema", "default", "default_factory", "default_factory_takes_data"}),
    "model": frozenset({"schema", "cls", "config", "custom_init", "root_model"}),
    "model-fields": frozenset({"fields", "model_name", "extras_schema", "computed_fields"}),
    "model-field": frozenset({"schema", "validation_alias", "serialization_alias"}),
    "definitions": frozenset({"schema", "definitions"}),
    "definition-ref": frozenset({"schema_ref"}),
}
"""Types of pydantic's core schema that its JSON Schema states completely, with their arguments."""
_SILENT = frozenset({"type", "ref", "metadata", "serialization"})
_PARTS = (
    "schema",
    "items_schema",
    "keys_schema",
    "values_schema",
    "extras_schema",
    "choices",
    "definitions",
    "fields",
)
_PLAIN_CONFIG = frozenset({"title", "extra_fields_behavior", "frozen"})


class RecordModel:
    """A pydantic model of one record.

    It validates in strict JSON mode: `"12"` is not an integer.

    Attributes:
        document: Its JSON Schema.
        digest: Hash of its source code.
        has_code: It has validators, or other rules that its JSON Schema does not state. Then it
            validates every record, and the values that it returns are stored.
    """

    def __init__(self, model: type[BaseModel], digest: str | None = None) -> None:
        self._model = model
        self.document: dict[str, Any] = model.model_json_schema()
        self.digest = digest or user_code.digest(model)
        self.has_code = not _says_all(model.__pydantic_core_schema__)

    def judge(self, record: dict[str, Any]) -> tuple[tuple[FieldError, ...], dict[str, Any]]:
        """Return every error of a record; if there is none, the values that the model changes."""
        from pydantic import ValidationError  # noqa: PLC0415 - an extra

        try:
            valid = self._model.model_validate_json(_encode(record), strict=True)
            return (), self._changes(record, valid) if self.has_code else {}
        except ValidationError as error:
            return tuple(map(_field_error, error.errors(include_url=False))), {}
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            message = f"{type(error).__name__}: {error}"[:LONGEST_TEXT]
            return (FieldError("model_failed", "", message),), {}

    def _changes(self, record: dict[str, Any], valid: BaseModel) -> dict[str, Any]:
        dumped = valid.model_dump(mode="json", exclude_unset=True)
        changes: dict[str, Any] = {}
        for name, value in dumped.items():
            if name in self._model.model_computed_fields:
                continue
            field = self._model.model_fields.get(name)
            alias = field.validation_alias if field else None
            key = alias if isinstance(alias, str) and alias in record else name
            if key not in record or record[key] != value:
                changes[key] = value
        return changes


def load_model(spec: str) -> RecordModel:
    """Import the model `module:Model`.

    Raises:
        UsageError: If it is not a pydantic model that has a JSON Schema, or pydantic is missing.
    """
    try:
        from pydantic import BaseModel  # noqa: PLC0415 - an extra
        from pydantic.errors import PydanticUserError  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "pydantic is not installed",
            where=f"{WHERE} {spec}",
            hint="pip install 'batchimport[pydantic]'",
        ) from error
    model = user_code.load(spec, WHERE)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise UsageError(
            "is neither a file nor a pydantic model",
            where=f"{WHERE} {spec}",
            hint="give a file with a JSON Schema, or module:Model",
        )
    try:
        return RecordModel(model)
    except PydanticUserError as error:
        message = str(error).splitlines()[0]
        raise UsageError(
            f"the model has no JSON Schema: {message}",
            where=f"{WHERE} {spec}",
            hint="give the field a type that JSON has",
        ) from error


def _says_all(schema: Any) -> bool:
    """Return whether the JSON Schema of a core schema states all of its rules."""
    if isinstance(schema, list | tuple):
        return all(map(_says_all, schema))
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    if not isinstance(kind, str):  # fields by name
        return all(map(_says_all, schema.values()))
    if kind not in _PLAIN or schema.keys() - _PLAIN[kind] - _SILENT:
        return False
    parts = [part for name, part in schema.items() if name in _PARTS]
    return all(map(_says_all, parts)) and (kind != "model" or _is_plain_model(schema))


def _is_plain_model(schema: dict[str, Any]) -> bool:
    is_special = schema.get("custom_init") or schema.get("root_model")
    return not is_special and schema.get("config", {}).keys() <= _PLAIN_CONFIG


def _field_error(error: Any) -> FieldError:
    kind = str(error["type"])
    code = _CODES.get(kind, "type" if kind.endswith(("_type", "_parsing")) else kind)
    if code == "required":
        return FieldError(code, field_path(list(error["loc"])), "is missing")
    value = shorten(error["input"])
    if not isinstance(value, str | int | float | None):
        value = str(value)[:LONGEST_TEXT]
    return FieldError(code, field_path(list(error["loc"])), str(error["msg"])[:LONGEST_TEXT], value)
