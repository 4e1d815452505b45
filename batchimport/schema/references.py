"""Find out what a schema says about each property of a record, through references and branches.

Only what follows from a keyword and its place is derived here; whether a value is valid is the
validator's decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import jsonschema_rs

from batchimport.schema.keywords import ANNOTATIONS, REFERENCES, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, KeysView

Types = frozenset[str] | None
"""JSON types that a valid value may have; None for any."""

_IGNORED = ANNOTATIONS - {"$schema", "$id", "id"}

ADDRESS = "json-schema:///"
"""Address of a document that has none of its own."""
LAST_DRAFT_OF_LONE_REFERENCES = 7
"""Up to this draft, keywords beside `$ref` are ignored."""
LAST_DRAFT_OF_PLAIN_ID = 4
"""Up to this draft, `$id` is `id`, and there is no `const`."""
_FIRST_DRAFT_WITH = {"uuid": 19}
"""Earlier drafts do not check the format; draft 2019-09 is 19."""
_LONGEST_CHAIN = 100
_UNKNOWN = {"elsewhere": True}
"""Stands for a schema that is not in the document, such as a metaschema: it may say anything."""
_ALTERNATIVES = ("anyOf", "oneOf")
_CONDITIONS = ("if", "then", "else")
_DEPENDENCIES = ("dependentSchemas", "dependencies")


@dataclass(frozen=True, slots=True)
class Node:
    """A schema in the document; its keywords need not be well-formed.

    Attributes:
        schema: An object, or true or false.
        resolver: Looks up references from here.
        draft: 4, 6, 7, 19 (2019-09) or 20 (2020-12).
        place: Address of the resource that it is in, `#`, and a JSON pointer or an anchor.
    """

    schema: Any
    resolver: jsonschema_rs.Resolver
    draft: int
    place: str

    @property
    def keywords(self) -> KeysView[str]:
        """The schema's keywords."""
        return self.schema.keys() if isinstance(self.schema, dict) else {}.keys()

    def word(self, word: str, kind: type) -> Any:
        """Return the value of a keyword; None if it is missing or of another type."""
        value = self.schema.get(word) if isinstance(self.schema, dict) else None
        return value if isinstance(value, kind) else None

    def child(self, word: str, key: str | int | None = None) -> Node:
        """Return the schema that a keyword holds, under a key if it holds several."""
        schema = self.schema[word]
        steps = [word] if key is None else [word, str(key)]
        if key is not None:
            schema = schema[key]
        place = self.place + "".join("/" + _escaped(step) for step in steps)
        node = replace(self, schema=schema, place=place)
        own = node.word("$id" if self.draft > LAST_DRAFT_OF_PLAIN_ID else "id", str)
        if own is None or own.startswith("#") or node.hides_neighbours:
            return node
        resource = self.resolver.lookup(own)
        return replace(node, resolver=resource.resolver, draft=resource.draft)

    def children(self, word: str) -> list[Node]:
        """Return the schemas that a keyword lists."""
        return [self.child(word, at) for at, _ in enumerate(self.word(word, list) or ())]

    def parts(self, word: str) -> list[Node]:
        """Return all schemas that stand in a keyword."""
        return [self.child(word, key) for key, _ in subschemas(word, self.schema[word])]

    @property
    def reference(self) -> str | None:
        """What the schema refers to by `$ref`."""
        reference: str | None = self.word("$ref", str)
        return reference

    @property
    def hides_neighbours(self) -> bool:
        """Whether it refers to another schema in a draft that ignores all keywords beside `$ref`."""
        return self.reference is not None and self.draft <= LAST_DRAFT_OF_LONE_REFERENCES

    @property
    def is_reference(self) -> bool:
        """Whether it does no more than refer to another schema."""
        if self.reference is None:
            return False
        return self.hides_neighbours or self.schema.keys() - ANNOTATIONS == {"$ref"}

    def target(self) -> Node:
        """Return the schema that `$ref` refers to."""
        return self._target(self.reference or "")

    def targets(self) -> list[Node]:
        """Return the schemas that all kinds of references refer to."""
        references = (self.word(word, str) for word in REFERENCES)
        return [self._target(reference) for reference in references if reference is not None]

    def _target(self, reference: str) -> Node:
        pointer = unquote(reference)
        try:
            resolved = self.resolver.lookup(reference)
        except jsonschema_rs.ReferencingError:  # built into the validator, not in the registry
            return replace(self, schema=_UNKNOWN, place=f"{pointer}#")
        base = self.resolver.base_uri
        place = base + pointer if pointer.startswith("#") else urljoin(base, pointer)
        place = place if "#" in place else f"{place}#"
        return Node(resolved.contents, resolved.resolver, resolved.draft, place)


