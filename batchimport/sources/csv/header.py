"""Find the header of a delimited text: the lines before it, and whether it is one at all.

Everything here is decided by the first records; `docs/sources.md` has the rules in one table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.sources.csv.grammar import Cell

LONGEST_PREAMBLE = 20
SHARE_TO_TRUST = 0.9
LEAST_ROWS = 2
"""So many records must be below a row to say what kind of row it is."""

MISSING = frozenset(
    {
        "",
        "-",
        "--",
        ".",
        "?",
        "na",
        "n/a",
        "#n/a",
        "nan",
        "null",
        "none",
        "nil",
        "missing",
        "unknown",
    }
)
"""What stands for a missing value, in lower case."""

_NUMBER = re.compile(r"[+-]?[0-9.,:/-]*[0-9][0-9.,:/eE%-]*")
_POINT_IN_TIME = re.compile(r"[0-9]{1,4}[-/.:][0-9]{1,2}(?:[-/.:][0-9]{1,4})?(?:[T ][0-9:.,]+)?Z?")
_DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}(?:[T ][0-9:.,]+)?Z?")
_UNIT = re.compile(r"\(.*\)|\[.*\]")
_RULE = re.compile(r":?[-=]+(?:\+[-=]+)*:?")
_DIGITS = re.compile(r"[0-9]+")
_QUOTES = "'`\""


@dataclass(frozen=True)
class Record:
    """A record of the head; no cells if it cannot be read."""

    cells: Sequence[Cell]
    size: int
    lines: int

    @cached_property
    def texts(self) -> list[str]:
        """The texts of the cells, without spaces around them."""
        return [text.strip() for text, _ in self.cells]


@dataclass(frozen=True, slots=True)
class Header:
    """Where the names of the columns are.

    Attributes:
        first: The first record of the table: the names, if it has any.
        preamble: Number of lines before it that are not part of the table.
        records: Number of records that hold names: none, one, or two.
        is_like_data: The names look like values; they may be the first record.
        has_rule: The second of two records is a line of dashes.
        is_like_title: The record below is more like names; to read it as the header, `lines` are skipped.
    """

    first: Record
    preamble: int = 0
    records: int = 1
    is_like_data: bool = False
    has_rule: bool = False
    is_like_title: bool = False
    lines: int = 0


def notes_about(header: Header, preamble: int, *, is_found: bool) -> tuple[str, ...]:
    """Return what users should know about a header.

    Args:
        preamble: Number of lines before it that are left out.
        is_found: Where it is was not said by an option.
    """
    notes = []
    if preamble:
        notes.append(
            f"lines before the header that are not part of the table: {preamble} "
            "(--skip-lines 0 to read them as well)"
        )
    if header.has_rule:
        notes.append("the line of dashes below the names is left out (--header to read it, too)")
    elif header.records == 2:
        notes.append("the names of the columns are in two lines (--header for one)")
    if header.records == 0 and header.first.cells and is_found:
        notes.append(
            "no header: the first row has the same types as all others and is read as a record "
            "(--header if it holds the names)"
        )
    if header.is_like_data:
        notes.append(
            "the first row is taken for names, but looks like data (--no-header to read it as a record)"
        )
    if header.is_like_title:
        notes.append(
            "the second row has text above numbers: if it holds the names, type "
            f"--skip-lines {header.lines}"
        )
    return tuple(notes)


def is_number(text: str) -> bool:
    """Say whether a cell is a number, a date or a time."""
    return bool(_NUMBER.fullmatch(text.strip()))


def find_header(records: Sequence[Record], width: int, *, is_certain: bool) -> Header:
    """Find the header of a table.

    Args:
        width: Number of fields that most records have.
        is_certain: The first row is the header, whatever it looks like.
    """
    preamble, at = _preamble(records, width)
    first = records[at]
    if is_certain or len(first.cells) != width:
        return Header(first, preamble)
    if width > 1 and _is_rule(records[at + 1 : at + 2]):
        return Header(first, preamble, 2, has_rule=True)
    rows = [record.texts for record in records[at + 1 :] if len(record.cells) == width]
    if len(rows) < LEAST_ROWS:
        return Header(first, preamble)
    return _judged(records, at, preamble, rows)


def _judged(
    records: Sequence[Record], at: int, preamble: int, rows: Sequence[Sequence[str]]
) -> Header:
    """Return what a first row is, above rows of as many cells."""
    first = records[at]
    columns = list(zip(first.texts, *rows, strict=True))
    if any(map(_are_dates, columns)):
        return Header(first, preamble, 0)
    if not _is_like_data(first.texts, rows):
        if _has_second_line(first.texts, rows):
            return Header(first, preamble, 2)
        lines = sum(record.lines for record in records[: at + 1])
        return Header(first, preamble, is_like_title=_are_names_below(rows), lines=lines)
    if all(map(_are_alike, columns)):
        return Header(first, preamble, 0)
    return Header(first, preamble, is_like_data=True)


# -- before the header ---------------------------------------------------------------------------


def _preamble(records: Sequence[Record], width: int) -> tuple[int, int]:
    """Return the number of lines before the header, and the index of the header.

    Such a line has at most one field that is not empty, is a comment, or is no row for two reasons
    (`_may_precede`). Otherwise the first record that is not blank is the header.
    """
    first = next(at for at, record in enumerate(records) if record.size)
    lines, are_comments = 0, True
    for at, record in enumerate(records[: LONGEST_PREAMBLE + 1]):
        filled = [text for text in record.texts if text]
        is_comment = bool(record.cells) and record.texts[0].startswith("#")
        is_full = len(record.cells) == width and len(filled) > 1
        is_title = is_comment and _is_table(records[at + 1 :], width, are_comments=True)
        may_begin = is_full and at > first and not is_title
        if may_begin and _is_table(records[at:], width, are_comments=are_comments):
            return lines, at
        is_unreadable = record.size and not record.cells
        if is_unreadable or (len(filled) > 1 and not _may_precede(records, at, width)):
            break
        are_comments = are_comments and (is_comment or not record.size)
        lines += record.lines
    return 0, first


def _may_precede(records: Sequence[Record], at: int, width: int) -> bool:
    """Say whether a line of several fields may be part of the preamble.

    Two of four must hold: it has another number of fields than the table, a blank line follows, it is a
    sentence, the table has numbers below its names. And it is no part of another table: it does not begin with a
    number, and is at most the second line with as many fields, if these are three or more.
    """
    first, size = records[at].texts[0], len(records[at].cells)
    if first.startswith("#"):
        return True
    alike = sum(len(record.cells) == size for record in records[:at])
    if first.isdecimal() or (size > 2 and alike > 1):
        return False
    is_apart = at + 1 < len(records) and not records[at + 1].size
    signs = (size != width) + is_apart + _is_prose(records[at], records[at + 1 :])
    if signs != 1:
        return signs > 1
    return bool(_numeric_columns(_rows(records[at + 1 :], width)[1:]))


def _is_prose(line: Record, below: Sequence[Record]) -> bool:
    """Say whether spaces follow the delimiters of a line, as in a sentence, and of no record below it."""
    units = [text for record in below[:1] for text in record.texts if text]
    return (
        all(text.startswith(" ") for text, _ in line.cells[1:])
        and not any(text.startswith(" ") for record in below for text, _ in record.cells[1:])
        and not all(map(_UNIT.fullmatch, units))
    )


def _is_table(records: Sequence[Record], width: int, *, are_comments: bool) -> bool:
    """Say whether a table begins with its names.

    Args:
        are_comments: All lines before it are comments, so that less evidence is needed.
    """
    written = [record for record in records if record.size]
    if not written or len(written[0].cells) != width:
        return False
    names, rows = written[0].texts, written[1:]
    regular = [record.texts for record in rows if len(record.cells) == width]
    if len(rows) < LEAST_ROWS or len(regular) < SHARE_TO_TRUST * len(rows):
        return False
    if any(is_number(name) or name.startswith("{") for name in names):
        return False
    named = [name for name in names if name]
    if len(set(named)) < len(named) or not names[0]:
        return False
    if any(name.lower() in MISSING for name in named):
        return False
    is_whole = len(named) == width and (width > 2 or (are_comments and width == 2))
    return is_whole or (len(named) > 1 and bool(_numeric_columns(regular)))


def _rows(records: Iterable[Record], width: int) -> list[list[str]]:
    return [record.texts for record in records if len(record.cells) == width]


def _numeric_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return which columns have numbers, and nothing else but empty cells.

    Args:
        rows: Texts without spaces around them.
    """
    columns = ([*filter(None, column)] for column in zip(*rows, strict=True))
    return [at for at, texts in enumerate(columns) if texts and all(map(_NUMBER.fullmatch, texts))]


