"""The authority's errors in our words: code, field, message, value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batchimport.job import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jsonschema_rs

LONGEST_TEXT = 200


def explain(validator: jsonschema_rs.Validator, record: Any) -> tuple[FieldError, ...]:
    """Return every error of a record, in order of path."""
    found = [each for error in validator.iter_errors(record) for each in _errors(error)]
    return tuple(sorted(found, key=lambda error: (error.field, error.code)))


def _errors(error: jsonschema_rs.ValidationError) -> Iterator[FieldError]:
    path = list(error.instance_path)
    word = _keyword(error)
    if word == "required":
        name = str(error.kind.property)  # type: ignore[attr-defined]  # what Required has
        yield FieldError("required", field_path([*path, name]), "is missing")
    elif word == "additional_properties":
        for name in error.kind.unexpected:  # type: ignore[attr-defined]  # what it has
            value = error.instance.get(name) if isinstance(error.instance, dict) else None
            message = "the schema allows no such key"
            yield FieldError(word, field_path([*path, name]), message, shorten(value))
    else:
        message = error.message.splitlines()[0][:LONGEST_TEXT]
        yield FieldError(word, field_path(path), message, shorten(error.instance))


def _keyword(error: jsonschema_rs.ValidationError) -> str:
    words = [step for step in error.schema_path if isinstance(step, str)]
    word = words[-1] if words else "false_schema"
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", word).lower()


def field_path(steps: list[Any]) -> str:
    """Write a path the way people do: `address.zip`, `tags[2]`."""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


def shorten(value: Any) -> Any:
    """Return a value fit for a message: long text is cut, containers are left out."""
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return None if isinstance(value, dict | list) else value
