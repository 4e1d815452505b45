"""Fields under a header as records of a schema: one at a time, and by the chunk.

The fast way takes only records that are certainly regular: as many fields as the header has names,
all quotes in order, every cell of the form that its column wants.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.model import EXTRA_COLUMN, INDEX, FieldError
from batchimport.schema.numbers import integer_of, number_of
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.csv.cells import json_text, readable, typed, value_of
from batchimport.sources.csv.grammar import FieldReader, without_end, write_plainly
from batchimport.sources.csv.regular import RegularForm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchimport.schema import Column, RecordSchema, Types
    from batchimport.sources.csv.dialect import Dialect
    from batchimport.sources.csv.grammar import Cell


class Tabular:
    """A header and a schema: what each field is."""

    def __init__(self, header: Sequence[str], schema: RecordSchema, dialect: Dialect) -> None:
        self._header = {name: f"c{at}" for at, name in enumerate(header)}
        self._dialect = dialect
        self._columns = schema.columns
        self._types = schema.types
        self._extra = [name for name in header if name not in self._types]
        self._is_closed = schema.closed and bool(self._extra)
        self._required = frozenset(column.name for column in schema.columns if column.required)
        self._reader = FieldReader(dialect.marks)
        self._plain = replace(dialect.marks, escape="", padded=False)
        self._form = RegularForm(self._plain, len(header))
        self._read_as = {
            self._header[column.name]: column.dtype
            for column in self._columns
            if column.name in self._header and readable(column) and not dialect.null
        }

    def values(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return a record as JSON values.

        An empty cell is a missing key, or null where the schema demands the key and allows null.

        Raises:
            UnreadableRecordError: If there are too few fields or too many.
        """
        record: dict[str, Any] = {}
        for name, text in self._texts(cells).items():
            types = self._types.get(name)
            if text is not None:
                record[name] = value_of(text, types) if name in self._types else text
            elif name in self._required and (types is None or "null" in types):
                record[name] = None
        return record

    def row(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return a valid record as one value per column, plus `_extra` if any.

        Raises:
            UnreadableRecordError: If a value does not fit its column's type.
        """
        texts = self._texts(cells)
        row: dict[str, Any] = {}
        for column in self._columns:
            text = texts.get(column.name)
            if text is not None:
                row[column.name] = _as_stored(column, text, self._types[column.name])
        extra = self._extra_text(texts)
        return row if extra is None else {**row, EXTRA_COLUMN: extra}

    def _texts(self, cells: Sequence[Cell]) -> dict[str, str | None]:
        found, expected = len(cells), len(self._header)
        if found != expected:
            code = "too_few_fields" if found < expected else "too_many_fields"
            message = (
                f"{found} {'field' if found == 1 else 'fields'} where the header has {expected}"
            )
            raise UnreadableRecordError(FieldError(code, "", message))
        null = self._dialect.null
        return {
            name: None if text == null and not quoted else text
            for name, (text, quoted) in zip(self._header, cells, strict=True)
        }

    def _extra_text(self, texts: Mapping[str, str | None]) -> str | None:
        extra = {name: texts[name] for name in self._extra if texts[name] is not None}
        return json.dumps(extra, ensure_ascii=False) if extra else None

    def parse_whole(
        self, data: bytes, count: int, *, is_plain: bool
    ) -> tuple[pl.DataFrame, list[int]] | None:
        """Return the frame of a whole chunk, and the indices of the records that may not fit.

        None if the records must be looked at one by one, because some of them may not be regular.

        Args:
            count: Records in the data.
            is_plain: Each is one line, and its quotes are in order.
        """
        if self._is_closed or not self._dialect.marks.are_plain:
            return None
        cells = self._form.read_whole(data, count, self._read_as, is_plain=is_plain)
        unsure = [name for name in self._read_as if cells is None or cells[name].null_count()]
        if unsure:
            types = {name: self._read_as[name] for name in self._read_as if name not in unsure}
            cells = self._form.read_whole(data, count, types, is_plain=is_plain)
            if cells is not None:  # what one chunk has, others have: no need to try again
                self._read_as = types
        if cells is None:
            return None
        return self._fitting(cells, pl.int_range(count, dtype=pl.UInt32, eager=True), count)

    def parse(
        self, records: Sequence[bytes], without: Collection[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the frame of the records that certainly fit, and the indices of the others.

        Args:
            records: With their line ends, none of them blank.
            without: Indices that need not be looked at.
        """
        if self._is_closed or not records:
            return self.empty(), list(range(len(records)))
        if not self._dialect.marks.are_plain:
            records, without = self._rewrite(records, without)
        regular = self._form.find(records, without)
        texts = self._form.read(records, regular)
        if texts is None:
            return self.empty(), list(range(len(records)))
        return self._fitting(texts, regular, len(records))

    def _fitting(
        self, cells: pl.DataFrame, index: pl.Series, count: int
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the typed frame of the rows whose cells all fit, and the indices of the others.

        Args:
            cells: Of the records with these indices.
            count: Records in all.
        """
        cells, certain = self._with_nulls(cells)
        series, fits = [index.alias(INDEX)], [] if certain is None else [certain]
        for column in self._columns:
            values, fit = self._column(column, cells)
            series.append(values.alias(column.name))
            fits += [] if fit is None else [fit]
        if self._extra:
            rows = cells.select(self._positions(self._extra)).rename(self._names(self._extra))
            extra = [self._extra_text(row) for row in rows.iter_rows(named=True)]
            if any(extra):
                series.append(pl.Series(EXTRA_COLUMN, extra, dtype=pl.String))
        frame = pl.DataFrame(series)
        if fits:
            frame = frame.filter(pl.all_horizontal(fits))
        if len(frame) == count:
            return frame, []
        kept = set(frame.get_column(INDEX).to_list())
        return frame, [at for at in range(count) if at not in kept]

    def _rewrite(
        self, records: Sequence[bytes], without: Collection[int]
    ) -> tuple[list[bytes], set[int]]:
        """Write records plainly, for the fast way; name those that need not be looked at."""
        rewritten, skipped = [], set(without)
        for at, record in enumerate(records):
            try:
                cells = self._reader.read(without_end(record).decode())
            except (UnicodeDecodeError, UnreadableRecordError):
                skipped.add(at)
                rewritten.append(b"\n")
            else:
                rewritten.append(write_plainly(cells, self._plain).encode() + b"\n")
        return rewritten, skipped

    def _with_nulls(self, cells: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """Put null for the null string; rows that have it are not certain, for it may be quoted."""
        null = self._dialect.null
        if not null:
            return cells, None
        cells = cells.with_columns(pl.all().fill_null(""))
        if self._dialect.marks.quote:
            return cells, cells.select(~pl.any_horizontal(pl.all() == null)).to_series()
        return cells.with_columns(pl.all().replace(null, None)), None

    def _column(self, column: Column, cells: pl.DataFrame) -> tuple[pl.Series, pl.Series | None]:
        if column.name not in self._header:
            nothing = pl.Series([None] * len(cells), dtype=column.dtype)
            return nothing, nothing.is_not_null() if column.required else None
        given = cells.get_column(self._header[column.name])
        values, fits = typed(given, column, self._types[column.name])
        if column.required and not column.nullable and given.null_count():
            there = given.is_not_null()
            fits = there if fits is None else fits & there
        return values, fits

    def empty(self) -> pl.DataFrame:
        """Return a frame of no records."""
        types = {column.name: column.dtype for column in self._columns}
        return pl.DataFrame(schema={INDEX: pl.UInt32, **types})

    def _positions(self, names: Sequence[str]) -> list[str]:
        return [self._header[name] for name in names]

    def _names(self, names: Sequence[str]) -> dict[str, str]:
        return dict(zip(self._positions(names), names, strict=True))


def _as_stored(column: Column, text: str, types: Types) -> Any:
    if column.kind == "json":
        return json_text(text, types)
    if column.kind not in ("integer", "number"):
        return value_of(text, types)
    text = text.strip()
    value = integer_of(text, column) if column.kind == "integer" else number_of(text, column)
    if isinstance(value, FieldError):
        raise UnreadableRecordError(value)
    return value
