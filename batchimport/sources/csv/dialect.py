"""How a delimited file is written: what the options say, else what its head shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.csv.sniff import DELIMITERS, Guess, guess

if TYPE_CHECKING:
    from batchimport.model import SourceOptions
    from batchimport.sources.csv.grammar import Marks

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
class Dialect:
    """How fields are parted and marked.

    Attributes:
        null: The unquoted cell that means null.
        preamble: Lines before the header that are no part of the table.
        width: Fields of most records in the head; 0 if there is none.
        notes: What was found out, for the user.
    """

    marks: Marks
    null: str
    preamble: int = 0
    width: int = 0
    notes: tuple[str, ...] = ()


def choose_dialect(head: str, options: SourceOptions, *, is_whole: bool) -> Dialect:
    """Return the dialect of a file.

    Args:
        head: Its first characters, without the lines that `--skip-lines` names.
        is_whole: The head is all there is.

    Raises:
        UsageError: If an option is no single character.
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
    found = guess(
        head,
        delimiters=DELIMITERS if delimiter is None else (delimiter,),
        quotes=None if options.quote is None else (options.quote,),
        has_names=options.header,
        is_whole=is_whole,
    )
    if is_padded:
        found = replace(found, marks=replace(found.marks, padded=True))
    if options.skip_lines is not None:
        found = replace(found, preamble=0)
    if declared is not None:
        found = replace(found, preamble=found.preamble + 1)
    notes = _notes(found, delimiter_is_given=delimiter is not None)
    return Dialect(found.marks, options.null_string or "", found.preamble, found.width, notes)


def _check(option: str, value: str, *, may_be_empty: bool = False) -> None:
    ok = (len(value) == 1 and value.isascii() and value not in "\r\n\0\x01") or (
        may_be_empty and not value
    )
    if not ok:
        raise UsageError(
            f"must be one ASCII character, not {value!r}", where=option, hint="a tab is \\t"
        )


def _notes(found: Guess, *, delimiter_is_given: bool) -> tuple[str, ...]:
    marks = found.marks
    notes = []
    if not delimiter_is_given:
        notes.append(f"delimiter: {_NAMES[marks.delimiter]}")
    if marks.quote == "'":
        notes.append("quote: single quote")
    if marks.escape:
        notes.append("quotes are escaped by a backslash")
    if marks.padded:
        notes.append("spaces around fields are no part of them")
    if found.preamble:
        notes.append(
            f"lines before the header that are no part of the table: {found.preamble} "
            "(--skip-lines 0 to read them as well)"
        )
    return tuple(notes)
