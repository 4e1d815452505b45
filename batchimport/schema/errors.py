"""Translate the validator's errors to field errors: code, field, message, value."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from batchimport.model import FieldError
from batchimport.schema.numbers import INT64

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jsonschema_rs

LONGEST_TEXT = 200


def explain(validator: jsonschema_rs.Validator, record: Any) -> tuple[FieldError, ...]:
    """Return every error of a record, in order of path."""
    errors = [field for error in validator.iter_errors(record) for field in _errors(error)]
    return tuple(sorted(errors, key=lambda error: (error.field, error.code)))


def _errors(error: jsonschema_rs.ValidationError) -> Iterator[FieldError]:
    path = list(error.instance_path)
    code = _code(error)
    if code == "required":
        name = str(error.kind.property)  # type: ignore[attr-defined]  # what Required has
        yield FieldError("required", field_path([*path, name]), "is missing")
    elif code in _UNEXPECTED:
        for name in error.kind.unexpected:  # type: ignore[attr-defined]  # what these have
            value = error.instance.get(name) if isinstance(error.instance, dict) else None
            message = "the schema allows no such key"
            yield FieldError(code, field_path([*path, name]), message, shorten(value))
    else:
        message = _message(error, code)[:LONGEST_TEXT]
        yield FieldError(code, field_path(path), message, shorten(error.instance))


_UNEXPECTED = ("additional_properties", "unevaluated_properties")
_UNDECIDED = ("BacktrackLimitExceeded", "RegexEngineFailure")
"""Kinds of error that leave open whether the value is valid."""
_BRANCHES = {
    "any_of": "matches none of the schemas in anyOf",
    "one_of": "does not match exactly one of the schemas in oneOf",
    "false_schema": "no value is allowed here",
    "not": "matches the schema in not",
}
"""Messages by code; the validator's own ones would contain the whole value."""


def _code(error: jsonschema_rs.ValidationError) -> str:
    if type(error.kind).__name__ in _UNDECIDED:
        return "unverifiable"
    return _snake_case(error.kind.name)


@cache
def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


def _message(error: jsonschema_rs.ValidationError, code: str) -> str:
    if code == "unverifiable":
        return "the pattern in the schema takes too long on this value"
    return _BRANCHES.get(code) or error.message.splitlines()[0]


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
    if isinstance(value, int) and not -INT64 <= value < INT64:
        value = Decimal(value)
    if isinstance(value, Decimal):
        value = str(value)
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return None if isinstance(value, dict | list) else value
