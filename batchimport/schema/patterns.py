r"""Lines of JSON as regular expressions: one for each order of keys, made of columns and schema.

Whatever such a pattern matches is well-formed JSON of the columns' types, apart from escapes, which
must be decoded to be sure (`\q`, half a surrogate pair); and it is valid by every rule of the schema
that is not among the pattern's `rules`. What a pattern does not match may be valid all the same.

A pattern is fast only as long as it is *one-pass*: at each byte there is at most one way to go on.
Then Rust's regex engine finds the groups while it matches; otherwise it matches first and searches for
the groups afterwards. What keeps a pattern one-pass:

* Alternatives begin with different characters: values by their first byte, enums as a trie.
* A repetition ends where something begins that it cannot contain: `-+[a-z]+`, not `[a-z-]*[a-z]`.
* No key is optional: each order of keys that occurs has its own pattern, also in nested objects.
* It has no more than 16 groups, and the engine's table of its states takes no more than 1 MiB: a
  thousand or two. Hence an escape is just a backslash and one more character, values that nest without
  a shape of their own go two levels deep, long texts are not counted; and a line with many keys is
  proven in pieces, cut at some of its keys. (Wherever such a key stands first in a line: the pieces
  match only if that is its place.)

One that is not one-pass takes 3 to 30 times as long: `tests/bench/test_shapes.py` prints the ratios.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, SupportsBytes

from batchimport.schema.keywords import ANNOTATIONS
from batchimport.schema.references import without_null
from batchimport.schema.vectorise import SIMPLE_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.model import Kind
    from batchimport.schema.columns import Column
    from batchimport.schema.references import Node
    from batchimport.schema.vectorise import ColumnRule

Members = Callable[[bytes], Mapping[str, SupportsBytes]]
"""Returns the raw values of an object; raises ValueError if it is not an object."""
Keys = tuple[tuple[str, Any], ...]
"""The keys of an object in order, each with the form of its value."""
Form = Any
"""The `Keys` of an object, or `scalar`, `array` or `object`; None for a null, which shows nothing."""

_SILENT = ANNOTATIONS - {"$schema", "$id", "id"}
_LONGEST_COUNT = 64
"""Characters that a simple pattern counts."""
_LONGEST_TEXT = 16
"""Characters of any kind that are counted: each takes a dozen states."""
_DEEPEST = 4
_MOST_GROUPS = 15
"""Beside the one that shows that there is a match."""
_LARGEST_TABLE = 2**17
"""Entries of 8 bytes: one for each state and class of bytes."""
_GOOD_GROUPS, _GOOD_TABLE = 5, 2**15
"""Pieces of that size match a fifth faster than larger ones: they stay in the processor's cache."""
_CLASSES_OF_ALL = 12
"""Classes of bytes that any pattern has, for UTF-8 and ranges."""
_STATES_OF_NEGATED = 8
"""States that a class of Unicode characters takes."""
_LONGEST_REGEX = 40_000
_LARGEST_ENUM = 400
"""Characters in all of its values."""

_COMMA, _COLON = ", ?", ": ?"
"""As `json.dumps` writes them, by default and with compact separators."""
_CHARACTER = r'[^"\\\x00-\x1f]'
_TEXT = rf"(?:{_CHARACTER}|\\[^\x00-\x1f])"
_STRING = f'"{_TEXT}*"'
_INTEGER = "-?(?:0|[1-9][0-9]{0,17})"
"""Of as many digits as certainly fit into 64 bits."""
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_BOOLEAN = "true|false"
_SCALAR = f"{_STRING}|{_NUMBER}|true|false|null"


def _list_of(value: str) -> str:
    return rf"\[(?:(?:{value})(?:{_COMMA}(?:{value}))*)?\]"


def _map_of(value: str) -> str:
    pair = f"{_STRING}{_COLON}(?:{value})"
    return rf"\{{(?:{pair}(?:{_COMMA}{pair})*)?\}}"