# -- the header itself ---------------------------------------------------------------------------


def is_like_data(header: Header, below: Sequence[Record]) -> bool:
    """Say whether a header that was not looked for looks like the records below it."""
    width = len(header.first.cells)
    rows = [record.texts for record in below if len(record.cells) == width]
    return width > 1 and len(rows) >= LEAST_ROWS and _is_like_data(header.first.texts, rows)


def _is_like_data(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Say whether half of the names are values as in the columns below them.

    Such a name is a number above numbers, or is there again as a value. Numbers in a sequence, such as
    years, are names, unless the records have such sequences as well.
    """
    numeric = set(_numeric_columns(rows))
    filled = [at for at, name in enumerate(names) if name]
    values = [at for at in filled if at in numeric and is_number(names[at])]
    if values and _is_sequence([names[at] for at in values]):
        in_sequence = sum(_is_sequence([row[at] for at in values]) for row in rows)
        values = values if 2 * in_sequence > len(rows) else []
    others = [row for row in rows if not _resembles(row, names)]
    again = [
        at for at, cells in enumerate(zip(*others, strict=True)) if names[at] and names[at] in cells
    ]
    like_data = {*values, *(again if len(again) > 1 or values else ())}
    return bool(like_data) and 2 * len(like_data) >= len(filled)


def _resembles(row: Sequence[str], names: Sequence[str]) -> bool:
    """Say whether most cells of a row are names, as in a header that stands in the file again."""
    same = sum(map(str.__eq__, row, names))
    return same > 1 and 2 * same > len(names)


def _is_sequence(texts: Sequence[str]) -> bool:
    """Say whether there are several integers, each one more than the one before."""
    if len(texts) < 2 or not all(text.isdecimal() and text.isascii() for text in texts):
        return False
    return all(int(after[:18]) == int(before[:18]) + 1 for before, after in pairwise(texts))


def _are_alike(column: Sequence[str]) -> bool:
    """Say whether all cells of a column are numbers, or all are points in time."""
    texts = [text for text in column if text]
    if not column[0] or not all(map(is_number, texts)):
        return False
    return (
        len({bool(_POINT_IN_TIME.fullmatch(text)) and not _is_plain(text) for text in texts}) == 1
    )


def _are_dates(column: Sequence[str]) -> bool:
    """Say whether a column consists of dates, its name included, that are all written alike."""
    texts = [text for text in column if text]
    if not column[0] or len(texts) <= LEAST_ROWS or not all(map(_DATE.fullmatch, texts)):
        return False
    return len({_DIGITS.sub("9", text) for text in texts}) == 1


def _is_plain(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _are_names_below(rows: Sequence[Sequence[str]]) -> bool:
    """Say whether the row below the header has text in all columns whose other cells are numbers."""
    second, below = rows[0], rows[1:]
    numeric = _numeric_columns(below) if len(below) >= LEAST_ROWS else []
    above = [second[at].strip(_QUOTES).lower() for at in numeric]
    return bool(above) and not any(is_number(text) or text in MISSING for text in above)


def _is_rule(records: Sequence[Record]) -> bool:
    """Say whether a record is a line of dashes, as below the names of tables that are made to be read."""
    written = [text for record in records for text in record.texts if text]
    return any(len(text) > 1 for text in written) and all(map(_RULE.fullmatch, written))


def _has_second_line(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Say whether the row below the header continues the names: units, or what a group consists of.

    There are text above nothing but numbers in several columns (or in one, if it is units or if the
    header has gaps), and no numbers in it.
    """
    second, below = rows[0], rows[1:]
    numeric = _numeric_columns(below)
    numbers = (is_number(text.strip(_QUOTES)) for text in second)
    if len(below) < LEAST_ROWS or not numeric or any(numbers):
        return False
    above = [second[at] for at in numeric]
    written = [text for text in second if text]
    are_units = any(above) and all(map(_UNIT.fullmatch, written))
    if not are_units and any(text.lower() in MISSING for text in above):
        return False
    has_gaps = any(not name for name in names) and all(second)
    return are_units or has_gaps or (len(numeric) > 1 and len(numeric) == len(second))


def join_names(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return the names of a header of two lines; a name above several columns belongs to all of them.

    A line of dashes names nothing. The second line may end early: at a lone carriage return, which the
    look at the file took for text.
    """
    if all(map(_RULE.fullmatch, filter(None, second))):
        return list(first)
    names, group = [], ""
    for upper, lower in zip_longest(first, second, fillvalue=""):
        group = upper or group
        names.append(f"{group} {lower}".strip())
    return names
