r"""Lines of JSON as regular expressions: one for each order of keys, made of columns and schema.

Whatever such a pattern matches is well-formed JSON of the columns' types, apart from escapes, which
must be decoded to be sure (`\q`, half a surrogate pair); and it is valid by every rule of the schema
that is not among the pattern's `rules`. What a pattern does not match may be valid all the same.

A pattern is fast only as long as it is *one-pass*: at each byte there is at most one way to go on.
Then Rust's regex engine finds the groups while it matches; otherwise it matches first and searches for
the groups afterwards, at twice the cost or more. What keeps a pattern one-pass:

* Alternatives begin with different characters: values by their first byte, enums as a trie.
* A repetition ends where something begins that it cannot contain: `-+[a-z]+`, not `[a-z-]*[a-z]`.
* No key is optional: each order of keys that occurs has its own pattern, also in nested objects.
* It is small: the engine's table of states must fit into 1 MiB, which is about a thousand states. Hence
  an escape is just a backslash and one more character, values that nest without a shape of their own
  go two levels deep, and lengths above `_LONGEST_COUNT` are not counted here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, SupportsBytes

from batchimport.schema.references import ANNOTATIONS, without_null
from batchimport.schema.shapes import SIMPLE_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.schema.columns import Column, Kind
    from batchimport.schema.references import Node
    from batchimport.schema.vectorise import ColumnRule

Members = Callable[[bytes], Mapping[str, SupportsBytes]]
"""Returns the raw values of an object; raises ValueError if it is none."""
Keys = tuple[tuple[str, Any], ...]
"""The keys of an object in order, each with the `Keys` of its value, or None for any keys."""

_SILENT = ANNOTATIONS - {"$schema", "$id", "id"}
_LONGEST_COUNT = 64
"""Characters that a simple pattern counts."""
_LONGEST_TEXT = 16
"""Characters of any kind that are counted: each takes a dozen states."""
_DEEPEST = 4
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

_WORD = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_HEX = "[0-9A-Fa-f]"
_DATE = "[12][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
"""Days that every month has; the others are left to who knows the calendar."""
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
        regex: Its first group takes part in every match, the others hold the raw values of `columns`:
            of strings what is between the quotes, of null nothing.
        optional: Keys that a line must have for this pattern and that not all records need to have,
            as they stand in a line.
        rules: What the pattern does not prove.
    """

    regex: str
    columns: tuple[Column, ...]
    optional: tuple[str, ...]
    rules: tuple[ColumnRule, ...]


class LinePatterns:
    """Makes the patterns of a schema's lines.

    Args:
        node_of: Returns the schema of a column; None if the schema of a record says more than what its
            properties are, so that only the types of columns count.
        rule_of: Returns what is left of a column's rule without some words of it; None for nothing.
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
            (name, _inner_keys(members, bytes(raw), self._nodes.get(name)))
            for name, raw in members(line).items()
        )

    def pattern(self, keys: Keys) -> LinePattern | None:
        """Return the pattern of an order of keys; None if no such line can be proven."""
        names = [name for name, _ in keys]
        if not self._required <= set(names) <= self._columns.keys():
            return None
        pairs: list[str] = []
        rules: list[ColumnRule | None] = []
        columns = tuple(self._columns[name] for name in names)
        for column, (name, inner) in zip(columns, keys, strict=True):
            value, proven = self._value(column, inner)
            pairs.append(_key(name) + _COLON + value)
            rules.append(self._rule_of(column, proven))
        regex = rf"^(\{{){_COMMA.join(pairs)}\}}\r?$"
        if len(regex) > _LONGEST_REGEX:
            return None
        return LinePattern(
            regex=regex,
            columns=columns,
            optional=tuple(
                json.dumps(name) + ":"
                for name in names
                if name not in self._required and _key(name) == re.escape(json.dumps(name))
            ),
            rules=tuple(rule for rule in rules if rule is not None),
        )

    def _value(self, column: Column, inner: Keys | None) -> tuple[str, frozenset[str]]:
        """Return the values of a column with their group, and the words of its rule that they meet."""
        node = self._nodes[column.name]
        words = _words(node)
        proven = frozenset(words)
        if column.kind == "json":
            text = _proven_value(node, inner)
            if text is None:
                types = _types(words) or frozenset(_ANY)
                text, proven = _any_value(types, inner), frozenset()
            value = f"({text})"
        elif column.kind in _SCALARS:
            value, proven = f"({_SCALARS[column.kind]})", frozenset({"type"})
        else:
            text, proven = _string(words)
            value = f'"({text})"'
        return (f"(?:{value}|null)" if column.nullable else value), proven


_SCALARS: dict[Kind, str] = {"integer": _INTEGER, "number": _NUMBER, "boolean": _BOOLEAN}


def _inner_keys(members: Members, raw: bytes, node: Node | None, depth: int = 1) -> Keys | None:
    """Return the order of an object's keys, if its schema names some or its values nest."""
    declared = _words(node).get("properties")
    if not raw.startswith(b"{") or not (declared or b"{" in raw[1:] or b"[" in raw):
        return None
    if depth > _DEEPEST:
        return None
    return tuple(
        (name, _inner_keys(members, bytes(value), _property(node, name), depth + 1))
        for name, value in members(raw).items()
    )


