"""Delimited records that are certainly regular: recognised, and read by Polars.

Regular are records of as many fields as they must have, all quotes in order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sources.quoting import without_end

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from batchimport.sources.quoting import Marks

SEAM = "\x01"
MISTAKEN = (b"x", b"(", b"\x1f", b"\xef")
"""With these, data begin that Polars may decompress, such as `x^`, or take for a byte order mark: it
gets an empty record to see first."""


class RegularForm:
    """Recognises regular records of a fixed number of fields, and has Polars read them."""

    def __init__(self, marks: Marks, width: int) -> None:
        self._marks, self._width = marks, width
        mark, comma = re.escape(marks.quote), re.escape(marks.delimiter)
        self._quoted = f"{mark}[^{mark}]*(?:{mark}{mark}[^{mark}]*)*{mark}"
        self._irregular = f"[^{comma}]{SEAM}|{SEAM}[^{comma}]"

    def find(self, records: Sequence[bytes], without: Collection[int]) -> pl.Series:
        """Return the indices of the regular records."""
        lines = _texts(records).str.strip_suffix("\n").str.strip_suffix("\r")
        quote, delimiter = self._marks.quote, self._marks.delimiter
        regular = lines.is_not_null()
        if quote and lines.str.contains(quote, literal=True).any():
            regular &= ~lines.str.contains(SEAM, literal=True)
            lines = lines.str.replace_all(self._quoted, SEAM)
            regular &= ~lines.str.contains(quote, literal=True)
            regular &= ~lines.str.contains(self._irregular)
        regular &= lines.str.count_matches(delimiter, literal=True) == self._width - 1
        index = regular.fill_null(value=False).arg_true().cast(pl.UInt32)
        return index.filter(~index.is_in(list(without))) if without else index

    def read(self, records: Sequence[bytes], regular: pl.Series) -> pl.DataFrame | None:
        """Return the cells of regular records, null where they are empty and not quoted.

        None if Polars reads them otherwise than they were recognised.
        """
        chosen = records
        if len(regular) != len(records):
            chosen = [records[at] for at in regular]
        if not chosen:
            return None
        data = b"".join(chosen)
        if b"\r" in data:  # Polars does not know lines that end with CR alone
            data = b"".join([without_end(record) + b"\n" for record in chosen])
        return self._parsed(data, len(chosen))

    def read_whole(self, data: bytes, count: int) -> pl.DataFrame | None:
        """Return the cells of records that are all regular; None if some may not be.

        What Polars left out of the cells must be the delimiters between them, one line end a
        record, and the quotes round quoted cells. The sums of bytes and of quotes show it, since
        Polars refuses fields too many, and every field whose quotes are out of order adds too few.
        """
        if not data.endswith(b"\n"):
            data += b"\n"  # without it, polars 2.1 forgives one empty field too many
        carriage = data.count(b"\r")
        if carriage and carriage != data.count(b"\r\n"):
            return None
        texts = self._parsed(data, count)
        if texts is None:
            return None
        cells = sum(_counts(texts, pl.all().str.len_bytes()).values())
        if carriage:
            carriage -= _count_in(texts, "\r")
        ends = count + carriage
        quotes = data.count(self._marks.quote.encode()) if self._marks.quote else 0
        having = _counts(texts, pl.all().str.count_matches(self._marks.quote, literal=True), quotes)
        kept = sum(having.values())
        delimiters = count * (self._width - 1)
        if len(data) != cells + delimiters + ends + quotes - kept:
            return None
        with_quotes = texts.select(name for name, number in having.items() if number)
        opened = self._opened(data, texts, with_quotes) if quotes else 0
        return texts if quotes == 2 * (kept + opened) else None

    def _opened(self, data: bytes, texts: pl.DataFrame, with_quotes: pl.DataFrame) -> int:
        """Return how many fields begin with a quote.

        Args:
            with_quotes: The columns with quotes in their cells.
        """
        mark, found = self._marks.quote, int(data.startswith(self._marks.quote.encode()))
        for before in (self._marks.delimiter, "\n"):
            seam = before + mark
            found += data.count(seam.encode()) - _count_in(with_quotes, seam)
        ends = pl.all().str.ends_with(self._marks.delimiter) | pl.all().str.ends_with("\n")
        return found - sum(_counts(texts, ends).values())

    def _parsed(self, data: bytes, count: int) -> pl.DataFrame | None:
        begins = int(data.startswith(MISTAKEN))
        if begins:
            data = (self._marks.delimiter * (self._width - 1) + "\n").encode() + data
        try:
            texts = pl.read_csv(
                data,
                has_header=False,
                schema={f"c{at}": pl.String() for at in range(self._width)},
                separator=self._marks.delimiter,
                quote_char=self._marks.quote or None,
            ).slice(begins)
        except pl.exceptions.PolarsError:
            return None
        return texts if texts.shape == (count, self._width) else None


def _counts(texts: pl.DataFrame, number: pl.Expr, at_most: int = 1) -> dict[str, int]:
    """Return the sum of a number over the cells of each column, if it can be more than nothing."""
    if not at_most or not texts.width:
        return {}
    return {
        name: value or 0 for name, value in texts.select(number.sum()).row(0, named=True).items()
    }


def _count_in(texts: pl.DataFrame, needle: str) -> int:
    return sum(_counts(texts, pl.all().str.count_matches(needle, literal=True)).values())


def _texts(records: Sequence[bytes]) -> pl.Series:
    """Return records as text; null for those that are not UTF-8."""
    try:
        return pl.Series(records, dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series([_text(record) for record in records], dtype=pl.String)


def _text(record: bytes) -> str | None:
    try:
        return record.decode()
    except UnicodeDecodeError:
        return None
