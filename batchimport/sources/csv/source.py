"""Delimited text: CSV and TSV.

Records whose fields are too few or too many, whose quotes are out of order or whose cells do not
fit their column are left to the validator, by way of `Records`.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError
from batchimport.model import EXTRA_COLUMN, Chunk, Position
from batchimport.sources.base import Batch, OneFile, UnreadableRecordError
from batchimport.sources.bytes.file import HEAD_BYTES, digest_of
from batchimport.sources.csv.dialect import choose_dialect
from batchimport.sources.csv.grammar import FieldReader, Marks, QuotedLines, without_end
from batchimport.sources.csv.records import DelimitedRecords, Layout
from batchimport.sources.csv.table import Tabular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchimport.model import SourceOptions
    from batchimport.schema import RecordSchema
    from batchimport.sources.bytes.file import Text

BOM = b"\xef\xbb\xbf"
MOST_NOTES = 5
SAMPLE_PLACES = 20
SAMPLE_CHUNK_BYTES = 1 << 22


class DelimitedSource(OneFile):
    """One file of delimited text.

    Attributes:
        header: Names of the fields.
    """

    format = "csv"
    declared: dict[str, Any] | None = None

    def __init__(self, text: Text, name: str, options: SourceOptions) -> None:
        self.name = name
        self.size = text.size
        self.fingerprint = text.fingerprint
        self.modified = text.modified
        self._text = text
        self._max_record_bytes = options.max_record_bytes
        begin = len(BOM) if text.read_at(0, len(BOM)) == BOM else 0
        start = self._skip(Position(begin), options.skip_lines or 0)
        head = text.read_at(start.position, HEAD_BYTES)
        is_whole = start.position + len(head) == text.size
        dialect = choose_dialect(head.decode(errors="replace"), options, is_whole=is_whole)
        self._dialect = dialect
        self._lines = QuotedLines(text, dialect.marks, options.max_record_bytes)
        self._fields = FieldReader(dialect.marks)
        start = self._skip(start, dialect.preamble)
        self.header, self._body, notes = self._read_header(start, has_names=options.header)
        self._lines.keeps_blank = len(self.header) == 1
        self._layout = Layout(name, self._lines, self._fields, options.max_record_bytes)
        self.notes = (*text.notes, *dialect.notes, *notes)
        self._tables: dict[RecordSchema, Tabular] = {}

    def _skip(self, start: Position, lines: int) -> Position:
        """Return where the line begins that comes after some others."""
        reader, position = QuotedLines(self._text, Marks(",", "")), start.position
        for _ in range(lines):
            position = reader.end_of_line(position)
        return Position(position, 0, start.line + lines)

    def _read_header(
        self, start: Position, *, has_names: bool
    ) -> tuple[list[str], Position, list[str]]:
        """Return the names of the fields, where the records begin, and what was renamed."""
        chunk = self._lines.cut(start, 1, HEAD_BYTES)
        if chunk is None or not chunk.records:
            return [], start, []
        raw = self._text.read_at(chunk.lo, min(chunk.hi - chunk.lo, self._max_record_bytes))
        record = next(filter(self._lines.is_record, self._lines.split(raw)))
        where = f"{self.name}:{chunk.start.line}"
        try:
            line = without_end(record).decode()
        except UnicodeDecodeError as error:
            hint = "say how it is written: --encoding"
            raise UsageError("the first record is no valid text", where=where, hint=hint) from error
        if not has_names:
            width = self._dialect.width or len(line.split(self._dialect.marks.delimiter))
            return [f"column_{at}" for at in range(1, width + 1)], start, []
        names, notes = self._names(line)
        return names, Position(chunk.hi, 0, chunk.end.line), notes

    def _names(self, header: str) -> tuple[list[str], list[str]]:
        """Return the names in a header, and what users should know of it."""
        remarks = []
        try:
            names = [text.strip() for text, _ in self._fields.read(header)]
        except UnreadableRecordError:
            names = [text.strip() for text in header.split(self._dialect.marks.delimiter)]
            remarks.append("the header's quotes are out of order: its names are read as they stand")
        width = self._dialect.width
        if width == len(names) - 1 and not names[-1]:
            names.pop()
        if width not in (0, len(names)):
            remarks.append(
                f"most records have {width} fields, the header has {len(names)}: those will be "
                "rejected (see --skip-lines and --no-header)"
            )
        names, notes = _distinct(names)
        return names, [*remarks, *notes]

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records that begins at `start`; None at the end.

        The first chunk holds the header besides.
        """
        if start.position >= self._body.position:
            return self._lines.cut(start, limit, max_bytes)
        chunk = self._lines.cut(self._body, limit, max_bytes)
        return Chunk(start, chunk.end if chunk else Position(self.size, 0, self._body.line))

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        table = self._table(schema)
        first = max(chunk.start, self._body)
        size = chunk.hi - first.position
        if chunk.records == 1 and size > self._layout.most_bytes:
            start = self._lines.after_blank_lines(first, chunk.hi)
            length = self._lines.end_of_record(start.position) - start.position
            if length > self._layout.most_bytes:
                head = self._text.read_at(start.position, min(length, HEAD_BYTES))
                origin = DelimitedRecords(self._layout, table, chunk, start, head, is_cut=True)
                return Batch(chunk, table.empty(), [0], origin, self.digest(chunk))
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        body = data[first.position - chunk.lo :]
        origin = DelimitedRecords(self._layout, table, chunk, first, body)
        found = None
        if size <= self._layout.most_bytes:
            is_plain = self._lines.are_plain(first.position, chunk.hi)
            found = table.parse_whole(body, chunk.records, is_plain=is_plain)
        frame, deferred = found or table.parse(origin.records, origin.too_long)
        return Batch(chunk, frame, deferred, origin, digest_of(data))

    def _table(self, schema: RecordSchema) -> Tabular:
        if schema not in self._tables:
            self._tables[schema] = Tabular(self.header, schema, self._dialect)
        return self._tables[schema]

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, chunk.hi)

    def count(self) -> int:
        """Count the records."""
        return self._lines.count(self._body.position)

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from twenty places.

        The first one is empty, and names the fields for a file that has no records.
        """
        yield dict.fromkeys(self.header)
        null = self._dialect.null
        for part in self._sample_parts(records):
            try:
                cells = self._fields.read(without_end(part).decode())
            except (UnicodeDecodeError, UnreadableRecordError):
                continue
            if len(cells) == len(self.header):
                texts = (None if text == null and not quoted else text for text, quoted in cells)
                yield dict(zip(self.header, texts, strict=True))

    def _sample_parts(self, records: int | None) -> Iterator[bytes]:
        """Yield records from places where one begins, or seems to."""
        length = self.size - self._body.position
        starts: Iterable[int] = [self._body.position]
        wanted = self.size if records is None else records
        if records is not None and not self._holds_at_most(records):
            begin = self._body.position
            places = [begin + 1 + length * at // SAMPLE_PLACES for at in range(1, SAMPLE_PLACES)]
            found = map(self._lines.next_line, places)
            starts = chain(starts, (at for at in found if at is not None))
            wanted = max(1, records // SAMPLE_PLACES)
        for start in starts:
            at, left = Position(start), wanted
            while left > 0 and (chunk := self._lines.cut(at, left, SAMPLE_CHUNK_BYTES)):
                if chunk.hi - chunk.lo <= 2 * SAMPLE_CHUNK_BYTES:
                    data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
                    yield from filter(self._lines.is_record, self._lines.split(data))
                left -= max(1, chunk.records)
                at = chunk.end

    def _holds_at_most(self, records: int) -> bool:
        whole = self._lines.cut(self._body, records, 64 * 1024 * 1024)
        return whole is None or whole.hi == self.size

    def continues(self, fingerprint: str) -> bool:
        """Say whether records were added to the file with this fingerprint."""
        return self._text.continues(fingerprint)

    def close(self) -> None:
        """Close the file."""
        self._text.close()


def _distinct(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Name what has no name, tell apart what has the same, and say so."""
    given, seen = set(names), Counter[str]()
    found = {EXTRA_COLUMN: None}
    notes: list[str] = []
    for number, name in enumerate(names, start=1):
        wanted = distinct = name or f"column_{number}"
        while distinct in found or (distinct != name and distinct in given):
            seen[wanted] += 1
            distinct = f"{wanted}_{seen[wanted] + 1}"
        if distinct != name:
            notes.append(f"field {number} of the header, {name!r}, is called {distinct}")
        found[distinct] = None
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"… and {len(notes) - MOST_NOTES} more such fields"]
    return list(found)[1:], notes
