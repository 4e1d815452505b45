"""How numbers are written in a delimited text: the decimal mark, and the mark between thousands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sources.csv.header import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchimport.model import Kind

_MARKS = (",", ".", "'", " ", "_", "\u00a0", "\u202f", "\u2019")
_WRITTEN = re.compile(rf"[+-]?[0-9]*(?:[{''.join(_MARKS)}][0-9]+)*(?<=[0-9])")


@dataclass(frozen=True)
class NumberForm:
    """The marks of numbers.

    Attributes:
        decimal: What stands before the decimals.
        thousands: What stands between groups of three digits; empty if nothing does.
    """

    decimal: str = "."
    thousands: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self.decimal == "." and not self.thousands

    @cached_property
    def pattern(self) -> str:
        """The pattern of a number, for `re` and for Polars."""
        point, group = re.escape(self.decimal), re.escape(self.thousands)
        grouped = f"[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|" if group else ""
        whole = f"(?:{grouped}[0-9]+)"
        return f"^[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?$"

    @cached_property
    def _matches(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def matches(self, text: str) -> bool:
        """Say whether a text is a number of this form."""
        return self._matches.match(text) is not None and not text.endswith("\n")

    def plain(self, text: str) -> str | None:
        """Return a number as programs write it; None if the text is not a number of this form."""
        if self.is_plain:
            return text
        text = text.strip(" \t")
        if not self.matches(text):
            return None
        return text.replace(self.thousands, "").replace(self.decimal, ".")

    def plain_all(self, texts: pl.Series) -> pl.Series:
        """Return what `plain` does for each text; an empty text where that is None."""
        if self.is_plain:
            return texts
        cells = pl.col("text").str.strip_chars(" \t")
        written = (
            cells.str.replace_all(self.thousands, "", literal=True) if self.thousands else cells
        )
        written = written.str.replace_all(self.decimal, ".", literal=True)
        plain = pl.when(cells.is_null() | cells.str.contains(self.pattern)).then(written)
        return (
            texts.to_frame("text").select(plain.otherwise(pl.lit("")).alias(texts.name)).to_series()
        )


PLAIN_NUMBERS = NumberForm()


def find_form(
    columns: Mapping[str, Sequence[str]],
    decimal: str | None,
    thousands: str | None,
    *,
    delimiter: str,
    typed: Mapping[str, Kind] = MappingProxyType({}),
) -> tuple[NumberForm, tuple[str, ...]]:
    """Return the form of the numbers in a text, and what users should know about it.

    Another form than the plain one is taken only if some column proves it and none contradicts.

    Args:
        columns: Texts of the cells, by the names of the columns.
        decimal: What the user says; `thousands` likewise.
        delimiter: Of the text; where it is a comma, `"3,12"` may be a list.
        typed: The columns whose type the user says: other texts in one of numbers prove nothing.
    """
    if thousands is not None:
        return NumberForm(decimal or ("," if thousands == "." else "."), thousands), ()
    proven: dict[NumberForm, str] = {}
    doubtful: list[str] = []
    for name, cells in columns.items():
        kind = typed.get(name)
        texts = _numbers(cells, is_typed=kind in ("integer", "number"))
        if all(text.lstrip("+-").isdecimal() for text in texts):
            continue
        forms = [form for form in _forms(texts) if decimal in (None, form.decimal)]
        sure = [form for form in forms if _proves(form, texts)]
        if kind == "integer" and not sure:
            sure = [form for form in forms if _is_grouped(form, texts)]
        if delimiter == "," and decimal is None and kind not in ("integer", "number"):
            sure = [form for form in sure if form.decimal == "." or form.thousands]
        if len(sure) == 1:
            proven.setdefault(sure[0], name)
        elif any("," in text for text in texts) and forms:
            doubtful.append(name)
    return _choose(proven, doubtful, decimal)


def _choose(
    proven: Mapping[NumberForm, str], doubtful: Sequence[str], decimal: str | None
) -> tuple[NumberForm, tuple[str, ...]]:
    decimals = {form.decimal for form in proven}
    marks = {form.thousands for form in proven} - {""}
    if len(decimals) > 1 or len(marks) > 1:
        columns = ", ".join(sorted(proven.values())[:3])
        note = f"numbers are written in several ways ({columns}): say --decimal and --thousands"
        return NumberForm(decimal or "."), (note,)
    form = NumberForm(decimal or next(iter(decimals), "."), next(iter(marks), ""))
    notes = []
    said = decimal is not None and form.decimal == decimal and not form.thousands
    if not form.is_plain and not said:
        name = next(name for each, name in proven.items() if not each.is_plain)
        mark = f", thousands {form.thousands!r}" if form.thousands else ""
        notes.append(
            f"numbers: decimal {form.decimal!r}{mark}, as in column {name} (--decimal, --thousands)"
        )
    elif form.is_plain and doubtful:
        notes.append(
            f"column {doubtful[0]}: commas in numbers may separate thousands, decimals, or values; "
            "they are text (--thousands , or --decimal ,)"
        )
    return form, tuple(notes)


def _numbers(cells: Sequence[str], *, is_typed: bool) -> list[str]:
    """Return what is not missing in a column, if all of that may be numbers.

    Args:
        is_typed: It is a column of numbers, whatever else is in it.
    """
    texts = []
    for text in map(str.strip, cells):
        if _WRITTEN.fullmatch(text):
            texts.append(text)
        elif not is_typed and text.lower() not in MISSING:
            return []
    return texts


def _forms(texts: Sequence[str]) -> list[NumberForm]:
    """Return the forms of which all texts are numbers."""
    there = [mark for mark in _MARKS if any(mark in text for text in texts)]
    forms = [
        NumberForm(point, mark)
        for point, mark in product(".,", ["", *there])
        if point != mark and (point in there or mark)
    ]
    return [form for form in forms if all(map(form.matches, texts))]


def _proves(form: NumberForm, texts: Sequence[str]) -> bool:
    """Say whether texts that fit a form are certainly meant so.

    Three digits after a single mark may be a group or decimals, and groups with nothing else may be
    something else than a number.
    """
    decimals = [text.rpartition(form.decimal) for text in texts if form.decimal in text]
    has_decimals = any(
        (form.thousands and form.thousands in whole)
        or len(fraction) != 3
        or whole.lstrip("+-") in ("", "0")
        for whole, _, fraction in decimals
    )
    if not form.thousands:
        return has_decimals
    grouped = [text.count(form.thousands) for text in texts if form.thousands in text]
    if form.thousands in (",", "'", "\u2019", "\u00a0", "\u202f"):
        return has_decimals or max(grouped) > 1 or form.thousands != ","
    return has_decimals


def _is_grouped(form: NumberForm, texts: Sequence[str]) -> bool:
    """Say whether texts that fit a form are integers in it, and would be none with another mark."""
    if not form.thousands or any(form.decimal in text for text in texts):
        return False
    groups = [text.rpartition(form.thousands)[2] for text in texts if form.thousands in text]
    return any(set(group) != {"0"} for group in groups)
