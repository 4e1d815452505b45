"""Nested rules as msgspec types that accept no more than the rule does: a fast proof, not a verdict.

A rule with any word that is not named here has no shape.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

_STRING_WORDS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
_NUMBER_WORDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
}
_SCALARS: dict[str, tuple[Any, dict[str, str]]] = {
    "string": (str, _STRING_WORDS),
    "integer": (int, _NUMBER_WORDS),
    "number": (float, _NUMBER_WORDS),
    "boolean": (bool, {}),
    "null": (None, {}),
}
_COUNT = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})?"
SIMPLE_PATTERN = re.compile(
    rf"\^?(?:(?:[A-Za-z0-9 _@:/,;-]|\[\^?(?:[A-Za-z0-9 _@:/,.;+*]|[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9])+-?\])"
    rf"{_COUNT})*\$?"
)
"""Patterns that mean the same in every dialect, but for `$`, which Python lets a line end follow."""


def shape_of(rule: Any) -> Any:
    """Return a type whose decoder accepts only values that are valid; None if there is none."""
    if not isinstance(rule, dict) or not isinstance(rule.get("type"), str):
        return None
    words = {word: value for word, value in rule.items() if word not in ("title", "description")}
    kind = words.pop("type")
    if kind == "object":
        return _object(words)
    if kind == "array":
        return _array(words)
    known = _SCALARS.get(kind)
    return _scalar(known[0], words, known[1]) if known else None


def _object(words: dict[str, Any]) -> Any:
    properties, required = words.pop("properties", {}), words.pop("required", [])
    closed = words.pop("additionalProperties", True)
    if words or not isinstance(closed, bool) or set(required) - set(properties):
        return None
    names = [name for name in properties if not re.search(r'["\\\x00-\x1f]', name)]
    shapes = [shape_of(properties[name]) for name in names]
    if len(names) < len(properties) or None in shapes:
        return None
    fields: list[Any] = [
        (f"f{at}", shape)
        if name in required
        else (f"f{at}", shape | msgspec.UnsetType, msgspec.UNSET)
        for at, (name, shape) in enumerate(zip(names, shapes, strict=True))
    ]
    return msgspec.defstruct(
        "Shape",
        fields,
        rename={f"f{at}": name for at, name in enumerate(names)},
        forbid_unknown_fields=not closed,
        gc=False,
        kw_only=True,
    )


def _array(words: dict[str, Any]) -> Any:
    items = shape_of(words.pop("items", None))
    bounds = {
        mine: words.pop(word)
        for word, mine in (("minItems", "min_length"), ("maxItems", "max_length"))
        if word in words
    }
    if items is None or words:
        return None
    return Annotated[list[items], msgspec.Meta(**bounds)]  # type: ignore[valid-type]  # made here


def _scalar(kind: Any, words: dict[str, Any], known: dict[str, str]) -> Any:
    if not words:
        return kind
    if set(words) - set(known):
        return None
    facts = {known[word]: value for word, value in words.items()}
    if any(isinstance(value, bool) for value in facts.values()):
        return None  # draft 4: what `minimum` excludes
    pattern = facts.get("pattern")
    if pattern is not None:
        if not SIMPLE_PATTERN.fullmatch(pattern):
            return None
        facts["pattern"] = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    return Annotated[kind, msgspec.Meta(**facts)]


def decoder_of(rule: Any) -> Any:
    """Return a decoder of one such value; None if the rule has no shape."""
    shape = shape_of(rule)
    if shape is None:
        return None
    try:
        return msgspec.json.Decoder(shape)
    except (TypeError, ValueError):  # a bound that msgspec does not take
        return None
