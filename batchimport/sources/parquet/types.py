"""Parquet types as JSON: the schema of a column, and its values as JSON.

Polars has the type, and the file's footer says what it means: bytes may be a UUID, for instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import polars as pl

from batchimport.model import FieldError
from batchimport.schema.columns import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.sources.parquet.footer import Meaning, Node

EXACT_DIGITS = 15
"""Decimals of at most this many digits survive the way to a double and back."""

MARK = "\0"
"""Before the bytes of a text that may not be UTF-8; no other text that is made here begins with it."""

SCALAR_BYTES = 8
"""Weight of a number, and of the name of a string."""

_UNITS = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
"""Parts of a day."""
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""Days from 1970-01-01 to 0001-01-01 and to 9999-12-31: ISO 8601 has the years of four digits."""
_JULIAN_DAY = 2_440_588
"""1970-01-01, in the days that an INT96 counts."""
_NANOSECOND_DAYS = (-106_751, 106_750)
"""Whole days that 64 bits of nanoseconds reach, from 1677 to 2262."""
_FOREVER = {pl.Int32: (1 << 31) - 1, pl.Int64: (1 << 63) - 1}
"""How DuckDB and others write an infinite date or timestamp; its negative, likewise."""


def rule_of(dtype: pl.DataType | None, node: Node) -> dict[str, Any]:
    """Return the JSON Schema of a column; every column may be null.

    Args:
        dtype: None for values that Polars does not read.
    """
    if is_json(dtype, node.meaning):
        return {}
    if dtype is None or _is_time(dtype, node):
        rule: dict[str, Any] = {"type": ["string", "null"]}
    else:
        rule = {"type": [_type_name(dtype), "null"]}
    if dtype == pl.Date:
        rule["format"] = "date"
    if isinstance(dtype, pl.Datetime) and (dtype.time_zone or node.meaning == "utc"):
        rule["format"] = "date-time"
    if dtype == pl.Binary and node.meaning == "uuid":
        rule["format"] = "uuid"
    return rule


def _type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Decimal):
        return "number" if _is_exact(dtype) else "string"
    if isinstance(dtype, pl.List | pl.Array):
        return "array"
    names = {
        "integer": dtype.is_integer(),
        "number": dtype.is_float(),
        "boolean": dtype == pl.Boolean,
        "object": isinstance(dtype, pl.Struct | pl.Map),
    }
    return next((name for name, holds in names.items() if holds), "string")


def _is_exact(dtype: pl.Decimal) -> bool:
    return dtype.precision <= EXACT_DIGITS


def is_json(dtype: pl.DataType | None, meaning: Meaning) -> bool:
    """Say whether each value of a column is a text of JSON."""
    return meaning == "json" and dtype is not None and not dtype.is_nested()


def json_texts(values: pl.Series, node: Node | None) -> pl.Series | None:
    """Return the texts of a column of JSON; None for any other column."""
    if node is None or not is_json(values.dtype, node.meaning):
        return None
    return (
        values.to_frame("")
        .select(_simplified(pl.col(""), values.dtype)[0].cast(pl.String))
        .to_series()
    )


def as_json(
    value: pl.Expr,
    dtype: pl.DataType,
    node: Node | None = None,
    kind: str = "json",
    *,
    is_sayable: bool = False,
) -> pl.Expr:
    """Return values as Polars writes them in JSON without loss; null what JSON has no word for.

    Args:
        node: What the footer says of them; None if it is unknown.
        kind: What the schema wants; a long decimal is a number only where one is wanted.
        is_sayable: `beyond` has found nothing.
    """
    value, dtype = _simplified(value, dtype)
    if isinstance(dtype, pl.Decimal):
        is_number = _is_exact(dtype) or kind in ("integer", "number")
        return value.cast(pl.Float64 if is_number else pl.String)
    if dtype.is_nested():
        return _nested_as_json(value, dtype, node, is_sayable=is_sayable)
    if _is_time(dtype, node):
        return _time_as_text(value, dtype, node, is_sayable=is_sayable)
    if dtype == pl.Binary:
        return _bytes_as_text(value, node)
    if dtype.is_float():
        return value.cast(pl.Float64)
    plain = dtype.is_integer() or dtype in (pl.Boolean, pl.String, pl.Null)
    return value if plain else value.cast(pl.String)


