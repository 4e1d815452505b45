"""Refuse schemas that take too much time and memory to check a value.

A value is checked along every path through references, `allOf`, `anyOf` and the like, and the
validator keeps the errors of all paths. Twenty-five levels of two branches each are 33 million
paths: gigabytes for one record.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.schema.keywords import IN_PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.schema.references import Node, ResolvedSchema

MAX_EXPANSION = 10_000
"""Maximum number of schemas that apply to one value.

To report the errors of one record then costs about 0.3 s and, for a record of 1 KB, 50 MB: the
validator copies the record into the error of every path."""
_TIMES_ON_PATH = 2
"""How often the validator passes the same schema on one path before it notices the circle."""


def refuse_large(resolved: ResolvedSchema) -> None:
    """Check that no value must satisfy more than `MAX_EXPANSION` schemas, each path counted.

    Raises:
        UsageError: If there is such a value.
    """
    known: dict[str, int] = {}
    for node in _nodes(resolved.root):
        if _Expansion(known).size(node) > MAX_EXPANSION:
            place = (resolved.pointer(node) or node.place).removeprefix("#") or "/"
            raise UsageError(
                f"the schema is too complex: more than {MAX_EXPANSION:,} schemas apply to one value",
                f"schema at {place}",
                "use fewer levels of allOf, anyOf, oneOf and references to schemas that have them",
            )


class _Expansion:
    """Counts the schemas that apply to one value.

    Args:
        known: Sizes by place; not of schemas that lead back to themselves, whose size depends on
            the way there.
    """

    def __init__(self, known: dict[str, int]) -> None:
        self._known = known
        self._visits = 0
        self._on_path: Counter[str] = Counter()
        self._returned_to: Counter[str] = Counter()

    def size(self, node: Node) -> int:
        """Return the size; any number beyond the maximum if it is larger."""
        place = node.place
        self._visits += 1
        if place in self._known or self._visits > MAX_EXPANSION:
            return self._known.get(place, self._visits)
        if self._on_path[place] == _TIMES_ON_PATH:
            self._returned_to[place] += 1
            return 1
        self._on_path[place] += 1
        size = 1
        for part in _in_place(node):
            size += self.size(part)
            if size > MAX_EXPANSION:
                break
        self._on_path[place] -= 1
        size <<= sum(word in node.keywords for word in _UNEVALUATED)
        if not self._on_path[place]:
            del self._returned_to[place]
        if not self._returned_to:
            self._known[place] = size
        return size


_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
"""For each of them, the validator walks the same schemas once more."""


def _nodes(root: Node) -> Iterator[Node]:
    """Yield all schemas that can be reached from one."""
    waiting, seen = [root], set[str]()
    while waiting:
        node = waiting.pop()
        if node.place not in seen:
            seen.add(node.place)
            yield node
            waiting += [part for keyword in node.keywords for part in node.parts(keyword)]
            waiting += node.targets()


def _in_place(node: Node) -> Iterator[Node]:
    """Yield the schemas that apply to whatever the schema applies to."""
    if not node.hides_neighbours:
        for keyword in IN_PLACE:
            if keyword in node.keywords:
                yield from node.parts(keyword)
    yield from node.targets()
