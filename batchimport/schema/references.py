"""What a schema says about each property of a record, wherever in it that stands.

Only what follows from the place of a word is told here; whether a value is valid is the
validator's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import jsonschema_rs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Types = frozenset[str] | None
"""JSON types that valid values may have; None for any."""

ANNOTATIONS = frozenset(
    {"$schema", "$id", "id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly"}
)
"""Words that make no value invalid."""

_SILENT = ANNOTATIONS - {"$schema", "$id", "id"}

ADDRESS = "json-schema:///"
"""Of a document that has no address of its own."""
_LAST_DRAFT_OF_LONE_REFERENCES = 7
"""Up to this draft, words beside `$ref` are ignored."""
_LAST_DRAFT_OF_PLAIN_ID = 4
"""Up to this draft, `$id` is `id`, and there is no `const`."""
_FIRST_DRAFT_WITH = {"uuid": 19}
"""Before it, a format is not asserted."""
_LONGEST_CHAIN = 100
_ELSEWHERE = {"elsewhere": True}
"""Stands for a metaschema: nothing is known about it here but that it is not empty."""
_ALTERNATIVES = ("anyOf", "oneOf")
_CONDITIONS = ("if", "then", "else")
_DEPENDENCIES = ("dependentSchemas", "dependencies")


@dataclass(frozen=True, slots=True)
class Node:
    """A schema in the document.

    Attributes:
        schema: An object, or true or false.
        resolver: Looks up references from here.
        place: Where it stands: a JSON pointer after the address of the resource that it is in.
    """

    schema: Any
    resolver: jsonschema_rs.Resolver
    draft: int
    place: str

    def word(self, word: str, kind: type) -> Any:
        """Return what a word says; None if it is not there or no such thing."""
        found = self.schema.get(word) if isinstance(self.schema, dict) else None
        return found if isinstance(found, kind) else None

    def child(self, word: str, key: str | int | None = None) -> Node:
        """Return the schema under a word, or under a key of it."""
        schema = self.schema[word]
        steps = [word] if key is None else [word, str(key)]
        if key is not None:
            schema = schema[key]
        place = self.place + "".join("/" + _escaped(step) for step in steps)
        node = replace(self, schema=schema, place=place)
        own = node.word("$id" if self.draft > _LAST_DRAFT_OF_PLAIN_ID else "id", str)
        if own is None or own.startswith("#") or node.hides_neighbours:
            return node
        found = self.resolver.lookup(own)
        return replace(node, resolver=found.resolver, draft=found.draft)

    def children(self, word: str) -> list[Node]:
        """Return the schemas that a word lists."""
        return [self.child(word, at) for at, _ in enumerate(self.word(word, list) or ())]

    @property
    def reference(self) -> str | None:
        """What the schema refers to."""
        found: str | None = self.word("$ref", str)
        return found

    @property
    def hides_neighbours(self) -> bool:
        """Whether it refers to another schema, in a draft that ignores all words beside that."""
        return self.reference is not None and self.draft <= _LAST_DRAFT_OF_LONE_REFERENCES

    @property
    def is_reference(self) -> bool:
        """Whether it does no more than refer to another schema."""
        if self.reference is None:
            return False
        return self.hides_neighbours or self.schema.keys() - ANNOTATIONS == {"$ref"}

    def target(self) -> Node:
        """Return the schema that is referred to."""
        reference = unquote(self.reference or "")
        try:
            found = self.resolver.lookup(self.reference or "")
        except jsonschema_rs.ReferencingError:  # built into the validator, not in the registry
            return replace(self, schema=_ELSEWHERE, place=f"{reference}#")
        base = self.resolver.base_uri
        place = base + reference if reference.startswith("#") else urljoin(base, reference)
        place = place if "#" in place else f"{place}#"
        return Node(found.contents, found.resolver, found.draft, place)


class ResolvedSchema:
    """A schema's document, with its references followed.

    Attributes:
        address: Of the document.
        root: The schema of a record: the document, or the one that it only refers to.
        names: All properties that the schema describes or demands, in order.
        required: Properties that every record must have.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        own = document.get("$id", document.get("id"))
        absolute = isinstance(own, str) and ":" in own and "#" not in own.rstrip("#")
        self.address = str(own).rstrip("#") if absolute else ADDRESS
        registry = jsonschema_rs.Registry(
            [(self.address, document)], retriever=lambda _: _ELSEWHERE
        )
        found = registry.resolver(self.address).lookup("#")
        self.root = follow(Node(document, found.resolver, found.draft, f"{self.address}#"))
        self.names = tuple(dict.fromkeys(_names(self.root, set())))
        self._parts = tuple(_conjuncts(self.root))
        self.required = frozenset(
            name for part in self._parts for name in part.word("required", list) or ()
        )

    def types(self, name: str) -> Types:
        """Return the types that a property of a valid record may have."""
        return _property_types(self._parts, name, {})

    def format(self, name: str) -> str | None:
        """Return the format that every text under a name has, if it is said."""
        found = [
            _format(part.child("properties", name))
            for part in self._parts
            if name in (part.word("properties", dict) or ())
        ]
        return next(filter(None, found), None)

    def property(self, name: str) -> Node:
        """Return the schema of a property of the root."""
        return self.root.child("properties", name)

    def pointer(self, node: Node) -> str | None:
        """Return where in the document a node stands; None if it is no place there."""
        address, _, pointer = node.place.partition("#")
        is_pointer = not pointer or pointer.startswith("/")
        return f"#{pointer}" if address == self.address and is_pointer else None


