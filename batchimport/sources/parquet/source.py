"""Parquet: positions are rows; a row is validated as the JSON object that it represents.

Polars turns the rows of a chunk into JSON lines; from there on they are read like JSON Lines.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.errors import FatalError, UsageError
from batchimport.model import Chunk, Position
from batchimport.schema.infer import DIALECT
from batchimport.sources.base import Batch, Content, OneFile, unreadable
from batchimport.sources.json_decoder import decode_raw, decoder_of
from batchimport.sources.json_records import JsonRecords, decode_samples
from batchimport.sources.parquet.types import as_json, has_no_number, rule_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchimport.model import SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.bytes.file import TextFile

ROWS_TO_WEIGH = 1000
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class ParquetSource(OneFile):
    """One Parquet file.

    Attributes:
        declared: The JSON Schema of its rows.
    """

    format = "parquet"
    notes: tuple[str, ...] = ()

    def __init__(self, file: TextFile, name: str, options: SourceOptions) -> None:
        del options  # they are about text
        self._file = file
        try:
            self._rows = pl.scan_parquet(self._file.descriptor_path, glob=False)
            self._types = self._rows.collect_schema()
            self.size = int(self._rows.select(pl.len()).collect().item())
            sample = self._rows.head(ROWS_TO_WEIGH).collect()
        except _FAILURES as error:
            self._file.close()
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"is not a readable Parquet file: {reason}",
                where=file.path,
                hint="write or get the file again",
            ) from error
        self.name = name
        self.fingerprint, self.modified = self._file.fingerprint, self._file.modified
        weights = [weight_of(pl.col(column), dtype) for column, dtype in self._types.items()]
        self._weight = pl.sum_horizontal(pl.lit(0, pl.Int64), *weights).alias("weight")
        self._is_variable = any(
            dtype.is_nested() or dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum)
            for dtype in self._types.dtypes()
        )
        self.contents: tuple[Content, ...] = (Content(self.size, self._file.content),)
        self._row_bytes = max(1, int(sample.estimated_size()) // max(1, sample.height))
        properties = {column: rule_of(dtype) for column, dtype in self._types.items()}
        self.declared = {
            "$schema": DIALECT,
            "type": "object",
            "properties": properties,
        }

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` rows that begins at `start`; None at the end.

        `max_bytes` counts their size once they are decoded.
        """
        left = self.size - start.position
        rows = min(left, limit, max(1, max_bytes // self._row_bytes))
        if rows <= 0:
            return None
        rows = self._fitting(start.position, rows, max_bytes)
        return Chunk(start, Position(start.position + rows, start.record + rows, 1))

    def _fitting(self, lo: int, rows: int, max_bytes: int) -> int:
        """Return how many of the rows from `lo` are within `max_bytes`; at least 1."""
        if rows == 1 or not self._is_variable:
            return rows
        try:
            weights = self._rows.slice(lo, rows).select(self._weight).collect().to_series()
        except _FAILURES:  # the file is damaged: `read` says where
            return rows
        return max(1, int((weights.cum_sum() <= max_bytes).sum()))

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read a chunk as JSON lines, and parse those."""
        columns = schema.columns
        lines, without = self._lines(
            chunk.lo, chunk.hi, {column.name: column.kind for column in columns}
        )
        required = frozenset(
            column.name for column in columns if column.required and column.nullable
        )
        rows = ParquetRows(self.name, chunk, columns, lines, without, required)
        accepted, deferred = decoder_of(columns).decode(lines, b"\n".join(lines), without)
        return Batch(chunk, accepted, deferred, rows, self.digest(chunk))

    def _lines(self, lo: int, hi: int, kinds: dict[str, str]) -> tuple[list[bytes], frozenset[int]]:
        """Return rows as JSON lines, and the indices of those with NaN or infinity."""
        try:
            rows = self._rows.slice(lo, hi - lo).collect()
            if rows.height != hi - lo:
                raise _damaged(self.name, lo, hi, "rows are missing")
            texts = rows.select(
                as_json(pl.col(name), dtype, kinds.get(name, "json")).alias(name)
                for name, dtype in self._types.items()
            )
            not_finite = rows.select(
                pl.any_horizontal(
                    pl.lit(value=False),
                    *(has_no_number(pl.col(name), dtype) for name, dtype in self._types.items()),
                ).alias("not_finite")
            ).to_series()
        except _FAILURES as error:
            raise _damaged(self.name, lo, hi, str(error).partition("\n")[0]) from error
        buffer = io.BytesIO()
        texts.write_ndjson(buffer)
        lines = buffer.getvalue().split(b"\n")[: hi - lo] if texts.width else [b"{}"] * (hi - lo)
        without = not_finite.arg_true().to_list() if rows.height == not_finite.len() else []
        for at in without:
            lines[at] = json.dumps(rows.row(at, named=True), default=str).encode()
        return lines, frozenset(without)

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the share of the file's bytes that is the chunk's share of its rows."""
        return self._file.digest(self._byte(chunk.lo), self._byte(chunk.hi))

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the share of the file's bytes that the first rows have."""
        del file
        rows = list(stops)
        digests = self._file.head_digests(map(self._byte, rows))
        return {stop: digests[self._byte(stop)] for stop in rows}

    def _byte(self, row: int) -> int:
        return self._file.size * row // max(1, self.size)

    def count(self) -> int:
        """Count the values of one column, while `cut` goes by the number of rows in the footer.

        A file without columns has nothing but the footer.
        """
        if not self._types:
            return self.size
        narrowest = min(self._types, key=lambda name: _width(self._types[name]))
        column = pl.col(narrowest)
        values = column.is_null().sum() + column.is_not_null().sum()  # decodes them, unlike `len`
        try:
            return int(self._rows.select(values).collect(engine="streaming").item())
        except _FAILURES as error:
            raise _damaged(self.name, 0, self.size, str(error).partition("\n")[0]) from error

    def _next_record(self, position: int) -> int | None:
        return position

    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        lines, _ = self._lines(chunk.lo, chunk.hi, {})
        return decode_samples(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _width(dtype: pl.DataType) -> int:
    """Return about how much there is to decode in a value."""
    if dtype == pl.Boolean:
        return 1
    return 8 if dtype.is_numeric() or dtype.is_temporal() else 100 if dtype.is_nested() else 32


def _damaged(name: str, lo: int, hi: int, reason: str) -> FatalError:
    return FatalError(
        f"the Parquet file is damaged: {reason}",
        where=f"{name} rows {lo:,} to {hi:,}",
        hint="get the file again; what is stored stays, and is not imported twice",
    )


class ParquetRows(JsonRecords):
    """The rows of one chunk, one at a time. A null is a missing key, unless the key is required."""

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        lines: list[bytes],
        not_finite: frozenset[int],
        required: frozenset[str],
    ) -> None:
        super().__init__(name, chunk, columns)
        self.lines, self._not_finite, self._required = lines, not_finite, required

    def values(self, index: int) -> dict[str, Any]:
        """Return the row as JSON values."""
        if index in self._not_finite:
            raise unreadable("number_out_of_range", "NaN and infinity are not JSON numbers")
        self.lines[index] = self._without_nulls(self.lines[index])
        return super().values(index)

    def _without_nulls(self, line: bytes) -> bytes:
        pairs = (
            json.dumps(key).encode() + b":" + bytes(raw)
            for key, raw in decode_raw(line).items()
            if bytes(raw) != b"null" or key in self._required
        )
        return b"{" + b",".join(pairs) + b"}"

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        return None, self._chunk.lo + index, self.lines[index]
