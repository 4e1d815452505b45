"""Values read by a type that the user names, or by the way in which dates are written.

The same expressions read a whole column and a single value, so the outcome is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.model import FieldError
from batchimport.schema.booleans import read_words
from batchimport.schema.moments import DateFormat, read_days, read_moments

if TYPE_CHECKING:
    from batchimport.model import Kind
    from batchimport.schema.forms import CellForm

_INTEGER = r"^[+-]?[0-9]+(?:\.0*)?$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_UUID = r"^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"


@dataclass(frozen=True)
class Converter:
    """Reads the values of one column.

    Attributes:
        from_json: The values are JSON text; otherwise they are strings.
        form: If the formats are only those that some records have: dates that are written otherwise
            might be none.
    """

    name: str
    kind: Kind
    formats: tuple[DateFormat, ...] = ()
    from_json: bool = False
    form: CellForm | None = None

    def read(self, texts: pl.Series) -> pl.Series:
        """Return values of the type; null where a text cannot be read as one."""
        if self.from_json:
            texts = texts.map_elements(_without_quotes, return_dtype=pl.String, skip_nulls=True)
        if self.kind == "date":
            return read_days(texts, self.formats, only_these=self.form is not None)
        if self.kind == "date-time":
            return read_moments(texts, self.formats, only_these=self.form is not None)
        cells = texts.alias("text").to_frame()
        return cells.select(self._typed(pl.col("text"))).to_series().alias(texts.name)

    def _typed(self, text: pl.Expr) -> pl.Expr:
        if self.kind == "string":
            return text
        text = text.str.strip_chars(" \t")
        if self.kind == "boolean":
            return read_words(text)
        if self.kind == "integer":
            digits = text.str.replace(r"\.0*$", "").str.strip_prefix("+")
            return pl.when(text.str.contains(_INTEGER)).then(digits).cast(pl.Int64, strict=False)
        if self.kind == "number":
            number = pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Float64, strict=False)
            return pl.when(number.is_finite()).then(number)
        return pl.when(text.str.contains(_UUID)).then(text)

    def one(self, text: str) -> Any:
        """Return one value; None if the text cannot be read."""
        return self.read(pl.Series([text], dtype=pl.String))[0]

    def error(self, value: Any) -> FieldError:
        """Return the error of a value that cannot be read."""
        ways = ", ".join(each.text for each in self.formats)
        hint = (
            f" (ISO 8601{', ' if ways else ''}{ways}; see --date-format)"
            if "date" in self.kind
            else ""
        )
        shown = str(value)[:200]
        message = f"{shown!r} cannot be read as {self.kind}{hint}"
        if self.form is not None:
            message = f"{message}, {self.form.hint(self.name)}"
        return FieldError("format", self.name, message, shown)


def _without_quotes(text: str) -> str:
    return str(msgspec.json.decode(text)) if text.startswith('"') else text
