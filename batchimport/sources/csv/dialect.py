"""The format of a delimited file: what the options say, otherwise what its head shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.csv.sniff import DELIMITERS, Guess, NamesAre, guess

if TYPE_CHECKING:
    from batchimport.model import SourceOptions
    from batchimport.sources.csv.grammar import Dialect

_NAMES = {
    "\t": "tab",
    ",": "comma",
    ";": "semicolon",
    "|": "pipe",
    " ": "space",
    ":": "colon",
    "'": "single quote",
}
_DECLARATION = re.compile(r"sep=([,;\t|:^~])(?:\r\n?|\n)")
"""The first line by which a file tells Excel its delimiter."""

_SPELLINGS = {"\\t": "\t", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How a delimited file is written.

    Attributes:
        nulls: The unquoted cells that mean null.
        preamble: Number of lines before the header that are not part of the table.
        header_records: Number of records that hold the names: none, one, or two.
        has_sure_names: There is one such record, and it does not look like data.
        width: Number of fields that most records of the head have; 0 if there are no records.
        is_even: All records of the head below the header have that width.
        notes: What was detected, for the user.
    """

    dialect: Dialect
    nulls: frozenset[str]
    preamble: int = 0
    header_records: int = 1
    has_sure_names: bool = True
    width: int = 0
    is_even: bool = False
    notes: tuple[str, ...] = ()


def detect_format(head: str, options: SourceOptions, *, is_whole: bool) -> CsvFormat:
    """Return the format of a file.

    Args:
        head: Its first characters, after the lines that `--skip-lines` skips.
        is_whole: The head is the whole file.

    Raises:
        UsageError: If the delimiter or quote of the options is not a single character.
    """
    delimiter = options.delimiter
    delimiter = None if delimiter is None else _SPELLINGS.get(delimiter, delimiter)
    is_padded = delimiter is not None and len(delimiter) > 1 and delimiter.endswith(" ")
    if delimiter is not None:
        delimiter = delimiter.rstrip(" ") if is_padded else delimiter
        _check("--delimiter", delimiter)
    if options.quote is not None:
        _check("--quote", options.quote, may_be_empty=True)
    if delimiter is not None and delimiter == ('"' if options.quote is None else options.quote):
        raise UsageError("is the same as --quote", where="--delimiter")
    declared = _DECLARATION.match(head) if options.skip_lines is None else None
    if declared is not None:
        delimiter, head = delimiter or declared[1], head[declared.end() :]
    if delimiter is None and options.format == "tsv":
        delimiter = "\t"
    detected = guess(
        head,
        delimiters=DELIMITERS if delimiter is None else (delimiter,),
        quotes=None if options.quote is None else (options.quote,),
        names=_names_are(options),
        is_whole=is_whole,
    )
    if is_padded:
        detected = replace(detected, dialect=replace(detected.dialect, skipinitialspace=True))
    header = detected.header
    preamble = header.preamble + (declared is not None) if options.skip_lines is None else 0
    notes = _notes(
        detected,
        preamble,
        _names_are(options),
        delimiter_is_given=delimiter is not None,
        quote_is_given=options.quote is not None,
    )
    return CsvFormat(
        detected.dialect,
        frozenset([given] if isinstance(given := options.null_string or "", str) else given),
        preamble,
        header.records,
        header.records == 1 and not header.is_like_data,
        detected.width,
        detected.is_even,
        notes,
    )


def _names_are(options: SourceOptions) -> NamesAre:
    if not options.header:
        return "none"
    return "found" if options.skip_lines is None and not options.has_header else "first"


def _check(option: str, value: str, *, may_be_empty: bool = False) -> None:
    ok = (len(value) == 1 and value.isascii() and value not in "\r\n\0\x01") or (
        may_be_empty and not value
    )
    if not ok:
        raise UsageError(
            f"must be one ASCII character, not {value!r}", where=option, hint="a tab is \\t"
        )


def _notes(
    detected: Guess,
    preamble: int,
    names_are: NamesAre,
    *,
    delimiter_is_given: bool,
    quote_is_given: bool,
) -> tuple[str, ...]:
    dialect, header = detected.dialect, detected.header
    notes = []
    if not delimiter_is_given:
        notes.append(f"delimiter: {_NAMES[dialect.delimiter]}")
    if not dialect.quotechar and not quote_is_given:
        notes.append("quotes are text (--quote '\"' if they enclose fields)")
    if dialect.quotechar == "'":
        notes.append("quote: single quote")
    if dialect.escapechar:
        notes.append("quotes are escaped by a backslash")
    if dialect.skipinitialspace:
        notes.append("spaces around fields are dropped")
    if preamble:
        notes.append(
            f"lines before the header that are not part of the table: {preamble} "
            "(--skip-lines 0 to read them as well)"
        )
    if header.records == 2:
        notes.append("the names of the columns are in two lines (--header for one)")
    if header.records == 0 and header.first.cells and names_are == "found":
        notes.append(
            "no header: the first row has the same types as all others and is read as a record "
            "(--header if it holds the names)"
        )
    if header.is_like_data:
        notes.append(
            "the first row is taken for names, but looks like data (--no-header to read it as a record)"
        )
    return tuple(notes)
