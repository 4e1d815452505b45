"""Schema rules as Polars expressions: sound (never accepts what is invalid), not complete.

What cannot be said as an expression is asked of a validator for that one column, once for each
distinct value.
"""

from __future__ import annotations

import operator
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.schema.references import ANNOTATIONS, without_null
from batchimport.schema.shapes import SIMPLE_PATTERN, decoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jsonschema_rs

    from batchimport.schema.columns import Column, Kind
    from batchimport.schema.references import Node, Outline

_PLAIN = ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_SILENT = ANNOTATIONS - {"$schema"}
"""Words of a property that need no proof; another `$schema` would change what the others mean."""
_EXACT_IN_FLOAT = 2**53
SAMPLE = 200
"""Values that show whether a column repeats itself."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LONGEST_EMAIL = 60
"""Far below the limits of RFC 5321 on every part; longer ones are asked of the validator."""

_SHAPES = {
    "uuid": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "email": rf"^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "date-time": f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_TIME}{_ZONE}$",
}


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """The rule of one column: as expressions, or by a validator where they cannot say it.

    Attributes:
        slot: What the expressions call the column; any text may be a column's own name.
        decoder: Of one JSON value; it accepts only what is valid, and is faster than the validator.
    """

    name: str
    slot: str
    kind: Kind
    expressions: tuple[pl.Expr, ...] = ()
    validator: jsonschema_rs.Validator | None = field(default=None, compare=False)
    decoder: Any = field(default=None, compare=False)

    def verdicts(self, values: pl.Series) -> pl.Series:
        """Ask the validator for each value, but once for equal ones; null needs no verdict."""
        distinct = values.drop_nulls()
        if distinct.head(SAMPLE).n_unique() < SAMPLE / 2:
            distinct = distinct.unique()
        bad = distinct.filter(pl.Series(map(operator.not_, self._ask(distinct)), dtype=pl.Boolean))
        if bad.is_empty():
            return pl.repeat(value=True, n=len(values), dtype=pl.Boolean, eager=True)
        return ~values.is_in(bad.unique().implode()).fill_null(value=False)

    def _ask(self, values: pl.Series) -> list[bool]:
        given = values.to_list()
        if self.decoder is None:
            return list(map(self._is_valid, given))
        good = [True] * len(given)
        left = iter(given)
        while True:
            try:  # at the speed of C up to the next one that the decoder does not take
                deque(map(self.decoder.decode, left), maxlen=0)
            except (ValueError, RecursionError):
                at = len(given) - operator.length_hint(left) - 1
                good[at] = self._is_valid(given[at])
            else:
                return good

    def _is_valid(self, value: Any) -> bool:
        assert self.validator is not None  # noqa: S101 - the caller looked
        try:
            if self.kind == "json":
                value = msgspec.json.decode(value)
            return self.validator.is_valid(value)
        except (ValueError, RecursionError):
            return False


def prove(rules: Sequence[ColumnRule], frame: pl.DataFrame) -> pl.Series:
    """Say of each row whether its values are certainly valid; null always is."""
    columns = [frame.get_column(rule.name).alias(rule.slot) for rule in rules]
    every = [expr.fill_null(value=True) for rule in rules for expr in rule.expressions]
    proven = pl.repeat(value=True, n=frame.height, dtype=pl.Boolean, eager=True)
    if every:
        proven = pl.DataFrame(columns).select(pl.all_horizontal(every).alias("proven")).to_series()
    for rule in rules:
        if rule.validator is not None:
            proven &= rule.verdicts(frame.get_column(rule.name).alias(rule.slot))
    return proven


def is_plain(outline: Outline, columns: Sequence[Column]) -> bool:
    """Say whether the schema of a record says no more than what its properties are.

    Each of them must have a column, so that its value can be looked at.
    """
    root = outline.root
    if not isinstance(root.schema, dict) or outline.pointer(root) is None:
        return False
    names = {column.name for column in columns}
    return (
        root.schema.keys() <= _PLAIN
        and root.schema.get("type", "object") in ("object", ["object"])
        and isinstance(root.schema.get("additionalProperties", True), bool)
        and names == set(outline.names) == set(root.schema.get("properties", ()))
    )


def compile_rules(
    outline: Outline, columns: Sequence[Column], make: Callable[[Node], jsonschema_rs.Validator]
) -> list[ColumnRule]:
    """Return the rules of the columns that have any.

    Args:
        make: Returns the validator of a node.
    """
    rules = [compile_rule(outline, column, f"c{at}", make) for at, column in enumerate(columns)]
    return [rule for rule in rules if rule is not None]


def compile_rule(
    outline: Outline,
    column: Column,
    slot: str,
    make: Callable[[Node], jsonschema_rs.Validator],
    proven: frozenset[str] = frozenset(),
) -> ColumnRule | None:
    """Return the rule of a column without the words that are proven already; None for none."""
    rule = _compile(outline, column, slot, make, proven)
    return rule if rule.expressions or rule.validator is not None else None


def _compile(
    outline: Outline,
    column: Column,
    slot: str,
    make: Callable[[Node], jsonschema_rs.Validator],
    proven: frozenset[str],
) -> ColumnRule:
    node = outline.property(column.name)
    rule = without_null(node).schema
    at, expressions = pl.col(slot), list[pl.Expr]()
    if rule is False:
        expressions.append(at.is_null())
    words = rule if isinstance(rule, dict) else {}
    for word in words.keys() - _SILENT - proven:
        found = _expression(column, at, word, words[word])
        if found is None:
            decoder = decoder_of(rule) if column.kind == "json" else None
            return ColumnRule(column.name, slot, column.kind, (), make(node), decoder)
        expressions.extend(found)
    return ColumnRule(column.name, slot, column.kind, tuple(expressions))


def _expression(column: Column, at: pl.Expr, word: str, value: Any) -> tuple[pl.Expr, ...] | None:
    """Return a keyword as expressions; None if only a validator can decide it."""
    if word == "type":
        return () if column.kind != "json" else None
    if column.kind == "json":
        return None
    make = _NUMERIC.get(word) if column.kind in ("integer", "number") else _TEXTUAL.get(word)
    if column.kind == "boolean":
        make = None
    return make(at, value) if make else None


def _bound(compare: Callable[[pl.Expr, Any], pl.Expr]) -> Callable[[pl.Expr, Any], Any]:
    def make(at: pl.Expr, value: Any) -> tuple[pl.Expr, ...] | None:
        if isinstance(value, bool):  # draft 4: what `minimum` excludes
            return None
        return (compare(at, value),) if abs(value) < _EXACT_IN_FLOAT else None

    return make


def _one_of(at: pl.Expr, values: Any) -> tuple[pl.Expr, ...] | None:
    texts = [value for value in values if isinstance(value, str)]
    plain = all(isinstance(value, str) or value is None for value in values)
    return (at.is_in(texts),) if plain else None


def _format(at: pl.Expr, name: str) -> tuple[pl.Expr, ...] | None:
    shape = _SHAPES.get(name)
    if shape is None:
        return None
    expressions = [at.str.contains(shape)]
    if name == "email":
        expressions.append(at.str.len_chars() <= _LONGEST_EMAIL)
    if name in ("date", "date-time"):
        day = at.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        expressions.append(day.is_not_null() | at.is_null())
    return tuple(expressions)


def _pattern(at: pl.Expr, pattern: str) -> tuple[pl.Expr, ...] | None:
    if not SIMPLE_PATTERN.fullmatch(pattern):
        return None
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError:  # too large for its engine
        return None
    return (at.str.contains(pattern),)


_NUMERIC: dict[str, Callable[[pl.Expr, Any], tuple[pl.Expr, ...] | None]] = {
    "minimum": _bound(lambda at, value: at >= value),
    "maximum": _bound(lambda at, value: at <= value),
    "exclusiveMinimum": _bound(lambda at, value: at > value),
    "exclusiveMaximum": _bound(lambda at, value: at < value),
}
_TEXTUAL: dict[str, Callable[[pl.Expr, Any], tuple[pl.Expr, ...] | None]] = {
    "minLength": lambda at, value: (at.str.len_chars() >= int(value),),
    "maxLength": lambda at, value: (at.str.len_chars() <= int(value),),
    "enum": _one_of,
    "const": lambda at, value: _one_of(at, [value]),
    "format": _format,
    "pattern": _pattern,
}
