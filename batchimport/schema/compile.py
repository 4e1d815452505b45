"""Schema rules as Polars expressions: sound (never accepts what is invalid), not complete.

What cannot be said as an expression is asked of a validator for that one column, once for each
distinct value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import msgspec
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.schema.columns import Column, Kind

ANNOTATIONS = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly"}
)
_PLAIN = ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_VALUE = "value"
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
    """The rules of one column: expressions first, then the validator for what they left open."""

    name: str
    kind: Kind
    expressions: tuple[pl.Expr, ...] = ()
    validator: jsonschema_rs.Validator | None = field(default=None, compare=False)

    def proven(self, frame: pl.DataFrame) -> pl.Series:
        """Say of each row whether its value is certainly valid; null always is."""
        values = frame.get_column(self.name).alias(_VALUE)
        proven = pl.repeat(value=True, n=len(values), dtype=pl.Boolean, eager=True)
        if self.expressions:
            every = pl.all_horizontal([expr.fill_null(value=True) for expr in self.expressions])
            proven = values.to_frame().select(every.alias(_VALUE)).to_series()
        if self.validator is None:
            return proven
        distinct = values.unique().drop_nulls()
        good = self._verdicts(distinct.to_list())
        if all(good):
            return proven
        bad = distinct.filter(~pl.Series(good, dtype=pl.Boolean))
        return proven & ~values.is_in(bad.implode()).fill_null(value=False)

    def _verdicts(self, values: list[Any]) -> list[bool]:
        assert self.validator is not None  # noqa: S101 - the caller looked
        try:
            decoded = values
            if self.kind == "json":
                decoded = msgspec.json.decode("[" + ",".join(values) + "]")
            return list(map(self.validator.is_valid, decoded))
        except (ValueError, RecursionError):
            return [self._is_valid(value) for value in values]

    def _is_valid(self, value: Any) -> bool:
        assert self.validator is not None  # noqa: S101 - the caller looked
        try:
            if self.kind == "json":
                value = msgspec.json.decode(value)
            return self.validator.is_valid(value)
        except (ValueError, RecursionError):
            return False


def is_plain(document: dict[str, Any]) -> bool:
    """Say whether the top level says no more than what its properties are."""
    return (
        document.keys() <= _PLAIN
        and document.get("type", "object") in ("object", ["object"])
        and isinstance(document.get("additionalProperties", True), bool)
        and set(document.get("required", ())) <= set(document.get("properties", ()))
    )


def compile_rules(document: dict[str, Any], columns: Sequence[Column]) -> list[ColumnRule]:
    """Return the rules of the columns that have any."""
    rules = [_compile(document, column) for column in columns]
    return [rule for rule in rules if rule.expressions or rule.validator is not None]


def allows_null(document: dict[str, Any], name: str) -> bool:
    """Say whether a property's own rule takes null, as the validator sees it."""
    return _column_validator(document, document["properties"][name]).is_valid(None)


def _compile(document: dict[str, Any], column: Column) -> ColumnRule:
    rule = document["properties"][column.name]
    if rule is True or rule == {}:
        return ColumnRule(column.name, column.kind)
    words = {word: value for word, value in rule.items() if word not in ANNOTATIONS} if rule else {}
    expressions: list[pl.Expr] = []
    for word, value in words.items():
        expression = _expression(column, word, value)
        if expression is None:
            validator = _column_validator(document, rule)
            return ColumnRule(column.name, column.kind, (), validator)
        expressions.extend(expression)
    if rule is False:
        return ColumnRule(column.name, column.kind, (pl.col(_VALUE).is_null(),))
    return ColumnRule(column.name, column.kind, tuple(expressions))


def _column_validator(document: dict[str, Any], rule: Any) -> jsonschema_rs.Validator:
    """Return a validator of one property, with the definitions that it may refer to."""
    shared: dict[str, Any] = {
        key: document[key] for key in ("$schema", "$id", "$defs", "definitions") if key in document
    }
    return jsonschema_rs.validator_for(
        {**shared, "allOf": [rule]}, validate_formats=True, offline=True
    )


def _expression(column: Column, word: str, value: Any) -> tuple[pl.Expr, ...] | None:
    """Return a keyword as expressions; None if only a validator can decide it."""
    if word == "type":
        return () if column.kind != "json" else None
    if column.kind == "json":
        return None
    make = _NUMERIC.get(word) if column.kind in ("integer", "number") else _TEXTUAL.get(word)
    if column.kind == "boolean":
        make = None
    return make(pl.col(_VALUE), value) if make else None


def _bound(compare: Callable[[pl.Expr, Any], pl.Expr]) -> Callable[[pl.Expr, Any], Any]:
    def make(at: pl.Expr, value: Any) -> tuple[pl.Expr, ...] | None:
        exact = isinstance(value, float) or abs(value) <= 2**53
        return (compare(at, value),) if exact else None

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
}
