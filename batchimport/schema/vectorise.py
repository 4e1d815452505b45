"""Compile the rules of columns to Polars expressions that accept only valid values.

They need not accept all valid values: a row that they do not accept is deferred to the validator.
A rule that no expression can state is checked by a validator for that one column, once for each
distinct value; nested values pass a msgspec decoder first, which is faster.
"""

from __future__ import annotations

import operator
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl

from batchimport.schema.keywords import ANNOTATIONS
from batchimport.schema.numbers import EXACT_IN_FLOAT
from batchimport.schema.references import without_null

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jsonschema_rs

    from batchimport.model import Kind
    from batchimport.schema.columns import Column
    from batchimport.schema.references import Node, ResolvedSchema

_RECORD_KEYWORDS = ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_IGNORED = ANNOTATIONS - {"$schema"}
"""Keywords of a property that restrict nothing; another `$schema` would change the other ones."""
SAMPLE = 200
"""The first values of a column, which show whether its values repeat."""

_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    "(?:[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    f"|(?:0[13578]|1[02])-31)|{_LEAP}-02-29)"
)
"""Exactly the dates there are, so that none is parsed to know it; none is deferred either."""
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LONGEST_EMAIL = 60
"""Far below the limits of RFC 5321 on each part; the validator checks longer ones."""

_FORMAT_PATTERNS = {
    "uuid": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "email": rf"^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+$",
    "date": f"^{_DATE}$",
    "date-time": f"^{_DATE}T{_TIME}{_ZONE}$",
}
_COUNT = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})?"
SIMPLE_PATTERN = re.compile(
    rf"\^?(?:(?:[A-Za-z0-9 _@:/,;-]|\[\^?(?:[A-Za-z0-9 _@:/,.;+*]|[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9])+-?\])"
    rf"{_COUNT})*\$?"
)
"""Patterns that mean the same in every dialect; except that in Python a newline may follow `$`."""


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """The rule of one column: expressions, or a validator if they cannot state it.

    Attributes:
        slot: The column's name in the expressions; a column's own name may be any string.
        validator: Checks one value; None if the expressions state the whole rule.
        decoder: Decodes one JSON value; it accepts only valid ones, and is faster than the
            validator. None if there is none.
    """

    name: str
    slot: str
    kind: Kind
    expressions: tuple[pl.Expr, ...] = ()
    validator: jsonschema_rs.Validator | None = field(default=None, compare=False)
    decoder: Any = field(default=None, compare=False)

    def accepts(self, values: pl.Series) -> pl.Series:
        """Check values with the validator, equal ones once; null is always accepted."""
        distinct = values.drop_nulls()
        if distinct.head(SAMPLE).n_unique() < SAMPLE / 2:
            distinct = distinct.unique()
        invalid = map(operator.not_, self._are_valid(distinct))
        bad = distinct.filter(pl.Series(invalid, dtype=pl.Boolean))
        if bad.is_empty():
            return pl.repeat(value=True, n=len(values), dtype=pl.Boolean, eager=True)
        return ~values.is_in(bad.unique().implode()).fill_null(value=False)

    def _are_valid(self, series: pl.Series) -> list[bool]:
        values = series.to_list()
        if self.decoder is None:
            return list(map(self._is_valid, values))
        valid = [True] * len(values)
        remaining = iter(values)
        while True:
            try:  # at the speed of C, up to the next value that the decoder does not take
                deque(map(self.decoder.decode, remaining), maxlen=0)
            except (ValueError, RecursionError):
                at = len(values) - operator.length_hint(remaining) - 1
                valid[at] = self._is_valid(values[at])
            else:
                return valid

    def _is_valid(self, value: Any) -> bool:
        assert self.validator is not None  # noqa: S101 - `accepted` calls no rule without one
        try:
            if self.kind == "json":
                value = msgspec.json.decode(value)
            return self.validator.is_valid(value)
        except (ValueError, RecursionError):
            return False


