"""Dates and points in time as people write them, read as ISO 8601.

A time without a zone stays one: none is made up. Columns that have a zone take it as UTC.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from batchimport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DIRECTIVES = {
    "d": "[0-9]{1,2}",
    "e": " ?[0-9]{1,2}",
    "m": "[0-9]{1,2}",
    "b": "[A-Za-z]{3}",
    "B": "[A-Za-z]+",
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "j": "[0-9]{1,3}",
    "a": "[A-Za-z]{3}",
    "A": "[A-Za-z]+",
    "H": "[0-9]{1,2}",
    "I": "[0-9]{1,2}",
    "M": "[0-9]{2}",
    "S": "[0-9]{2}",
    "p": "[AaPp][Mm]",
    "z": "(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})",
    "%": "%",
}
_SHORT = {"T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y", "F": "%Y-%m-%d", "h": "%b"}
_PART = re.compile(r"\.%f|%\.f|%-?(.)|([^%]+)")
_TIME, _FRACTION = set("HIMSp"), r"(?:\.[0-9]{1,6})?"
_DAY, _MOMENT = "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%.f"

_ISO_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_COMPACT_DAY = r"^[0-9]{8}$"
_ISO_TIME = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,6})?)?"
_STRICT_TIME = (
    r"^[0-9-]{10}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?$"
)
_OFFSET = r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_EPOCH = r"^-?[0-9]{9,19}$"
_EPOCH_DIGITS = ((11, 1_000_000), (14, 1000), (17, 1))
"""Up to how many digits an epoch counts units of so many microseconds: seconds, milliseconds, microseconds.
More digits count nanoseconds."""


@dataclass(frozen=True)
class DateFormat:
    """How a date or point in time is written, in the directives of `strptime`.

    Attributes:
        has_time: It is a point in time and not a date.

    Raises:
        UsageError: If it is not such a format.
    """

    text: str
    has_time: bool = field(init=False)
    _has_zone: bool = field(init=False)
    _pattern: str = field(init=False)
    _chrono: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the format."""
        text = re.sub("%([TRDFh])", lambda found: _SHORT[found[1]], self.text)
        used: set[str] = set()
        pattern, chrono, at = "", "", 0
        while at < len(text):
            part = _PART.match(text, at)
            if part is None:
                raise self._refused("ends with %")
            directive, literal = part.groups()
            at = part.end()
            if literal is not None:
                pattern, chrono = pattern + re.escape(literal), chrono + literal
            elif directive is None:
                pattern, chrono = pattern + _FRACTION, f"{chrono}%.f"
            elif directive in _DIRECTIVES:
                pattern, chrono = pattern + _DIRECTIVES[directive], f"{chrono}%{directive}"
                used.add(directive)
            else:
                raise self._refused(f"has %{directive}, which is not known")
        if not (
            used & {"Y", "y"}
            and ((("d" in used or "e" in used) and used & set("mbB")) or "j" in used)
        ):
            raise self._refused("does not say day, month and year")
        if used & _TIME and not used & {"H", "I"}:
            raise self._refused("has a time without hours")
        for name, value in (
            ("has_time", bool(used & _TIME)),
            ("_has_zone", "z" in used),
            ("_pattern", f"^(?:{pattern})$"),
            ("_chrono", chrono),
        ):
            object.__setattr__(self, name, value)

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f"{self.text!r} {why}",
            where="--date-format",
            hint="such as %d.%m.%Y or '%m/%d/%Y %H:%M'",
        )

    def matches(self, text: str) -> bool:
        """Say whether a text has this form; it may still be no date, such as 31 February."""
        return re.match(self._pattern, text) is not None and not text.endswith("\n")

    def read(self, text: pl.Expr) -> pl.Expr:
        """Return dates or points in time as ISO 8601; null where the text is not of this form."""
        text = pl.when(text.str.contains(self._pattern)).then(text)
        if not self.has_time:
            return text.str.to_date(self._chrono, strict=False).dt.strftime(_DAY)
        if self._has_zone:
            text = text.str.replace("[Zz]$", "+00:00")
            return _utc(
                text.str.to_datetime(self._chrono, time_unit="us", time_zone="UTC", strict=False)
            )
        return text.str.to_datetime(self._chrono, time_unit="us", strict=False).dt.strftime(_MOMENT)


@lru_cache(maxsize=64)
def date_formats(texts: tuple[str, ...]) -> tuple[DateFormat, ...]:
    """Return formats by how they are written.

    Raises:
        UsageError: If one is not valid.
    """
    return tuple(map(DateFormat, texts))


def read_days(
    texts: pl.Series, formats: Sequence[DateFormat], *, only_these: bool = False
) -> pl.Series:
    """Return dates as ISO 8601; null where a text is no date.

    Args:
        only_these: Nothing else becomes a date that is written otherwise: `20240131` stays a number.
    """
    text = pl.col("text").str.strip_chars(" \t")
    compact = (
        pl.when(text.str.contains(_COMPACT_DAY)).then(text).str.to_date("%Y%m%d", strict=False)
    )
    iso = pl.when(text.str.contains(_ISO_DAY)).then(text).str.to_date(_DAY, strict=False)
    ways = [each.read(text) for each in formats if not each.has_time]
    others = [] if only_these else [compact.dt.strftime(_DAY)]
    return _first(texts, [*ways, iso.dt.strftime(_DAY), *others])