def _words(node: Node | None) -> dict[str, Any]:
    """Return what a schema says, apart from annotations."""
    schema = node.schema if node else None
    if not isinstance(schema, dict):
        return {} if schema in (None, True) else {"not": True}
    return {word: value for word, value in schema.items() if word not in _SILENT}


def _types(words: dict[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows beside null; none if it does not name them."""
    given = words.get("type", [])
    return frozenset([given] if isinstance(given, str) else given) - {"null"}


def _property(node: Node | None, name: str) -> Node | None:
    """Return the schema of a property; None if nothing is said about it."""
    declared = node.word("properties", dict) if node else None
    return (
        without_null(node.child("properties", name)) if node and name in (declared or ()) else None
    )


def _any_value(types: Iterable[str], inner: Keys | None) -> str:
    """Return values of some types, whatever the schema says beyond that."""
    known = set(types) - ({"integer"} if "number" in types else set())
    texts = {name: _ANY[name] for name in sorted(known)}
    if inner is not None and "object" in texts:
        texts["object"] = _object(None, inner, {}) or _ANY_OBJECT
    return "|".join(texts.values())


def _proven_value(node: Node | None, inner: Keys | None) -> str | None:
    """Return values other than null that are valid by a schema; None if no pattern can tell."""
    words = _words(node)
    types = _types(words)
    if not words.keys() - {"type"}:
        return _any_value(types or _ANY, inner) if types or not words else None
    if types == {"object"}:
        return _object(node, inner, words)
    if types == {"array"} and node and words.keys() == {"type", "items"}:
        items = _nullable_value(without_null(node.child("items")), None)
        return None if items is None else _list_of(items)
    if types == {"string"}:
        text, proven = _string(words, alone=True)
        return f'"{text}"' if proven >= words.keys() else None
    return None


def _nullable_value(node: Node | None, inner: Keys | None) -> str | None:
    """Return values that are valid by a schema, null among them where it is allowed."""
    words = _words(node)
    value = _proven_value(node, inner)
    allowed = words.get("type")
    is_nullable = not words or (isinstance(allowed, list) and "null" in allowed)
    is_nullable = is_nullable and words.keys().isdisjoint(("enum", "const"))
    return f"{value}|null" if value is not None and is_nullable else value


def _object(node: Node | None, inner: Keys | None, words: dict[str, Any]) -> str | None:
    """Return the objects with an order of keys that are valid by a schema."""
    declared, required = words.get("properties", {}), words.get("required", [])
    closed = words.get("additionalProperties", True)
    known = {"type", "properties", "required", "additionalProperties"}
    are_plain = isinstance(declared, dict) and isinstance(required, list)
    if inner is None or words.keys() - known or not isinstance(closed, bool) or not are_plain:
        return None
    names = {name for name, _ in inner}
    if not set(required) <= names or not (closed or names <= set(declared)):
        return None
    pairs: list[str] = []
    for name, keys in inner:
        value = _nullable_value(_property(node, name), keys)
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


def _string(words: dict[str, Any], *, alone: bool = False) -> tuple[str, frozenset[str]]:
    """Return strings without their quotes, and the words of a schema that all of them meet.

    Args:
        alone: No rule can help afterwards: lengths are counted, too.
    """
    for word, make in _STRINGS.items():
        text = make(words[word]) if word in words else None
        if text is not None:
            return text, frozenset({"type", word})
    if words.get("format") == "email":
        return _EMAIL, frozenset({"type"})
    least, most = words.get("minLength", 0), words.get("maxLength")
    if least in (0, 1) and most is None:
        return _TEXT + ("+" if least else "*"), frozenset({"type", "minLength"})
    end = least if most is None else most
    if alone and least <= end <= _LONGEST_TEXT:
        # Characters as they are: an escape would count as several.
        count = f"{{{int(least)},{'' if most is None else int(most)}}}"
        return _CHARACTER + count, frozenset({"type", "minLength", "maxLength"})
    return f"{_TEXT}*", frozenset({"type"})


def _one_of(values: Any) -> str | None:
    """Return some strings as a trie."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or sum(map(len, texts)) > _LARGEST_ENUM:
        return None
    trie: dict[str, Any] = {}
    for text in texts:
        branch = trie
        for character in text:
            branch = branch.setdefault(character, {})
        branch[""] = {}
    return _branches(trie)


def _branches(trie: dict[str, Any]) -> str:
    texts = [_written(first) + _branches(rest) for first, rest in trie.items() if first]
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