def accepted(rules: Sequence[ColumnRule], frame: pl.DataFrame) -> pl.Series:
    """Return for each row whether all its values are certainly valid; null always is."""
    columns = [frame.get_column(rule.name).alias(rule.slot) for rule in rules]
    conditions = [expr.fill_null(value=True) for rule in rules for expr in rule.expressions]
    rows = pl.repeat(value=True, n=frame.height, dtype=pl.Boolean, eager=True)
    if conditions:
        rows = pl.DataFrame(columns).select(pl.all_horizontal(conditions).alias("ok")).to_series()
    for rule in rules:
        if rule.validator is not None:
            rows &= rule.accepts(frame.get_column(rule.name).alias(rule.slot))
    return rows


def is_vectorisable(resolved: ResolvedSchema, columns: Sequence[Column]) -> bool:
    """Return whether the schema restricts a record by its properties alone.

    Each property must have a column, since only columns are checked.
    """
    root = resolved.root
    if not isinstance(root.schema, dict) or resolved.pointer(root) is None:
        return False
    names = {column.name for column in columns}
    return (
        root.schema.keys() <= _RECORD_KEYWORDS
        and root.schema.get("type", "object") in ("object", ["object"])
        and isinstance(root.schema.get("additionalProperties", True), bool)
        and names == set(resolved.names) == set(root.schema.get("properties", ()))
    )


def compile_rules(
    resolved: ResolvedSchema,
    columns: Sequence[Column],
    validator_of: Callable[[Node], jsonschema_rs.Validator],
) -> list[ColumnRule]:
    """Return the rules of the columns that have any."""
    rules = [
        compile_rule(resolved, column, f"c{at}", validator_of) for at, column in enumerate(columns)
    ]
    return [rule for rule in rules if rule is not None]


def compile_rule(
    resolved: ResolvedSchema,
    column: Column,
    slot: str,
    validator_of: Callable[[Node], jsonschema_rs.Validator],
    proven: frozenset[str] = frozenset(),
) -> ColumnRule | None:
    """Return the rule of a column; None if it has none.

    Args:
        proven: Keywords to leave out, since all values meet them.
    """
    rule = _compile(resolved.property(column.name), column, slot, validator_of, proven)
    return rule if rule.expressions or rule.validator is not None else None


def _compile(
    node: Node,
    column: Column,
    slot: str,
    validator_of: Callable[[Node], jsonschema_rs.Validator],
    proven: frozenset[str],
) -> ColumnRule:
    schema = without_null(node).schema
    value, expressions = pl.col(slot), list[pl.Expr]()
    if schema is False:
        expressions.append(value.is_null())
    keywords = schema if isinstance(schema, dict) else {}
    for keyword in keywords.keys() - _IGNORED - proven:
        compiled = _expressions(column, value, keyword, keywords[keyword])
        if compiled is None:
            decoder = decoder_of(schema) if column.kind == "json" else None
            return ColumnRule(column.name, slot, column.kind, (), validator_of(node), decoder)
        expressions.extend(compiled)
    return ColumnRule(column.name, slot, column.kind, tuple(expressions))


Compiled = tuple[pl.Expr, ...] | None
"""Expressions that state a keyword; None if only a validator can check it."""


def _expressions(column: Column, value: pl.Expr, keyword: str, argument: Any) -> Compiled:
    if keyword == "type":
        return () if column.kind != "json" else None
    if column.kind in ("json", "boolean"):
        return None
    keywords = _NUMERIC if column.kind in ("integer", "number") else _TEXTUAL
    compile_keyword = keywords.get(keyword)
    return compile_keyword(value, argument) if compile_keyword else None


def _bound(compare: Callable[[pl.Expr, Any], pl.Expr]) -> Callable[[pl.Expr, Any], Compiled]:
    def compile_bound(value: pl.Expr, bound: Any) -> Compiled:
        if isinstance(bound, bool):  # draft 4: whether `minimum` itself is excluded
            return None
        return (compare(value, bound),) if abs(bound) < EXACT_IN_FLOAT else None

    return compile_bound


def _one_of(value: pl.Expr, allowed: Any) -> Compiled:
    strings = [item for item in allowed if isinstance(item, str)]
    has_others = any(item is not None and not isinstance(item, str) for item in allowed)
    return None if has_others else (value.is_in(strings),)


def _format(value: pl.Expr, name: str) -> Compiled:
    pattern = _FORMAT_PATTERNS.get(name)
    if pattern is None:
        return None
    expressions = [value.str.contains(pattern)]
    if name == "email":
        expressions.append(value.str.len_chars() <= _LONGEST_EMAIL)
    return tuple(expressions)


