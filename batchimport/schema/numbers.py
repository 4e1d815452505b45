"""Numbers as they are written, in columns of 64 bits: no digit is lost silently."""

from __future__ import annotations

import math
import sys
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import polars as pl

from batchimport.model import FieldError

if TYPE_CHECKING:
    from batchimport.schema.columns import Column

INT64 = 2**63
EXACT_IN_FLOAT = 2**53
"""Up to here a double holds every integer."""
INFERRED_HINT = "as was inferred; see --infer-rows all, or give a --schema"
_SURELY_EXACT = 15
"""A number of at most this many characters has no more digits than every double keeps."""
_MOST_PRINTED = 17
"""No program prints more digits of a double: these tell any two doubles apart."""
_LARGEST_EXPONENT = 999_999_999_999_999_999
_DIGITS_OF_INT64 = 19


def decimal_of(text: str) -> Decimal:
    """Return a JSON number as a Decimal.

    An exponent of more than 18 digits, which Decimal does not take, becomes its largest one: the
    number stays beyond every bound that a schema can set.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        digits, _, exponent = text.lower().partition("e")
        sign = "-" if digits.startswith("-") else ""
        sign_of_exponent = "-" if exponent.startswith("-") else ""
        is_zero = not digits.strip("+-0.")
        return Decimal("0" if is_zero else f"{sign}1e{sign_of_exponent}{_LARGEST_EXPONENT}")


def integer_of(text: str, column: Column) -> int | FieldError:
    """Return the integer that a string holds, also written as `1.0` or `1e2`.

    Returns:
        The integer, or why the column cannot hold the number.
    """
    value = decimal_of(text)
    if value.adjusted() < _DIGITS_OF_INT64:  # else the integer itself might fill the memory
        integer = int(value)
        if integer != value:
            message = "this number is not an integer"
            return FieldError("type", column.name, message, text[:80])
        if -INT64 <= integer < INT64:
            return integer
    return FieldError("integer_out_of_range", column.name, "beyond 64 bits", text[:80])


def number_of(text: str, column: Column) -> float | FieldError:
    """Return the double that a string holds.

    A declared number is a double, so its decimal digits may be rounded. An integer must not change,
    and a number in a column whose type was only inferred must not lose a digit.

    Returns:
        The double, or why the column would not keep the number.
    """
    value = float(text)
    is_integer = text.lstrip("+-").isdecimal()
    if is_integer:
        fits = math.isfinite(value) and int(text) == int(value)
    else:
        fits = math.isfinite(value) and (prints_alike(text) or not column.inferred)
    if fits:
        return value
    code = "integer_out_of_range" if is_integer else "number_out_of_range"
    message = "has more digits than a number keeps"
    if column.inferred:
        message = f"{message}, {INFERRED_HINT}"
    return FieldError(code, column.name, message, text[:80])


def keeps_digits(text: str) -> bool:
    """Return whether a double keeps every digit of a number."""
    value = float(text)
    return math.isfinite(value) and Decimal(repr(value)) == decimal_of(text)


def prints_alike(text: str) -> bool:
    """Return whether a number is a double as programs print it: rounded to its digits, 17 at most."""
    value = float(text)
    if repr(value) == text:
        return math.isfinite(value)
    wanted = decimal_of(text)
    if not math.isfinite(value):
        return False
    digits = len(wanted.as_tuple().digits)
    return digits <= _MOST_PRINTED and Decimal(f"{value:.{digits - 1}e}") == wanted


def numbers_of(texts: pl.Series, *, exact: bool) -> tuple[pl.Series, pl.Series | None]:
    """Cast strings to doubles.

    Args:
        texts: Numbers as written; null where there is none.
        exact: No digit may be lost.

    Returns:
        The doubles, and which of them certainly are what is written; None if all are.
    """
    values = texts.cast(pl.Float64, strict=False)
    fits = surely_fit(values, texts if exact else None)
    if values.null_count() == texts.null_count():
        return values, fits
    are_numbers = values.is_not_null() | texts.is_null()
    return values, are_numbers if fits is None else fits & are_numbers


def surely_fit(values: pl.Series, texts: pl.Series | None = None) -> pl.Series | None:
    """Return which doubles certainly are what is written, null included; None if all are.

    Args:
        texts: The numbers as written, if no digit may be lost.
    """
    sizes = values.abs()
    fits = sizes < EXACT_IN_FLOAT
    if texts is not None:
        exact = texts.str.len_bytes() <= _SURELY_EXACT
        tiny = sizes < sys.float_info.min  # of these, a double has fewer digits, or none
        if tiny.any():
            exact &= ~(tiny & texts.str.contains("^[^eE]*[1-9]"))
        if not exact.all():
            exact |= values.cast(pl.String) == texts
        if not exact.all():
            exact |= _print_alike(texts, exact)
        fits &= exact
    return None if fits.all() else fits.fill_null(value=True)


def _print_alike(texts: pl.Series, known: pl.Series) -> pl.Series:
    """Look at the numbers that are not known to be exact one by one."""
    asked = texts.set(known.fill_null(value=True), None)
    return asked.map_elements(_is_alike, return_dtype=pl.Boolean, skip_nulls=True).fill_null(
        value=False
    )


def _is_alike(text: str) -> bool:
    try:
        return "." in text and prints_alike(text)
    except ValueError:
        return False
