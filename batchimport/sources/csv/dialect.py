"""The format of a delimited file: what the options say, otherwise what its head shows."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError
from batchimport.rules import pairs_of
from batchimport.sources.csv.grammar import COPY_END, COPY_NULL, Dialect
from batchimport.sources.csv.header import is_like_data, notes_about
from batchimport.sources.csv.numbers import PLAIN_NUMBERS, NumberForm, find_form
from batchimport.sources.csv.sniff import DELIMITERS, Guess, NamesAre, guess, look_at
from batchimport.sources.registry import DELIMITER_NAMES, spelled

if TYPE_CHECKING:
    from batchimport.model import Kind, SourceOptions

_DECLARATION = re.compile(r'(?i)("?)sep=([,;\t|:^~])\1(?:\r\n?|\n)')
"""The first line by which a file tells Excel its delimiter."""

_COPY = re.compile(r"(?m)(?:^|\t)\\N(?:\t|\r?$)|^\\\.\r?$|\\(?:\t|\r?\n)")
r"""What nobody writes who does not mean null (`\N`), the end of the data (`\.`), or a tab or line end in a
field."""

_LONGEST_DELIMITER = 10


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How a delimited file is written.

    Attributes:
        nulls: The unquoted cells that mean null.
        numbers: How numbers are written.
        comment: A line that begins with it is no record; empty if there is no such line.
        pads: A record with too few fields has null in those that it lacks, and empty ones too many
            are dropped.
        trails: Each record ends with a delimiter.
        preamble: Number of lines before the header that are not part of the table.
        header_records: Number of records that hold the names: none, one, or two.
        has_sure_names: There is one such record, and it does not look like data.
        width: Number of fields that most records of the head have; 0 if there are no records.
        is_even: All records of the head below the header have that width.
        notes: What was detected, for the user.
    """

    dialect: Dialect
    nulls: frozenset[str]
    numbers: NumberForm = PLAIN_NUMBERS
    comment: str = ""
    pads: bool = False
    trails: bool = False
    preamble: int = 0
    header_records: int = 1
    has_sure_names: bool = True
    width: int = 0
    is_even: bool = False
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what the ledger keeps, so that the file is read in the same way ever after."""
        facts = {each.name: getattr(self, each.name) for each in fields(self)}
        del facts["notes"]
        written = {"dialect": asdict(self.dialect), "numbers": asdict(self.numbers)}
        return facts | written | {"nulls": sorted(self.nulls)}

    def with_facts(self, facts: dict[str, Any]) -> CsvFormat:
        """Return the format that `facts` returned for a file, maybe in an earlier version."""
        known = {each.name for each in fields(self)}
        rest = {name: value for name, value in facts.items() if name in known}
        rest["dialect"] = Dialect(**rest["dialect"])
        rest["numbers"] = NumberForm(**rest["numbers"])
        return replace(self, **rest | {"nulls": frozenset(rest["nulls"])})


def detect_format(head: str, options: SourceOptions, *, is_whole: bool) -> CsvFormat:
    """Return the format of a file.

    Args:
        head: Its first characters, after the lines that `--skip-lines` skips.
        is_whole: The head is the whole file.

    Raises:
        UsageError: If the delimiter or quote of the options cannot be one.
    """
    delimiter = spelled(options.delimiter)
    is_padded = delimiter is not None and len(delimiter) > 1 and delimiter.endswith(" ")
    if delimiter is not None:
        delimiter = delimiter.rstrip(" ") if is_padded else delimiter
        _check_delimiter(delimiter)
    comment = options.comment or ""
    if options.format == "copy":
        return _copy_format(head, options, delimiter, is_whole=is_whole)
    if comment:
        head = _without_comments(head, comment)
    if options.quote is not None:
        _check("--quote", options.quote, may_be_empty=True)
    if delimiter is not None and delimiter == ('"' if options.quote is None else options.quote):
        raise UsageError("is the same as --quote", where="--delimiter")
    declared = _DECLARATION.match(head) if options.skip_lines is None else None
    if declared is not None:
        head = head[declared.end() :]
        if declared[2] in head:  # what does not separate anything was not written by Excel
            delimiter = delimiter or declared[2]
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
    detected = _doubted(detected, options)
    header = detected.header
    preamble = header.preamble + (declared is not None) if options.skip_lines is None else 0
    numbers, remarks = find_form(
        _columns(detected),
        options.decimal,
        options.thousands,
        delimiter=detected.dialect.delimiter,
        typed=_types(options),
    )
    notes = _notes(
        head,
        detected,
        preamble,
        _names_are(options),
        delimiter_is_given=delimiter is not None,
        quote_is_given=options.quote is not None,
    )
    return CsvFormat(
        detected.dialect,
        _nulls(options, ""),
        numbers,
        comment,
        options.ragged == "pad",
        detected.trails,
        preamble,
        header.records,
        header.records == 1 and not header.is_like_data,
        detected.width,
        detected.is_even,
        (*notes, *remarks),
    )


def _doubted(detected: Guess, options: SourceOptions) -> Guess:
    """Return a guess that says so if the lines to skip were perhaps miscounted."""
    header = detected.header
    if options.skip_lines is None or options.has_header or not options.header:
        return detected
    return replace(
        detected, header=replace(header, is_like_data=is_like_data(header, detected.rows))
    )


def _types(options: SourceOptions) -> dict[str, Kind]:
    """Return the types that the user says, by what columns are called in the file."""
    new = pairs_of("--rename", options.rename)
    old = {name: key for key, name in new.items()}
    types = pairs_of("--type", options.types)
    return {old.get(name, name): kind for name, kind in types.items()}  # type: ignore[misc]  # checked


def _nulls(options: SourceOptions, default: str) -> frozenset[str]:
    given = default if options.null_string is None else options.null_string
    return frozenset([given] if isinstance(given, str) else given)


def _copy_format(
    head: str, options: SourceOptions, delimiter: str | None, *, is_whole: bool
) -> CsvFormat:
    """Return the text format of PostgreSQL's COPY: nothing is guessed."""
    dialect = Dialect(delimiter or "\t", "", escapechar="\\", is_copy=True)
    if options.quote:
        raise UsageError("COPY's text format has no quotes", where="--quote")
    detected = look_at(
        _without_comments(head, COPY_END),
        dialect,
        "first" if options.has_header else "none",
        is_whole=is_whole,
    )
    return CsvFormat(
        dialect,
        _nulls(options, COPY_NULL),
        comment=COPY_END,
        pads=options.ragged == "pad",
        header_records=int(options.has_header),
        width=detected.width,
        notes=()
        if options.has_header
        else ("no header (--header if the first line holds the names)",),
    )