def _pattern(value: pl.Expr, pattern: str) -> Compiled:
    if not SIMPLE_PATTERN.fullmatch(pattern):
        return None
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError:  # too large for its engine
        return None
    return (value.str.contains(pattern),)


_NUMERIC: dict[str, Callable[[pl.Expr, Any], Compiled]] = {
    "minimum": _bound(lambda value, bound: value >= bound),
    "maximum": _bound(lambda value, bound: value <= bound),
    "exclusiveMinimum": _bound(lambda value, bound: value > bound),
    "exclusiveMaximum": _bound(lambda value, bound: value < bound),
}
_TEXTUAL: dict[str, Callable[[pl.Expr, Any], Compiled]] = {
    "minLength": lambda value, length: (value.str.len_chars() >= int(length),),
    "maxLength": lambda value, length: (value.str.len_chars() <= int(length),),
    "enum": _one_of,
    "const": lambda value, constant: _one_of(value, [constant]),
    "format": _format,
    "pattern": _pattern,
}

_STRING_FACTS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
_NUMBER_FACTS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
}
_SCALARS: dict[str, tuple[Any, dict[str, str]]] = {
    "string": (str, _STRING_FACTS),
    "integer": (int, _NUMBER_FACTS),
    "number": (float, _NUMBER_FACTS),
    "boolean": (bool, {}),
}
"""By JSON type: the msgspec type, and what msgspec calls the keywords that it can check."""


def decoder_of(schema: Any) -> Any:
    """Return a JSON decoder that accepts only valid values; None if the schema has no such type."""
    decoded_type = _type_of(schema)
    if decoded_type is None:
        return None
    try:
        return msgspec.json.Decoder(decoded_type)
    except (TypeError, ValueError):  # a bound that msgspec does not take
        return None


def _type_of(schema: Any) -> Any:
    """Return a msgspec type that is no wider than a schema; None for any keyword not known here."""
    if not isinstance(schema, dict) or not isinstance(schema.get("type"), str):
        return None
    keywords = {
        word: value for word, value in schema.items() if word not in ("title", "description")
    }
    kind = keywords.pop("type")
    if kind == "object":
        return _object(keywords)
    if kind == "array":
        return _array(keywords)
    known = _SCALARS.get(kind)
    return _scalar(known[0], keywords, known[1]) if known else None


def _object(keywords: dict[str, Any]) -> Any:
    properties, required = keywords.pop("properties", {}), keywords.pop("required", [])
    is_open = keywords.pop("additionalProperties", True)
    if keywords or not isinstance(is_open, bool) or set(required) - set(properties):
        return None
    names = [name for name in properties if not re.search(r'["\\\x00-\x1f]', name)]
    types = [_type_of(properties[name]) for name in names]
    if len(names) < len(properties) or None in types:
        return None
    fields: list[Any] = [
        (f"f{at}", kind)
        if name in required
        else (f"f{at}", kind | msgspec.UnsetType, msgspec.UNSET)
        for at, (name, kind) in enumerate(zip(names, types, strict=True))
    ]
    return msgspec.defstruct(
        "Object",
        fields,
        rename={f"f{at}": name for at, name in enumerate(names)},
        forbid_unknown_fields=not is_open,
        gc=False,
        kw_only=True,
    )


def _array(keywords: dict[str, Any]) -> Any:
    items = _type_of(keywords.pop("items", None))
    facts = {
        fact: keywords.pop(word)
        for word, fact in (("minItems", "min_length"), ("maxItems", "max_length"))
        if word in keywords
    }
    if items is None or keywords:
        return None
    return Annotated[list[items], msgspec.Meta(**facts)]  # type: ignore[valid-type]  # made at run time


def _scalar(kind: Any, keywords: dict[str, Any], known: dict[str, str]) -> Any:
    if not keywords:
        return kind
    if set(keywords) - set(known):
        return None
    facts = {known[word]: value for word, value in keywords.items()}
    if any(isinstance(value, bool) for value in facts.values()):
        return None  # draft 4: whether `minimum` itself is excluded
    pattern = facts.get("pattern")
    if pattern is not None:
        if not SIMPLE_PATTERN.fullmatch(pattern):
            return None
        facts["pattern"] = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    return Annotated[kind, msgspec.Meta(**facts)]
