"""The grammar of delimited text: what a field is and what a record is, in one place.

A field that begins with a quote is quoted: it ends with a quote, and quotes inside of it are doubled or
escaped. Any other field is bare: it is all text up to the next delimiter or line end, quotes included. A
record is fields with delimiters between them, followed by a line end: LF, CRLF or CR.

Patterns for Python's `re` look ahead and never backtrack. Those for Polars do without both, since its
engine has neither; they cover only dialects that write as RFC 4180 does (`Dialect.is_plain`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchimport.model import FieldError
from batchimport.sources.base import UnreadableRecordError, unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

Cell = tuple[str, bool]
"""A field's text, and whether it was quoted."""

LONE_CR = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, slots=True)
class Dialect:
    r"""The characters that give delimited text its form, named as in Python's `csv`.

    Attributes:
        quotechar: Empty if there are no quotes.
        escapechar: Makes a quote, a delimiter or itself plain text; empty if quotes are only doubled.
        skipinitialspace: Spaces around a field (before and after it, unlike in `csv`) are not part of
            it, and a quote may follow them.
        is_copy: The text format of PostgreSQL's COPY: escapes such as `\t` stand for characters.
    """

    delimiter: str
    quotechar: str = '"'
    escapechar: str = ""
    skipinitialspace: bool = False
    is_copy: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether this is how RFC 4180 writes, apart from the choice of characters."""
        return self._is_short and not self.escapechar and not self.skipinitialspace

    @property
    def _is_short(self) -> bool:
        """Whether the delimiter is one byte, so that a pattern may exclude it like any character."""
        return len(self.delimiter.encode()) == 1

    def _other_than(self, characters: str) -> str:
        """Return the pattern of a character that is none of these, and does not begin a delimiter."""
        comma = re.escape(self.delimiter)
        if self._is_short:
            return f"[^{comma}{characters}]"
        return f"(?:(?!{comma})[^{characters}])" if characters else rf"(?:(?!{comma})[\s\S])"

    # -- for `re` -----------------------------------------------------------------------------

    def quoted(self) -> str:
        """Return the pattern of a quoted field, with its inside as a group; never matches without quotes."""
        if not self.quotechar:
            return "(?!)()"
        quote, escape = re.escape(self.quotechar), re.escape(self.escapechar)
        space = " *+" if self.skipinitialspace else ""
        more = rf"|{escape}[\s\S]" if escape else ""
        return f"{space}{quote}((?:[^{quote}{escape}]++|{quote}{quote}{more})*+){quote}{space}"

    def bare(self, line_end: str = r"\r\n") -> str:
        """Return the pattern of a bare field.

        Args:
            line_end: The characters that end it besides the delimiter; empty for none.
        """
        quote, escape = map(re.escape, (self.quotechar, self.escapechar))
        space = " *" if self.skipinitialspace else ""
        opening = f"(?!{space}{quote})" if quote else ""
        if not escape:
            return f"{opening}{self._other_than(line_end)}*+"
        escaped = f"{escape}[^{line_end}]?+" if line_end else rf"{escape}[\s\S]?+"
        return f"{opening}(?:{self._other_than(escape + line_end)}++|{escaped})*+"

    def record(self, *, at_end: bool) -> str:
        """Return the pattern of a record whose quotes are in order, and its line end.

        Args:
            at_end: The text ends where the data does, so that the last record needs no line end.
        """
        comma = re.escape(self.delimiter)
        after, end = (
            (r"[\r\n]|\Z", r"\r\n?|\n|\Z") if at_end else (r"[\r\n]", r"\r\n|\n|\r(?=[^\n])")
        )
        field = f"(?:{self.quoted()}(?={comma}|{after})|{self.bare()})"
        return f"{field}(?:{comma}{field})*+(?:{end})"

    def broken(self) -> str:
        """Return the pattern of a record up to where text follows a closing quote."""
        comma, quote = re.escape(self.delimiter), re.escape(self.quotechar)
        fields = f"(?:(?:{self.quoted()}(?={comma})|{self.bare()}){comma})*+"
        text = self._other_than(quote + r"\r\n")
        return f"{fields}{self.quoted()}{text}"

    # -- for Polars ---------------------------------------------------------------------------

    def plain_quoted(self, *, one_line: bool = False) -> str:
        """Return the pattern of a quoted field.

        Args:
            one_line: There is no line end in it.
        """
        quote = _code(self.quotechar)
        part = rf"[^{quote}\r\n]*" if one_line else f"[^{quote}]*"
        return f"{quote}{part}(?:{quote}{quote}{part})*{quote}"

    def _plain_field(self, *, one_line: bool = False, text_quotes: bool = True) -> str:
        """Return the pattern of a field that is not empty.

        Args:
            text_quotes: A bare field may have quotes in it, but not at its beginning.
        """
        comma = _code(self.delimiter)
        if not self.quotechar:
            return rf"[^{comma}\r\n]+"
        quote = _code(self.quotechar)
        more = rf"[^{comma}\r\n]*" if text_quotes else rf"[^{quote}{comma}\r\n]*"
        bare = rf"[^{quote}{comma}\r\n]{more}"
        return f"(?:{self.plain_quoted(one_line=one_line)}|{bare})"

    def plain_records(self, *, one_line: bool = False) -> str:
        """Return the pattern of a whole text whose quotes are all in order, and around fields.

        Polars reads a quote in the middle of a field as one that opens or closes, so none is there.

        Args:
            one_line: Also each record is one line, ended by LF or CRLF.
        """
        field = f"(?:{self._plain_field(one_line=one_line, text_quotes=False)})?"
        return rf"\A(?:{field}(?:{_code(self.delimiter)}|\r?\n))*{field}\z"

    def plain_record(self) -> str:
        """Return the pattern of a record that is not blank, without its line end."""
        comma, field = _code(self.delimiter), self._plain_field()
        more = f"{comma}(?:{field})?"
        return rf"(?:{field}(?:{more})*|(?:{more})+)"


def _code(character: str) -> str:
    """Return an ASCII character as any pattern may have it, whatever it means in patterns."""
    return rf"\x{ord(character):02x}"


class FieldReader:
    """Reads the fields of one record, and explains quotes that are out of order."""

    def __init__(self, dialect: Dialect) -> None:
        comma, quote, escape = map(
            re.escape, (dialect.delimiter, dialect.quotechar, dialect.escapechar)
        )
        quoted, bare = dialect.quoted(), dialect.bare(line_end="")
        self._field = re.compile(rf"(?:{quoted}(?={comma}|\Z)|({bare}))({comma}|\Z)")
        self._closed = re.compile(quoted)
        pairs = [f"{escape}([{quote}{escape}{comma}])"] if escape else []
        self._pair = re.compile("|".join([*pairs, quote + quote])) if quote else None
        self._escaped = re.compile(pairs[0]) if pairs else None
        self._dialect = dialect
        self._read_bare = _copied if dialect.is_copy else self._bare
        self._is_literal = not (dialect.is_copy or dialect.skipinitialspace or escape)

    def read(self, record: str) -> list[Cell]:
        """Return the fields of a record, which comes without its line end.

        Raises:
            UnreadableRecordError: If its quotes are out of order.
        """
        if self._is_bare(record):
            fields = record.split(self._dialect.delimiter)
            if self._is_literal:
                return [(text, False) for text in fields]
            return list(map(self._read_bare, fields))
        cells: list[Cell] = []
        at = 0
        while True:
            match = self._field.match(record, at)
            if match is None:
                raise self._out_of_order(record, at, len(cells) + 1)
            inside, bare, delimiter = match.groups()
            cells.append((self._unquoted(inside), True) if bare is None else self._read_bare(bare))
            if not delimiter:
                return cells
            at = match.end()

    def _is_bare(self, record: str) -> bool:
        """Say whether each delimiter of a record ends a field."""
        quote, escape = self._dialect.quotechar, self._dialect.escapechar
        return (not quote or quote not in record) and (not escape or escape not in record)

    def _unquoted(self, inside: str) -> str:
        if self._dialect.escapechar and self._pair is not None:
            return self._pair.sub(self._plain, inside)
        return inside.replace(self._dialect.quotechar * 2, self._dialect.quotechar)

    def _bare(self, text: str) -> Cell:
        text = text.strip(" ") if self._dialect.skipinitialspace else text
        return (self._escaped.sub(self._plain, text) if self._escaped else text), False

    def _plain(self, pair: re.Match[str]) -> str:
        return str(pair[1] or self._dialect.quotechar)

    def _out_of_order(self, record: str, at: int, number: int) -> UnreadableRecordError:
        if self._closed.match(record, at):
            code, message = "malformed_quote", "text follows the closing quote"
        else:
            code, message = "unclosed_quote", "a quote is opened and not closed"
        error = FieldError(code, "", f"field {number}: {message}", record[at : at + 80])
        return UnreadableRecordError(error)


_COPY_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|([\s\S]))")
_COPY_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
COPY_NULL = "\\N"
COPY_END = "\\."
"""The line that ends the data of COPY."""


def _copied(text: str) -> Cell:
    r"""Read a field of COPY's text format; one with escapes never means null, except `\\N` itself."""
    if "\\" not in text or text == COPY_NULL:
        return text, False
    if text == COPY_END:
        raise unreadable("end_of_data", "the end of COPY's data, not a record")
    plain = _COPY_ESCAPE.sub(_copied_character, text)
    try:  # escapes of single bytes may form a character together
        return plain.encode(errors="surrogateescape").decode(), True
    except UnicodeDecodeError as error:
        raise unreadable("invalid_utf8", "escapes that are no valid text") from error


