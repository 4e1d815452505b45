"""Cells read by the type of the column they go to, alike in every database.

A value that cannot be read so refuses its row. What a database reads by itself, and as strictly, is
left to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from batchimport.model import FieldError
from batchimport.schema.booleans import read_words
from batchimport.schema.moments import epoch
from batchimport.schema.numbers import EXACT_IN_FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.schema import Column, Kind
    from batchimport.sinks.sql.target import Family, Refused, TableColumn

_INTEGER = r"^[+-]?[0-9]+(?:\.0*)?$"
_POWER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NUMBERS = r"^\s*[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}"
_HINT = "; say how it is written: --date-format"
_DAY = r"^([0-9]{4})(0[1-9]|1[0-2])([0-2][0-9]|3[01])$"
_MOMENT = r"^([0-9-]+)[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)? ?"
_OFFSET = r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$"


def read(
    frame: pl.DataFrame, columns: Sequence[tuple[Column, TableColumn]]
) -> tuple[pl.DataFrame, tuple[tuple[Column, TableColumn], ...], Refused]:
    """Read the cells of a chunk.

    Returns:
        The frame and its columns with the kinds that they now have; and the rows with a cell that
        cannot be read, by their place.
    """
    refused: Refused = {}
    pairs: list[tuple[Column, TableColumn]] = []
    for column, own in columns:
        reader = _READERS.get((column.kind, own.family)) if column.name in frame.columns else None
        if reader is None:
            pairs.append((column, own))
            continue
        kind, read_cells = reader
        cells = frame.get_column(column.name)
        values = pl.select(read_cells(pl.lit(cells))).to_series().alias(column.name)
        for place in (values.is_null() & cells.is_not_null()).arg_true():
            shown = str(cells[place])[:200]
            hint = _HINT if own.family in ("date", "timestamp", "instant") else ""
            written = shown if column.kind == "json" else repr(shown)  # JSON has its own quotes
            message = f"{written} cannot be read as {own.type_name}{hint}"
            refused.setdefault(place, []).append(FieldError("type", own.name, message, shown))
        frame = frame.with_columns(values)
        pairs.append((replace(column, kind=kind), own))
    return frame, tuple(pairs), refused


def _integer(text: pl.Expr) -> pl.Expr:
    text = text.str.strip_chars()
    digits = text.str.replace(r"\.0*$", "").str.strip_prefix("+")
    plain = pl.when(text.str.contains(_INTEGER)).then(digits).cast(pl.Int64, strict=False)
    power = pl.when(text.str.contains(_POWER)).then(text).cast(pl.Float64, strict=False)
    is_exact = power.abs() < EXACT_IN_FLOAT
    return pl.coalesce(plain, _whole(pl.when(is_exact).then(power)))


def _scalar(raw: pl.Expr) -> pl.Expr:
    """Return JSON values as text: strings without quotes, numbers and booleans; null for the others."""
    is_string = raw.str.starts_with('"')
    string = pl.when(is_string).then(raw).str.json_decode(pl.String)
    return pl.when(is_string).then(string).when(~raw.str.contains(r"^[\[{]")).then(raw)


def _whole(number: pl.Expr) -> pl.Expr:
    # 2**63 is exact as a double; the largest 64-bit integer, one below it, is not.
    fits = (number == number.floor()) & (number >= -(2.0**63)) & (number < 2.0**63)
    return pl.when(fits).then(number).cast(pl.Int64, strict=False)


def _number(text: pl.Expr) -> pl.Expr:
    text = text.str.strip_chars()
    return pl.when(text.str.contains(_NUMBER)).then(text)


def _bit(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_in([0, 1])).then(number == 1)


def _day(text: pl.Expr) -> pl.Expr:
    return _with_clear_order(text.cast(pl.String).str.replace(_DAY, "$1-$2-$3"))


def _with_clear_order(text: pl.Expr) -> pl.Expr:
    """Refuse dates that a database would read by its own order of day and month."""
    return pl.when(~text.str.contains(_NUMBERS)).then(text)


def _in_utc(text: pl.Expr) -> pl.Expr:
    """Convert times with an offset to UTC; a column without a zone would drop it."""
    zoned = text.str.contains(_MOMENT + _OFFSET)
    short = text.str.replace(r" ?[Zz]$", "+00:00").str.replace(r"([+-][0-9]{2})$", "$1:00")
    full = short.str.replace(r"([+-][0-9]{2})([0-9]{2})$", "$1:$2")
    full = full.str.replace(r"^([0-9-]+)[Tt ]([0-9]{2}:[0-9]{2}) ?([+-])", "$1 $2:00$3")
    full = full.str.replace("[Tt]", " ").str.replace(r" ?([+-][0-9]{2}:[0-9]{2})$", "$1")
    moment = full.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", strict=False)
    finer = full.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="ns", strict=False)
    form = "%Y-%m-%dT%H:%M:%S%.f"
    is_fine = text.str.contains(r"\.[0-9]{7}")
    utc = pl.when(is_fine).then(finer.dt.strftime(form)).otherwise(moment.dt.strftime(form))
    return pl.when(zoned).then(utc).otherwise(_with_clear_order(text))


def _instant(number: pl.Expr) -> pl.Expr:
    return epoch(number.cast(pl.String))


def _of_epoch(number: pl.Expr) -> pl.Expr:
    return _instant(number).str.strip_suffix("Z")


_READERS: dict[tuple[Kind, Family], tuple[Kind, Callable[[pl.Expr], pl.Expr]]] = {
    ("string", "integer"): ("integer", _integer),
    ("number", "integer"): ("integer", _whole),
    ("string", "number"): ("string", _number),
    ("string", "boolean"): ("boolean", read_words),
    ("integer", "boolean"): ("boolean", _bit),
    ("string", "date"): ("string", _day),
    ("integer", "date"): ("string", _day),
    ("string", "timestamp"): ("string", _in_utc),
    ("integer", "timestamp"): ("string", _of_epoch),
    ("string", "instant"): ("string", _with_clear_order),
    ("integer", "instant"): ("string", _instant),
    ("date-time", "timestamp"): ("string", _in_utc),
}
"""By the kind of a frame's column and what the table's column holds: the kind it then has, and how.
What is not here fits, or is the database's to read."""


def _of_json(family: Family) -> tuple[Kind, Callable[[pl.Expr], pl.Expr]]:
    kind, read_text = _READERS["string", family]
    return kind, lambda raw: read_text(_scalar(raw))


READ_FROM_JSON: frozenset[Family] = frozenset({"integer", "number", "boolean"})
"""What a column holds that takes JSON values of several types: each that can be read so."""
_READERS |= {("json", family): _of_json(family) for family in READ_FROM_JSON}