def _without_comments(head: str, comment: str) -> str:
    return re.sub(rf"(?m)^{re.escape(comment)}[^\r\n]*(?:\r\n?|\n|\Z)", "", head)


def _columns(detected: Guess) -> dict[str, list[str]]:
    """Return the texts of the head, by the names of their columns."""
    header = detected.header
    names = header.first.texts if header.records == 1 or header.has_rule else []
    rows = [row.texts for row in detected.rows if len(row.cells) == detected.width]
    return {
        (names[at] if at < len(names) else "") or f"column_{at + 1}": list(cells)
        for at, cells in enumerate(zip(*rows, strict=True))
    }


def _names_are(options: SourceOptions) -> NamesAre:
    if not options.header:
        return "none"
    return "found" if options.skip_lines is None and not options.has_header else "first"


def _check_delimiter(delimiter: str) -> None:
    is_ok = 0 < len(delimiter) <= _LONGEST_DELIMITER and not set(delimiter) & set("\r\n\0")
    if not is_ok:
        raise UsageError(
            f"cannot be {delimiter!r}",
            where="--delimiter",
            hint="one character or a few, such as ';' or '||'; a tab is \\t, a control character \\x01",
        )


def _check(option: str, value: str, *, may_be_empty: bool = False) -> None:
    ok = (len(value) == 1 and value.isascii() and value not in "\r\n\0\x01") or (
        may_be_empty and not value
    )
    if not ok:
        raise UsageError(
            f"must be one ASCII character, not {value!r}",
            where=option,
            hint="such as '; empty for none",
        )


def _notes(
    head: str,
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
        mark = dialect.delimiter
        notes.append(f"delimiter: {DELIMITER_NAMES.get(mark) or repr(mark)}")
    if not dialect.quotechar and not quote_is_given:
        notes.append("quotes are text (--quote '\"' if they enclose fields)")
    if dialect.quotechar == "'":
        notes.append("quote: single quote")
    if dialect.delimiter == "\t" and dialect.is_plain and _COPY.search(head):
        notes.append(
            "it looks like COPY's or mysqldump's text: --format copy reads its \\N, \\t, \\."
        )
    if dialect.escapechar:
        notes.append("quotes are escaped by a backslash")
    if dialect.skipinitialspace:
        notes.append("spaces around fields are dropped")
    return (*notes, *notes_about(header, preamble, is_found=names_are == "found"))
