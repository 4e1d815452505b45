"""What is wrong with a schema, and where in it."""

from __future__ import annotations

import json
import re
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
