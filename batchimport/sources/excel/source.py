"""A sheet of a workbook: read like delimited text, whose types are certain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport.schema.forms import Words
from batchimport.schema.infer import Moment
from batchimport.sources.csv.dialect import CsvFormat
from batchimport.sources.csv.grammar import Dialect
from batchimport.sources.csv.source import DelimitedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Chunk, FieldError, Reject, SourceOptions, Stage
    from batchimport.schema import RecordSchema
    from batchimport.sources.base import Batch, Form, RawRecords
    from batchimport.sources.csv.grammar import Cell
    from batchimport.sources.excel.sheet import SheetText


class ExcelSource(DelimitedSource):
    """One sheet. Lines of rejects are its rows; their raw text is the row as CSV."""

    format = "excel"
    is_written = False

    def __init__(self, text: SheetText, name: str, options: SourceOptions) -> None:
        self._sheet = text
        super().__init__(text, f"{name}!{text.sheet}", options)

    def _detect(self) -> CsvFormat:
        table = self._sheet.table
        return CsvFormat(
            Dialect(",", '"'),
            frozenset([""]),
            preamble=table.preamble,
            header_records=min(1, table.header.records),
            has_sure_names=table.header.records == 1 and not table.header.is_like_data,
            width=table.width,
            is_even=True,
        )

    @property
    def forms(self) -> tuple[Form, ...]:
        """The same as of a CSV file that begins with its header, and the name that rejects give."""
        (form,) = super().forms
        facts = form["facts"] | {"preamble": 0}
        return (form | {"format": self.format, "name": self.name, "facts": facts},)

    def _seen(self, cell: Cell) -> str:
        text, is_text = cell
        return Words(text) if is_text else Moment(text)

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        batch = super().read(chunk, schema)
        return replace(batch, raw_records=SheetRows(batch.raw_records, self._sheet))


class SheetRows:
    """The rows of one chunk; the lines of their rejects are rows of the sheet."""

    def __init__(self, records: RawRecords, sheet: SheetText) -> None:
        self._records, self._sheet = records, sheet
        self.values, self.row, self.keys = records.values, records.row, records.keys

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a row."""
        reject = self._records.reject(index, stage, errors)
        line = reject.line and self._sheet.row_of(reject.line)
        return replace(reject, line=line)
