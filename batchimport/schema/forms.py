"""How numbers and booleans are written in delimited text, where nothing but the characters says the type.

The same forms decide what a column is and, if only some records were looked at to decide that, whether
a later cell may be read by that type. A cell that would have made the column text, such as `007` in a
column of integers, must not become another value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from batchimport.schema.numbers import prints_alike

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import polars as pl

    from batchimport.model import Kind

WRITTEN = frozenset({"integer", "number", "boolean"})
"""Kinds of columns whose cells become another value than their text."""

_LIKE_NUMBER = re.compile(r"[-+.0-9][-+.0-9eE]*")
"""What all of the next three have in common: most texts are none."""
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]*)?\.[0-9]+([eE][+-]?[0-9]+)?")
_POWER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.?[eE][+-]?[0-9]+|\.)|\+(0|[1-9][0-9]{0,17})")
"""A number only in a column with decimals: by itself, `1e5` could be a name, `+49` a prefix, `1.` an item."""
_AS_STORED = re.compile(r"-?(0|[1-9][0-9]*)")
"""An integer that is written as it is stored, however long it is."""
SPELLINGS = (
    frozenset({"true", "false"}),
    frozenset({"True", "False"}),
    frozenset({"TRUE", "FALSE"}),
)
_BOOLEAN = frozenset[str]().union(*SPELLINGS)

_BLANKS = " \t"
_ZEROS_IN_FRONT = (("00", "0:"), ("-00", "-0:"), ("+00", "+0:"))
_PLUS_IN_FRONT = ("+", ",")
"""Texts that begin so are not below the first one, and below the second: `:` follows `9`, `,` follows `+`."""


class Words(str):
    """A cell that is not a number in its file, though it would be one in others."""

    __slots__ = ()


def type_of_text(value: str) -> str:
    """Return the type that a cell shows by itself; `power` for a number beside decimals only."""
    if isinstance(value, Words):
        return "string"
    number = value.strip(_BLANKS)
    if not _LIKE_NUMBER.fullmatch(number):
        return "boolean" if value in _BOOLEAN else "string"
    if _INTEGER.fullmatch(number):
        return "integer"
    for shape, kind in ((_DECIMAL, "number"), (_POWER, "power")):
        if shape.fullmatch(number):
            return kind if prints_alike(number) else "string"
    return "string"


def spelling_of(cells: Collection[str]) -> frozenset[str] | None:
    """Return how true and false are spelled, if the cells have one spelling."""
    return next((words for words in SPELLINGS if words.issuperset(cells)), None)


def mark_of(records: int, words: Sequence[str] = (), *, in_table: bool = False) -> dict[str, Any]:
    """Return what a schema says of a column whose type was inferred from that many records.

    Args:
        words: How true and false are spelled in it.
        in_table: By an earlier import, which made the table.
    """
    more = {"words": list(words)} if words else {}
    return {"records": records, **more, **({"table": True} if in_table else {})}


def as_of_table(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the rule of a column as one that was inferred by an earlier import, which made the table."""
    return rule | {"x-inferred": rule["x-inferred"] | {"table": True}}


def without_marks(document: dict[str, Any], given: Collection[str] | None = None) -> dict[str, Any]:
    """Return a schema that does not say that the types of some columns were inferred.

    Args:
        given: These columns, in lower case; None for all.
    """
    rules = {
        name: {word: value for word, value in rule.items() if word != "x-inferred"}
        if given is None or name.lower() in given
        else rule
        for name, rule in document["properties"].items()
    }
    return document | {"properties": rules}


@dataclass(frozen=True, slots=True)
class CellForm:
    """How the cells of a column are written whose type was inferred from some records.

    Attributes:
        records: Number of records that were looked at.
        words: How true and false are spelled in a column of these.
        in_table: The records were those of an earlier import, which made the table.
    """

    kind: Kind
    records: int
    words: tuple[str, ...] = ()
    in_table: bool = False

    @property
    def mark(self) -> dict[str, Any]:
        """The form as a schema has it."""
        return mark_of(self.records, self.words, in_table=self.in_table)

    def hint(self, name: str) -> str:
        """Return what to say of a value that does not fit the column."""
        why = f"as was inferred from {self.records:,} records"
        if self.in_table:
            way = quote(f"{name}={self.kind}")
            return f"{why} by the import that made the table; --type {way} reads it as that"
        way = quote(f"{name}={'json' if self.kind == 'json' else 'string'}")
        return f"{why}; see --infer-rows all, or --type {way}"

    @staticmethod
    def of(kind: Kind, mark: Any) -> CellForm | None:
        """Return the form that a schema says; None if it says none."""
        if not isinstance(mark, dict) or not isinstance(mark.get("records"), int):
            return None
        words = tuple(map(str, mark.get("words", ())))
        return CellForm(kind, mark["records"], words, in_table=mark.get("table") is True)

    def takes(self, text: str) -> bool:
        """Say whether a cell would not have made the column text, or is stored as it is written.

        What a double keeps of a number is left to those who read it.
        """
        if self.kind == "boolean":
            return text in self.words
        number = text.strip(_BLANKS)
        if self.kind == "integer":
            return bool(_AS_STORED.fullmatch(number)) or type_of_text(text) in ("integer", "number")
        return any(shape.fullmatch(number) for shape in (_AS_STORED, _DECIMAL, _POWER))

    def surely_takes(self, numbers: pl.Series) -> pl.Series | None:
        """Return which cells, if they can be read by the type, certainly are taken; None if all are."""
        few = numbers.filter(numbers < "1")  # the others begin with another digit
        if few.is_empty() or not (self._are_odd(few) | (few < "!")).any():
            return None
        return ~self._are_odd(numbers.str.strip_chars(_BLANKS)).fill_null(value=False)

    def _are_odd(self, texts: pl.Series) -> pl.Series:
        """Say which numbers begin as none of this column does."""
        zeros, minus, plus = ((texts >= low) & (texts < high) for low, high in _ZEROS_IN_FRONT)
        if self.kind == "integer":
            low, high = _PLUS_IN_FRONT
            plus = (texts >= low) & (texts < high)
        return zeros | minus | plus

    def booleans(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return what cells mean, and which of them are taken."""
        false, true = self.words
        values = texts == true
        return values, (values | (texts == false)).fill_null(value=True)
