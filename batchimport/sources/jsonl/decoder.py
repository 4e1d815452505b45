"""JSON lines into typed columns, at the speed of a decoder that accepts only what certainly fits."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl

from batchimport.model import INDEX
from batchimport.schema.numbers import INT64, numbers_of, surely_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.schema import Column

_DETACHED_COLON = re.compile(rb'"[ \t\r]+:')
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""Characters that JSON escapes in a name."""
_Int64 = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64 - 1)]
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TYPES: dict[str, Any] = {"integer": _Int64, "number": float, "boolean": bool, "json": msgspec.Raw}


@lru_cache(maxsize=16)
def typed_lines(columns: tuple[Column, ...]) -> TypedLines:
    """Return the decoder of these columns; making one takes longer than a small chunk."""
    return TypedLines(columns)


class TypedLines:
    """Lines into a frame with the columns of a schema."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._fields = [f"f{at}" for at in range(len(columns))]
        self._decode: Any = None
        if any(map(_ESCAPED.search, (column.name for column in columns))):
            return  # msgspec takes no such names: every line is deferred
        record = msgspec.defstruct(
            "Record",
            [
                (field, *_field_type(column))
                for field, column in zip(self._fields, columns, strict=True)
            ],
            rename=dict(zip(self._fields, (column.name for column in columns), strict=True)),
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
        )
        self._decode = msgspec.json.Decoder(record).decode

    def parse(
        self, lines: list[bytes], data: bytes, too_long: frozenset[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the frame of the lines that certainly fit, and the indices of the others."""
        if self._decode is None:
            return self.empty(), list(range(len(lines)))
        records: list[Any] = []
        deferred: list[int] = sorted(too_long)
        decoded = map(self._decode, lines)
        while len(records) < len(lines):
            try:  # by the thousand, so that other threads get a turn
                records.extend(islice(decoded, 1000))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                deferred.append(len(records))
                records.append(None)
        unfit = set(deferred)
        try:
            frame, keys, unsure = self._frame(records, unfit)
        except pl.exceptions.PolarsError:  # not UTF-8: msgspec does not look into raw values
            unfit.update(at for at, line in enumerate(lines) if not _is_utf8(line))
            frame, keys, unsure = self._frame(records, unfit)
        twice = self._lines_with_repeated_keys(lines, data, unfit, keys)
        if twice or unsure:
            unfit.update(twice, unsure)
            frame, *_ = self._frame(records, unfit)
        return frame, sorted(unfit)

    def empty(self) -> pl.DataFrame:
        """Return a frame of no records."""
        return self._frame([], set())[0]

    def _frame(self, records: list[Any], without: set[int]) -> tuple[pl.DataFrame, int, list[int]]:
        """Return the columns of decoded records, how many keys their text has, and the unsure ones.

        The last are records that the typed decoder lets pass though they may not fit: null where an
        object or array must be, a number with more digits than its column keeps.
        """
        index: Sequence[int] = range(len(records))
        unsure: list[int] = []
        if without:
            index = [at for at in index if at not in without]
            records = [records[at] for at in index]
        series = [pl.Series(INDEX, index, dtype=pl.UInt32)]
        keys = 0
        for field, column in zip(self._fields, self._columns, strict=True):
            values = list(map(attrgetter(field), records))
            missing = 0
            if not column.required:
                missing = values.count(msgspec.UNSET)
                keys -= missing
                if missing:
                    values = [None if value is msgspec.UNSET else value for value in values]
            keys += len(values)
            if column.kind == "json" or is_read_as_text(column):
                text = b"\n".join([b"null" if value is None else value for value in values])
                if column.kind == "json":
                    keys += _count(text, '":')
                texts = cells = _json_texts(text, len(values))
                if column.kind == "number":
                    cells, fits = numbers_of(texts, exact=True)
                    unsure += _at(index, fits)
                series.append(cells.alias(column.name))
                if not column.nullable and texts.null_count() > missing:
                    found = texts.is_null().arg_true().to_list()
                    unsure += [index[at] for at in found if values[at] is not None]
            else:
                cells = pl.Series(values, dtype=column.dtype)
                if column.kind == "number":
                    unsure += _at(index, surely_fit(cells))
                series.append(cells.alias(column.name))
        return pl.DataFrame(series), keys, unsure

    def _lines_with_repeated_keys(
        self, lines: list[bytes], data: bytes, unfit: set[int], keys: int
    ) -> list[int]:
        """Find lines that have a key twice, which msgspec hides: the last one would win.

        Every key adds one `":` to the text. Counted for the whole chunk first: that comes out even
        unless strings contain `":` or spaces part a key from its colon.
        """
        found = _count(data, '":') - sum(lines[at].count(b'":') for at in unfit)
        if found == keys and not _has_detached_colon(data):
            return []
        return [at for at, line in enumerate(lines) if at not in unfit and repeated_keys(line)]


def _field_type(column: Column) -> tuple[Any, ...]:
    kind = msgspec.Raw if is_read_as_text(column) else _TYPES.get(column.kind, str)
    if column.nullable and kind is not msgspec.Raw:
        kind = kind | None
    return (kind,) if column.required else (kind | msgspec.UnsetType, msgspec.UNSET)


def is_read_as_text(column: Column) -> bool:
    """Say whether a column's numbers are looked at as they are written."""
    return column.kind == "number" and column.inferred


def _at(index: Sequence[int], fits: pl.Series | None) -> list[int]:
    """Return what does not fit."""
    return [] if fits is None or fits.all() else [index[at] for at in (~fits).arg_true().to_list()]


def _json_texts(text: bytes, count: int) -> pl.Series:
    """Return raw JSON values, one a line, as text; `null` becomes null.

    Split by Polars, which lets other threads run meanwhile and refuses what is not UTF-8. The series
    has no name: methods of a series take a name such as `^x$` for a pattern of names.
    """
    if not count:
        return pl.Series([], dtype=pl.String)
    whole = pl.Series([text], dtype=pl.Binary).cast(pl.String)
    series = whole.str.split("\n").explode()
    return series.set(series == "null", None)


def _has_detached_colon(data: bytes) -> bool:
    """Say whether spaces part some key from its colon; plain search is faster than the pattern."""
    suspicious = b"\t" in data or b"\r" in data or _contains(data, b" :")
    return suspicious and _DETACHED_COLON.search(data) is not None


def _count(data: bytes, needle: str) -> int:
    """Count by Polars, if that is text: no faster, but other threads run meanwhile."""
    try:
        whole = pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:  # not UTF-8
        return data.count(needle.encode())
    return int(whole.str.count_matches(needle, literal=True).item())


def _contains(data: bytes, needle: bytes) -> bool:
    """Search by Polars: faster than Python's own search, and other threads run meanwhile."""
    return bool(pl.Series([data], dtype=pl.Binary).bin.contains(needle).any())


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_distinct_keys(line: bytes) -> bool:
    """Say whether counting alone shows that no key is there twice."""
    try:
        raw = _decode_raw(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    keys = line.count(b'":') - sum(bytes(value).count(b'":') for value in raw.values())
    return keys == len(raw) and not _DETACHED_COLON.search(line)


def repeated_keys(line: bytes) -> list[str]:
    """Return the keys that the line's own object has more than once."""
    if _has_distinct_keys(line):
        return []
    outermost: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [key for key, _ in pairs]  # the outermost object comes last

    try:
        json.loads(line, object_pairs_hook=remember)
    except (ValueError, RecursionError):
        return []
    return sorted({key for key in outermost if outermost.count(key) > 1})
