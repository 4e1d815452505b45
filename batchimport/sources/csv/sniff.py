"""Guess the dialect of delimited text from its head.

Each dialect that the head may have been written in is tried, and judged by how much of the text it cuts
into records of one width. The plain dialect wins unless another is better.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.csv.grammar import Dialect, FieldReader
from batchimport.sources.csv.header import (
    LEAST_ROWS,
    MISSING,
    SHARE_TO_TRUST,
    Header,
    Record,
    find_header,
    is_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sources.csv.grammar import Cell

DELIMITERS = (",", ";", "\t", "|", "^", "~", "\x01", "\x1f", ":", " ")
"""In order of preference; the last two are frequent in prose, need more evidence, and are taken only if
none before them fits."""
MAY_BE_DOUBLED = ("\t", "|", ":", "~", "^")
"""Every second field is empty if such a delimiter is doubled and read as a single one."""

NamesAre = Literal["found", "first", "none"]
"""Where the names of the fields are: to be found, in the first record, or nowhere."""

RECORDS_TO_LOOK_AT = 300
LEAST_GAIN = 0.1
MORE_QUOTED = 1.5
"""How much more must be quoted to drop spaces around fields, since that changes other fields."""

TEXT_QUOTES = {"\t": (1, 0.25), "": (3, 1.0)}
"""By delimiter (all others: ""), how many records must be unreadable, and how many for each one with
quotes that can be read, to take quotes for text. Those who write tabs often do not know of quotes."""

_RARE_DELIMITER = re.compile(r"([§¦¬¤¶‖•\x02-\x08\x0e\x14\x1c-\x1e])\1*|\\t|([:;,|~^#$%&*])\2+")
r"""A delimiter that few use: a sign that is in no word, `\t` as it is typed, or a sign repeated."""
_SEVERAL_SIGNS = re.compile(r"""(?:[^\w "'\\\r\n]|_){2,5}""")
"""What may be a delimiter of several signs, such as `|~|` or `<>`."""
_IN_WORDS = frozenset("-_./")
"""Signs that are in paths and names."""

_FREQUENT_IN_TEXT = (":", " ")
_LINE_END = re.compile(r"\r\n?|\n")
_WRITTEN_LINE = re.compile(r"[^\r\n]+")
_MAYBE_SINGLE_QUOTE = re.compile(
    r"'(?:(?=\t|[^\w\s]|$)|(?<=^')|(?<=^ ')|(?<=\t')|(?<=\t ')|(?<=[^\w\s]')|(?<=[^\w\s] '))",
    re.MULTILINE,
)
"""The quote itself comes first, so that only quotes are looked at."""


_NO_HEADER = Header(Record((), 0, 0))


@dataclass(frozen=True)
class Guess:
    """A dialect, and what the head looks like when it is read by it.

    What only some comparisons need is found out when it is asked for: many small files are guessed.

    Attributes:
        share: How much of the text is in records of one width, 0 to 1.
        width: That width; 0 if there are no records.
        header_fits: The header has that width, too.
        is_even: All records below the header have that width.
        trails: All of them also end with a delimiter.
        header: Where the names are.
        rows: The records below the header.
        regular: The records of that width.
        records: All records.
    """

    dialect: Dialect
    share: float = 0.0
    width: int = 0
    header_fits: bool = False
    is_even: bool = False
    trails: bool = False
    header: Header = _NO_HEADER
    rows: Sequence[Record] = ()
    regular: Sequence[Record] = ()
    records: Sequence[Record] = ()

    @cached_property
    def cells(self) -> Sequence[Cell]:
        """What is in the regular records, apart from empty cells."""
        return [cell for record in self.regular for cell in record.cells if cell[0]]

    @cached_property
    def quoted(self) -> float:
        """Share of the cells that are quoted, 0 to 1."""
        return sum(quoted for _, quoted in self.cells) / max(1, len(self.cells))

    @cached_property
    def quotes_columns(self) -> bool:
        """Whether in some column the name and all cells that are not empty are quoted."""
        columns = zip(*(record.cells for record in self.regular), strict=True)
        return any(map(_is_quoted, columns))

    @cached_property
    def must_quote(self) -> bool:
        """Whether all names are quoted, or some cell that is quoted has a quote inside."""
        if all(quoted for _, quoted in self.header.first.cells):
            return True
        return any(quoted and self.dialect.quotechar in text for text, quoted in self.cells)

    @cached_property
    def numbers(self) -> float:
        """Share of the cells that are numbers, dates or times, 0 to 1."""
        return sum(is_number(text) for text, _ in self.cells) / max(1, len(self.cells))

    @cached_property
    def is_padded(self) -> bool:
        """Whether nearly all delimiters have a space after them, or before them."""
        return _is_padded(self.rows or self.records)

    @cached_property
    def spaced(self) -> bool:
        """Whether some field begins or ends with a space."""
        return any(text != text.strip(" ") for text, _ in self.cells)

    @property
    def fits(self) -> bool:
        """Whether this is a table, header included."""
        return self.width > 1 and self.header_fits and self.share >= SHARE_TO_TRUST


def guess(
    head: str,
    *,
    delimiters: Sequence[str],
    quotes: Sequence[str] | None,
    names: NamesAre,
    is_whole: bool,
) -> Guess:
    """Return the most likely dialect of a text.

    Args:
        delimiters: Candidates, in order of preference.
        quotes: Candidates; None for the usual ones.
        names: Where the names of the fields are.
        is_whole: The head is the whole text, so that its last record is complete.
    """
    wanted = ('"', "'") if quotes is None else quotes
    best = Guess(Dialect(delimiters[0], wanted[0]))
    for dialect in _candidates(head, delimiters, wanted):
        if _cannot_beat(dialect, best) or (
            quotes is None and dialect.quotechar == "'" and best.quoted
        ):
            continue
        records = list(_records(head, dialect, is_whole=is_whole))
        candidate = _judge(dialect, records, names)
        if dialect.quotechar == "'" and quotes is None and (best.quoted or not candidate.quoted):
            continue
        if dialect.escapechar and candidate.width == 1 and f"\\{dialect.quotechar}" not in head:
            continue
        if dialect.delimiter != delimiters[0] and not _is_convincing(candidate, records, names):
            continue
        if _beats(candidate, best):
            best = candidate
    if len(delimiters) > 1:
        best = _otherwise_delimited(head, best, names, is_whole=is_whole)
    if quotes is None and best.share < 1 and best.dialect.quotechar in head:
        quoted = list(_records(head, best.dialect, is_whole=is_whole))
        plain = replace(best.dialect, quotechar="", escapechar="")
        unquoted = _judge(plain, list(_records(head, plain, is_whole=is_whole)), names)
        if _are_quotes_text(best, quoted, unquoted):
            return unquoted
    return best


def _otherwise_delimited(head: str, best: Guess, names: NamesAre, *, is_whole: bool) -> Guess:
    """Return a guess with a doubled delimiter, or one that few use, if that is better.

    One that few use is taken only if nothing else fits, and if it makes one width of all lines.
    """
    first = next((line[0] for line in _WRITTEN_LINE.finditer(head) if line[0].strip()), "")
    for signs, _ in Counter(_SEVERAL_SIGNS.findall(first)).most_common(2):
        if best.fits and not _explains(best, signs):
            continue
        found = look_at(head, Dialect(signs), names, is_whole=is_whole)
        if best.fits:  # then as often as the delimiter that was found
            is_sure = signs.count(best.dialect.delimiter) * (found.width - 1) == best.width - 1
        else:
            is_sure = found.width > 2 and not _IN_WORDS.issuperset(signs)
        if is_sure and _is_table_throughout(found):
            return found
    if _has_empty_fields_between(best):
        doubled = replace(best.dialect, delimiter=best.dialect.delimiter * 2)
        return look_at(head, doubled, names, is_whole=is_whole)
    if best.fits:
        return best
    for delimiter in dict.fromkeys(match[0] for match in _RARE_DELIMITER.finditer(first)):
        found = look_at(head, Dialect(delimiter), names, is_whole=is_whole)
        is_rare = len(delimiter) == 1 or found.width > 2 or found.quoted or found.numbers
        if _is_table_throughout(found) and is_rare:
            return found
    return best


def _is_table_throughout(found: Guess) -> bool:
    """Say whether all lines have one width."""
    is_alike = all(len(record.cells) == found.width for record in found.records if record.size)
    return found.width > 1 and is_alike and len(found.rows) >= LEAST_ROWS


def _explains(best: Guess, signs: str) -> bool:
    """Say whether the delimiter is several signs, and not only the one of them that was found.

    That one is between the others (`~|~`), unless these enclose all fields; or they are between it
    (`|~|`), unless they say that a cell is empty (`,-,`). What is on one side of it alone may be a part of
    each cell, such as a currency.
    """
    parts = signs.split(best.dialect.delimiter)
    between, before, after = set(parts[1:-1]) - {""}, parts[0], parts[-1]
    if between or len(parts) == 1:
        return bool(between) and between.isdisjoint(MISSING)
    lines = [record.texts for record in best.records if record.cells]
    return bool(before and after) and not all(
        texts[0].startswith(after) and texts[-1].endswith(before) for texts in lines
    )


def look_at(head: str, dialect: Dialect, names: NamesAre, *, is_whole: bool) -> Guess:
    """Return what a text looks like in a dialect that is known."""
    return _judge(dialect, list(_records(head, dialect, is_whole=is_whole)), names)


def _candidates(head: str, delimiters: Sequence[str], quotes: Sequence[str]) -> Iterator[Dialect]:
    """Yield the dialects that the head may have been written in, the plain ones first."""
    there = [delimiters[0], *(mark for mark in delimiters[1:] if mark in head)]
    for quote in quotes:
        if quote == "'" and not _MAYBE_SINGLE_QUOTE.search(head):
            continue
        for delimiter in there:
            if delimiter == quote:
                continue
            yield Dialect(delimiter, quote)
            padded = delimiter != " " and (f"{delimiter} " in head or f" {delimiter}" in head)
            if quote and f"\\{quote}" in head:
                yield Dialect(delimiter, quote, escapechar="\\", skipinitialspace=padded)
            elif f"\\{delimiter}" in head:
                yield Dialect(delimiter, quote, escapechar="\\")
            if padded:
                yield Dialect(delimiter, quote, skipinitialspace=True)


def _records(head: str, dialect: Dialect, *, is_whole: bool) -> Iterator[Record]:
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
        lines = len(match[0]) - len(text)
        if lines > 1 or "\n" in text or "\r" in text:
            lines = len(_LINE_END.findall(match[0]))
        if not text:
            yield Record((), 0, lines)
            continue
        looked_at += 1
        try:
            yield Record(reader.read(text), len(text), lines)
        except UnreadableRecordError:
            yield Record((), len(text), lines)


def _judge(dialect: Dialect, records: list[Record], names: NamesAre) -> Guess:
    sizes: Counter[int] = Counter()
    for record in records:
        sizes[len(record.cells)] += record.size
    total = sizes.total()
    unreadable = sizes.pop(0, 0)
    if not total or not sizes:
        return Guess(dialect)
    width = max(sizes, key=lambda width: (sizes[width], width))
    regular = [record for record in records if len(record.cells) == width]
    if names == "none":
        header = Header(regular[0], records=0)
    else:
        header = find_header(records, width, is_certain=names == "first")
    rows = [record for record in records if record.size]
    rows = rows[rows.index(header.first) + header.records :]
    return Guess(
        dialect,
        share=sizes[width] / total,
        width=width,
        header_fits=len(header.first.cells) == width,
        is_even=not unreadable and all(len(record.cells) == width for record in rows),
        trails=width > 1
        and len(rows) > 0
        and all(len(row.cells) == width and row.cells[-1] == ("", False) for row in rows),
        header=header,
        rows=rows,
        regular=regular,
        records=records,
    )


def _has_empty_fields_between(guess: Guess) -> bool:
    """Say whether every second field of each record is empty, as between doubled delimiters."""
    if guess.dialect.delimiter not in MAY_BE_DOUBLED or guess.width < 3 or guess.width % 2 == 0:
        return False
    records = [record.cells for record in (guess.header.first, *guess.rows)]
    between = [cell for cells in records for cell in cells[1::2]]
    return bool(between) and all(cell == ("", False) for cell in between)


def _is_padded(records: Sequence[Record]) -> bool:
    """Say whether nearly all delimiters have a space after them, or before them."""
    after = [cell for record in records for cell in record.cells[1:] if cell[0]]
    before = [cell for record in records for cell in record.cells[:-1] if cell[0]]
    sides = (
        [text[0] == " " and not quoted for text, quoted in after],
        [text[-1] == " " and not quoted for text, quoted in before],
    )
    return any(side and sum(side) >= SHARE_TO_TRUST * len(side) for side in sides)


def _is_quoted(column: Sequence[Cell]) -> bool:
    """Say whether there are quotes round all cells of a column, its name included."""
    (_, name_is_quoted), *below = column
    written = [(text, quoted) for text, quoted in below if text or quoted]
    return name_is_quoted and any(text for text, _ in written) and all(q for _, q in written)


def _beats(one: Guess, other: Guess) -> bool:
    """Say whether a guess is better than another that is preferred if both are equal."""
    if one.dialect.delimiter != other.dialect.delimiter:
        if one.dialect.delimiter in _FREQUENT_IN_TEXT and other.fits:
            return False
        return one.width > 1 and _rank(one) > _rank(other)
    if one.dialect.quotechar != other.dialect.quotechar:
        are_quotes = one.quotes_columns or one.must_quote
        return one.share > other.share or (are_quotes and one.share == other.share)
    if one.dialect.skipinitialspace and not other.dialect.skipinitialspace:
        return _drops_padding(one, other)
    return one.share > other.share


def _cannot_beat(dialect: Dialect, best: Guess) -> bool:
    """Say whether `_beats` is certainly false, whatever the text looks like in a dialect."""
    other = best.dialect
    if dialect.delimiter != other.delimiter:
        return dialect.delimiter in _FREQUENT_IN_TEXT and best.fits
    if dialect.quotechar != other.quotechar or best.share < 1:
        return False
    drops_spaces = dialect.skipinitialspace and not other.skipinitialspace
    return not (drops_spaces and best.is_padded)


def _drops_padding(padded: Guess, plain: Guess) -> bool:
    """Say whether spaces around fields are padding.

    They are if they are around nearly all of them, or if the text can be read better without them:
    either they are nowhere else, or much is gained and quoted.
    """
    if padded.width < 2 or padded.share < plain.share:
        return False
    if plain.is_padded:
        return True
    if padded.share == plain.share:
        return False
    if not plain.spaced:
        return True
    return padded.share > plain.share + LEAST_GAIN and padded.quoted >= MORE_QUOTED * plain.quoted


def _are_quotes_text(best: Guess, records: Sequence[Record], unquoted: Guess) -> bool:
    """Say whether quotes are better read as text: they enclose nothing that would need them.

    Args:
        records: As the best guess with quotes reads them.
        unquoted: The same without quotes.
    """
    if best.quotes_columns or unquoted.width != best.width or unquoted.share < SHARE_TO_TRUST:
        return False
    bad = sum(record.size > 0 and len(record.cells) != best.width for record in records)
    good = [record for record in records if len(record.cells) == best.width]
    quoted = [record for record in good if any(quoted for _, quoted in record.cells)]
    special = (best.dialect.delimiter, best.dialect.quotechar, "\n", "\r")
    needed = sum(
        any(quoted and any(mark in text for mark in special) for text, quoted in record.cells)
        for record in quoted
    )
    least, share = TEXT_QUOTES.get(best.dialect.delimiter, TEXT_QUOTES[""])
    return (
        unquoted.share > best.share
        and bad >= least
        and bad >= share * len(quoted)
        and 4 * needed <= bad
    )


def _rank(candidate: Guess) -> tuple[bool, bool, float, float]:
    return (candidate.width > 1, candidate.header_fits, candidate.share, candidate.numbers)


def _is_convincing(candidate: Guess, records: list[Record], names: NamesAre) -> bool:
    """Say whether there is enough evidence for another delimiter than the usual one.

    If the header does not contain it, nearly all records must. A delimiter that is frequent in prose
    must separate every record into three fields or more, with quotes or numbers among them.
    """
    if not candidate.width:
        return False
    first = records.index(candidate.header.first)
    rows = [record.cells for record in records[first:] if record.size]
    if candidate.dialect.delimiter not in _FREQUENT_IN_TEXT:
        separated = sum(len(row) == candidate.width for row in rows)
        is_in_header = bool(rows) and len(rows[0]) > 1
        return is_in_header or (separated >= 3 and separated >= SHARE_TO_TRUST * (len(rows) - 1))
    above = [record.texts[0] for record in records[:first] if record.cells]
    if (
        any(not text.startswith("#") for text in above)  # the header of another delimiter, perhaps
        or candidate.width < 3
        or len(rows) < 3
        or any(len(row) != candidate.width for row in rows)
        or (candidate.width == 3 and not candidate.numbers and _has_empty_fields_between(candidate))
    ):  # the last ones may be names such as std::vector
        return False
    cells = [cell for row in rows[names != "none" :] for cell in row]
    if any(quoted for _, quoted in cells):
        return True
    if candidate.dialect.delimiter == " ":
        return sum(is_number(text) for text, _ in cells if text) > 0.5 * len(cells)
    return names != "none" and not any(is_number(text) for text, _ in rows[0])
