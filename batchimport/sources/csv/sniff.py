"""Guess the dialect of delimited text from its head.

Each dialect that the head may have been written in is tried, and judged by how much of the text it cuts
into records of one width. The plain dialect wins unless another is better.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.csv.grammar import Dialect, FieldReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sources.csv.grammar import Cell

DELIMITERS = (",", ";", "\t", "|", " ", ":")
"""In order of preference; the last two are frequent in prose, and need more evidence."""

RECORDS_TO_LOOK_AT = 300
LONGEST_PREAMBLE = 20
SHARE_TO_TRUST = 0.9
LEAST_GAIN = 0.1
MORE_QUOTED = 1.5
"""How much more must be quoted to drop spaces around fields, since that changes other fields."""

_FREQUENT_IN_TEXT = (" ", ":")
_LINE_END = re.compile(r"\r\n?|\n")
_NUMBER = re.compile(r"[+-]?[0-9.,:/-]*[0-9][0-9.,:/eE%-]*")


@dataclass(frozen=True, slots=True)
class Guess:
    """A dialect, and what the head looks like when it is read by it.

    Attributes:
        share: How much of the text is in records of one width, 0 to 1.
        width: That width; 0 if there are no records.
        header_fits: The header has that width, too.
        quoted: Share of the cells that are quoted, 0 to 1.
        quotes_columns: In some column, the name and all cells that are not empty are quoted.
        numbers: Share of the cells that are numbers, dates or times, 0 to 1.
        preamble: Number of lines before the header that are not part of the table.
    """

    dialect: Dialect
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
    """Return the most likely dialect of a text.

    Args:
        delimiters: Candidates, in order of preference.
        quotes: Candidates; None for the usual ones.
        has_names: The first record holds the names of the fields.
        is_whole: The head is the whole text, so that its last record is complete.
    """
    wanted = ('"', "'") if quotes is None else quotes
    best = Guess(Dialect(delimiters[0], wanted[0]))
    for dialect in _candidates(head, delimiters, wanted):
        records = list(_records(head, dialect, is_whole=is_whole))
        candidate = _judge(dialect, records, has_names=has_names)
        if dialect.quotechar == "'" and quotes is None and (best.quoted or not candidate.quoted):
            continue
        if dialect.escapechar and candidate.width == 1 and f"\\{dialect.quotechar}" not in head:
            continue
        if dialect.delimiter != delimiters[0] and not _is_convincing(
            candidate, records, has_names=has_names
        ):
            continue
        if _beats(candidate, best):
            best = candidate
    return best


def _candidates(head: str, delimiters: Sequence[str], quotes: Sequence[str]) -> Iterator[Dialect]:
    """Yield the dialects that the head may have been written in, the plain ones first."""
    there = [delimiters[0], *(mark for mark in delimiters[1:] if mark in head)]
    for quote in quotes:
        if quote == "'" and not re.search(r"(^|[^\w\s])[ ]?'|'([^\w\s]|$)", head, re.MULTILINE):
            continue
        for delimiter in there:
            if delimiter == quote:
                continue
            yield Dialect(delimiter, quote)
            padded = bool(quote) and delimiter != " " and _is_padded(head, delimiter, quote)
            if quote and f"\\{quote}" in head:
                yield Dialect(delimiter, quote, escapechar="\\", skipinitialspace=padded)
            elif f"\\{delimiter}" in head:
                yield Dialect(delimiter, quote, escapechar="\\")
            if padded:
                yield Dialect(delimiter, quote, skipinitialspace=True)


def _is_padded(head: str, delimiter: str, quote: str) -> bool:
    mark, comma = re.escape(quote), re.escape(delimiter)
    return bool(re.search(f"{comma} +{mark}|{mark} +{comma}|^ +{mark}", head, re.MULTILINE))


def _records(head: str, dialect: Dialect, *, is_whole: bool) -> Iterator[_Record]:
    """Yield the records of the head as `QuotedLines` cuts them; blank lines have no cells."""
    whole = re.compile(dialect.record(at_end=True))
    line = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
    reader = FieldReader(dialect)
    at, looked_at = 0, 0
    while at < len(head) and looked_at < RECORDS_TO_LOOK_AT:
        match = whole.match(head, at) or line.match(head, at)
        if match is None or (match.end() == len(head) and not is_whole and looked_at):
            return
        at = match.end()
        text = match[0].rstrip("\r\n")
        lines = len(_LINE_END.findall(match[0]))
        if not text:
            yield _Record((), 0, lines)
            continue
        looked_at += 1
        try:
            yield _Record(reader.read(text), len(text), lines)
        except UnreadableRecordError:
            yield _Record((), len(text), lines)


def _judge(dialect: Dialect, records: list[_Record], *, has_names: bool) -> Guess:
    sizes: Counter[int] = Counter()
    for record in records:
        sizes[len(record.cells)] += record.size
    total = sizes.total()
    del sizes[0]
    if not total or not sizes:
        return Guess(dialect)
    width = max(sizes, key=lambda width: (sizes[width], width))
    regular = [record for record in records if len(record.cells) == width]
    cells = [cell for record in regular for cell in record.cells if cell[0]]
    preamble, header = _find_header(records, width) if has_names else (0, regular[0])
    return Guess(
        dialect,
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
    """Say whether a guess is better than another that is preferred if both are equal."""
    if one.dialect.delimiter != other.dialect.delimiter:
        return one.width > 1 and _rank(one) > _rank(other)
    if one.dialect.quotechar != other.dialect.quotechar:
        return one.share > other.share or (one.quotes_columns and one.share == other.share)
    if one.dialect.skipinitialspace and one.quoted < MORE_QUOTED * other.quoted:
        return False
    margin = LEAST_GAIN if one.dialect.skipinitialspace else 0.0
    return one.share > other.share + margin


def _rank(candidate: Guess) -> tuple[bool, bool, float, float]:
    return (candidate.width > 1, candidate.header_fits, candidate.share, candidate.numbers)


def _is_convincing(candidate: Guess, records: list[_Record], *, has_names: bool) -> bool:
    """Say whether there is enough evidence for another delimiter than the usual one.

    If the header does not contain it, nearly all records must. A delimiter that is frequent in prose
    must separate every record into three fields or more, with quotes or numbers among them.
    """
    rows = [record.cells for record in records if record.size]
    if candidate.dialect.delimiter not in _FREQUENT_IN_TEXT:
        separated = sum(len(row) == candidate.width for row in rows)
        is_in_header = bool(rows) and len(rows[0]) > 1
        return is_in_header or (separated >= 3 and separated >= SHARE_TO_TRUST * (len(rows) - 1))
    if candidate.width < 3 or len(rows) < 3 or any(len(row) != candidate.width for row in rows):
        return False
    cells = [cell for row in rows[has_names:] for cell in row]
    if any(quoted for _, quoted in cells):
        return True
    numbers = sum(bool(_NUMBER.fullmatch(text)) for text, _ in cells if text)
    if candidate.dialect.delimiter == " ":
        return numbers > 0.5 * len(cells)
    return has_names and not any(_NUMBER.fullmatch(text) for text, _ in rows[0])


def _find_header(records: Sequence[_Record], width: int) -> tuple[int, _Record]:
    """Return the number of lines before the header that are not part of the table, and the header.

    Such a line has at most one field that is not empty, is a comment, or has at most half as many
    fields as the table while the table has numbers below its names. The table has three columns or
    more, its header is all names, and nearly all of its records are regular. Otherwise the first
    record is the header.
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
    """Say whether a line of several fields may be part of the preamble."""
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