def _simplified(value: pl.Expr, dtype: pl.DataType) -> tuple[pl.Expr, pl.DataType]:
    """Return arrays as lists, and values of a type that was added to Polars as what they are stored as."""
    if isinstance(dtype, pl.BaseExtension):
        return _simplified(value.ext.storage(), instance_of(dtype.ext_storage()))
    if isinstance(dtype, pl.Array):
        return value.arr.to_list(), pl.List(dtype.inner)
    return value, dtype


def _nested_as_json(
    value: pl.Expr, dtype: pl.DataType, node: Node | None, *, is_sayable: bool
) -> pl.Expr:
    if isinstance(dtype, pl.List):
        inner = node.element() if node else None
        return value.list.eval(
            as_json(pl.element(), instance_of(dtype.inner), inner, is_sayable=is_sayable)
        )
    if isinstance(dtype, pl.Map):
        (_, key, key_node), (_, inner_type, inner) = _fields(dtype, node)
        entry = pl.element().struct
        pair = pl.struct(
            as_json(entry.field("key"), key, key_node, is_sayable=is_sayable)
            .cast(pl.String)
            .alias("key"),
            as_json(entry.field("value"), inner_type, inner, is_sayable=is_sayable).alias("value"),
        )
        values = _dtype_of(as_json(pl.col(""), inner_type, inner), inner_type)
        return value.map.entries().list.eval(pair).cast(pl.Map(pl.String, values))
    fields = [
        as_json(value.struct.field(name), inner, below, is_sayable=is_sayable).alias(name)
        for name, inner, below in _fields(dtype, node)
    ]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def _dtype_of(value: pl.Expr, dtype: pl.DataType) -> pl.DataType:
    """Return the type of an expression over the column without a name."""
    return pl.DataFrame(schema={"": dtype}).select(value.alias("")).schema[""]


def _fields(
    dtype: pl.DataType, node: Node | None
) -> Iterator[tuple[str, pl.DataType, Node | None]]:
    """Yield name, type and element of each field of a struct, or of the entry of a map."""
    if isinstance(dtype, pl.Map):
        entry = node.children[0] if node and len(node.children) == 1 else None
        below = entry.children if entry and len(entry.children) == 2 else (None, None)
        yield "key", instance_of(dtype.key), below[0]
        yield "value", instance_of(dtype.value), below[1]
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield field.name, instance_of(field.dtype), node.child(field.name) if node else None


