"""Rows that were kept by themselves, as rejects: parsed without the file that they came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchimport.model import Chunk, Position
from batchimport.sources.base import LocatedRecords, decode_utf8, too_long, unreadable
from batchimport.sources.csv.dialect import CsvFormat
from batchimport.sources.csv.grammar import Dialect, FieldReader
from batchimport.sources.csv.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from batchimport.schema import RecordSchema
    from batchimport.sources.base import Form
    from batchimport.sources.csv.grammar import Cell


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How the rows of a file are written.

    Attributes:
        names: Of the fields.
        repeated: The cells of the header, which no record has; None if there is none.
        trails: Each record ends with a delimiter.
        header: The lines above the rows of a file of this form; empty if it has no header.
    """

    names: Sequence[str]
    format: CsvFormat
    repeated: list[str] | None
    header: str
    trails: bool = False

    def to_dict(self) -> Form:
        """Return it as JSON."""
        return {
            "format": "csv",
            "facts": self.format.facts(),
            "names": list(self.names),
            "repeated": self.repeated,
            "header": self.header,
            "trails": self.trails,
        }

    @staticmethod
    def of(form: Form) -> CsvForm:
        """Return what `to_dict` wrote."""
        known = CsvFormat(Dialect(","), frozenset()).with_facts(form["facts"])
        return CsvForm(
            form["names"], known, form["repeated"], form["header"], trails=form["trails"]
        )


class KeptRows(LocatedRecords):
    """Rows that were kept by themselves, and may have been edited: each must be one record."""

    def __init__(
        self,
        form: CsvForm,
        records: Sequence[bytes],
        too_long: frozenset[int],
        schema: RecordSchema,
    ) -> None:
        self.chunk = Chunk(Position(), Position(len(records), len(records)))
        super().__init__("", self.chunk)
        dialect = form.format.dialect
        self._table = Table(form.names, schema, form.format, form.repeated, trails=form.trails)
        self._fields = FieldReader(dialect)
        self._one = re.compile(dialect.record(at_end=True).encode())
        self._records = [record.removesuffix(b"\n").removesuffix(b"\r") for record in records]
        self._too_long = too_long

    def decode(self) -> tuple[pl.DataFrame, list[int]]:
        """Return the accepted rows as a frame, and the indices of the deferred ones."""
        without = {at for at, record in enumerate(self._records) if not self._is_one_line(record)}
        return self._table.decode(
            [record + b"\n" for record in self._records], without | self._too_long
        )

    @staticmethod
    def _is_one_line(record: bytes) -> bool:
        return bool(record) and b"\n" not in record and b"\r" not in record

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values, by the types that the schema allows."""
        return self._table.values(self._cells(index))

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns."""
        return self._table.row(self._cells(index))

    def _cells(self, index: int) -> list[Cell]:
        if index in self._too_long:
            raise too_long()
        record = self._records[index]
        if not self._is_one_line(record) and record and not self._one.fullmatch(record):
            raise unreadable("not_one_record", "has a line end outside of quotes")
        return self._fields.read(decode_utf8(record))

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        return None, index, self._records[index]
