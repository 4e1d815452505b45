"""How a delimited file is written: what the options say, else what its head shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.quoting import FieldReader

if TYPE_CHECKING:
    from batchimport.job import SourceOptions

CANDIDATES = (",", ";", "\t", "|")
LINES_TO_LOOK_AT = 200
_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
_SPELLINGS = {"\\t": "\t", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are parted and marked.

    Attributes:
        quote: Empty if there are no quotes.
        null: The unquoted cell that means null.
        note: What was found out, for the user.
    """

    delimiter: str
    quote: str
    null: str
    note: str = ""


def choose_dialect(head: bytes, options: SourceOptions) -> Dialect:
    """Return the dialect of a file.

    Args:
        head: Its first bytes, from the header on.

    Raises:
        UsageError: If an option is no single character.
    """
    quote = '"' if options.quote is None else options.quote
    given = options.delimiter
    given = _SPELLINGS.get(given, given) if given is not None else None
    _check("--quote", quote, may_be_empty=True)
    if given is not None:
        _check("--delimiter", given)
        if given == quote:
            raise UsageError("is the same as --quote", where="--delimiter")
    elif options.format == "tsv":
        given = "\t"
    null = options.null_string or ""
    if given is not None:
        return Dialect(given, quote, null)
    found = _detect(head, quote)
    return Dialect(found, quote, null, f"delimiter: {_NAMES[found]}")


def _check(option: str, value: str, *, may_be_empty: bool = False) -> None:
    ok = (len(value) == 1 and value.isascii() and value not in "\r\n\0\x01") or (
        may_be_empty and not value
    )
    if not ok:
        raise UsageError(
            f"must be one ASCII character, not {value!r}", where=option, hint="a tab is \\t"
        )


def _detect(head: bytes, quote: str) -> str:
    """Return the candidate that cuts most lines of the head into as many fields as the first."""
    lines = head.decode(errors="replace").split("\n")[: LINES_TO_LOOK_AT + 1]
    lines = [line.removesuffix("\r") for line in (lines[:-1] if len(lines) > 1 else lines)]
    scores = {mark: _score([line for line in lines if line], mark, quote) for mark in CANDIDATES}
    return max(CANDIDATES, key=lambda mark: scores[mark])


def _score(lines: list[str], delimiter: str, quote: str) -> tuple[float, int]:
    reader = FieldReader(delimiter, quote)
    counts = []
    for line in lines:
        try:
            counts.append(len(reader.read(line)))
        except UnreadableRecordError:  # perhaps a field that spans lines
            continue
    if not counts or counts[0] < 2:
        return (0.0, 0)
    return (counts.count(counts[0]) / len(counts), counts[0])
