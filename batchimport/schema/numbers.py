"""Numbers as they are written, in columns of 64 bits: none loses a digit unsaid."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from batchimport.model import FieldError

if TYPE_CHECKING:
    from batchimport.schema.columns import Column

INT64 = 2**63
EXACT_IN_FLOAT = 2**53
WAY_OUT = "as was inferred; see --infer-rows all, or give a --schema"
_SURELY_EXACT = 15
"""So many characters hold no more digits than every double keeps."""


def integer_of(text: str, column: Column) -> int | FieldError:
    """Return the integer that a text says, be it as `1.0` or `1e2`; or why the column has no room."""
    value = int(text) if text.lstrip("+-").isdecimal() else int(Decimal(text))
    if -INT64 <= value < INT64:
        return value
    return FieldError("integer_out_of_range", column.name, "beyond 64 bits", text[:80])


def number_of(text: str, column: Column) -> float | FieldError:
    """Return the double that a text says; or why the column would not keep it.

    What users call a number is a double, be it rounded; but an integer that changes is no rounding,
    and where a column of numbers was only inferred, no digit may go.
    """
    value = float(text)
    is_integer = text.lstrip("+-").isdecimal()
    if is_integer:
        fits = math.isfinite(value) and int(text) == int(value)
    else:
        fits = math.isfinite(value) and (keeps_digits(text) or not column.inferred)
    if fits:
        return value
    code = "integer_out_of_range" if is_integer else "number_out_of_range"
    message = "has more digits than a number keeps"
    if column.inferred:
        message = f"{message}, {WAY_OUT}"
    return FieldError(code, column.name, message, text[:80])


def keeps_digits(text: str) -> bool:
    """Say whether a double keeps every digit of a number."""
    value = float(text)
    return math.isfinite(value) and Decimal(repr(value)) == Decimal(text)


def numbers_of(texts: pl.Series, *, exact: bool) -> tuple[pl.Series, pl.Series | None]:
    """Return texts as doubles, and which of them certainly are what is written; None for all.

    Args:
        texts: Null where there is nothing.
        exact: No digit may go.
    """
    values = texts.cast(pl.Float64, strict=False)
    fits = surely_fit(values, texts if exact else None)
    if values.null_count() == texts.null_count():
        return values, fits
    are_numbers = values.is_not_null() | texts.is_null()
    return values, are_numbers if fits is None else fits & are_numbers


def surely_fit(values: pl.Series, texts: pl.Series | None = None) -> pl.Series | None:
    """Say of each double whether it is certainly what is written, as null is; None if all are.

    Args:
        texts: What is written, where no digit may go.
    """
    fits = values.abs() < EXACT_IN_FLOAT
    if texts is not None:
        short = texts.str.len_bytes() <= _SURELY_EXACT
        fits &= short if short.all() else short | (values.cast(pl.String) == texts)
    return None if fits.all() else fits.fill_null(value=True)