_ANY_OBJECT = _map_of(_SCALAR)
_ANY_ARRAY = _list_of(f"{_SCALAR}|{_ANY_OBJECT}")
_ANY: dict[str, str] = {
    "string": _STRING,
    "integer": _INTEGER,
    "number": _NUMBER,
    "boolean": _BOOLEAN,
    "array": _ANY_ARRAY,
    "object": _ANY_OBJECT,
}
"""Values of each type but null, which columns treat apart."""
_TYPES_OF = {
    "scalar": {"string", "integer", "number", "boolean"},
    "array": {"array"},
    "object": {"object"},
}

_WORD = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_HEX = "[0-9A-Fa-f]"
_28, _30, _31 = (
    f"-(?:0[1-9]|{rest})" for rest in ("1[0-9]|2[0-8]", "[12][0-9]|30", "[12][0-9]|3[01]")
)
_DATE = f"[12][0-9]{{3}}-(?:0(?:2{_28}|[469]{_30}|[13578]{_31})|1(?:1{_30}|[02]{_31}))"
"""29 February is left to who knows the calendar."""
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(?:2(?:5[0-5]?|[0-4][0-9]?|[6-9])?|1(?:[0-9][0-9]?)?|[3-9][0-9]?|0)"
_FORMATS = {
    "date": _DATE,
    "date-time": f"{_DATE}T{_TIME}{_ZONE}",
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "ipv4": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}",
}
_EMAIL = rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@{_WORD}(?:\.{_WORD})+"
"""An email's length is limited, too: it is proven by its form and a rule besides."""


@dataclass(frozen=True, slots=True)
class LinePattern:
    """One order of keys.

    Attributes:
        pieces: Regular expressions of the pieces of a line. The first group of each takes part in every
            match; the others hold the raw values of `columns`, one after the other: of strings what is
            between the quotes, of null nothing.
        cuts: What stands between the pieces.
        optional: Keys that a line must have for this pattern and that not all records need to have,
            as they stand in a line.
        rules: What the pattern does not prove.
    """

    pieces: tuple[str, ...]
    cuts: tuple[str, ...]
    columns: tuple[Column, ...]
    optional: tuple[str, ...]
    rules: tuple[ColumnRule, ...]


