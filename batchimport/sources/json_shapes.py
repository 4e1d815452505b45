"""Lines of JSON into typed columns by their shape, most of it without the GIL.

A *shape* is the order of keys that lines have. Shapes are learned from lines that no known shape takes.
Each has one regular expression (`schema/patterns.py`) that proves a line valid and captures the raw
text of every value; Polars runs it while other threads hold the GIL. A line that no shape takes may be
valid all the same: it is left to the decoder of single lines, and to the validator after that.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.model import INDEX
from batchimport.schema.numbers import numbers_of
from batchimport.schema.vectorise import accepted
from batchimport.sources.json_decoder import decoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.schema import Column, RecordSchema
    from batchimport.schema.patterns import Keys, LinePattern
    from batchimport.sources.json_records import JsonRecords

MOST_SHAPES = 16
MOST_PIECES = 24
"""Of all shapes: Polars keeps the last 32 expressions that a thread compiled, 1 MB each at most."""
_FAST_SHAPES = 4
"""Those that are learned first are in more and faster pieces."""
LEAST_LINES = 2000
"""Fewer lines, in all, cost less to decode one by one than patterns cost to be made."""
LEAST_AT_ONCE = 500
"""Fewer lines of one chunk cost less to decode one by one than a call for each value of a pattern."""
LEAST_TAKEN = 2
"""A pattern must match one in this many of the lines that have its order of keys."""
_PIECE = 20_000
"""Lines that are decoded at a time: what is freed after some is taken again for the next ones, which
keeps a large chunk in the memory of a small one, but for its values."""
_SAMPLE = 500
"""Lines of a piece that are looked at for new shapes."""
_RARE = 100
"""A shape is learned if one line in this many has it. Lines are looked at for shapes if as many are left."""
_MOST_TRIED = 100
_TRIAL = 50_000
"""Lines after which it is decided whether shapes pay."""
_LEAST_SHARE = 4
"""They pay if they take one line in this many: a line that no shape takes costs a tenth more."""
_PAUSE = 8

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_strings = msgspec.json.Decoder(list[str]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""Looks at escapes, too."""


@lru_cache(maxsize=16)
def shapes_of(schema: RecordSchema) -> Shapes:
    """Return what is known of the shapes of a schema's lines; shared by files and threads."""
    return Shapes(schema)


def decode(
    schema: RecordSchema, records: JsonRecords
) -> tuple[pl.DataFrame | None, pl.DataFrame, list[int]]:
    """Return the rows that are proven valid, the other accepted ones, and the deferred indices.

    Each record is in one of the three; None if no row is proven valid.
    """
    shapes, decoder = shapes_of(schema), decoder_of(schema.columns)
    texts = records.texts if shapes.suit(len(records)) else None
    if texts is None:
        return None, *decoder.decode(records.lines, records.data, records.excluded)
    excluded = sorted(records.excluded)
    if excluded:
        texts = texts.clone().scatter(excluded, None)
    rows, left = shapes.decode(texts)
    places = (left & texts.is_not_null()).arg_true().cast(pl.UInt32)
    deferred = {*excluded, *places}
    if len(places) and shapes.try_rest():
        lines = texts.gather(places).cast(pl.Binary).to_list()
        frame, _ = decoder.decode(lines, b"\n".join(lines), frozenset())
        if schema.vectorised:
            frame = frame.filter(schema.accepts_rows(frame))
        shapes.tried_rest(len(lines), frame.height)
        if frame.height:
            found = places.gather(frame.get_column(INDEX)).alias(INDEX)
            rows = pl.concat([rows, frame.with_columns(found)]).sort(INDEX)
            deferred.difference_update(found)
    if schema.vectorised:
        return rows, rows.clear(), sorted(deferred)
    return None, rows, sorted(deferred)


