"""Python's values as JSON has them: the forms in which what a user's function returns is stored."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import msgspec
import polars as pl

from batchimport.schema.numbers import keeps_digits

_encode = msgspec.json.Encoder(decimal_format="number").encode
UNFIT = (TypeError, ValueError, RecursionError)
"""What is raised for a value that JSON does not have."""


def plain(value: Any) -> Any:
    """Return a value as JSON has it, decimals apart: dates as ISO 8601, bytes as Base64.

    Raises:
        UNFIT: If JSON has no such value: NaN, infinity, an object of a class it knows nothing of.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no JSON number")
        return value
    if isinstance(value, dict):
        return {_key(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | pl.Series):
        return list(map(plain, value))
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=repr)
    return msgspec.to_builtins(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key))


def encoded(value: Any) -> str:
    """Return the JSON text of a value.

    Raises:
        UNFIT: If JSON has no such value.
    """
    return _encode(plain(value)).decode()


def encoded_or_none(value: Any) -> str | None:
    """Return the JSON text of a value; None if JSON has no such value."""
    try:
        return encoded(value)
    except UNFIT:
        return None


def decoded(text: str) -> Any:
    """Return the value of a JSON text; a number that a double does not keep is a Decimal."""
    return json.loads(text, parse_float=_number)


def _number(text: str) -> float | Decimal:
    return float(text) if keeps_digits(text) else Decimal(text)
