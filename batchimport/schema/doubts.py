"""What a valid schema says that has no effect, and was probably meant to have one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ONE = frozenset(
    {"not", "if", "then", "else", "contains", "additionalProperties", "additionalItems"}
    | {"propertyNames", "unevaluatedProperties", "unevaluatedItems", "contentSchema"}
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_EITHER = frozenset({"items", "dependencies"})
_VALUES = frozenset(
    {"type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "pattern"}
    | {"exclusiveMinimum", "maxLength", "minLength", "maxItems", "minItems", "uniqueItems"}
    | {"maxContains", "minContains", "maxProperties", "minProperties", "required", "format"}
    | {"dependentRequired", "contentEncoding", "contentMediaType", "title", "description"}
    | {"default", "deprecated", "readOnly", "writeOnly", "examples", "id", "$id", "$schema", "$ref"}
    | {"$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$comment"}
    | {"$vocabulary"}
)
WORDS = _ONE | _LISTS | _NAMED | _EITHER | _VALUES
FORMATS = frozenset(
    {"date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname"}
    | {"ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template"}
    | {"json-pointer", "relative-json-pointer", "regex"}
)


def doubts(document: Any) -> tuple[str, ...]:
    """Return a note for each word that looks misspelt, and each format that nobody knows."""
    return tuple(_doubts(document, ""))


def _doubts(schema: Any, place: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    for word, value in schema.items():
        here = f"{place}/{word}"
        if word not in WORDS:
            meant = _meant(word)
            if meant:
                yield f"--schema at {here}: this word has no effect; is {meant} meant?"
        elif word == "format" and isinstance(value, str) and value not in FORMATS:
            yield f"--schema at {here}: the format {value} is not known and not checked"
        for step, part in _parts(word, value):
            yield from _doubts(part, f"{here}{step}")


def _meant(word: str) -> str | None:
    folded = {each.lower(): each for each in WORDS}
    found = get_close_matches(word.lower(), folded, n=1, cutoff=0.85)
    return folded[found[0]] if found else None


def _parts(word: str, value: Any) -> Iterator[tuple[str, Any]]:
    if word in _ONE or (word == "items" and isinstance(value, dict)):
        yield "", value
    elif isinstance(value, list) and (word in _LISTS or word == "items"):
        yield from ((f"/{at}", part) for at, part in enumerate(value))
    elif isinstance(value, dict) and (word in _NAMED or word == "dependencies"):
        yield from ((f"/{name}", part) for name, part in value.items())
