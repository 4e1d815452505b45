"""The keywords of JSON Schema, those of all drafts together, and where schemas stand in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ANNOTATIONS = frozenset(
    {"$schema", "$id", "id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly"}
    | {"x-missing", "x-date-format", "x-type", "x-inferred", "x-ignored"}
)
"""Keywords that make no value invalid. Ours are those of a property that list the cells of delimited text
that mean null in this column, how its dates are written, its type where no `format` says it, and from how
many records this was inferred; and that of a record which lists keys that are not imported."""

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

IN_PLACE = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    *("dependentSchemas", "dependencies"),
)
"""Keywords whose schemas apply to the same value as the schema that they stand in."""

_SCHEMA = frozenset(
    {"not", "if", "then", "else", "contains", "additionalProperties", "additionalItems", "items"}
    | {"propertyNames", "unevaluatedProperties", "unevaluatedItems", "contentSchema"}
)
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_BY_NAME = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"}
)
_OTHERS = frozenset(
    {"type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "pattern"}
    | {"exclusiveMinimum", "maxLength", "minLength", "maxItems", "minItems", "uniqueItems"}
    | {"maxContains", "minContains", "maxProperties", "minProperties", "required", "format"}
    | {"dependentRequired", "contentEncoding", "contentMediaType", "$vocabulary"}
    | {"$anchor", "$dynamicAnchor", "$recursiveAnchor"}
)
KEYWORDS = _SCHEMA | _LIST | _BY_NAME | _OTHERS | ANNOTATIONS | set(REFERENCES)

FORMATS = frozenset(
    {"date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname"}
    | {"ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template"}
    | {"json-pointer", "relative-json-pointer", "regex"}
)


def subschemas(keyword: str, value: Any) -> Iterator[tuple[str | int | None, Any]]:
    """Yield the schemas that stand in a keyword, each with its key or index in the keyword's value.

    The key is None if the value itself is the schema.
    """
    if isinstance(value, list):
        if keyword in _LIST:
            yield from enumerate(value)
    elif keyword in _SCHEMA:
        yield None, value
    elif keyword in _BY_NAME and isinstance(value, dict):
        yield from (
            (name, schema) for name, schema in value.items() if not isinstance(schema, list)
        )
