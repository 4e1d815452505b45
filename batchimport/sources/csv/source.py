"""Delimited text: CSV and TSV."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError
from batchimport.model import EXTRA_COLUMN, Chunk, Position
from batchimport.schema.forms import Words
from batchimport.schema.infer import FieldNames
from batchimport.sources.base import (
    Batch,
    Piece,
    TextSource,
    UnreadableRecordError,
)
from batchimport.sources.bytes.file import HEAD_BYTES, digest_of
from batchimport.sources.csv.dialect import CsvFormat, detect_format
from batchimport.sources.csv.footer import END_BYTES, LARGE_BYTES, notes_about_end
from batchimport.sources.csv.grammar import (
    ABSENT,
    Dialect,
    FieldReader,
    fitted,
    is_header_again,
    without_end,
)
from batchimport.sources.csv.header import join_names
from batchimport.sources.csv.kept import CsvForm, KeptRows
from batchimport.sources.csv.numbers import PLAIN_NUMBERS
from batchimport.sources.csv.records import DelimitedRecords, Layout, QuotedLines
from batchimport.sources.csv.table import Table
from batchimport.sources.joined import JoinedRecords, join, lines_of, starts_of, whole_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from batchimport.model import SourceOptions
    from batchimport.schema import RecordSchema
    from batchimport.sources.base import Form
    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.csv.grammar import Cell

MAX_NOTES = 5
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
"""Characters without a width. The first is a byte order mark if it is out of place; read as windows-1252 it
is three letters."""


class DelimitedSource(TextSource):
    """One file of delimited text.

    Attributes:
        header: Names of the fields.
    """

    format = "csv"
    is_written = True
    """Somebody wrote the text, with some delimiter; in one column a blank line is a record."""

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        super().__init__(text, name, options.max_record_bytes)
        self._options = options
        self._start = self._skip(Position(text.begin), options.skip_lines or 0)
        self._read_as(self._detect())

    def _detect(self) -> CsvFormat:
        """Return how the file is written."""
        head = self._text.read_at(self._start.position, HEAD_BYTES)
        is_whole = self._start.position + len(head) == self._text.size
        return detect_format(head.decode(errors="replace"), self._options, is_whole=is_whole)

    def _read_as(self, form: CsvFormat) -> None:
        """Prepare to read the file as it is written."""
        longest = self._max_record_bytes
        self._form = form
        self._lines = QuotedLines(self._text, form.dialect, longest, form.comment)
        self._fields = FieldReader(form.dialect)
        self._repeated: list[str] | None = None
        start = self._skip(self._start, form.preamble, form.comment.encode())
        self._trails = False
        self.header, self._body, notes = self._read_header(start, form.header_records)
        if (
            len(self.header) == 1 and form.dialect.is_copy
        ):  # there, an empty line is an empty string
            self._lines = QuotedLines(self._text, form.dialect, longest)
        is_one_column = len(self.header) == 1 and self.is_written
        self._lines.keeps_blank = is_one_column and not self._lines.has_comments
        self.headers = {self.name: self.header} if self.header and self._options.header else {}
        if is_one_column:
            notes.append(f"read as one column, {self.header[0]!r}: see --delimiter and --format")
        self._header_text = self._text.read_at(start.position, self._body.position - start.position)
        self._layout = Layout(self.name, self._lines, self._fields, longest)
        self.notes = (*self._text.notes, *form.notes, *notes, *self._notes_about_end())
        self._tables: dict[RecordSchema, Table] = {}

    def _notes_about_end(self) -> tuple[str, ...]:
        """Return what users should know about the last rows of a file that no sample reads as a whole."""
        width = len(self.header)
        if self._text.size < LARGE_BYTES or width < 2 or self._form.dialect.is_copy:
            return ()
        end = self._text.read_at(self._text.size - END_BYTES, END_BYTES).partition(b"\n")[2]
        rows = []
        for part in filter(self._lines.is_record, self._lines.split(end)):
            with suppress(UnicodeDecodeError, UnreadableRecordError):
                cells = self._fields.read(without_end(part).decode())
                rows.append([text.strip() for text, _ in cells])
        return notes_about_end([row for row in rows if len(row) == width])

    @property
    def forms(self) -> tuple[Form, ...]:
        """The dialect, the names of the fields, and the lines that hold them."""
        # The names are valid text, comments between them may be anything.
        text = self._header_text.decode(errors="replace") or self._names_as_header()
        form = CsvForm(self.header, self._form, self._repeated, text, trails=self._trails)
        return (form.to_dict(),)

    def _names_as_header(self) -> str:
        """Return the line that names the fields of a file whose lack of a header was detected."""
        if not (self.header and self._options.header) or self._form.dialect.is_copy:
            return ""
        names = [*self.header, ""] if self._trails else self.header
        return self._form.dialect.delimiter.join(names) + "\n"

    @staticmethod
    def reread(
        form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
    ) -> Batch:
        """Parse rows that were kept by themselves."""
        kept = KeptRows(CsvForm.of(form), records, too_long, schema)
        frame, deferred = kept.decode()
        return Batch(kept.chunk, frame, deferred, kept, "")

    @property
    def detected(self) -> dict[str, dict[str, Any]]:
        """How the file is written."""
        return {self.name: self._form.facts()}

    def adopt(self, detected: Mapping[str, dict[str, Any]]) -> None:
        """Read the file as it was read when its job began."""
        facts = detected.get(self.name)
        if facts is not None and facts != self._form.facts():
            self._read_as(self._form.with_facts(facts))

    def _skip(self, start: Position, lines: int, comment: bytes = b"") -> Position:
        """Return the position after a number of lines, and comments between them."""
        if not lines:
            return start
        reader, position = QuotedLines(self._text, Dialect(",", "")), start.position
        line, left = start.line, lines
        while left and position < self._text.size:
            is_comment = comment and self._text.read_at(position, len(comment)) == comment
            left -= not is_comment
            position = reader.end_of_line(position)
            line += 1
        return Position(position, 0, line)

    def _read_header(self, start: Position, count: int) -> tuple[list[str], Position, list[str]]:
        """Return the names of the fields, where the records begin, and what was renamed.

        Args:
            count: Number of records that hold the names.
        """
        first = self._lines.after_blank_lines(start, self._text.size)
        chunk = self._lines.cut(first, max(count, 1), HEAD_BYTES)
        if chunk is None or not chunk.records:
            return [], start, []
        raw = self._text.read_at(
            chunk.lo, min(chunk.hi - chunk.lo, max(self._max_record_bytes, HEAD_BYTES))
        )
        records = list(filter(self._lines.is_record, self._lines.split(raw)))
        where = f"{self.name}:{chunk.start.line}"
        try:
            lines = [without_end(record).decode() for record in records]
        except UnicodeDecodeError as error:
            hint = "say how it is written: --encoding"
            raise UsageError(
                "the first record is not valid text", where=where, hint=hint
            ) from error
        if not count:
            width = self._form.width or len(lines[0].split(self._form.dialect.delimiter))
            self._trails = self._form.trails
            return [f"column_{at}" for at in range(1, width + 1 - self._trails)], start, []
        names, notes = self._names(lines)
        return names, Position(chunk.hi, 0, chunk.end.line), notes

    def _names(self, lines: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the names in the lines of a header, and what users should know about it."""
        remarks = []
        try:
            cells = [[text for text, _ in self._fields.read(line)] for line in lines]
            rows = [[_name(text) for text in row] for row in cells]
        except UnreadableRecordError:
            rows = [[_name(text) for text in lines[0].split(self._form.dialect.delimiter)]]
            remarks.append("the header's quotes are out of order: its names are read as they stand")
        else:
            is_whole = len(rows[0]) == self._form.width > 1
            if self._form.has_sure_names and is_whole and any(cells[0]):
                self._repeated = cells[0]
        names, width = rows[0] if len(rows) == 1 else join_names(*rows), self._form.width
        if self._form.trails and width in (len(names), len(names) + 1):
            self._trails = width > len(names) or not names[-1]
            if self._trails:
                remarks.append("the delimiter at the end of each record is dropped")
                names, width = names[: width - 1], width - 1
        if width == len(names) - 1 and not names[-1]:
            names.pop()
        if width not in (0, len(names)):
            fields = f"most records have {width} fields, the header has {len(names)}"
            if self._form.is_even and width > 1 and abs(width - len(names)) == 1:
                remarks.append(
                    f"{fields}: its names are given from the left (check them, or name the columns "
                    "yourself with --no-header)"
                )
                names = [*names, ""][:width]
            else:
                remarks.append(
                    f"{fields}: those will be rejected (see --skip-lines and --no-header)"
                )
        names, notes = _distinct(names)
        return names, [*remarks, *notes]

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records that begins at `start`; None at the end.

        The first chunk also holds the header.
        """
        if start.position >= self._body.position:
            return self._lines.cut(start, limit, max_bytes)
        chunk = self._lines.cut(self._body, limit, max_bytes)
        return Chunk(start, chunk.end if chunk else Position(self.size, 0, self._body.line))

    def _read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        return self.parsed(self._piece(chunk), self._table(schema))

    def _piece(self, chunk: Chunk, likeness: Any = None) -> Piece:
        begin = max(chunk.lo, self._body.position) - chunk.lo
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        return Piece(self, chunk, data, begin, digest_of(data), likeness)

    def records_of(self, piece: Piece, table: Table) -> DelimitedRecords:
        """Return the records of a chunk of this file."""
        first = max(piece.chunk.start, self._body)
        body = piece.data[piece.begin :]
        return DelimitedRecords(self._layout, table, piece.chunk, first, body)

    def parsed(self, piece: Piece, table: Table) -> Batch:
        """Parse a chunk of this file by itself."""
        chunk, body, decoded = piece.chunk, piece.data[piece.begin :], None
        records = self.records_of(piece, table)
        # None of them is too long, and no quote in a comment opens a field.
        if len(body) <= self._max_record_bytes and not self._lines.may_have_comments(body):
            is_plain = self._lines.are_plain(chunk.lo + piece.begin, chunk.hi)
            decoded = table.decode_whole(body, chunk.records, is_plain=is_plain)
        accepted, deferred = decoded or table.decode(records.records, records.too_long)
        return Batch(chunk, accepted, deferred, records, piece.digest)

    def piece(self, chunk: Chunk) -> Piece | None:
        """Return a chunk to be parsed with those of other files.

        Only one that certainly ends outside of quotes, and whose lines end with LF: then no record can
        reach into the next file.
        """
        form, repeated = self._form, self._repeated
        if not (self.is_written and form.dialect.is_plain) or form.comment:
            return None
        piece = self._piece(
            chunk,
            (
                *(tuple(self.header), None if repeated is None else tuple(repeated), self._trails),
                *(form.dialect, form.nulls, form.numbers, form.pads),
            ),
        )
        quote, body = form.dialect.quotechar.encode(), piece.data[piece.begin :]
        is_even = not quote or body.count(quote) % 2 == 0
        is_short = len(body) <= self._max_record_bytes
        return piece if is_even and is_short and b"\r" not in body else None

    @staticmethod
    def read_pieces(pieces: Sequence[Piece], schema: RecordSchema) -> Batch:
        """Parse chunks of several files, their records laid end to end if all of them are regular."""
        table = pieces[0].source._table(schema)  # noqa: SLF001 - of this class
        chunks = [piece.chunk for piece in pieces]
        whole = whole_of(chunks)
        decoded = table.decode_whole(lines_of(pieces), whole.records, is_plain=False)
        if decoded is None:
            return join([piece.source.parsed(piece, table) for piece in pieces])
        parts = [piece.source.records_of(piece, table) for piece in pieces]
        records = JoinedRecords(parts, starts_of(chunks))
        digests = tuple(piece.digest for piece in pieces)
        frame, deferred = decoded
        return Batch(whole, frame, deferred, records, "", None, digests)

    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        start = self._lines.after_blank_lines(max(chunk.start, self._body), chunk.hi)
        return start, self._lines.end_of_record(start.position) - start.position

    def _too_long(
        self, chunk: Chunk, head: bytes, schema: RecordSchema
    ) -> tuple[pl.DataFrame, DelimitedRecords]:
        table = self._table(schema)
        records = DelimitedRecords(self._layout, table, chunk, chunk.start, head, is_cut=True)
        return table.empty(), records

    def _table(self, schema: RecordSchema) -> Table:
        if schema not in self._tables:
            self._tables[schema] = Table(
                self.header, schema, self._form, self._repeated, trails=self._trails
            )
        return self._tables[schema]

    def count(self) -> int:
        """Count the records."""
        return self._lines.count(self._body.position)

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from twenty places.

        The first one is empty, and names the fields for a file that has no records.
        """
        yield FieldNames.fromkeys(self.header)
        yield from super().sample(records)

    def _next_record(self, position: int) -> int | None:
        return self._lines.next_line(max(position, self._body.position + 1))

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        start = max(chunk.lo, self._body.position)
        data = self._text.read_at(start, chunk.hi - start)
        nulls = self._form.nulls
        for part in filter(self._lines.is_record, self._lines.split(data)):
            try:
                cells = self._fields.read(without_end(part).decode())
            except (UnicodeDecodeError, UnreadableRecordError):
                continue
            if is_header_again(cells, self._repeated):
                continue
            cells = fitted(cells, len(self.header), pads=self._form.pads, trails=self._trails)
            if len(cells) == len(self.header):
                texts = (
                    None
                    if cell is ABSENT or (cell[0] in nulls and not cell[1])
                    else self._seen(cell)
                    for cell in cells
                )
                yield dict(zip(self.header, texts, strict=True))

    def _seen(self, cell: Cell) -> str:
        """Return a number of the file as programs write it, and anything else as it is."""
        text, _ = cell
        if self._form.numbers.is_plain:
            return text
        plain = self._form.numbers.plain(text)
        # What only another form reads as a number is none here.
        return plain or (Words(text) if PLAIN_NUMBERS.matches(text) else text)

    def continues(self, fingerprint: str) -> bool:
        """Say whether records were added to the file with this fingerprint."""
        return self._text.continues(fingerprint)


def _name(text: str) -> str:
    """Return the name in a cell of the header, without spaces and what cannot be seen around it."""
    return text.strip().removeprefix("\u00ef\u00bb\u00bf").strip(_UNSEEN).strip()


def _distinct(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return distinct names for all fields, and notes about those that were changed."""
    given, seen = set(names), Counter[str]()
    distinct_names = {EXTRA_COLUMN: None}
    notes: list[str] = []
    for number, name in enumerate(names, start=1):
        wanted = distinct = name or f"column_{number}"
        while distinct in distinct_names or (distinct != name and distinct in given):
            seen[wanted] += 1
            distinct = f"{wanted}_{seen[wanted] + 1}"
        if distinct != name:
            notes.append(f"field {number} of the header, {name!r}, is called {distinct}")
        distinct_names[distinct] = None
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES:] = [f"… and {len(notes) - MAX_NOTES} more such fields"]
    return list(distinct_names)[1:], notes