def split(data: bytes) -> pl.Series | None:
    """Return the lines of a text, without the LFs; None if it is not UTF-8."""
    try:
        # It would take other texts for compressed ones, and remove CRs.
        if data.startswith(b"{") and b"\r" not in data:
            return pl.read_lines(data).to_series()
        whole = pl.Series([data.removesuffix(b"\n")], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        return None
    return whole.str.split("\n").explode()


class Shapes:
    """The shapes that lines of one schema have had so far."""

    def __init__(self, schema: RecordSchema) -> None:
        self._patterns = schema.patterns
        self._columns = schema.columns
        self._lock = threading.Lock()
        self._known: tuple[LinePattern, ...] = ()
        self._tried: set[Keys] = set()
        self._asked = self._seen = self._taken = 0
        self._enough = 1 / _RARE
        self._pause = 0

    def suit(self, lines: int) -> bool:
        """Return whether a chunk with this many lines should be decoded by shapes.

        Chunks are small where records are wide: then the first ones are decoded without. Where keys
        come in any order, or values nest deeply, most lines have no shape that is known: then shapes
        are given up.
        """
        self._asked += lines  # by several threads: roughly is enough
        pays = self._seen < _TRIAL or self._taken * _LEAST_SHARE >= self._seen
        return pays and self._asked >= LEAST_LINES and lines >= min(LEAST_AT_ONCE, LEAST_LINES)

    def try_rest(self) -> bool:
        """Say whether the typed decoder should try the lines of a chunk that no shape takes.

        That is in vain where most of them are bad: then it tries one chunk in `_PAUSE`, to see whether
        that has changed.
        """
        self._pause = max(0, self._pause - 1)
        return not self._pause

    def tried_rest(self, lines: int, accepted: int) -> None:
        """Learn how many lines the typed decoder has accepted."""
        if accepted * _LEAST_SHARE < lines:
            self._pause = _PAUSE

    @property
    def known(self) -> tuple[LinePattern, ...]:
        """The patterns in use, those with most keys first."""
        return self._known

    def decode(self, lines: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        """Return the rows of lines that a shape takes, and which lines are left.

        Args:
            lines: Null where a line is not to be looked at.
        """
        rows, left = zip(
            *(self._decode(lines, at) for at in range(0, max(1, len(lines)), _PIECE)), strict=True
        )
        return pl.concat(rows), pl.concat(left)

    def _decode(self, lines: pl.Series, offset: int) -> tuple[pl.DataFrame, pl.Series]:
        """Decode the lines from an offset on, one piece of them."""
        lines = lines.slice(offset, _PIECE)
        piece = _Piece(lines, offset, self._columns)
        known = self._known
        piece.take(known)
        left = int(piece.left.sum())
        if left > self._enough * len(lines):
            learned = self._learn(lines.filter(piece.left), known)
            if new := [pattern for pattern in learned if pattern not in known]:
                piece.take(new)
                left = int(piece.left.sum())
            else:  # bad records, mostly: look again when there are more of them
                self._enough = 2 * left / len(lines)
        with self._lock:
            self._seen += len(lines)
            self._taken += len(lines) - left
        return piece.rows(), piece.left

    def _learn(self, lines: pl.Series, known: tuple[LinePattern, ...]) -> tuple[LinePattern, ...]:
        """Learn the shapes that are most frequent in some lines; return all that are known.

        Args:
            known: Those that the lines do not have. If others are known by now, they come first.
        """
        with self._lock:
            if self._known != known:
                return self._known
            sample = lines.gather_every(len(lines) // _SAMPLE + 1).drop_nulls().to_list()
            examples = sorted(self._by_keys(sample).items(), key=lambda item: -len(item[1]))
            for keys, found in examples:
                is_full = max(len(self._known) - MOST_SHAPES, len(self._tried) - _MOST_TRIED) >= 0
                if is_full or len(found) * _RARE < len(sample):
                    break
                if keys not in self._tried:
                    self._tried.add(keys)
                    compact = len(self._known) >= _FAST_SHAPES
                    self._try(self._patterns.pattern(keys, compact=compact), found)
            return self._known

    def _by_keys(self, lines: Sequence[str]) -> dict[Keys, list[str]]:
        examples: dict[Keys, list[str]] = defaultdict(list)
        for line in lines:
            try:
                examples[self._patterns.keys_of(_members, line.encode())].append(line)
            except (ValueError, RecursionError):
                continue
        return examples

    def _try(self, pattern: LinePattern | None, lines: list[str]) -> None:
        """Add a pattern, if it takes enough of the lines whose order of keys it has."""
        if pattern is None or pattern.pieces in (each.pieces for each in self._known):
            return
        if sum(len(each.pieces) for each in [*self._known, pattern]) > MOST_PIECES:
            return
        _, matched = _capture(pattern, pl.Series(lines))
        if matched.sum() * LEAST_TAKEN >= len(lines):
            known = sorted([*self._known, pattern], key=lambda each: -len(each.columns))
            self._known = tuple(known)


class _Piece:
    """Lines on their way through the shapes.

    Args:
        offset: Index of the first line in its chunk.

    Attributes:
        left: Lines that no shape has taken yet.
    """

    def __init__(self, lines: pl.Series, offset: int, columns: tuple[Column, ...]) -> None:
        self._lines, self._offset, self._columns = lines, offset, columns
        end = offset + len(lines)
        self._index = pl.int_range(offset, end, dtype=pl.UInt32, eager=True).alias(INDEX)
        self._with_key: dict[str, pl.Series] = {}
        self._frames: list[pl.DataFrame] = []
        self.left = _all_true(len(lines))

    def take(self, patterns: Sequence[LinePattern]) -> None:
        """Try some patterns on the lines that are left.

        A search for the keys that not all of them have is cheaper than a match that fails late.
        """
        shared = (
            set[str].intersection(*(set(each.optional) for each in patterns)) if patterns else ()
        )
        for pattern in patterns:
            chosen = self.left
            for key in pattern.optional:
                if key not in shared:
                    chosen = chosen & self._having(key)
            if chosen.any():
                self._match(pattern, chosen)

    def _having(self, key: str) -> pl.Series:
        if key not in self._with_key:
            found = self._lines.str.contains(key, literal=True)
            self._with_key[key] = found.fill_null(value=False)
        return self._with_key[key]

    def _match(self, pattern: LinePattern, chosen: pl.Series) -> None:
        lines = self._lines.filter(chosen)
        index = self._index.filter(chosen)
        groups, matched = _capture(pattern, lines)
        if not matched.all():
            lines, index = lines.filter(matched), index.filter(matched)
            groups = [group.filter(matched) for group in groups]
        if index.is_empty():
            return
        frame, fits = _decode(pattern, lines, groups, self._columns)
        frame.insert_column(0, index)
        fits &= accepted(pattern.rules, frame)
        if not fits.all():
            frame = frame.filter(fits)
        self._frames.append(frame)
        self.left = self.left.scatter(frame.get_column(INDEX) - self._offset, values=False)

    def rows(self) -> pl.DataFrame:
        """Return the rows of all lines that were taken, in order."""
        if len(self._frames) == 1:
            return self._frames[0]
        empty = pl.DataFrame(
            schema={INDEX: pl.UInt32(), **{c.name: c.dtype for c in self._columns}}
        )
        return pl.concat([empty, *self._frames]).sort(INDEX)


def _capture(pattern: LinePattern, lines: pl.Series) -> tuple[list[pl.Series], pl.Series]:
    """Return the raw values of each column, and which lines match."""
    groups: list[pl.Series] = []
    matched = lines.is_not_null()
    for regex, cut in zip(pattern.pieces, [*pattern.cuts, ""], strict=True):
        piece = lines
        if cut:
            piece, lines = lines.str.splitn(cut, 2).struct.unnest().get_columns()
        shown, *values = piece.str.extract_groups(regex).struct.unnest().get_columns()
        matched &= shown.is_not_null()
        groups += values
    return groups, matched


def _decode(
    pattern: LinePattern, lines: pl.Series, groups: list[pl.Series], columns: tuple[Column, ...]
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the columns of lines that matched, and which rows certainly are what is written."""
    fits = _all_true(len(lines))
    escaped = lines.str.contains("\\", literal=True).arg_true()
    series: dict[str, pl.Series] = {}
    for column, raw in zip(pattern.columns, groups, strict=True):
        if column.kind == "integer":
            values = raw.cast(pl.Int64)
        elif column.kind == "boolean":
            values = raw == "true"
        elif column.kind == "number":
            values, are_exact = numbers_of(raw, exact=column.inferred)
            fits = fits if are_exact is None else fits & are_exact
            if not column.inferred:
                # One by one, `-0` is decoded as an integer, which has no sign; here it is -0.0.
                fits &= (raw != "-0").fill_null(value=True)
        else:
            values, broken = _unescape(raw, escaped, is_json=column.kind == "json")
            fits = fits.scatter(broken, values=False) if broken else fits
        series[column.name] = values.alias(column.name)
    missing = pl.Series([None])
    for column in columns:
        if column.name not in series:
            nulls = missing.cast(column.dtype).new_from_index(0, len(lines))
            series[column.name] = nulls.alias(column.name)
    return pl.DataFrame([series[column.name] for column in columns]), fits


def _all_true(rows: int) -> pl.Series:
    return pl.Series([True]).new_from_index(0, rows)


def _unescape(raw: pl.Series, lines: pl.Series, *, is_json: bool) -> tuple[pl.Series, list[int]]:
    """Return strings with their escapes decoded, and where one is malformed.

    Args:
        lines: Where to look.
        is_json: The values stay as they are written.
    """
    if lines.is_empty():
        return raw, []
    found = raw.gather(lines).str.contains("\\", literal=True).fill_null(value=False)
    places = lines.filter(found)
    if places.is_empty():
        return raw, []
    given = raw.gather(places).to_list()
    quote = "" if is_json else '"'
    decode: Callable[[str], list[Any]] = _values if is_json else _strings
    broken: list[int] = []
    try:
        values = decode(f"[{quote}{f'{quote},{quote}'.join(given)}{quote}]")
    except ValueError:
        values = [_one(decode, f"{quote}{text}{quote}") for text in given]
        broken = [
            place for place, value in zip(places.to_list(), values, strict=True) if value is None
        ]
    if is_json:
        return raw, broken
    return raw.clone().scatter(places, pl.Series(values, dtype=pl.String)), broken


def _one(decode: Callable[[str], list[Any]], text: str) -> Any:
    """Decode one value; None if it is malformed."""
    try:
        return decode(f"[{text}]")[0]
    except ValueError:
        return None
