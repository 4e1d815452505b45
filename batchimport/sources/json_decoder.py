"""The fast way for JSON objects: whole chunks straight into typed columns.

The typed decoder accepts only what certainly fits the columns; it defers every other record to
`json_records` and the validator, which has the last word.
"""

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
decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TYPES: dict[str, Any] = {"integer": _Int64, "number": float, "boolean": bool, "json": msgspec.Raw}


@lru_cache(maxsize=16)
def decoder_of(columns: tuple[Column, ...]) -> TypedDecoder:
    """Return the decoder for these columns; cached, since making one takes longer than a small chunk."""
    return TypedDecoder(columns)


class TypedDecoder:
    """Decodes lines into a frame with the columns of a schema."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._fields = [f"f{at}" for at in range(len(columns))]
        self._decode: Any = None
        if any(map(_ESCAPED.search, (column.name for column in columns))):
            return  # msgspec cannot handle such names: every line is deferred
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

    def decode(
        self, lines: list[bytes], data: bytes, without: frozenset[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the accepted lines as a frame, and the indices of the deferred ones, ascending.

        Args:
            data: The bytes that the lines were taken from.
            without: Indices of lines to defer in any case.
        """
        if self._decode is None:
            return self.empty(), list(range(len(lines)))
        records: list[Any] = []
        malformed: list[int] = []
        decoded = map(self._decode, lines)
        while len(records) < len(lines):
            try:  # a thousand at a time, so that other threads get a turn
                records.extend(islice(decoded, 1000))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                malformed.append(len(records))
                records.append(None)
        deferred = {*without, *malformed}
        try:
            accepted, keys, uncertain = self._frame(records, deferred)
        except pl.exceptions.PolarsError:  # not UTF-8: msgspec does not look into raw values
            deferred.update(at for at, line in enumerate(lines) if not _is_utf8(line))
            accepted, keys, uncertain = self._frame(records, deferred)
        twice = self._lines_with_repeated_keys(lines, data, deferred, keys)
        if twice or uncertain:
            deferred.update(twice, uncertain)
            accepted, *_ = self._frame(records, deferred)
        return accepted, sorted(deferred)

    def empty(self) -> pl.DataFrame:
        """Return a frame without records."""
        return self._frame([], set())[0]

    def _frame(self, records: list[Any], without: set[int]) -> tuple[pl.DataFrame, int, list[int]]:
        """Return the columns of decoded records, the number of keys in their text, and uncertain ones.

        Uncertain are records that the typed decoder lets pass though they may not fit: null instead of
        an object or array, or a number with more digits than its column keeps.
        """
        index: Sequence[int] = range(len(records))
        uncertain: list[int] = []
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
                    uncertain += _at(index, fits)
                series.append(cells.alias(column.name))
                if not column.nullable and texts.null_count() > missing:
                    nulls = texts.is_null().arg_true().to_list()
                    uncertain += [index[at] for at in nulls if values[at] is not None]
            else:
                cells = pl.Series(values, dtype=column.dtype)
                if column.kind == "number":
                    uncertain += _at(index, surely_fit(cells))
                series.append(cells.alias(column.name))
        return pl.DataFrame(series), keys, uncertain

    def _lines_with_repeated_keys(
        self, lines: list[bytes], data: bytes, deferred: set[int], keys: int
    ) -> list[int]:
        """Find lines that have a key twice; msgspec would silently keep the last value.

        Every key adds one `":` to the text. The whole chunk is counted first: the numbers agree unless
        strings contain `":` or spaces separate a key from its colon.
        """
        total = _count(data, '":') - sum(lines[at].count(b'":') for at in deferred)
        if total == keys and not _has_detached_colon(data):
            return []
        return [at for at, line in enumerate(lines) if at not in deferred and repeated_keys(line)]


def _field_type(column: Column) -> tuple[Any, ...]:
    kind = msgspec.Raw if is_read_as_text(column) else _TYPES.get(column.kind, str)
    if column.nullable and kind is not msgspec.Raw:
        kind = kind | None
    return (kind,) if column.required else (kind | msgspec.UnsetType, msgspec.UNSET)


def is_read_as_text(column: Column) -> bool:
    """Say whether a column's numbers are judged by their text."""
    return column.kind == "number" and column.inferred


def _at(index: Sequence[int], fits: pl.Series | None) -> list[int]:
    """Return the indices of the values that do not fit."""
    return [] if fits is None or fits.all() else [index[at] for at in (~fits).arg_true().to_list()]


def _json_texts(text: bytes, count: int) -> pl.Series:
    """Return raw JSON values, one a line, as text; `null` becomes null.

    Split by Polars, which releases the GIL and refuses what is not UTF-8. The series has no name:
    methods of a series take a name such as `^x$` for a pattern of names.
    """
    if not count:
        return pl.Series([], dtype=pl.String)
    whole = pl.Series([text], dtype=pl.Binary).cast(pl.String)
    series = whole.str.split("\n").explode()
    return series.set(series == "null", None)


def _has_detached_colon(data: bytes) -> bool:
    """Say whether spaces separate some key from its colon; plain search is faster than the pattern."""
    suspicious = b"\t" in data or b"\r" in data or _contains(data, b" :")
    return suspicious and _DETACHED_COLON.search(data) is not None


def _count(data: bytes, needle: str) -> int:
    """Count with Polars if possible: no faster, but without the GIL."""
    try:
        whole = pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:  # not UTF-8
        return data.count(needle.encode())
    return int(whole.str.count_matches(needle, literal=True).item())


def _contains(data: bytes, needle: bytes) -> bool:
    """Search with Polars: faster than Python's own search, and without the GIL."""
    return bool(pl.Series([data], dtype=pl.Binary).bin.contains(needle).any())


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_distinct_keys(line: bytes) -> bool:
    """Say whether counting alone proves that no key is repeated."""
    try:
        raw = decode_raw(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    keys = line.count(b'":') - sum(bytes(value).count(b'":') for value in raw.values())
    return keys == len(raw) and not _DETACHED_COLON.search(line)


def repeated_keys(line: bytes, names: int = -1) -> list[str]:
    """Return the keys that the outermost object of a line has more than once.

    Args:
        names: Number of different keys; -1 if it is not known.
    """
    is_flat = line.count(b'":') == names and not _DETACHED_COLON.search(line)
    if is_flat or _has_distinct_keys(line):
        return []
    outermost: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [key for key, _ in pairs]  # the outermost object comes last

    try:
        json.loads(line, object_pairs_hook=remember)
    except (ValueError, RecursionError):
        return []
    return sorted({key for key in outermost if outermost.count(key) > 1})
