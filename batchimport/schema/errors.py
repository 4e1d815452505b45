"""Translate the validator's errors to field errors: code, field, message, value."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from batchimport.model import FieldError
from batchimport.schema.keywords import REFERENCES
from batchimport.schema.numbers import INT64

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST_TEXT = 200
IN_ORDER = attrgetter("field", "code")


class Explainer:
    """Finds every error of a record by a schema.

    With each error, the validator returns its value twice more, as text: that of a missing key is the
    whole record. So the keys that a record must have are looked for here, where that is all that the
    keyword means: where no reference leads back to it.

    Args:
        options: Those that the validator was made with.
    """

    def __init__(
        self, document: Any, validator: jsonschema_rs.Validator, options: Mapping[str, Any]
    ) -> None:
        self._required: tuple[str, ...] = ()
        self._validator = validator
        text = json.dumps(document, default=str)
        if isinstance(document, dict) and not any(word in text for word in REFERENCES):
            others = {word: rule for word, rule in document.items() if word != "required"}
            self._required = tuple(document.get("required", ()))
            self._validator = jsonschema_rs.validator_for(others, **options)

    def explain(self, record: Any) -> tuple[FieldError, ...]:
        """Return every error of a record, in order of path."""
        is_object = isinstance(record, dict)
        missing = [name for name in self._required if is_object and name not in record]
        errors = [FieldError("required", name, "is missing") for name in missing]
        errors += errors_of(self._validator, record)
        if len(errors) > 1:
            errors.sort(key=IN_ORDER)
        return tuple(errors)


def errors_of(validator: jsonschema_rs.Validator, record: Any) -> list[FieldError]:
    """Return every error of a record, in the order in which the validator finds them."""
    errors: list[FieldError] = []
    for error in validator.iter_errors(record):
        kind, path = error.kind, error.instance_path
        code = _code(type(kind).__name__, kind.name)
        if code == "required":
            name = str(kind.property)  # type: ignore[attr-defined]  # what Required has
            errors.append(FieldError("required", field_path([*path, name]), "is missing"))
        elif code in _UNEXPECTED:
            errors += _unexpected(code, kind, path, error.instance)
        else:
            message = _OWN_MESSAGES.get(code) or error.message.splitlines()[0][:LONGEST_TEXT]
            errors.append(FieldError(code, field_path(path), message, shorten(error.instance)))
    return errors


def _unexpected(code: str, kind: Any, path: list[Any], instance: Any) -> Iterator[FieldError]:
    given = instance if isinstance(instance, dict) else {}
    for name in kind.unexpected:
        message = "the schema allows no such key"
        yield FieldError(code, field_path([*path, name]), message, shorten(given.get(name)))


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
    if len(steps) == 1 and isinstance(steps[0], str):
        return steps[0]
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
