"""Regular records of delimited text, which Polars reads: all quotes in order, as many fields as there are names."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sources.csv.grammar import has_lone_cr, without_end

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchimport.sources.csv.grammar import Dialect

PLACEHOLDER = "\x01"
MISTAKEN_STARTS = (b"x", b"(", b"\x1f", b"\xef")
"""Polars would decompress data that begins like this (`x^` is zlib), or strip it as a byte order mark;
an empty record is put in front."""
NO_TYPES: Mapping[str, pl.DataType] = MappingProxyType({})


class RegularForm:
    """Recognises regular records, and has Polars read them.

    A record is regular if its quotes are in order and it has exactly `width` fields.
    """

    def __init__(self, dialect: Dialect, width: int) -> None:
        self._dialect, self._width = dialect, width
        comma = re.escape(dialect.delimiter)
        self._quoted = dialect.plain_quoted() if dialect.quotechar else ""
        self._misplaced = f"[^{comma}]{PLACEHOLDER}|{PLACEHOLDER}[^{comma}]"
        self._in_order = dialect.plain_records() if dialect.quotechar else ""

    def find(self, records: Sequence[bytes], without: Collection[int]) -> pl.Series:
        """Return the indices of the regular records."""
        lines = _texts(records).str.strip_suffix("\n").str.strip_suffix("\r")
        quote, delimiter = self._dialect.quotechar, self._dialect.delimiter
        regular = lines.is_not_null()
        if quote and lines.str.contains(quote, literal=True).any():
            regular &= ~lines.str.contains(PLACEHOLDER, literal=True)
            lines = lines.str.replace_all(self._quoted, PLACEHOLDER)
            regular &= ~lines.str.contains(quote, literal=True)
            regular &= ~lines.str.contains(self._misplaced)
        regular &= lines.str.count_matches(delimiter, literal=True) == self._width - 1
        index = regular.fill_null(value=False).arg_true().cast(pl.UInt32)
        return index.filter(~index.is_in(list(without))) if without else index

    def read(self, records: Sequence[bytes], regular: pl.Series) -> pl.DataFrame | None:
        """Return the cells of regular records, null where they are empty and not quoted.

        None if Polars does not read as many records and fields.
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
            types: Columns to read as something else than text. In text, null is an empty cell; in
                other types Polars also reads spaces and empty quotes as null.
            is_plain: Every record is known to be one line with its quotes in order.
        """
        if not data.endswith(b"\n"):
            data += b"\n"  # without it, polars 2.1 forgives one empty field too many
        mark = self._dialect.quotechar.encode()
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
        """Say whether no record has too few fields; Polars raises for those that have too many."""
        if not cells.width or not cells.to_series(-1).null_count():
            return True
        delimiter, mark = self._dialect.delimiter.encode(), self._dialect.quotechar.encode()
        unquoted = data.split(mark)[::2] if mark and mark in data else [data]
        delimiters = sum(piece.count(delimiter) for piece in unquoted)
        return delimiters == len(cells) * (self._width - 1)

    def are_shortest(self, cells: pl.DataFrame, data: bytes) -> bool:
        """Say whether certainly every integer has no more characters than it needs: no zeros in front.

        If one had, the data would be longer than all that is known of them.

        Args:
            cells: Those of the data, without nulls in columns that are not text.
        """
        numbers = [column for column in cells if column.dtype == pl.Int64]
        texts = cells.select(pl.col(pl.String).str.len_bytes().sum())
        in_texts = sum(texts.row(0)) if texts.width else 0
        known = in_texts + sum(map(_least_bytes, numbers)) + len(cells) * self._width
        size = len(data) + (not data.endswith(b"\n"))
        return known == size or (data.endswith(b"\r\n") and known + data.count(b"\r") == size)

    def _parsed(
        self,
        data: bytes,
        count: int,
        types: Mapping[str, pl.DataType] = NO_TYPES,
        *,
        has_quotes: bool = True,
    ) -> pl.DataFrame | None:
        names = [f"c{at}" for at in range(self._width)]
        begins = int(data.startswith(MISTAKEN_STARTS))
        if begins:
            data = (self._dialect.delimiter * (self._width - 1) + "\n").encode() + data
        try:
            cells = pl.read_csv(
                data,
                has_header=False,
                schema={name: types.get(name, pl.String()) for name in names},
                separator=self._dialect.delimiter,
                quote_char=self._dialect.quotechar
                if has_quotes and self._dialect.quotechar
                else None,
            ).slice(begins)
        except pl.exceptions.PolarsError:
            return None
        return cells if cells.shape == (count, self._width) else None


def _least_bytes(integers: pl.Series) -> int:
    """Return how many characters integers without a null take at least."""
    low, high = (int(each or 0) for each in (integers.min(), integers.max()))  # type: ignore[arg-type]  # integers
    size, bound = len(integers), 10
    while bound <= high:
        size, bound = size + int((integers >= bound).sum()), bound * 10
    if low < 0:
        size, bound = size + int((integers < 0).sum()), 10
        while -bound >= low:
            size, bound = size + int((integers <= -bound).sum()), bound * 10
    return size


def _texts(records: Sequence[bytes]) -> pl.Series:
    """Return records as strings; null for those that are not UTF-8."""
    try:
        return pl.Series(records, dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series([_text(record) for record in records], dtype=pl.String)


def _text(record: bytes) -> str | None:
    try:
        return record.decode()
    except UnicodeDecodeError:
        return None
