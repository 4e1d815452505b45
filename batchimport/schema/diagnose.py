"""Say what is wrong with a schema, and where: errors that refuse it, and notes on likely mistakes."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jsonschema_rs

from batchimport.errors import UsageError
from batchimport.schema.keywords import FORMATS, KEYWORDS, REFERENCES, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterator

MALFORMED = (
    jsonschema_rs.ValidationError,
    jsonschema_rs.ReferencingError,
    ValueError,
    RecursionError,
)
"""Raised for a document that is not a valid JSON Schema."""
_ABSENT = re.compile(r"(Pointer|Anchor|Resource) '(.*?)' (?:does not exist|is not present)")
_HINTS = {
    "Pointer": "name a place in the schema, such as #/$defs/address",
    "Anchor": "give some schema that $anchor",
    "Resource": "put it in a file beside this one: nothing is fetched",
}
_SIMILAR = 0.85
"""How similar a misspelt keyword is to the one that is meant, as difflib measures it."""


def malformed(document: Any, error: Exception) -> UsageError:
    """Return the error for a document that is not a valid JSON Schema, with the place in it."""
    message = str(getattr(error, "message", error)).splitlines()[0]
    steps = list(getattr(error, "instance_path", None) or [])
    hint = "fix the schema"
    absent = _ABSENT.match(message)
    if isinstance(error, RecursionError):
        message = "it is nested too deeply"
    elif absent:
        hint = _HINTS[absent[1]]
        steps, reference = next(_references(document, absent[2], []), ([], absent[2]))
        message = f"there is no {json.dumps(reference, ensure_ascii=False)}"
    elif message.startswith("Unknown meta-schema"):
        steps, hint = ["$schema"], "use https://json-schema.org/draft/2020-12/schema, or draft-07"
        message = f"unknown dialect {document.get('$schema')!r}"
    elif steps and steps[-1] == "type":
        value = getattr(error, "instance", None)
        hint = "one of string, integer, number, boolean, null, object, array, or a list of them"
        message = f"no such type: {json.dumps(value)}"
    place = "/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    return UsageError(f"not a valid JSON Schema: {message}", f"schema at {place}", hint)


def _references(schema: Any, absent: str, steps: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the references to what is absent, each with its place."""
    items: Any = schema.items() if isinstance(schema, dict) else ()
    if isinstance(schema, list):
        items = enumerate(schema)
    for key, value in items:
        here = [*steps, str(key)]
        if key in REFERENCES and isinstance(value, str) and _leads_to(value, absent):
            yield here, value
        yield from _references(value, absent, here)


def _leads_to(reference: str, absent: str) -> bool:
    address, _, fragment = reference.partition("#")
    return unquote(fragment) == absent or (bool(address) and absent.endswith(address))


def likely_mistakes(document: Any) -> tuple[str, ...]:
    """Return a note for each keyword of a valid schema that looks misspelt, and unknown format."""
    return tuple(_mistakes(document, ""))


def _mistakes(schema: Any, place: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        here = f"{place}/{keyword}"
        if keyword not in KEYWORDS:
            meant = _meant(keyword)
            if meant:
                yield f"--schema at {here}: this keyword has no effect; is {meant} meant?"
        elif keyword == "format" and isinstance(value, str) and value not in FORMATS:
            yield f"--schema at {here}: the format {value} is unknown and not checked"
        for key, part in subschemas(keyword, value):
            yield from _mistakes(part, here if key is None else f"{here}/{key}")


def _meant(keyword: str) -> str | None:
    folded = {known.lower(): known for known in KEYWORDS}
    matches = get_close_matches(keyword.lower(), folded, n=1, cutoff=_SIMILAR)
    return folded[matches[0]] if matches else None