class ResolvedSchema:
    """A schema document whose references can be followed.

    Attributes:
        address: Of the document.
        root: The schema of a record: the document, or the one that it only refers to.
        names: All properties that the schema describes or requires, in order.
        required: Properties that every record must have.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        own = document.get("$id", document.get("id"))
        absolute = isinstance(own, str) and ":" in own and "#" not in own.rstrip("#")
        self.address = str(own).rstrip("#") if absolute else ADDRESS
        registry = jsonschema_rs.Registry([(self.address, document)], retriever=lambda _: _UNKNOWN)
        resolved = registry.resolver(self.address).lookup("#")
        self.root = follow(Node(document, resolved.resolver, resolved.draft, f"{self.address}#"))
        self.names = tuple(dict.fromkeys(_names(self.root, set())))
        self._parts = tuple(_conjuncts(self.root))
        self.required = frozenset(name for part in self._parts for name in _required(part))

    def types(self, name: str) -> Types:
        """Return the types that a property of a valid record may have."""
        return _property_types(self._parts, name, {})

    def format(self, name: str) -> str | None:
        """Return the format that every string of a property has; None if there is none."""
        formats = [
            _format(part.child("properties", name))
            for part in self._parts
            if name in (part.word("properties", dict) or ())
        ]
        return next(filter(None, formats), None)

    def property(self, name: str) -> Node:
        """Return the schema of a property of the root."""
        return self.root.child("properties", name)

    def pointer(self, node: Node) -> str | None:
        """Return the place of a node in the document as a JSON pointer after `#`.

        None if it is in a resource of its own, or known by an anchor.
        """
        address, _, pointer = node.place.partition("#")
        is_pointer = not pointer or pointer.startswith("/")
        return f"#{pointer}" if address == self.address and is_pointer else None


def follow(node: Node) -> Node:
    """Return the schema that a chain of lone references ends at, or the node itself."""
    for _ in range(_LONGEST_CHAIN):
        if not node.is_reference:
            break
        node = node.target()
    return node


def without_null(node: Node) -> Node:
    """Return the schema of all values but null, if it is the one alternative to null."""
    node = follow(node)
    for word in _ALTERNATIVES:
        branches = node.children(word)
        others = [branch for branch in branches if branch.schema != {"type": "null"}]
        alone = node.word(word, list) and node.schema.keys() - _IGNORED == {word}
        if alone and len(branches) == 2 and len(others) == 1:
            return without_null(others[0])
    return node


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _conjuncts(node: Node, seen: set[str] | None = None) -> Iterator[Node]:
    """Yield the schema and all others that its values must satisfy, each once."""
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
        yield from _required(part)
        for branch in _branches(part):
            yield from _names(branch, seen)


def _required(node: Node) -> Iterator[str]:
    return (name for name in node.word("required", list) or () if isinstance(name, str))


def _branches(node: Node) -> Iterator[Node]:
    """Yield the schemas that apply to some records only."""
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
        known: Results by place; a property that refers to itself may have any type.
    """
    restrictions: list[Types] = []
    for part in parts:
        if name in (part.word("properties", dict) or ()):
            restrictions.append(_types(part.child("properties", name), known))
        for branches in _alternatives(part):
            alternatives = list[Types]()
            for branch in branches:
                place = f"{branch.place} {name}"
                if place not in known:
                    known[place] = None
                    known[place] = _property_types(_conjuncts(branch), name, known)
                alternatives.append(known[place])
            restrictions.append(_union(alternatives))
    return _intersection(restrictions)


def _types(node: Node, known: dict[str, Types]) -> Types:
    if node.schema is False:
        return frozenset()
    if node.place not in known:
        known[node.place] = None
        restrictions: list[Types] = []
        for part in _conjuncts(node):
            restrictions.append(_own_types(part))
            restrictions += [
                _union([_types(branch, known) for branch in branches])
                for branches in _alternatives(part)
            ]
        known[node.place] = _intersection(restrictions)
    return known[node.place]


def _format(node: Node, seen: set[str] | None = None) -> str | None:
    seen = set() if seen is None else seen
    if node.place in seen:
        return None
    seen.add(node.place)
    for part in _conjuncts(node):
        own: str | None = part.word("x-type", str) or part.word("format", str)
        if own is not None and part.draft >= _FIRST_DRAFT_WITH.get(own, 0):
            return own
        for branches in _alternatives(part):
            types = ((_types(branch, {}), branch) for branch in branches)
            formats = {
                _format(branch, seen)
                for allowed, branch in types
                if allowed is None or "string" in allowed
            }
            if len(formats) == 1 and None not in formats:
                return formats.pop()
    return None


def _alternatives(node: Node) -> Iterator[list[Node]]:
    return (branches for word in _ALTERNATIVES if (branches := node.children(word)))


def _own_types(node: Node) -> Types:
    schema, restrictions = node.schema, list[Types]()
    types = schema.get("type")
    if types is not None:
        restrictions.append(frozenset([types] if isinstance(types, str) else types))
    if "enum" in schema:
        restrictions.append(frozenset(map(type_name, schema["enum"])))
    if "const" in schema and node.draft > LAST_DRAFT_OF_PLAIN_ID:
        restrictions.append(frozenset([type_name(schema["const"])]))
    return _intersection(restrictions)


def type_name(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return names[type(value)]


def _union(alternatives: Iterable[Types]) -> Types:
    union: frozenset[str] = frozenset()
    for types in alternatives:
        if types is None:
            return None
        union |= types
    return union


def _intersection(restrictions: Iterable[Types]) -> Types:
    common: Types = None
    for types in restrictions:
        if common is None or types is None:
            common = types if common is None else common
        else:
            common = _with_integers(common) & _with_integers(types)
            common -= {"integer"} if "number" in common else set()
    return common


def _with_integers(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types
