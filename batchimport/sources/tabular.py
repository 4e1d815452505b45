"""Fields under a header as records of a schema: one at a time, and by the chunk.

The fast way takes only records that are certainly regular: as many fields as the header has names,
all quotes in order, every cell of the form that its column wants.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.job import EXTRA_COLUMN, INDEX, FieldError
from batchimport.schema.digits import integer_of, number_of
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.cells import json_text, typed, value_of
from batchimport.sources.quoting import FieldReader, without_end, write_plainly

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchimport.schema import Column, RecordSchema, Types
    from batchimport.sources.dialect import Dialect
    from batchimport.sources.quoting import Cell, Marks

SEAM = "\x01"


class Tabular:
    """A header and a schema: what each field is."""

    def __init__(self, header: Sequence[str], schema: RecordSchema, dialect: Dialect) -> None:
        self._header = list(header)
        self._dialect = dialect
        self._columns = schema.columns
        self._types = schema.types
        self._extra = [name for name in header if name not in self._types]
        self._is_closed = schema.closed and bool(self._extra)
        self._required = frozenset(column.name for column in schema.columns if column.required)
        self._reader = FieldReader(dialect.marks)
        self._plain = replace(dialect.marks, escape="", padded=False)
        self._form = _RegularForm(self._plain, len(header))

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

    def parse(
        self, records: Sequence[bytes], without: Collection[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the frame of the records that certainly fit, and the indices of the others.

        Args:
            records: With their line ends, none of them blank.
            without: Indices that need not be looked at.
        """
        if self._is_closed or not records:
            return self._empty(), list(range(len(records)))
        if not self._dialect.marks.are_plain:
            records, without = self._rewrite(records, without)
        regular = self._form.find(records, without)
        texts = self._form.read(records, regular)
        if texts is None:
            return self._empty(), list(range(len(records)))
        texts, certain = self._with_nulls(texts)
        series = []
        for column in self._columns:
            values, fits = self._column(column, texts)
            series.append(values.alias(column.name))
            certain = certain if fits is None else certain & fits
        if self._extra:
            rows = texts.select(self._positions(self._extra)).rename(self._names(self._extra))
            extra = [self._extra_text(row) for row in rows.iter_rows(named=True)]
            series.append(pl.Series(EXTRA_COLUMN, extra, dtype=pl.String))
        frame = pl.DataFrame([regular.alias(INDEX), *series]).filter(certain)
        if EXTRA_COLUMN in frame.columns and frame.get_column(EXTRA_COLUMN).null_count() == len(
            frame
        ):
            frame = frame.drop(EXTRA_COLUMN)
        if len(frame) == len(records):
            return frame, []
        fitting = set(frame.get_column(INDEX).to_list())
        return frame, [at for at in range(len(records)) if at not in fitting]

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

    def _with_nulls(self, texts: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Put null for the null string; rows that have it are not certain, for it may be quoted."""
        certain = pl.repeat(value=True, n=len(texts), dtype=pl.Boolean, eager=True)
        null = self._dialect.null
        if not null:
            return texts, certain
        texts = texts.with_columns(pl.all().fill_null(""))
        if self._dialect.marks.quote:
            has_null = texts.select(pl.any_horizontal(pl.all() == null).alias(INDEX)).to_series()
            return texts, certain & ~has_null
        return texts.with_columns(pl.all().replace(null, None)), certain

    def _column(self, column: Column, texts: pl.DataFrame) -> tuple[pl.Series, pl.Series | None]:
        if column.name not in self._header:
            nothing = pl.Series(column.name, [None] * len(texts), dtype=column.dtype)
            return nothing, nothing.is_not_null() if column.required else None
        cells = texts.get_column(f"c{self._header.index(column.name)}")
        values, fits = typed(cells, column, self._types[column.name])
        if column.required and not column.nullable:
            there = cells.is_not_null()
            fits = there if fits is None else fits & there
        return values, fits

    def _empty(self) -> pl.DataFrame:
        types = {column.name: column.dtype for column in self._columns}
        return pl.DataFrame(schema={INDEX: pl.UInt32, **types})

    def _positions(self, names: Sequence[str]) -> list[str]:
        return [f"c{self._header.index(name)}" for name in names]

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


class _RegularForm:
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
        if b"\r" in data:  # Polars knows lines that end with CR alone as little as CR in cells
            data = b"".join([without_end(record) + b"\n" for record in chosen])
        try:
            texts = pl.read_csv(
                data,
                has_header=False,
                schema={f"c{at}": pl.String() for at in range(self._width)},
                separator=self._marks.delimiter,
                quote_char=self._marks.quote or None,
            )
        except pl.exceptions.PolarsError:
            return None
        return texts if texts.shape == (len(chosen), self._width) else None


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
