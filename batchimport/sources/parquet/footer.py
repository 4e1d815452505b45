"""The footer of a Parquet file: what its types mean, how its rows are grouped, how large they are.

Polars reads the values. What it does not say, or cannot read, is found here: it does not say that bytes
are a UUID, keeps only the years 1677 to 2262 of Spark's timestamps (INT96), makes null of the time 24:00,
and does not read intervals. For the last three, `Footer.plain_file` gives a small file of one column of
one group of rows, in which such values are declared to be the bytes or numbers that they are.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batchimport.sources.parquet.thrift import (
    I32,
    I64,
    LIST,
    STRUCT,
    MalformedError,
    Struct,
    decode,
    decode_first,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    ReadAt = Callable[[int, int], bytes]
    """Takes `(position, length)`."""

MAGIC = b"PAR1"
TAIL_BYTES = 8
"""The length of the footer, and the magic bytes."""

Meaning = Literal[
    "int96", "interval", "time-ms", "time-us", "time-ns", "uuid", "json", "utc", "text", "bytes", ""
]
PLAIN: frozenset[Meaning] = frozenset({"int96", "interval", "time-ms", "time-us", "time-ns"})
"""Meanings that Polars does not know, or not well enough."""

_INT96, _FIXED_BYTES = 3, 7
_TIMESTAMPS = (9, 10)
"""Types of early versions: milliseconds and microseconds, both in UTC by definition."""
_CONVERTED: dict[int, Meaning] = {
    0: "text",
    4: "text",
    7: "time-ms",
    8: "time-us",
    19: "json",
    21: "interval",
}
_LOGICAL: dict[int, Meaning] = {1: "text", 4: "text", 12: "json", 14: "uuid"}
_TIME_UNITS: dict[int, Meaning] = {1: "time-ms", 2: "time-us", 3: "time-ns"}
_DECIMAL, _TIME, _VARIANT = 5, 7, 16
MAX_PRECISION = 38
SMALL_BYTES = 16 << 20
"""A column of this size in a group of rows has no large page."""
HEADER_BYTES = 64 << 10
"""How much of a page is read for its header."""
_PAGES = (9, 11)
"""Fields that say where the pages of a column begin: data, dictionary."""
_PAGE_HEADERS = (5, 7, 8)
"""Fields of a page's header by its kind: data, dictionary, data of the second version."""
_ELSEWHERE = (8, 10, 12, 14, 15, 16)
"""Fields of statistics, and of places that are not among a column's pages."""
REPEATED = 2


@dataclass(frozen=True, slots=True)
class Node:
    """One element of the schema.

    Attributes:
        problem: Why no value of it can be read; empty if it can.
    """

    name: str
    meaning: Meaning
    is_repeated: bool
    problem: str
    children: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """Yield this element and all that are under it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def child(self, name: str) -> Node | None:
        """Return the field of that name of a group."""
        return next((child for child in self.children if child.name == name), None)

    def element(self) -> Node | None:
        """Return what a list is a list of."""
        if self.is_repeated:
            return Node(
                self.name, self.meaning, is_repeated=False, problem="", children=self.children
            )
        if len(self.children) != 1:
            return None
        inner = self.children[0]
        is_wrapped = len(inner.children) == 1 and inner.name not in ("array", f"{self.name}_tuple")
        return inner.children[0] if is_wrapped else inner.element()

    def entry(self) -> Node | None:
        """Return the pair of key and value of a map."""
        return self.children[0] if len(self.children) == 1 else None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of rows.

    Attributes:
        first: The number of its first row.
        plain_bytes: The size of its pages when they are decompressed.
    """

    first: int
    rows: int
    plain_bytes: int
    columns: Sequence[Struct]


