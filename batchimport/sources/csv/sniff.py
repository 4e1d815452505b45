"""How delimited text is written, guessed from its head.

Each way of writing that the head may have been written in is tried, and judged by how much of the
text it cuts into records of one width. The plain way wins where another is no better.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.csv.grammar import FieldReader, Marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sources.csv.grammar import Cell

DELIMITERS = (",", ";", "\t", "|", " ", ":")
"""In order of preference; the last two only where nothing else speaks against them."""

RECORDS_TO_LOOK_AT = 300
LONGEST_PREAMBLE = 20
SHARE_TO_TRUST = 0.9
LEAST_GAIN = 0.1
MORE_QUOTED = 1.5
"""What it must gain that spaces around fields are no part of them, since it changes other fields."""

_FREQUENT_IN_TEXT = (" ", ":")
_LINE_END = re.compile(r"\r\n?|\n")
_NUMBER = re.compile(r"[+-]?[0-9.,:/-]*[0-9][0-9.,:/eE%-]*")


@dataclass(frozen=True, slots=True)
class Guess:
    """A way of writing, and what the head looks like by it.

    Attributes:
        share: How much of the text is in records of one width, 0 to 1.
        width: That width; 0 if there are no records.
        header_fits: The header has that width, too.
        quoted: Share of the cells that are quoted, 0 to 1.
        quotes_columns: In some column, the name and all cells that are not empty are quoted.
        numbers: Share of the cells that are numbers, dates or times, 0 to 1.
        preamble: Lines before the header that are no part of the table.
    """

    marks: Marks
    share: float = 0.0
    width: int = 0
    header_fits: bool = False
    quoted: float = 0.0
    quotes_columns: bool = False
    numbers: float = 0.0
    preamble: int = 0


@dataclass(frozen=True, slots=True)
class _Record:
    """A record of the head; no cells if it cannot be read."""

    cells: Sequence[Cell]
    size: int
    lines: int


def guess(
    head: str,
    *,
    delimiters: Sequence[str],
    quotes: Sequence[str] | None,
    has_names: bool,
    is_whole: bool,
) -> Guess:
    """Return the most likely way in which a text was written.

    Args:
        delimiters: Those to choose from, in order of preference.
        quotes: Those to choose from; None for what is usual.
        has_names: The first record holds the names of the fields.
        is_whole: The head is all there is, so that its last record is not cut.
    """
    wanted = ('"', "'") if quotes is None else quotes
    best = Guess(Marks(delimiters[0], wanted[0]))
    for marks in _ways(head, delimiters, wanted):
        records = list(_records(head, marks, is_whole=is_whole))
        found = _judge(marks, records, has_names=has_names)
        if marks.quote == "'" and quotes is None and (best.quoted or not found.quoted):
            continue
        if marks.escape and found.width == 1 and f"\\{marks.quote}" not in head:
            continue
        if marks.delimiter != delimiters[0] and not _is_convincing(
            found, records, has_names=has_names
        ):
            continue
        if _beats(found, best):
            best = found
    return best


def _ways(head: str, delimiters: Sequence[str], quotes: Sequence[str]) -> Iterator[Marks]:
    """Yield the ways of writing that the head may have been written in, the plain ones first."""
    there = [delimiters[0], *(mark for mark in delimiters[1:] if mark in head)]
    for quote in quotes:
        if quote == "'" and not re.search(r"(^|[^\w\s])[ ]?'|'([^\w\s]|$)", head, re.MULTILINE):
            continue
        for delimiter in there:
            if delimiter == quote:
                continue
            yield Marks(delimiter, quote)
            padded = bool(quote) and delimiter != " " and _is_padded(head, delimiter, quote)
            if quote and f"\\{quote}" in head:
                yield Marks(delimiter, quote, escape="\\", padded=padded)
            elif f"\\{delimiter}" in head:
                yield Marks(delimiter, quote, escape="\\")
            if padded:
                yield Marks(delimiter, quote, padded=True)


def _is_padded(head: str, delimiter: str, quote: str) -> bool:
    mark, comma = re.escape(quote), re.escape(delimiter)
    return bool(re.search(f"{comma} +{mark}|{mark} +{comma}|^ +{mark}", head, re.MULTILINE))


def _records(head: str, marks: Marks, *, is_whole: bool) -> Iterator[_Record]:
    """Yield the records of the head by the rule of `QuotedLines`, blank lines apart."""
    comma = re.escape(marks.delimiter)
    quoted = rf"{marks.quoted()}(?={comma}|[\r\n]|\Z)|" if marks.quote else ""
    field = f"(?:{quoted}{marks.bare()})"
    whole = re.compile(rf"{field}(?:{comma}{field})*+(?:\r\n?|\n|\Z)")
    line = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
    reader = FieldReader(marks)
    at, looked_at = 0, 0
    while at < len(head) and looked_at < RECORDS_TO_LOOK_AT:
        found = whole.match(head, at) or line.match(head, at)
        if found is None or (found.end() == len(head) and not is_whole and looked_at):
            return
        at = found.end()
        text = found[0].rstrip("\r\n")
        lines = len(_LINE_END.findall(found[0]))
        if not text:
            yield _Record((), 0, lines)
            continue
        looked_at += 1
        try:
            yield _Record(reader.read(text), len(text), lines)
        except UnreadableRecordError:
            yield _Record((), len(text), lines)


def _judge(marks: Marks, records: list[_Record], *, has_names: bool) -> Guess:
    sizes: Counter[int] = Counter()
    for record in records:
        sizes[len(record.cells)] += record.size
    total = sizes.total()
    del sizes[0]
    if not total or not sizes:
        return Guess(marks)
    width = max(sizes, key=lambda width: (sizes[width], width))
    regular = [record for record in records if len(record.cells) == width]
    cells = [cell for record in regular for cell in record.cells if cell[0]]
    preamble, header = _find_header(records, width) if has_names else (0, regular[0])
    return Guess(
        marks,
        share=sizes[width] / total,
        width=width,
        header_fits=len(header.cells) == width,
        quoted=sum(quoted for _, quoted in cells) / max(1, len(cells)),
        quotes_columns=any(
            map(_is_quoted, zip(*(record.cells for record in regular), strict=True))
        ),
        numbers=sum(bool(_NUMBER.fullmatch(text)) for text, _ in cells) / max(1, len(cells)),
        preamble=preamble,
    )


def _is_quoted(column: Sequence[Cell]) -> bool:
    """Say whether there are quotes round all cells of a column, its name included."""
    (_, name_is_quoted), *below = column
    written = [(text, quoted) for text, quoted in below if text or quoted]
    return name_is_quoted and any(text for text, _ in written) and all(q for _, q in written)


def _beats(one: Guess, other: Guess) -> bool:
    """Say whether a guess is better than one that is to be preferred where it is not."""
    if one.marks.delimiter != other.marks.delimiter:
        return one.width > 1 and _rank(one) > _rank(other)
    if one.marks.quote != other.marks.quote:
        return one.share > other.share or (one.quotes_columns and one.share == other.share)
    if one.marks.padded and one.quoted < MORE_QUOTED * other.quoted:
        return False
    margin = LEAST_GAIN if one.marks.padded else 0.0
    return one.share > other.share + margin


def _rank(found: Guess) -> tuple[bool, bool, float, float]:
    return (found.width > 1, found.header_fits, found.share, found.numbers)


def _is_convincing(found: Guess, records: list[_Record], *, has_names: bool) -> bool:
    """Say whether another mark than the usual one is the delimiter here.

    Where the header does not have it, nearly all records must; and what texts are full of must part
    all records into three fields or more, with quotes or numbers in them.
    """
    rows = [record.cells for record in records if record.size]
    if found.marks.delimiter not in _FREQUENT_IN_TEXT:
        parted = sum(len(row) == found.width for row in rows)
        is_in_header = bool(rows) and len(rows[0]) > 1
        return is_in_header or (parted >= 3 and parted >= SHARE_TO_TRUST * (len(rows) - 1))
    if found.width < 3 or len(rows) < 3 or any(len(row) != found.width for row in rows):
        return False
    cells = [cell for row in rows[has_names:] for cell in row]
    if any(quoted for _, quoted in cells):
        return True
    numbers = sum(bool(_NUMBER.fullmatch(text)) for text, _ in cells if text)
    if found.marks.delimiter == " ":
        return numbers > 0.5 * len(cells)
    return has_names and not any(_NUMBER.fullmatch(text) for text, _ in rows[0])


def _find_header(records: Sequence[_Record], width: int) -> tuple[int, _Record]:
    """Return how many lines stand before the header and are no part of the table, and the header.

    Such lines have one field, or nothing but one, where the table has three or more, or are
    comments, or have at most half as many and the table has numbers under its names; the header
    that follows is all names, and what follows it is regular. If that is in doubt, there are no
    such lines.
    """
    written = [record for record in records if record.size]
    lines = 0
    for at, record in enumerate(records[: LONGEST_PREAMBLE + 1]):
        filled = [text for text, _ in record.cells if text.strip()]
        if len(record.cells) == width and len(filled) > 1:
            if record is not written[0] and _is_table(records[at:], width):
                return lines, record
            break
        is_unreadable = record.size and not record.cells
        if is_unreadable or (len(filled) > 1 and not _may_precede(record, records[at:], width)):
            break
        lines += record.lines
    return 0, written[0]


def _may_precede(record: _Record, rest: Sequence[_Record], width: int) -> bool:
    """Say whether a line of several fields may stand before the header."""
    if record.cells[0][0].startswith("#"):
        return True
    below = [other.cells for other in rest if len(other.cells) == width]
    columns = list(zip(*below, strict=True))
    has_numbers = any(
        all(_NUMBER.fullmatch(text) for text, _ in column[1:]) for column in columns if column[1:]
    )
    return 2 * len(record.cells) <= width and has_numbers


def _is_table(records: Sequence[_Record], width: int) -> bool:
    names = [text.strip() for text, _ in records[0].cells]
    rows = [record for record in records[1:] if record.size]
    regular = sum(len(record.cells) == width for record in rows)
    return (
        width >= 3
        and all(names)
        and len(set(names)) == width
        and not any(map(_NUMBER.fullmatch, names))
        and len(rows) >= 2
        and regular >= SHARE_TO_TRUST * len(rows)
    )