def _bytes_as_text(value: pl.Expr, node: Node | None) -> pl.Expr:
    meaning = node.meaning if node else ""
    if meaning == "uuid":
        digits = value.bin.encode("hex")
        parts = [
            digits.str.slice(at, length)
            for at, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))
        ]
        return pl.concat_str(parts, separator="-")
    if meaning in ("json", "text"):
        return value.cast(pl.String)
    if meaning == "bytes":
        return pl.lit(MARK) + value.bin.encode("base64")
    if meaning == "interval":
        numbers = value.bin.reinterpret(dtype=pl.Array(pl.UInt32, 3), endianness="little").arr
        months, days, milliseconds = (numbers.get(at).cast(pl.Int64) for at in range(3))
        seconds = (milliseconds // 1000).cast(pl.String) + _fraction(milliseconds % 1000)
        return pl.format("P{}M{}DT{}S", months, days, seconds)
    return value.bin.encode("base64")


def _fraction(milliseconds: pl.Expr) -> pl.Expr:
    digits = pl.lit(".") + milliseconds.cast(pl.String).str.zfill(3)
    return pl.when(milliseconds > 0).then(digits).otherwise(pl.lit(""))


def _is_time(dtype: pl.DataType, node: Node | None) -> bool:
    """Say whether these are points in time, whatever they are stored as."""
    meaning = node.meaning if node else ""
    return dtype.is_temporal() or meaning == "int96" or meaning.startswith("time-")


def _time_as_text(
    value: pl.Expr, dtype: pl.DataType, node: Node | None, *, is_sayable: bool
) -> pl.Expr:
    """Return points in time in ISO 8601; what it cannot express as a text that says what it is."""
    if dtype == pl.Duration:
        return as_text(value, dtype)
    if dtype == pl.Binary:
        day, nanoseconds = _day_and_nanoseconds(value)
        date = as_text(day.cast(pl.Int32, strict=False).cast(pl.Date, strict=False), pl.Date())
        text = date + pl.lit("T") + as_text(nanoseconds.cast(pl.Time, strict=False), pl.Time())
        count, unit = day, "days and some hours since 1970"
    elif dtype.is_integer():
        unit = node.meaning.removeprefix("time-") if node else "ns"
        count = value.cast(pl.Int64)
        time = as_text(
            (count * (_UNITS["ns"] // _UNITS[unit])).cast(pl.Time, strict=False), pl.Time()
        )
        text = pl.when(count == _UNITS[unit]).then(pl.lit("24:00:00")).otherwise(time)
    else:
        inside = value if is_sayable else pl.when(_is_sayable(value, dtype, node)).then(value)
        text, count, unit = as_text(inside, dtype), value.to_physical(), "days since 1970"
        if isinstance(dtype, pl.Datetime):
            unit = f"{dtype.time_unit} since 1970"
            is_legacy = node is not None and node.meaning == "utc" and not dtype.time_zone
            text = text + pl.lit("Z") if is_legacy else text
    if is_sayable:
        return text
    forever = _FOREVER[pl.Int32 if dtype == pl.Date else pl.Int64]
    return (
        pl.when(_is_sayable(value, dtype, node))
        .then(text)
        .when(count == forever)
        .then(pl.lit("infinity"))
        .when(count <= -forever)
        .then(pl.lit("-infinity"))
        .otherwise(pl.format("{} {}", count, pl.lit(unit)))
    )


def _day_and_nanoseconds(value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return the day since 1970 and the nanoseconds of that day of an INT96."""
    parts = value.bin.reinterpret(dtype=pl.Array(pl.Int32, 3), endianness="little").arr
    low, high, julian = (parts.get(at).cast(pl.Int64) for at in range(3))
    nanoseconds = high * (1 << 32) + (low & 0xFFFF_FFFF)
    day = julian - _JULIAN_DAY + nanoseconds // _UNITS["ns"]
    return day, nanoseconds % _UNITS["ns"]


def as_moments(values: pl.Series, node: Node) -> pl.Series:
    """Return a column of INT96, or of times as integers, in the type that Polars has for most of them.

    As it is, if it has a value that this type lacks.
    """
    if values.dtype == pl.Binary and node.meaning == "int96":
        parts = zip(("day", "rest"), _day_and_nanoseconds(pl.col("")), strict=True)
        frame = values.alias("").to_frame().select(part.alias(name) for name, part in parts)
        if not _is_between(frame.get_column("day"), *_NANOSECOND_DAYS):
            return values
        number = pl.col("day") * _UNITS["ns"] + pl.col("rest")
        return frame.select(number.cast(pl.Datetime("ns")).alias(values.name)).to_series()
    if values.dtype.is_integer() and node.meaning.startswith("time-"):
        unit = _UNITS[node.meaning.removeprefix("time-")]
        if _is_between(values, 0, unit - 1):
            return (values.cast(pl.Int64) * (_UNITS["ns"] // unit)).cast(pl.Time)
    return values


def are_sayable(values: pl.Series) -> bool:
    """Say whether `beyond` finds nothing in a column of points in time, by the first and the last one.

    It may find nothing in others.
    """
    dtype = values.dtype
    if dtype == pl.Time:
        return True
    return isinstance(dtype, pl.Date | pl.Datetime) and _is_between(
        values.to_physical(), *_limits(dtype)
    )


def _is_between(values: pl.Series, first: int, last: int) -> bool:
    """Say whether all numbers are between two, or null."""
    low, high = cast("tuple[int | None, int | None]", (values.min(), values.max()))
    return low is None or high is None or (first <= low and high <= last)


def _limits(dtype: pl.Date | pl.Datetime) -> tuple[int, int]:
    """Return the first and the last number of a type that is in the years 1 to 9999."""
    if not isinstance(dtype, pl.Datetime):
        return _FIRST_DAY, _LAST_DAY
    day = _UNITS[dtype.time_unit]
    most = (1 << 63) - 1  # nanoseconds end earlier
    return max(_FIRST_DAY * day, -most - 1), min((_LAST_DAY + 1) * day - 1, most)


def _is_sayable(value: pl.Expr, dtype: pl.DataType, node: Node | None) -> pl.Expr:
    """Say which points in time ISO 8601 can express: years 1 to 9999, times of a day."""
    if dtype == pl.Binary:
        return _day_and_nanoseconds(value)[0].is_between(_FIRST_DAY, _LAST_DAY)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return value.to_physical().is_between(*_limits(dtype))
    is_integer = dtype.is_integer() and node is not None
    unit = node.meaning.removeprefix("time-") if node is not None and is_integer else "ns"
    return value.to_physical().is_between(0, _UNITS[unit])


def beyond(value: pl.Expr, dtype: pl.DataType, node: Node | None = None) -> pl.Expr | None:
    """Say which values contain what JSON cannot express; None if values of this type never do.

    NaN and infinity, and points in time that are not in the years 1 to 9999.
    """
    value, dtype = _simplified(value, dtype)
    if isinstance(dtype, pl.List):
        inner = beyond(pl.element(), instance_of(dtype.inner), node.element() if node else None)
        return None if inner is None else value.list.eval(inner).list.any()
    if isinstance(dtype, pl.Map):
        inner = _any_beyond(pl.element(), dtype, node)
        return None if inner is None else value.map.entries().list.eval(inner).list.any()
    if isinstance(dtype, pl.Struct):
        return _any_beyond(value, dtype, node)
    if dtype.is_float():
        return ~value.is_finite().fill_null(value=True)
    if _is_time(dtype, node) and dtype != pl.Duration:
        return ~_is_sayable(value, dtype, node).fill_null(value=True)
    return None


def error_beyond(name: str, dtype: pl.DataType) -> FieldError:
    """Return the error of a value of a column that `beyond` has found."""
    while isinstance(dtype, pl.List | pl.Array):
        dtype = instance_of(dtype.inner)
    if dtype.is_float():
        return FieldError("number_out_of_range", name, "NaN and infinity are not JSON numbers")
    if dtype.is_nested():
        message = "has NaN, infinity, or a time outside of the years 1 to 9999"
        return FieldError("number_out_of_range", name, message)
    return FieldError("time_out_of_range", name, "not in the years 1 to 9999, or no time of a day")


def _any_beyond(value: pl.Expr, dtype: pl.DataType, node: Node | None) -> pl.Expr | None:
    fields = (
        beyond(value.struct.field(name), inner, below)
        for name, inner, below in _fields(dtype, node)
    )
    found = [field for field in fields if field is not None]
    return pl.any_horizontal(found) if found else None


def weight_of(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return about how many bytes each value is once it is decoded.

    A column is small in its file, and even in memory, where a dictionary holds one large value that
    many rows refer to; as JSON, each row has its own.
    """
    value, dtype = _simplified(value, dtype)
    if isinstance(dtype, pl.Map):
        return weight_of(
            value.map.entries(), pl.List(pl.Struct({"key": dtype.key, "value": dtype.value}))
        )
    if dtype == pl.Binary:
        weight = value.bin.size() * 4 // 3
    elif isinstance(dtype, pl.List):
        weight = value.list.eval(weight_of(pl.element(), instance_of(dtype.inner))).list.sum()
    elif isinstance(dtype, pl.Struct):
        fields = (
            weight_of(value.struct.field(field.name), instance_of(field.dtype))
            for field in dtype.fields
        )
        weight = pl.sum_horizontal(pl.lit(0, pl.Int64), *fields)
    elif dtype == pl.String:
        weight = value.str.len_bytes()
    elif isinstance(dtype, pl.Categorical | pl.Enum):
        weight = value.cat.len_bytes()
    else:
        return pl.lit(SCALAR_BYTES, pl.Int64)
    return weight.cast(pl.Int64).fill_null(0) + SCALAR_BYTES


def instance_of(dtype: Any) -> pl.DataType:
    """Return the instance of a type that may be given as its class."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
