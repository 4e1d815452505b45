"""Fields under a header as records of a schema: by the chunk, and one at a time, with the same outcome.

A cell is read as the narrowest type that its column's schema allows; if its text has the form of none
of them, it stays a string, and the validator rejects it. `Table.decode` accepts only records that are
certainly regular: as many fields as the header has names, all quotes in order, every cell of the form
that its column wants. It defers all others to `Table.values` and the validator.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.model import EXTRA_COLUMN, INDEX, FieldError
from batchimport.schema import type_name
from batchimport.schema.booleans import FALSE, TRUE
from batchimport.schema.forms import WRITTEN
from batchimport.schema.numbers import integer_of, number_of, numbers_of
from batchimport.sources.base import UnreadableRecordError, unreadable
from batchimport.sources.csv.grammar import (
    ABSENT,
    BOM,
    NULL,
    Dialect,
    FieldReader,
    fitted,
    is_header_again,
    without_end,
    write_plainly,
)
from batchimport.sources.csv.numbers import PLAIN_NUMBERS
from batchimport.sources.csv.regular import RegularForm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchimport.schema import Column, RecordSchema, Types
    from batchimport.sources.csv.dialect import CsvFormat
    from batchimport.sources.csv.grammar import Cell
    from batchimport.sources.csv.numbers import NumberForm


PLAIN = Dialect(",", '"')


class Table:
    """A header and a schema: they say what each field is."""

    def __init__(
        self,
        header: Sequence[str],
        schema: RecordSchema,
        form: CsvFormat,
        repeated: list[str] | None = None,
        *,
        trails: bool = False,
    ) -> None:
        """Prepare for the records below a header.

        Args:
            repeated: The cells of the header, which no record has; None if there is none.
            trails: Each record ends with a delimiter.
        """
        self._numbers, self._pads, self._trails = form.numbers, form.pads, trails
        self._repeated = repeated
        self._header = {name: f"c{at}" for at, name in enumerate(header)}
        self._nulls, self._dialect = form.nulls, form.dialect
        self._missing = schema.missing
        self._forms = schema.forms
        self._columns = schema.columns
        self._types = schema.types
        self._extra = [name for name in header if name not in self._types]
        self._is_closed = schema.closed and bool(self._extra)
        self._required = frozenset(column.name for column in schema.columns if column.required)
        self._reader = FieldReader(form.dialect)
        self._plain = form.dialect if form.dialect.is_plain else PLAIN
        self._regular = RegularForm(self._plain, len(header) + trails)
        self._read_as = {
            self._header[column.name]: column.dtype
            for column in self._columns
            if column.name in self._header and readable(column)
            if column.kind == "integer" or column.name not in schema.forms
            if form.numbers.is_plain or column.kind == "boolean"
            if form.nulls == {""} and column.name not in schema.missing
        }
        self._short = {self._header[name] for name in schema.forms if name in self._header}

    def values(self, cells: list[Cell]) -> dict[str, Any]:
        """Return a record as JSON values.

        An empty cell is a missing key, or null where the schema demands the key and allows null.

        Raises:
            UnreadableRecordError: If there are too few fields or too many.
        """
        record: dict[str, Any] = {}
        for name, text in self._texts(cells).items():
            types = self._types.get(name)
            if text is not None:
                record[name] = (
                    value_of(text, types, self._numbers) if self._may_be_typed(name, text) else text
                )
            elif name in self._required and (types is None or "null" in types):
                record[name] = None
        return record

    def _may_be_typed(self, name: str, text: str) -> bool:
        """Say whether a cell may become another value than a string."""
        form = self._forms.get(name)
        if form is None or form.kind not in WRITTEN:
            return name in self._types
        plain = text if form.kind == "boolean" else self._numbers.plain(text)
        return plain is not None and form.takes(plain)

    def row(self, cells: list[Cell]) -> dict[str, Any]:
        """Return a valid record as one value per column, plus `_extra` if any.

        Raises:
            UnreadableRecordError: If a value does not fit its column's type.
        """
        texts = self._texts(cells)
        row: dict[str, Any] = {}
        for column in self._columns:
            text = texts.get(column.name)
            if text is not None:
                row[column.name] = _as_stored(column, text, self._types[column.name], self._numbers)
        extra = self._extra_text(texts)
        return row if extra is None else {**row, EXTRA_COLUMN: extra}

    def _texts(self, cells: list[Cell]) -> dict[str, str | None]:
        if is_header_again(cells, self._repeated):
            raise unreadable("repeated_header", "the header again, not a record")
        expected = len(self._header)
        cells = fitted(cells, expected, pads=self._pads, trails=self._trails)
        fields = len(cells)
        if fields != expected:
            code = "too_few_fields" if fields < expected else "too_many_fields"
            message = (
                f"{fields} {'field' if fields == 1 else 'fields'} where the header has {expected}"
            )
            raise UnreadableRecordError(FieldError(code, "", message))
        nulls, missing = self._nulls, self._missing
        return {
            name: None
            if (text in nulls and not quoted)
            or cell is ABSENT
            or (name in missing and text.strip(" \t") in missing[name])
            else text
            for name, cell in zip(self._header, cells, strict=True)
            for text, quoted in [cell]
        }

    def _extra_text(self, texts: Mapping[str, str | None]) -> str | None:
        extra = {name: texts[name] for name in self._extra if texts[name] is not None}
        return json.dumps(extra, ensure_ascii=False) if extra else None

    def decode_whole(
        self, data: bytes, count: int, *, is_plain: bool
    ) -> tuple[pl.DataFrame, list[int]] | None:
        """Return the accepted records of a whole chunk, and the indices of the deferred ones.

        None if some records may not be regular, so that `decode` must look at each of them.

        Args:
            count: Records in the data.
            is_plain: Every record is known to be one line with its quotes in order.
        """
        if self._is_closed or not self._dialect.is_plain:
            return None
        types = self._read_as
        while True:
            cells = self._regular.read_whole(data, count, types, is_plain=is_plain)
            unsure = set(types) if cells is None else self._unsure(cells, types, data)
            if not unsure:
                break
            types = {name: types[name] for name in types if name not in unsure}
        if cells is None:
            return None
        self._read_as = types  # later chunks are probably alike: do not try the others again
        return self._accept(cells, pl.int_range(count, dtype=pl.UInt32, eager=True), count)

    def _unsure(
        self, cells: pl.DataFrame, types: Mapping[str, pl.DataType], data: bytes
    ) -> set[str]:
        """Return the columns that must be read as text to be sure of what they hold.

        A null may be an empty cell or one that is not of the type; an integer may have zeros in front.
        """
        unsure = {name for name in types if cells[name].null_count()}
        short = self._short.intersection(types)
        if not unsure and short and not self._regular.are_shortest(cells, data):
            unsure = short
        return unsure

    def decode(
        self, records: Sequence[bytes], without: Collection[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the accepted records as a frame, and the indices of the deferred ones.

        Args:
            records: With their line ends, none of them blank.
            without: Indices of records to defer in any case.
        """
        if self._is_closed or not records:
            return self.empty(), list(range(len(records)))
        rewrites = self._pads or not self._dialect.is_plain
        if rewrites:
            records, without = self._rewrite(records, without)
        regular = self._regular.find(records, without)
        texts = self._regular.read(records, regular)
        if texts is None:
            return self.empty(), list(range(len(records)))
        return self._accept(texts, regular, len(records), has_nulls=rewrites)

    def _accept(
        self, cells: pl.DataFrame, index: pl.Series, count: int, *, has_nulls: bool = False
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the typed frame of the rows whose cells all fit, and the indices of all others.

        Args:
            cells: The texts of the records with the indices `index`.
            count: Number of all records.
            has_nulls: Cells that mean null are null already.
        """
        series, fits = [index.alias(INDEX)], self._other_than_header(cells)
        if self._trails:
            fits.append(cells.to_series(-1).is_null())
        cells, certain = (cells, None) if has_nulls else self._with_nulls(cells)
        fits += [] if certain is None else [certain]
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

    def _other_than_header(self, cells: pl.DataFrame) -> list[pl.Series]:
        """Say which rows certainly do not repeat the header; nothing if none can.

        Where all columns have types, no name is of its column's type.
        """
        texts = next((cell for cell in cells if cell.dtype == pl.String), None)
        if self._repeated is None or texts is None:
            return []
        at = cells.get_column_index(texts.name)
        differs = texts.ne_missing(self._repeated[at])
        if not at:
            differs &= ~texts.str.starts_with(BOM).fill_null(value=False)
        return [] if differs.all() else [differs]

    def _rewrite(
        self, records: Sequence[bytes], without: Collection[int]
    ) -> tuple[list[bytes], set[int]]:
        """Return the records in the plain dialect, and `without` plus those that cannot be read."""
        rewritten, skipped = [], set(without)
        for at, record in enumerate(records):
            try:
                cells = self._plain_cells(self._reader.read(without_end(record).decode()))
            except (UnicodeDecodeError, UnreadableRecordError):
                skipped.add(at)
                rewritten.append(b"\n")
            else:
                rewritten.append(write_plainly(cells, self._plain).encode() + b"\n")
        return rewritten, skipped

    def _plain_cells(self, cells: list[Cell]) -> list[Cell]:
        """Return the cells of a record as RFC 4180 has them: nulls are empty, empty texts are quoted."""
        if is_header_again(cells, self._repeated):
            return cells
        cells = fitted(cells, len(self._header), pads=self._pads, trails=self._trails)
        plain = [
            NULL
            if cell is ABSENT or (cell[0] in self._nulls and not cell[1])
            else (cell[0], cell[1] or not cell[0])
            for cell in cells
        ]
        return [*plain, NULL] if self._trails else plain

    def _with_nulls(self, cells: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """Turn the null string into null; say which rows are certain, since it may have been quoted."""
        nulls = sorted(self._nulls - {""})
        if not nulls:
            return cells, None
        if "" not in self._nulls:
            cells = cells.with_columns(pl.all().fill_null(""))
        are_null = pl.all().is_in(nulls).fill_null(value=False)
        if self._dialect.quotechar:
            return cells, cells.select(~pl.any_horizontal(are_null)).to_series()
        return cells.with_columns(pl.when(~are_null).then(pl.all())), None

    def _column(self, column: Column, cells: pl.DataFrame) -> tuple[pl.Series, pl.Series | None]:
        if column.name not in self._header:
            nulls = pl.Series([None] * len(cells), dtype=column.dtype)
            return nulls, nulls.is_not_null() if column.required else None
        given = cells.get_column(self._header[column.name])
        if missing := self._missing.get(column.name):
            given = given.set(given.str.strip_chars(" \t").is_in(list(missing)), None)
        if not self._numbers.is_plain and column.kind in ("integer", "number"):
            given = self._numbers.plain_all(given)
        values, fits = self._typed(given, column)
        if column.required and not column.nullable and given.null_count():
            there = given.is_not_null()
            fits = there if fits is None else fits & there
        return values, fits

    def _typed(self, cells: pl.Series, column: Column) -> tuple[pl.Series, pl.Series | None]:
        form = self._forms.get(column.name)
        if form is not None and column.kind == "boolean":
            return form.booleans(cells)
        values, fits = typed(cells, column, self._types[column.name])
        if form is None or column.kind not in WRITTEN or cells.dtype != pl.String:
            return values, fits
        taken = form.surely_takes(cells)
        return values, taken if fits is None else fits if taken is None else fits & taken

    def empty(self) -> pl.DataFrame:
        """Return a frame without records."""
        types = {column.name: column.dtype for column in self._columns}
        return pl.DataFrame(schema={INDEX: pl.UInt32, **types})

    def _positions(self, names: Sequence[str]) -> list[str]:
        return [self._header[name] for name in names]

    def _names(self, names: Sequence[str]) -> dict[str, str]:
        return dict(zip(self._positions(names), names, strict=True))


def _as_stored(column: Column, text: str, types: Types, numbers: NumberForm) -> Any:
    if column.kind == "json":
        return json_text(text, types)
    if column.kind not in ("integer", "number"):
        return value_of(text, types)
    text = numbers.plain(text.strip()) or text
    value = integer_of(text, column) if column.kind == "integer" else number_of(text, column)
    if isinstance(value, FieldError):
        raise UnreadableRecordError(value)
    return value


# -- cells ---------------------------------------------------------------------------------------

_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_number = re.compile(_NUMBER).fullmatch
_json_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch
_TRUE_FORMS, _FALSE_FORMS = (
    [form for word in words for form in {word, word.title(), word.upper()}]
    for words in (TRUE, FALSE)
)
_STRING = frozenset({"string", "null"})
_BOOLEANS = dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)


def value_of(text: str, types: Types, numbers: NumberForm = PLAIN_NUMBERS) -> Any:
    """Return a cell as a JSON value."""
    if types is not None and types <= _STRING:
        return text
    value = _read_json(text, types)
    if value is None:
        value = _read_number(text, types, numbers)
    if value is None:
        value = _read_boolean(text, types)
    return text if value is None else value


def _read_json(text: str, types: Types) -> Any:
    """Read an object or array, if the types allow what the text holds."""
    wanted = types is None or not types.isdisjoint(("object", "array"))
    if not wanted or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if types is None or type_name(value) in types else None


def _read_number(text: str, types: Types, numbers: NumberForm) -> int | float | None:
    if types is None or types.isdisjoint(("integer", "number")):
        return None
    exact = "string" in types
    text = text if exact else numbers.plain(text.strip()) or ""
    is_number = _json_number(text) if exact else _number(text)
    if not is_number:
        return None
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        return None
    if "number" not in types:
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return value


def _read_boolean(text: str, types: Types) -> bool | None:
    if types is None or "boolean" not in types:
        return None
    if types <= {"boolean", "null"}:
        return _BOOLEANS.get(text.strip().lower())
    return {"true": True, "false": False}.get(text)


def json_text(text: str, types: Types) -> str:
    """Return a cell as JSON text: unchanged if it is JSON already, else encoded as a string."""
    value = value_of(text, types)
    is_json = isinstance(value, dict | list) or (
        isinstance(value, int | float) and _json_number(text)
    )
    return text if is_json else json.dumps(value, ensure_ascii=False)


def readable(column: Column) -> bool:
    """Say whether Polars may read a column's cells directly as its type.

    Not for numbers that were only inferred: their text shows whether a digit would be lost.
    """
    return column.kind in ("integer", "boolean") or (
        column.kind == "number" and not column.inferred
    )


def typed(cells: pl.Series, column: Column, types: Types) -> tuple[pl.Series, pl.Series | None]:
    """Return a column of cells in its type, and which rows certainly fit (None: all of them).

    Every number that Polars reads, `value_of` reads with the same value, apart from those that
    `surely_fit` excludes.

    Args:
        cells: Strings, or already values of the column's type; null for empty cells.
    """
    if column.kind == "json":
        return _json_texts(cells, types), None
    if column.kind == "number" or (column.kind == "integer" and cells.dtype == pl.String):
        return _numbers(cells, column)
    if cells.dtype == column.dtype:
        return cells, None
    values = cells.is_in(_TRUE_FORMS)
    return values, (values | cells.is_in(_FALSE_FORMS)).fill_null(value=True)


def _numbers(cells: pl.Series, column: Column) -> tuple[pl.Series, pl.Series | None]:
    """Return the numbers of a column as `typed` does; without spaces around them only if need be."""
    read = _integers if column.kind == "integer" else partial(numbers_of, exact=column.inferred)
    values, fits = read(cells)
    if values.null_count() > cells.null_count():
        return read(cells.str.strip_chars(" \t"))
    return values, fits


def _integers(texts: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    values = texts.cast(pl.Int64, strict=False)
    are_all = values.null_count() == texts.null_count()
    return values, None if are_all else values.is_not_null() | texts.is_null()


def _json_texts(texts: pl.Series, types: Types) -> pl.Series:
    given = texts.to_list()
    only_nested = types is not None and types <= {"object", "array", "null"}
    decode = _NESTED.get((types or frozenset()) - {"null"}) if only_nested else None
    if decode is None:
        cells = [None if text is None else json_text(text, types) for text in given]
        return pl.Series(cells, dtype=pl.String)
    left = iter(given)
    while True:
        try:  # at the speed of C up to the next one that is null, or not of the type
            deque(map(decode, left), maxlen=0)
        except (TypeError, ValueError, RecursionError):
            at = len(given) - operator.length_hint(left) - 1
            text = given[at]
            given[at] = None if text is None else json_text(text, types)
        else:
            return pl.Series(given, dtype=pl.String)


_NESTED = {
    frozenset({"object"}): msgspec.json.Decoder(dict).decode,
    frozenset({"array"}): msgspec.json.Decoder(list).decode,
    frozenset({"object", "array"}): msgspec.json.Decoder(dict | list).decode,
}