class LinePatterns:
    """Makes the patterns of a schema's lines.

    Args:
        node_of: Returns the schema of a column; None if the schema of a record says more than what its
            properties are, so that only the types of columns count.
        rule_of: Returns what is left of a column's rule without some keywords of it; None for nothing.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        node_of: Callable[[str], Node] | None,
        rule_of: Callable[[Column, frozenset[str]], ColumnRule | None],
    ) -> None:
        self._columns = {column.name: column for column in columns}
        self._required = {column.name for column in columns if column.required}
        self._nodes = {
            name: without_null(node_of(name)) if node_of else None for name in self._columns
        }
        self._rule_of = cache(rule_of)

    def keys_of(self, members: Members, line: bytes) -> Keys:
        """Return the order of a line's keys.

        Raises:
            ValueError: If it is no object.
        """
        return tuple(
            (name, _form(members, bytes(raw), self._nodes.get(name)))
            for name, raw in members(line).items()
        )

    def pattern(self, keys: Keys, *, compact: bool = False) -> LinePattern | None:
        """Return the pattern of an order of keys; None if no such line can be proven.

        Args:
            compact: In as few pieces as possible, rather than in the fastest ones.
        """
        names = [name for name, _ in keys]
        if not self._required <= set(names) <= self._columns.keys():
            return None
        columns = tuple(self._columns[name] for name in names)
        values = [
            self._value(column, form) for column, (_, form) in zip(columns, keys, strict=True)
        ]
        pairs = [(name, text) for name, (text, _) in zip(names, values, strict=True)]
        pieces = _pieces(pairs, compact=compact)
        if pieces is None:
            return None
        rules = [
            self._rule_of(column, proven)
            for column, (_, proven) in zip(columns, values, strict=True)
        ]
        return LinePattern(
            *pieces,
            columns,
            optional=tuple(
                _literal(name) for name in names if name not in self._required and _is_literal(name)
            ),
            rules=tuple(rule for rule in rules if rule is not None),
        )

    def _value(self, column: Column, form: Form) -> tuple[str, frozenset[str]]:
        """Return the values of a column with their group, and the keywords of its rule that they meet."""
        node = self._nodes[column.name]
        keywords = _keywords(node)
        proven = frozenset(keywords)
        if column.kind == "json":
            text = _proven_value(node, form)
            if text is None:
                types = _types(keywords) or frozenset(_ANY)
                text, proven = _any_value(types, form), frozenset()
            value = f"({text})"
        elif column.kind in _SCALARS:
            value, proven = f"({_SCALARS[column.kind]})", frozenset({"type"})
        else:
            text, proven = _string(keywords)
            value = f'"({text})"'
        return (f"(?:{value}|null)" if column.nullable else value), proven


_SCALARS: dict[Kind, str] = {"integer": _INTEGER, "number": _NUMBER, "boolean": _BOOLEAN}


def _pieces(
    pairs: Sequence[tuple[str, str]], *, compact: bool
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the pieces of a line and what stands between them; None if one becomes too large.

    Args:
        pairs: Keys, and the patterns of their values.
    """
    pieces: list[str] = []
    cuts: list[str] = []
    most = _MOST_GROUPS if compact else min(_MOST_GROUPS, max(_GOOD_GROUPS, len(pairs) // 8))
    largest = _LARGEST_TABLE if compact else _GOOD_TABLE
    piece, groups = r"^()\{", 0
    for at, (name, value) in enumerate(pairs):
        comma = _COMMA if at else ""
        longer = f"{piece}{comma}{_key(name)}{_COLON}{value}"
        groups += 1
        if at and _is_literal(name) and (groups > most or _table(longer) > largest):
            pieces.append(f"{piece}{comma}$")
            cuts.append(_literal(name))
            longer, groups = f"^() ?{value}", 1
        if groups > _MOST_GROUPS or _table(longer) > _LARGEST_TABLE:
            return None
        piece = longer
    return (*pieces, rf"{piece}\}}\r?$"), tuple(cuts)


_ATOM = re.compile(
    r"(\[\^?(?:\\.|[^\]\\])+\]|\\x..|\\.|\(\?:|[^{}])(?:\{([0-9]+)(?:,([0-9]*))?\})?", re.DOTALL
)
"""A class, an escape, a sign or a character of a regular expression, and how often it stands there."""
_SIGNS = frozenset(["(?:", *"()|*+?^$"])


def _table(regex: str) -> int:
    """Estimate the size of the engine's table for a pattern; it is hardly ever larger."""
    if len(regex) > _LONGEST_REGEX:
        return _LARGEST_TABLE + 1
    states = 0
    for atom in _ATOM.finditer(regex):
        text, least, most = atom.groups()
        if text.startswith("[^"):
            size = _STATES_OF_NEGATED
        elif text.startswith(("[", "\\")):
            size = 1
        else:
            size = 0 if text in _SIGNS else len(text.encode())
        states += size * max(int(least or 1), int(most or 1))
    classes = 1 << (len(set(regex.encode())) + _CLASSES_OF_ALL - 1).bit_length()
    return states * classes


def _literal(name: str) -> str:
    """Return a key as it stands in a line, with its colon."""
    return json.dumps(name) + ":"


def _is_literal(name: str) -> bool:
    """Return whether a key is written in one way."""
    return json.dumps(name) == json.dumps(name, ensure_ascii=False)


def _form(members: Members, raw: bytes, node: Node | None, depth: int = 1) -> Form:
    """Return the form of a value; the keys of an object, if its schema names some or it nests."""
    if not raw.startswith((b"{", b"[")):
        return None if raw == b"null" else "scalar"
    if raw.startswith(b"["):
        return "array"
    nests = _keywords(node).get("properties") or b"{" in raw[1:] or b"[" in raw
    if not nests or depth > _DEEPEST:
        return "object"
    return tuple(
        (name, _form(members, bytes(value), _property(node, name), depth + 1))
        for name, value in members(raw).items()
    )


def _keywords(node: Node | None) -> dict[str, Any]:
    """Return what a schema says, apart from annotations."""
    schema = node.schema if node else None
    if not isinstance(schema, dict):
        return {} if schema in (None, True) else {"not": True}
    return {keyword: value for keyword, value in schema.items() if keyword not in _SILENT}


def _types(keywords: dict[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows beside null; an empty set if it does not name them."""
    given = keywords.get("type", [])
    return frozenset([given] if isinstance(given, str) else given) - {"null"}


def _property(node: Node | None, name: str) -> Node | None:
    """Return the schema of a property; None if nothing is said about it."""
    declared = node.word("properties", dict) if node else None
    return (
        without_null(node.child("properties", name)) if node and name in (declared or ()) else None
    )


def _any_value(types: Iterable[str], form: Form) -> str:
    """Return values of some types and of a form, whatever the schema says beyond that."""
    known = set(types) - ({"integer"} if "number" in types else set())
    known = known & _TYPES_OF.get(_name(form), known) or known
    texts = {name: _ANY[name] for name in sorted(known)}
    if isinstance(form, tuple) and "object" in texts:
        texts["object"] = _object(None, form, {}) or _ANY_OBJECT
    return "|".join(texts.values())


def _name(form: Form) -> str:
    return "object" if isinstance(form, tuple) else form or "any"


def _proven_value(node: Node | None, form: Form) -> str | None:
    """Return values other than null that are valid by a schema; None if no pattern can tell."""
    keywords = _keywords(node)
    types = _types(keywords)
    if not keywords.keys() - {"type"}:
        return _any_value(types or _ANY, form) if types or not keywords else None
    if types == {"object"}:
        return _object(node, form, keywords)
    if types == {"array"} and node and keywords.keys() == {"type", "items"}:
        items = _nullable_value(without_null(node.child("items")), None)
        return None if items is None else _list_of(items)
    if types == {"string"}:
        text, proven = _string(keywords, alone=True)
        return f'"{text}"' if proven >= keywords.keys() else None
    return None


def _nullable_value(node: Node | None, form: Form) -> str | None:
    """Return values that are valid by a schema, null among them where it is allowed."""
    keywords = _keywords(node)
    value = _proven_value(node, form)
    allowed = keywords.get("type")
    is_nullable = not keywords or (isinstance(allowed, list) and "null" in allowed)
    is_nullable = is_nullable and keywords.keys().isdisjoint(("enum", "const"))
    return f"{value}|null" if value is not None and is_nullable else value


def _object(node: Node | None, form: Form, keywords: dict[str, Any]) -> str | None:
    """Return the objects with an order of keys that are valid by a schema."""
    declared, required = keywords.get("properties", {}), keywords.get("required", [])
    closed = keywords.get("additionalProperties", True)
    known = {"type", "properties", "required", "additionalProperties"}
    are_plain = isinstance(declared, dict) and isinstance(required, list)
    if keywords.keys() - known or not isinstance(closed, bool) or not are_plain:
        return None
    if not isinstance(form, tuple):
        return None
    names = {name for name, _ in form}
    if not set(required) <= names or not (closed or names <= set(declared)):
        return None
    pairs: list[str] = []
    for name, inner in form:
        value = _nullable_value(_property(node, name), inner)
        if value is None:
            return None
        pairs.append(f"{_key(name)}{_COLON}(?:{value})")
    return rf"\{{{_COMMA.join(pairs)}\}}"


def _key(name: str) -> str:
    """Return a key in quotes as `json.dumps` writes it, with or without `ensure_ascii`."""
    return '"' + "".join(map(_written, name)) + '"'


def _written(character: str) -> str:
    escaped, plain = (json.dumps(character, ensure_ascii=flag)[1:-1] for flag in (True, False))
    if escaped == plain:
        return re.escape(plain)
    return f"(?:{re.escape(plain)}|{re.escape(escaped)})"


def _string(keywords: dict[str, Any], *, alone: bool = False) -> tuple[str, frozenset[str]]:
    """Return strings without their quotes, and the keywords of a schema that all of them meet.

    Args:
        alone: No rule can help afterwards: lengths are counted, too.
    """
    for keyword, make in _STRINGS.items():
        text = make(keywords[keyword]) if keyword in keywords else None
        if text is not None:
            return text, frozenset({"type", keyword})
    if keywords.get("format") == "email":
        return _EMAIL, frozenset({"type"})
    least, most = keywords.get("minLength", 0), keywords.get("maxLength")
    if least in (0, 1) and most is None:
        return _TEXT + ("+" if least else "*"), frozenset({"type", "minLength"})
    end = least if most is None else most
    if alone and least <= end <= _LONGEST_TEXT:
        # Characters as they are: an escape would count as several.
        count = f"{{{int(least)},{'' if most is None else int(most)}}}"
        return _CHARACTER + count, frozenset({"type", "minLength", "maxLength"})
    return f"{_TEXT}*", frozenset({"type"})


def _one_of(values: Any) -> str | None:
    """Return some strings as a trie; None if some may be written in several ways, or are many."""
    texts = [value for value in values if isinstance(value, str)]
    are_plain = all(json.dumps(text) == f'"{text}"' for text in texts)
    if not texts or not are_plain or sum(map(len, texts)) > _LARGEST_ENUM:
        return None
    trie: dict[str, Any] = {}
    for text in texts:
        branch = trie
        for character in text:
            branch = branch.setdefault(character, {})
        branch[""] = {}
    return _branches(trie)


def _branches(trie: dict[str, Any]) -> str:
    texts = [re.escape(first) + _branches(rest) for first, rest in trie.items() if first]
    if not texts:
        return ""
    if len(texts) == 1 and "" not in trie:
        return texts[0]
    return f"(?:{'|'.join(texts)})" + ("?" if "" in trie else "")


_ITEM = re.compile(r"(\[[^\]]+\]|[^\[])(?:([*+?])|\{([0-9]+)(,?)([0-9]*)\})?")


def _simple(pattern: str) -> str | None:
    """Return what a simple pattern matches as a whole, if that is one-pass and small."""
    if not (pattern.startswith("^") and pattern.endswith("$")) or "[^" in pattern:
        return None
    if not SIMPLE_PATTERN.fullmatch(pattern):
        return None
    text = pattern[1:-1]
    open_: list[re.Pattern[str]] = []
    size = 0
    for item in _ITEM.finditer(text):
        characters, sign, low, comma, high = item.groups()
        this = re.compile(characters)
        if any(_overlap(this, other) for other in open_):
            return None
        is_fixed = sign is None and (not comma or low == high)
        may_be_empty = sign in ("*", "?") or (low is not None and int(low) == 0)
        open_ = [*(open_ if may_be_empty else []), *([] if is_fixed else [this])]
        size += int(high or low or 1)
    return text if size <= _LONGEST_COUNT else None


def _overlap(first: re.Pattern[str], second: re.Pattern[str]) -> bool:
    return any(first.match(chr(code)) and second.match(chr(code)) for code in range(32, 127))


_STRINGS: dict[str, Callable[[Any], str | None]] = {
    "const": lambda value: _one_of([value]),
    "enum": _one_of,
    "format": _FORMATS.get,
    "pattern": _simple,
}
