"""The rows of a Parquet file as Polars frames, by number."""

from __future__ import annotations

import io
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from batchimport.sources.parquet.texts import as_text, has_text
from batchimport.sources.parquet.types import as_moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.parquet.footer import Footer

    _ScanOf = Callable[[str, int], pl.LazyFrame]
    """Takes the name of a column and the index of a group of rows."""


class Rows:
    """Reads rows; columns that Polars does not read as they are, from small files made of them.

    Attributes:
        types: The type of each column in the frames, in the file's order; None for a column without
            rows that Polars does not know. Where all points in time of a frame have a type in Polars,
            it has them in that type.
    """

    def __init__(self, file: TextFile, footer: Footer) -> None:
        self._footer = footer
        self._scan = pl.scan_parquet(file.descriptor_path, glob=False)
        self._firsts = [group.first for group in footer.groups]
        self._plain = footer.plain_columns()
        self._plain_scan = lru_cache(maxsize=2 * len(self._plain))(self._make_plain_scan)
        self._bytes_scan = lru_cache(maxsize=2)(self._make_bytes_scan)
        self._unread: set[str] = set()  # columns with a text that is not UTF-8
        are_all_plain = len(self._plain) == len(footer.columns) > 0
        known = {} if are_all_plain else self._scan.collect_schema()
        self.types: dict[str, pl.DataType | None] = {
            name: self._plain_type(name) if name in self._plain else known[name]
            for name in footer.columns
        }

    def _plain_type(self, name: str) -> pl.DataType | None:
        return self._plain_scan(name, 0).collect_schema()[name] if self._firsts else None

    def _make_plain_scan(self, name: str, group: int) -> pl.LazyFrame:
        content = self._footer.plain_file(name, self._footer.groups[group])
        return pl.scan_parquet(io.BytesIO(content))

    def _make_bytes_scan(self, name: str, group: int) -> pl.LazyFrame:
        content = self._footer.plain_file(name, self._footer.groups[group], has_bytes=True)
        return pl.scan_parquet(io.BytesIO(content))

    def read(self, lo: int, rows: int, names: Iterable[str] | None = None) -> pl.DataFrame:
        """Return rows from `lo` on, with some columns, or all of them; fewer if the file is damaged.

        A column in which a text is not UTF-8 has bytes instead of texts.
        """
        wanted = list(self.types if names is None else names)
        apart = {
            name: self._read_apart(name, lo, rows)
            for name in wanted
            if name in self._plain or name in self._unread
        }
        others = [name for name in wanted if name not in apart]
        if not others:
            return pl.DataFrame(list(apart.values()))
        try:
            frame = self._read_scan(others, lo, rows)
        except pl.exceptions.PolarsError:
            unread = {name for name in others if self._is_unread(name, lo, rows)}
            if not unread:
                raise
            self._unread |= unread
            return self.read(lo, rows, names)
        return frame.hstack(list(apart.values())).select(wanted) if apart else frame

    def _read_scan(self, names: list[str], lo: int, rows: int) -> pl.DataFrame:
        return self._scan.slice(lo, rows).select(names).collect()

    def _is_unread(self, name: str, lo: int, rows: int) -> bool:
        """Say whether it is this column with texts that cannot be read."""
        if has_text(self._footer.columns[name]):
            try:
                self._read_scan([name], lo, rows)
            except pl.exceptions.PolarsError:
                return True
        return False

    def _read_apart(self, name: str, lo: int, rows: int) -> pl.Series:
        if name not in self._unread:
            try:
                return self._read_plain(name, lo, rows, self._plain_scan)
            except pl.exceptions.PolarsError:
                if not has_text(self._footer.columns[name]):
                    raise
                self._unread.add(name)
        return as_text(self._read_plain(name, lo, rows, self._bytes_scan), self.types[name])

    def _read_plain(self, name: str, lo: int, rows: int, scan_of: _ScanOf) -> pl.Series:
        at, parts = self.group_at(lo), []
        while rows > 0 and at < len(self._firsts):
            group = self._footer.groups[at]
            skip, take = lo - group.first, min(rows, group.first + group.rows - lo)
            if take:
                scan = scan_of(name, at)
                parts.append(scan.slice(skip, take).collect().get_column(name))
            at, lo, rows = at + 1, lo + take, rows - take
        if not parts:
            return pl.Series(name, [], dtype=self.types[name])
        return as_moments(pl.concat(parts), self._footer.columns[name])

    def group_at(self, row: int) -> int:
        """Return the index of the group of rows that a row is in."""
        return max(0, bisect_right(self._firsts, row) - 1)

    def count(self) -> int:
        """Count the values of the narrowest column: by decoding them, not by the footer."""
        name = min(self.types, key=lambda name: _width(self.types[name]))
        column = pl.col(name)
        values = column.is_null().sum() + column.is_not_null().sum()  # decodes them, unlike `len`
        groups = range(len(self._firsts))
        plain = name in self._plain
        scans = (self._plain_scan(name, at) for at in groups) if plain else [self._scan]
        try:
            return sum(
                int(scan.select(values).collect(engine="streaming").item()) for scan in scans
            )
        except pl.exceptions.PolarsError:
            if not has_text(self._footer.columns[name]):
                raise
            scans = (self._bytes_scan(name, at) for at in groups)
            return sum(int(scan.select(values).collect().item()) for scan in scans)


def _width(dtype: pl.DataType | None) -> int:
    """Return about how much there is to decode in a value."""
    if dtype is None or dtype == pl.Boolean:
        return 1
    return 8 if dtype.is_numeric() or dtype.is_temporal() else 100 if dtype.is_nested() else 32