_FAULTS = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what a footer leads to that lacks something, or has it in another type, into an error.

    Raises:
        MalformedError: If so.
    """
    try:
        yield
    except MalformedError:
        raise
    except _FAULTS as error:
        raise MalformedError("its footer lacks what each file has") from error


class Footer:
    """What the footer says.

    Attributes:
        rows: Number of rows of the file.
        columns: The columns by name.
        groups: Groups of rows, in order.

    Raises:
        MalformedError: If it contradicts itself, or is not one.
    """

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        tail = read_at(max(0, size - TAIL_BYTES), TAIL_BYTES)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length + TAIL_BYTES > size:
            raise MalformedError("it does not end as one")
        facts = decode(read_at(size - TAIL_BYTES - length, length))
        with _reading():
            self._elements: list[Struct] = facts[2][1][1]
            self.rows = int(facts[3][1])
            root, rest = _tree(self._elements, 0)
            groups: list[Struct] = facts[4][1][1]
            self.groups = tuple(_groups(groups, size - TAIL_BYTES - length))
        if rest != len(self._elements):
            raise MalformedError("its footer has more columns than it names")
        self.columns = {node.name: node for node in root.children}
        self._version = facts.get(1, (I32, 1))
        found = sum(group.rows for group in self.groups)
        if found != self.rows or any(group.rows < 0 for group in self.groups):
            raise MalformedError(
                f"its footer says {self.rows:,} rows, and its groups of rows have {found:,}"
            )

    def plain_columns(self) -> list[str]:
        """Return the columns that Polars does not read, or not well enough.

        It does not open a file that has an interval, so that none of its columns is read.
        """
        meanings = {
            name: {element.meaning for element in node.walk()}
            for name, node in self.columns.items()
        }
        if any("interval" in found for found in meanings.values()):
            return list(self.columns)
        return [name for name, found in meanings.items() if not PLAIN.isdisjoint(found)]

    def plain_file(self, name: str, group: Group, *, has_bytes: bool = False) -> bytes:
        """Return a file of one column and one group of rows, without the meanings in `PLAIN`.

        Args:
            has_bytes: Texts are bytes in it.

        Raises:
            MalformedError: If the footer does not say where the column is.
        """
        with _reading():
            first, root = 1, self._elements[0]
            while _text(self._elements[first]) != name:
                first = _tree(self._elements, first)[1]
            elements = [
                _plain(each, has_bytes=has_bytes)
                for each in self._elements[first : _tree(self._elements, first)[1]]
            ]
            parts, columns = [MAGIC], []
            for column in group.columns:
                facts: Struct = dict(column[3][1])
                if facts[3][1][1][0].decode() == name:
                    parts.append(self._moved(facts, sum(map(len, parts))))
                    columns.append({2: (I64, 0), 3: (STRUCT, facts)})
            rows = (I64, group.rows)
            footer = encode(
                {
                    1: self._version,
                    2: (LIST, (STRUCT, [root | {5: (I32, 1)}, *elements])),
                    3: rows,
                    4: (LIST, (STRUCT, [{1: (LIST, (STRUCT, columns)), 2: (I64, 0), 3: rows}])),
                }
            )
        return b"".join([*parts, footer, len(footer).to_bytes(4, "little"), MAGIC])

    def largest_page(self) -> int:
        """Return the size of the largest page once it is decompressed; 0 if none can be large.

        Raises:
            MalformedError: If a page says that it has more values than its column, or fewer than none:
                Polars would ask for memory for them, and end the process if there is none.
        """
        largest = 0
        for facts in (column[3][1] for group in self.groups for column in group.columns):
            for size, values in self._pages(facts):
                if not 0 <= values <= max(facts[5][1], size):
                    raise MalformedError(f"one of its pages says that it has {values:,} values")
                if facts[6][1] > SMALL_BYTES:
                    largest = max(largest, size)
        return largest

    def _pages(self, facts: Struct) -> Iterator[tuple[int, int]]:
        """Yield of each page of a column, as far as they can be followed: decompressed size, values."""
        try:
            at = _start(facts)
            stop = at + facts[7][1]
            while at < stop:
                page, length = decode_first(self._read_at(at, HEADER_BYTES))
                header = next(page[each][1] for each in _PAGE_HEADERS if each in page)
                yield page[2][1], header[1][1]
                at += length + page[3][1]
        except (*_FAULTS, OSError, StopIteration):
            return  # the file is damaged: who reads the page says so

    def _moved(self, facts: Struct, at: int) -> bytes:
        """Return the pages of a column, and change its facts to those of pages at another place."""
        start = _start(facts)
        for field in _PAGES:
            if field in facts:
                facts[field] = (I64, facts[field][1] - start + at)
        for field in _ELSEWHERE:
            facts.pop(field, None)
        if facts[1][1] == _INT96:
            facts[1] = (I32, _FIXED_BYTES)
        return self._read_at(start, facts[7][1])


def _start(facts: Struct) -> int:
    """Return where the pages of a column begin."""
    return int(min(facts[each][1] for each in _PAGES if each in facts and facts[each][1] > 0))


def _groups(groups: list[Struct], stop: int) -> Iterator[Group]:
    """Yield the groups of rows, all of whose pages must end at `stop` or before."""
    first = 0
    for facts in groups:
        columns: list[Struct] = facts[1][1][1]
        for column in columns:
            start, length = _start(column[3][1]), column[3][1][7][1]
            if not start <= start + length <= stop:
                raise MalformedError("its footer names a place that is not in the file")
        plain_bytes = sum(column[3][1][6][1] for column in columns)
        yield Group(first, int(facts[3][1]), plain_bytes, columns)
        first += int(facts[3][1])


def _tree(elements: list[Struct], at: int) -> tuple[Node, int]:
    """Return the element at a place of the list with all that is under it, and the next place."""
    facts, following = elements[at], at + 1
    children = []
    for _ in range(facts.get(5, (I32, 0))[1]):
        child, following = _tree(elements, following)
        children.append(child)
    node = Node(
        _text(facts),
        _meaning(facts),
        facts.get(3, (I32, 0))[1] == REPEATED,
        _problem(facts),
        tuple(children),
    )
    return node, following


def _text(facts: Struct) -> str:
    return bytes(facts[4][1]).decode(errors="replace")


def _meaning(facts: Struct) -> Meaning:
    converted, logical = facts.get(6, (I32, -1))[1], facts.get(10, (STRUCT, {}))[1]
    if facts.get(1, (I32, -1))[1] == _INT96:
        return "int96"
    if converted in _TIMESTAMPS and not logical:
        return "utc"
    if _TIME in logical:
        return _TIME_UNITS[next(iter(logical[_TIME][1][2][1]))]
    return next(
        (_LOGICAL[each] for each in logical if each in _LOGICAL), _CONVERTED.get(converted, "")
    )


def _problem(facts: Struct) -> str:
    logical = facts.get(10, (STRUCT, {}))[1]
    is_decimal = facts.get(6, (I32, -1))[1] == _DECIMAL or _DECIMAL in logical
    if is_decimal and facts.get(8, (I32, 0))[1] > MAX_PRECISION:
        return f"decimals of {facts[8][1]} digits, more than the {MAX_PRECISION} that can be read"
    return "values of type VARIANT" if _VARIANT in logical else ""


def _plain(facts: Struct, *, has_bytes: bool) -> Struct:
    """Return an element of the schema; what Polars would misread is only bytes or a number."""
    meaning = _meaning(facts)
    if has_bytes and meaning in ("text", "json"):
        return {field: facts[field] for field in (1, 2, 3, 4, 9) if field in facts}
    if meaning not in PLAIN:
        return facts
    kept: Struct = {field: facts[field] for field in (1, 3, 4, 9) if field in facts}
    return (
        kept if meaning in _TIME_UNITS.values() else kept | {1: (I32, _FIXED_BYTES), 2: (I32, 12)}
    )
