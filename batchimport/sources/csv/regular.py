"""Delimited records that are certainly regular: recognised, and read by Polars.

Regular are records of as many fields as they must have, all quotes in order.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sources.csv.grammar import has_lone_cr, without_end

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchimport.sources.csv.grammar import Marks

SEAM = "\x01"
MISTAKEN = (b"x", b"(", b"\x1f", b"\xef")
"""With these, data begin that Polars may decompress, such as `x^`, or take for a byte order mark: it
gets an empty record to see first."""
NO_TYPES: Mapping[str, pl.DataType] = MappingProxyType({})


class RegularForm:
    """Recognises regular records of a fixed number of fields, and has Polars read them."""

    def __init__(self, marks: Marks, width: int) -> None:
        self._marks, self._width = marks, width
        comma = re.escape(marks.delimiter)
        self._quoted = marks.quoted_plainly() if marks.quote else ""
        self._irregular = f"[^{comma}]{SEAM}|{SEAM}[^{comma}]"
        self._in_order = marks.in_order() if marks.quote else ""

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

    def read_whole(
        self, data: bytes, count: int, types: Mapping[str, pl.DataType], *, is_plain: bool = False
    ) -> pl.DataFrame | None:
        """Return the cells of records that are all regular; None if some may not be.

        Args:
            types: What cells are read as that are no text. A null is an empty cell only in a text:
                Polars takes spaces for an empty number, too, and quotes that are empty.
            is_plain: It is known that each is one line, and that its quotes are in order.
        """
        if not data.endswith(b"\n"):
            data += b"\n"  # without it, polars 2.1 forgives one empty field too many
        mark = self._marks.quote.encode()
        has_quotes = bool(mark) and mark in data
        if not is_plain and not self._is_in_order(data, has_quotes=has_quotes):
            return None
        cells = self._parsed(data, count, types, has_quotes=has_quotes)
        return cells if cells is not None and self._is_full(cells, data) else None

    def _is_in_order(self, data: bytes, *, has_quotes: bool) -> bool:
        """Say whether all quotes are in order, and no CR stands alone."""
        if not has_quotes:
            return not has_lone_cr(data)
        text = _texts([data])
        return not text.null_count() and bool(text.str.contains(self._in_order).item())

    def _is_full(self, cells: pl.DataFrame, data: bytes) -> bool:
        """Say whether no record has too few fields; Polars refuses those that have too many."""
        if not cells.width or not cells.to_series(-1).null_count():
            return True
        delimiter, mark = self._marks.delimiter.encode(), self._marks.quote.encode()
        unquoted = data.split(mark)[::2] if mark and mark in data else [data]
        found = sum(piece.count(delimiter) for piece in unquoted)
        return found == len(cells) * (self._width - 1)

    def _parsed(
        self,
        data: bytes,
        count: int,
        types: Mapping[str, pl.DataType] = NO_TYPES,
        *,
        has_quotes: bool = True,
    ) -> pl.DataFrame | None:
        names = [f"c{at}" for at in range(self._width)]
        begins = int(data.startswith(MISTAKEN))
        if begins:
            data = (self._marks.delimiter * (self._width - 1) + "\n").encode() + data
        try:
            cells = pl.read_csv(
                data,
                has_header=False,
                schema={name: types.get(name, pl.String()) for name in names},
                separator=self._marks.delimiter,
                quote_char=self._marks.quote if has_quotes and self._marks.quote else None,
            ).slice(begins)
        except pl.exceptions.PolarsError:
            return None
        return cells if cells.shape == (count, self._width) else None


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