def read_moments(
    texts: pl.Series, formats: Sequence[DateFormat], *, only_these: bool = False
) -> pl.Series:
    """Return points in time as ISO 8601; null where a text is none.

    Besides the formats and ISO 8601, those are dates (at midnight) and epochs.

    Args:
        only_these: Nothing else becomes a point in time that is written otherwise. Dates do if some
            format is one of dates.
    """
    text = pl.col("text").str.strip_chars(" \t")
    ways = [each.read(text) for each in formats if each.has_time]
    if only_these:
        iso = _iso_moment(pl.when(text.str.contains(_STRICT_TIME)).then(text))
        has_days = any(not each.has_time for each in formats)
        days = [_midnight(read_days(texts, formats, only_these=True))] if has_days else []
        return _first(texts, [*ways, iso, *days])
    return _first(
        texts, [*ways, _iso_moment(text), epoch(text), _midnight(read_days(texts, formats))]
    )


def epoch(digits: pl.Expr) -> pl.Expr:
    """Return epochs as points in time in UTC, by their number of digits; null where a text is none.

    Of 9 to 11 digits they count seconds, up to 14 milliseconds, up to 17 microseconds, else nanoseconds.
    """
    digits = pl.when(digits.str.contains(_EPOCH)).then(digits)
    size = digits.str.strip_prefix("-").str.len_bytes()
    number = digits.cast(pl.Int64, strict=False)
    moment: pl.Expr = pl.when(size > 17).then(_utc(number.cast(pl.Datetime("ns", "UTC"))))
    for most, factor in _EPOCH_DIGITS[::-1]:
        units = pl.when(size <= most).then(number) * factor
        moment = (
            pl.when(size <= most).then(_utc(units.cast(pl.Datetime("us", "UTC")))).otherwise(moment)
        )
    return moment


def _iso_moment(text: pl.Expr) -> pl.Expr:
    full = text.str.replace(_ISO_TIME, "${1}T${2}${3}").str.replace(
        r"^(.{10}T[0-9]{2}:[0-9]{2})([^:]|$)", "${1}:00${2}"
    )
    naive = pl.when(text.str.contains(_ISO_TIME + "$")).then(full)
    zoned: pl.Expr = pl.when(text.str.contains(_ISO_TIME + _OFFSET)).then(full)
    zoned = (
        zoned.str.replace(" ?[Zz]$", "+00:00")
        .str.replace(r" ?([+-][0-9]{2})$", "${1}:00")
        .str.replace(" ", "")
    )
    form = "%Y-%m-%dT%H:%M:%S%.f"
    moment = zoned.str.to_datetime(f"{form}%z", time_unit="us", time_zone="UTC", strict=False)
    return pl.coalesce(
        _utc(moment), naive.str.to_datetime(form, time_unit="us", strict=False).dt.strftime(_MOMENT)
    )


def _midnight(days: pl.Series) -> pl.Expr:
    return pl.lit(days) + "T00:00:00"


def _utc(moment: pl.Expr) -> pl.Expr:
    return moment.dt.strftime(f"{_MOMENT}Z")


def _first(texts: pl.Series, ways: Iterable[pl.Expr]) -> pl.Series:
    frame = texts.alias("text").to_frame()
    return frame.select(pl.coalesce(list(ways)).alias("read")).to_series().alias(texts.name)


# -- guessing the order of day and month ---------------------------------------------------------

_WRITTEN = re.compile(
    r"([0-9]{1,4})([./-])([0-9]{1,2})\2([0-9]{1,4})(?:([T ])[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?)?"
)


_DAY_FIRST, _MONTH_FIRST = "%d{0}%m{0}%Y", "%m{0}%d{0}%Y"
_MOST_ERRORS = 0.1
"""Of dates that show which is the day, the share that may contradict the others."""


class DateOrder:
    """What the dates of a column say about the order of day, month and year."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._either = Counter[str]()  # with the day first or the month, by mark
        self.seen = 0

    def add(self, text: str) -> None:
        """Look at a cell."""
        found = _WRITTEN.fullmatch(text) if text[:1].isdigit() else None
        if found is None:
            return
        self.seen += 1
        first, mark, second, third, gap, seconds = found.groups()
        time = f"{gap}%H:%M{':%S' if seconds else ''}" if gap else ""
        ways = [
            order.replace(" ", mark) + time
            for order, day, month, year in (
                ("%d %m %Y", first, second, third),
                ("%m %d %Y", second, first, third),
                ("%Y %m %d", third, second, first),
            )
            if len(year) == 4 and len(day) <= 2 and len(month) <= 2
            if 1 <= int(day) <= 31 and 1 <= int(month) <= 12
        ]
        self._counts.update(ways)
        self._either[mark] += any(not way.startswith("%Y") for way in ways)

    @property
    def ways(self) -> list[str]:
        """The formats that all dates so far have; several if day and month cannot be told apart."""
        return sorted(way for way, count in self._counts.items() if count == self.seen)

    def likely(self, values: int) -> tuple[list[str], list[str]]:
        """Return the formats that most dates have, and those between which nothing decides.

        ISO 8601 is not among them.

        Args:
            values: Number of values of the column. Less than half of them ask no question.
        """
        sure, undecided = [way for way in self._counts if way.startswith("%Y/")], list[str]()
        for mark in "./-":
            ways = _DAY_FIRST.format(mark), _MONTH_FIRST.format(mark)
            # Every date that has not the other order shows which is the day.
            months, days = (self._either[mark] - self._of_order(way) for way in ways)
            if months <= _MOST_ERRORS * days and days:
                sure += [way for way in self._counts if way.startswith(ways[0])]
            elif days <= _MOST_ERRORS * months and months:
                sure += [way for way in self._counts if way.startswith(ways[1])]
            elif self._either[mark] * 2 >= values > 0:
                undecided += ways
        return sorted(sure), undecided

    def _of_order(self, order: str) -> int:
        return sum(count for way, count in self._counts.items() if way.startswith(order))
