"""The records of a chunk of delimited text, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from batchimport.errors import SourceChangedError
from batchimport.model import FieldError, Reject
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.bytes.file import HEAD_BYTES
from batchimport.sources.csv.grammar import without_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Chunk, Position, Stage
    from batchimport.sources.csv.grammar import Cell, FieldReader, QuotedLines
    from batchimport.sources.csv.table import Tabular


@dataclass(frozen=True, slots=True)
class Layout:
    """What all chunks of a file have in common.

    Attributes:
        name: What users call the file.
        most_bytes: A longer record is rejected.
    """

    name: str
    lines: QuotedLines
    fields: FieldReader
    most_bytes: int


class DelimitedRecords:
    """The records of one chunk; parted only when one of them is asked for.

    Args:
        first: Where the data begin.
        data: The chunk without the header.
        is_cut: The data are the beginning of a single record that is too long.
    """

    def __init__(
        self,
        layout: Layout,
        table: Tabular,
        chunk: Chunk,
        first: Position,
        data: bytes,
        *,
        is_cut: bool = False,
    ) -> None:
        self._layout, self._table = layout, table
        self._chunk, self._first = chunk, first
        self._data, self._is_cut = data, is_cut

    @cached_property
    def _parts(self) -> Sequence[bytes]:
        """Records and blank lines in order, with their line ends."""
        return [self._data] if self._is_cut else self._layout.lines.split(self._data)

    @cached_property
    def _kept(self) -> Sequence[int]:
        """Which parts are records."""
        is_record = self._layout.lines.is_record
        kept = [at for at, part in enumerate(self._parts) if self._is_cut or is_record(part)]
        if len(kept) != self._chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self._layout.name)
        return kept

    @cached_property
    def records(self) -> Sequence[bytes]:
        """The records, with their line ends.

        Raises:
            SourceChangedError: If they are not as many as they were.
        """
        parts, kept = self._parts, self._kept
        return parts if len(kept) == len(parts) else [parts[at] for at in kept]

    @cached_property
    def too_long(self) -> frozenset[int]:
        """Which records are longer than is allowed."""
        if self._is_cut:
            return frozenset({0})
        most = self._layout.most_bytes
        return frozenset(at for at, part in enumerate(self.records) if len(part) > most)

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values, by the types that the schema allows."""
        return self._table.values(self._cells(index))

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns."""
        return self._table.row(self._cells(index))

    def _cells(self, index: int) -> list[Cell]:
        if index in self.too_long:
            message = "longer than --max-record-bytes allows"
            raise UnreadableRecordError(FieldError("record_too_long", "", message))
        try:
            text = without_end(self.records[index]).decode()
        except UnicodeDecodeError as error:
            message = f"no valid text at byte {error.start}: see --encoding"
            raise UnreadableRecordError(FieldError("invalid_utf8", "", message)) from error
        return self._layout.fields.read(text)

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record."""
        part = self._kept[index]
        raw = self._parts[part]
        return Reject(
            record=self._chunk.offset + index,
            source=self._layout.name,
            line=self._first.line + self._lines_before[part],
            byte_offset=self._first.position + self._bytes_before[part],
            stage=stage,
            errors=tuple(errors),
            raw=without_end(raw[:HEAD_BYTES] if index in self.too_long else raw),
        )

    @cached_property
    def _lines_before(self) -> list[int]:
        return list(accumulate(map(self._layout.lines.ends_in, self._parts), initial=0))

    @cached_property
    def _bytes_before(self) -> list[int]:
        return list(accumulate(map(len, self._parts), initial=0))
