"""Parquet: positions are rows; a row is validated as the JSON object that it stands for.

Polars makes JSON lines of a chunk's rows, by the column; from there on they are read like any others.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import FatalError, UsageError
from batchimport.model import Chunk, Position, Reject, Stage
from batchimport.schema.infer import DIALECT
from batchimport.sources.base import Batch, OneFile
from batchimport.sources.bytes.file import TextFile
from batchimport.sources.jsonl.decoder import typed_lines
from batchimport.sources.jsonl.source import JsonLines, decode_sample, unreadable
from batchimport.sources.parquet.types import as_json, has_no_number, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import FieldError
    from batchimport.schema import Column, RecordSchema

MAGIC = b"PAR1"
SAMPLE_PLACES = 20
ROWS_TO_WEIGH = 1000
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ParquetSource(OneFile):
    """One Parquet file.

    Attributes:
        declared: The JSON Schema of its rows.
    """

    format = "parquet"
    notes: tuple[str, ...] = ()

    def __init__(self, path: str, name: str) -> None:
        self._file = TextFile(path)
        try:
            self._rows = pl.scan_parquet(self._file.descriptor_path, glob=False)
            self._types = self._rows.collect_schema()
            self.size = self.count()
            sample = self._rows.head(ROWS_TO_WEIGH).collect()
        except _FAILURES as error:
            self._file.close()
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"is no Parquet file that can be read: {reason}",
                where=path,
                hint="write or get the file again",
            ) from error
        self.name = name
        self.fingerprint, self.modified = self._file.fingerprint, self._file.modified
        self._row_bytes = max(1, int(sample.estimated_size()) // max(1, sample.height))
        properties = {column: rule_of(dtype) for column, dtype in self._types.items()}
        self.declared: dict[str, Any] | None = {
            "$schema": DIALECT,
            "type": "object",
            "properties": properties,
        }

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` rows that begins at `start`; None at the end.

        `max_bytes` counts them as they are in memory.
        """
        left = self.size - start.position
        rows = min(left, limit, max(1, max_bytes // self._row_bytes))
        if rows <= 0:
            return None
        return Chunk(start, Position(start.position + rows, start.record + rows, 1))

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read a chunk as JSON lines, and parse those."""
        columns = schema.columns
        typed = typed_lines(columns)
        lines, unfit = self._lines(chunk.lo, chunk.hi, {each.name: each.kind for each in columns})
        required = frozenset(each.name for each in columns if each.required and each.nullable)
        origin = ParquetRows(self.name, chunk, columns, lines, unfit, required)
        frame, deferred = typed.parse(lines, b"\n".join(lines), unfit)
        return Batch(chunk, frame, deferred, origin, self.digest(chunk))

    def _lines(self, lo: int, hi: int, kinds: dict[str, str]) -> tuple[list[bytes], frozenset[int]]:
        """Return rows as JSON lines, and which of them have numbers that JSON has no word for."""
        try:
            rows = self._rows.slice(lo, hi - lo).collect()
            if rows.height != hi - lo:
                raise _damaged(self.name, lo, hi, "rows are missing")
            texts = rows.select(
                as_json(pl.col(name), dtype, kinds.get(name, "json")).alias(name)
                for name, dtype in self._types.items()
            )
            odd = rows.select(
                pl.any_horizontal(
                    pl.lit(value=False),
                    *(has_no_number(pl.col(name), dtype) for name, dtype in self._types.items()),
                ).alias("odd")
            ).to_series()
        except _FAILURES as error:
            raise _damaged(self.name, lo, hi, str(error).partition("\n")[0]) from error
        buffer = io.BytesIO()
        texts.write_ndjson(buffer)
        lines = buffer.getvalue().split(b"\n")[: hi - lo] if texts.width else [b"{}"] * (hi - lo)
        unfit = odd.arg_true().to_list() if rows.height == odd.len() else []
        for at in unfit:
            lines[at] = json.dumps(rows.row(at, named=True), default=str).encode()
        return lines, frozenset(unfit)

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of that share of the file's bytes which the chunk has of its rows."""
        size, rows = self._file.size, max(1, self.size)
        return self._file.digest(size * chunk.lo // rows, size * chunk.hi // rows)

    def count(self) -> int:
        """Return how many rows the file says it has."""
        return int(self._rows.select(pl.len()).collect().item())

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield rows as JSON values: all of them, or about `records` from twenty places."""
        each = self.size if records is None else max(1, records // SAMPLE_PLACES)
        step = max(each, self.size // SAMPLE_PLACES, 1)
        for start in range(0, self.size, step):
            lines, _ = self._lines(start, min(self.size, start + each), {})
            yield from filter(None, map(decode_sample, lines))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _damaged(name: str, lo: int, hi: int, reason: str) -> FatalError:
    return FatalError(
        f"the Parquet file is damaged: {reason}",
        where=f"{name} rows {lo:,} to {hi:,}",
        hint="get the file again; what is stored stays, and is not imported twice",
    )


class ParquetRows(JsonLines):
    """The rows of one chunk, one at a time. A null is a missing key, unless the key is required."""

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        lines: list[bytes],
        unfit: frozenset[int],
        required: frozenset[str],
    ) -> None:
        super().__init__(name, chunk, columns, b"", longest=0)
        self.lines, self._unfit, self._required = lines, unfit, required

    def values(self, index: int) -> dict[str, Any]:
        """Return the row as JSON values."""
        if index in self._unfit:
            raise unreadable("number_out_of_range", "NaN and infinity are no JSON numbers")
        self.lines[index] = self._without_nulls(self.lines[index])
        return super().values(index)

    def _without_nulls(self, line: bytes) -> bytes:
        pairs = (
            json.dumps(key).encode() + b":" + bytes(raw)
            for key, raw in _decode_raw(line).items()
            if bytes(raw) != b"null" or key in self._required
        )
        return b"{" + b",".join(pairs) + b"}"

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a row: its number, and the row as JSON."""
        return Reject(
            record=self._chunk.offset + index,
            source=self._name,
            line=None,
            byte_offset=self._chunk.lo + index,
            stage=stage,
            errors=tuple(errors),
            raw=self.lines[index],
        )
