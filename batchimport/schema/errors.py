"""Translate the validator's errors to field errors: code, field, message, value."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from batchimport.model import FieldError
from batchimport.schema.numbers import INT64

if TYPE_CHECKING:
    import jsonschema_rs

LONGEST_TEXT = 200


def explain(validator: jsonschema_rs.Validator, record: Any) -> tuple[FieldError, ...]:
    """Return every error of a record, in order of path."""
    errors = [field for error in validator.iter_errors(record) for field in _errors(error)]
    if len(errors) > 1:
        errors.sort(key=attrgetter("field", "code"))
    return tuple(errors)


def _errors(error: jsonschema_rs.ValidationError) -> list[FieldError]:
    kind, path = error.kind, error.instance_path
    code = _code(type(kind).__name__, kind.name)
    if code == "required":
        name = str(kind.property)  # type: ignore[attr-defined]  # what Required has
        return [FieldError("required", field_path([*path, name]), "is missing")]
    if code in _UNEXPECTED:
        given = error.instance if isinstance(error.instance, dict) else {}
        message = "the schema allows no such key"
        return [
            FieldError(code, field_path([*path, name]), message, shorten(given.get(name)))
            for name in kind.unexpected  # type: ignore[attr-defined]  # what these have
        ]
    message = _OWN_MESSAGES.get(code) or error.message.splitlines()[0]
    return [FieldError(code, field_path(path), message[:LONGEST_TEXT], shorten(error.instance))]


_UNEXPECTED = ("additional_properties", "unevaluated_properties")
_UNDECIDED = ("BacktrackLimitExceeded", "RegexEngineFailure")
"""Kinds of error that leave open whether the value is valid."""
_OWN_MESSAGES = {
    "any_of": "matches none of the schemas in anyOf",
    "one_of": "does not match exactly one of the schemas in oneOf",
    "false_schema": "no value is allowed here",
    "not": "matches the schema in not",
    "unverifiable": "the pattern in the schema takes too long on this value",
}
"""Messages by code; the validator's own ones would contain the whole value, or say less."""


@cache
def _code(kind: str, name: str) -> str:
    if kind in _UNDECIDED:
        return "unverifiable"
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


def field_path(steps: list[Any]) -> str:
    """Return a path as people write it: `address.zip`, `tags[2]`."""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


def shorten(value: Any) -> Any:
    """Return a value that a message has room for, and that any JSON can hold.

    Long strings are cut, containers become None, numbers beyond 64 bits and doubles strings.
    """
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
    if isinstance(value, int) and not -INT64 <= value < INT64:
        value = Decimal(value)
    if isinstance(value, Decimal):
        return shorten(str(value))
    return None if isinstance(value, dict | list) else value