def _copied_character(escape: re.Match[str]) -> str:
    octal, hexadecimal, character = escape.groups()
    if character is not None:
        return _COPY_CHARACTERS.get(character, character)
    code = (int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF
    return chr(code) if code < 0x80 else chr(0xDC00 + code)


def write_plainly(cells: Sequence[Cell], dialect: Dialect) -> str:
    """Return fields as one record of a plain dialect, without a line end."""
    quote, special = dialect.quotechar, (dialect.delimiter, dialect.quotechar, "\r", "\n")

    def written(text: str, *, quoted: bool) -> str:
        if quote and (quoted or any(character in text for character in special)):
            return quote + text.replace(quote, quote * 2) + quote
        return text

    return dialect.delimiter.join(written(text, quoted=quoted) for text, quoted in cells)


def without_end(record: bytes) -> bytes:
    """Return a record without its line end."""
    return record.removesuffix(b"\n").removesuffix(b"\r")


def has_lone_cr(data: bytes) -> bool:
    """Say whether some CR comes without LF."""
    return b"\r" in data and LONE_CR.search(data) is not None


NULL: Cell = ("", False)
ABSENT: Cell = tuple(["", False])  # type: ignore[assignment]  # noqa: C409 - not the object NULL
"""A field that a record lacks, told from an empty one by its identity: it is null in any case."""


BOM = "\ufeff"
"""Inside of a file, it begins one that was appended."""


def is_header_again(cells: Sequence[Cell], header: Sequence[str] | None) -> bool:
    """Say whether a record repeats the header, maybe after the byte order mark of another file."""
    if header is None or len(cells) != len(header):
        return False
    first, *others = [text for text, _ in cells]
    if first.startswith(BOM):
        first = first[1:].strip('"')
    return first == header[0] and others == header[1:]


def fitted(cells: list[Cell], width: int, *, pads: bool, trails: bool) -> list[Cell]:
    """Return as many cells as there are columns, where only empty ones are too many, or some lack.

    Args:
        pads: Cells that lack are null, and any number of empty ones is dropped.
        trails: One empty cell is dropped: there is a delimiter at the end of each record.
    """
    extra = len(cells) - width
    if (pads and extra > 0) or (trails and extra == 1):
        return cells if any(text for text, _ in cells[width:]) else cells[:width]
    return [*cells, *[ABSENT] * -extra] if pads and extra < 0 else cells