def follow(node: Node) -> Node:
    """Return the schema that one does no more than refer to, or itself."""
    for _ in range(_LONGEST_CHAIN):
        if not node.is_reference:
            break
        node = node.target()
    return node


def without_null(node: Node) -> Node:
    """Return the schema of all values but null, where that is the one alternative beside null."""
    node = follow(node)
    for word in _ALTERNATIVES:
        branches = node.children(word)
        others = [branch for branch in branches if branch.schema != {"type": "null"}]
        alone = node.word(word, list) and node.schema.keys() - _SILENT == {word}
        if alone and len(branches) == 2 and len(others) == 1:
            return without_null(others[0])
    return node


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _conjuncts(node: Node, seen: set[str] | None = None) -> Iterator[Node]:
    """Yield the schema and all that a value must satisfy besides, each once."""
    seen = set() if seen is None else seen
    if node.place in seen or not isinstance(node.schema, dict):
        return
    seen.add(node.place)
    if not node.hides_neighbours:
        yield node
        for part in node.children("allOf"):
            yield from _conjuncts(part, seen)
    if node.reference is not None:
        yield from _conjuncts(node.target(), seen)


def _names(node: Node, seen: set[str]) -> Iterator[str]:
    for part in _conjuncts(node, seen):
        yield from part.word("properties", dict) or ()
        yield from (name for name in part.word("required", list) or () if isinstance(name, str))
        for branch in _branches(part):
            yield from _names(branch, seen)


def _branches(node: Node) -> Iterator[Node]:
    """Yield the schemas of which a record need not satisfy each."""
    for word in _ALTERNATIVES:
        yield from node.children(word)
    for word in _CONDITIONS:
        if word in node.schema:
            yield node.child(word)
    for word in _DEPENDENCIES:
        for key, schema in (node.word(word, dict) or {}).items():
            if isinstance(schema, dict):
                yield node.child(word, key)


def _property_types(parts: Iterable[Node], name: str, known: dict[str, Types]) -> Types:
    """Return the types that a property may have.

    Args:
        known: By place; what is not known yet, because it refers to itself, may be anything.
    """
    found: list[Types] = []
    for part in parts:
        if name in (part.word("properties", dict) or ()):
            found.append(_types(part.child("properties", name), known))
        for branches in _alternatives(part):
            each = list[Types]()
            for branch in branches:
                place = f"{branch.place} {name}"
                if place not in known:
                    known[place] = None
                    known[place] = _property_types(_conjuncts(branch), name, known)
                each.append(known[place])
            found.append(_union(each))
    return _intersection(found)


def _types(node: Node, known: dict[str, Types]) -> Types:
    if node.schema is False:
        return frozenset()
    if node.place not in known:
        known[node.place] = None
        found: list[Types] = []
        for part in _conjuncts(node):
            found.append(_own_types(part))
            found += [
                _union([_types(each, known) for each in some]) for some in _alternatives(part)
            ]
        known[node.place] = _intersection(found)
    return known[node.place]


def _format(node: Node, seen: set[str] | None = None) -> str | None:
    seen = set() if seen is None else seen
    if node.place in seen:
        return None
    seen.add(node.place)
    for part in _conjuncts(node):
        own: str | None = part.word("format", str)
        if own is not None and part.draft >= _FIRST_DRAFT_WITH.get(own, 0):
            return own
        for branches in _alternatives(part):
            types = ((_types(branch, {}), branch) for branch in branches)
            of_texts = {
                _format(each, seen) for found, each in types if found is None or "string" in found
            }
            if len(of_texts) == 1 and None not in of_texts:
                return of_texts.pop()
    return None


def _alternatives(node: Node) -> Iterator[list[Node]]:
    return (branches for word in _ALTERNATIVES if (branches := node.children(word)))


def _own_types(node: Node) -> Types:
    schema, found = node.schema, list[Types]()
    given = schema.get("type")
    if given is not None:
        found.append(frozenset([given] if isinstance(given, str) else given))
    if "enum" in schema:
        found.append(frozenset(map(type_name, schema["enum"])))
    if "const" in schema and node.draft > _LAST_DRAFT_OF_PLAIN_ID:
        found.append(frozenset([type_name(schema["const"])]))
    return _intersection(found)


def type_name(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return names[type(value)]


def _union(types: Iterable[Types]) -> Types:
    found: frozenset[str] = frozenset()
    for each in types:
        if each is None:
            return None
        found |= each
    return found


def _intersection(types: Iterable[Types]) -> Types:
    found: Types = None
    for each in types:
        if found is None or each is None:
            found = each if found is None else found
        else:
            found = _with_integers(found) & _with_integers(each)
            found -= {"integer"} if "number" in found else set()
    return found


def _with_integers(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types
