"""What is wrong with a schema, and where in it."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jsonschema_rs

from batchimport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

MALFORMED = (
    jsonschema_rs.ValidationError,
    jsonschema_rs.ReferencingError,
    ValueError,
    RecursionError,
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ABSENT = re.compile(r"(Pointer|Anchor|Resource) '(.*?)' (?:does not exist|is not present)")
_HINTS = {
    "Pointer": "name a place in the schema, such as #/$defs/address",
    "Anchor": "give some schema that $anchor",
    "Resource": "put it in a file beside this one: nothing is fetched",
}


def malformed(document: Any, error: Exception) -> UsageError:
    """Return the error for a document that is no JSON Schema, with the place in it."""
    message = str(getattr(error, "message", error)).splitlines()[0]
    steps = list(getattr(error, "instance_path", None) or [])
    hint = "mend the schema"
    absent = _ABSENT.match(message)
    if isinstance(error, RecursionError):
        message = "it is nested too deeply"
    elif absent:
        hint = _HINTS[absent[1]]
        steps, reference = next(_references(document, absent[2], []), ([], absent[2]))
        message = f"there is no {json.dumps(reference, ensure_ascii=False)}"
    elif message.startswith("Unknown meta-schema"):
        steps, hint = ["$schema"], "say https://json-schema.org/draft/2020-12/schema, or draft-07"
        message = f"unknown dialect {document.get('$schema')!r}"
    elif steps and steps[-1] == "type":
        value = getattr(error, "instance", None)
        hint = "one of string, integer, number, boolean, null, object, array, or a list of them"
        message = f"no such type: {json.dumps(value)}"
    place = "/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    return UsageError(f"not a valid JSON Schema: {message}", f"schema at {place}", hint)


def _references(schema: Any, absent: str, steps: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the places of references that lead to what is absent, and what they say."""
    items: Any = schema.items() if isinstance(schema, dict) else ()
    if isinstance(schema, list):
        items = enumerate(schema)
    for key, value in items:
        here = [*steps, str(key)]
        if key in _REFERENCES and isinstance(value, str) and _leads_to(value, absent):
            yield here, value
        yield from _references(value, absent, here)


def _leads_to(reference: str, absent: str) -> bool:
    address, _, fragment = reference.partition("#")
    return unquote(fragment) == absent or (bool(address) and absent.endswith(address))


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
