"""Parquet: positions are rows; a row is validated as the JSON object that it represents.

Polars turns the rows of a chunk into JSON lines; from there on they are read like JSON Lines.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import FatalError, UsageError
from batchimport.model import Chunk, FieldError, Position
from batchimport.schema.infer import DIALECT
from batchimport.sources.base import Batch, Content, LocatedRecords, OneFile, UnreadableRecordError
from batchimport.sources.json_decoder import decode_raw, decoder_of
from batchimport.sources.json_records import JsonRecords, decode_samples
from batchimport.sources.json_source import KeptRecords, reread_lines
from batchimport.sources.parquet.footer import Footer
from batchimport.sources.parquet.rows import Rows
from batchimport.sources.parquet.texts import error_of, invalid_texts, without
from batchimport.sources.parquet.thrift import MalformedError
from batchimport.sources.parquet.types import (
    SCALAR_BYTES,
    are_sayable,
    as_json,
    beyond,
    error_beyond,
    json_texts,
    rule_of,
    weight_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from batchimport.model import SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.base import Form
    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.parquet.footer import Node

Errors = dict[int, list[FieldError]]
"""What is wrong with rows, by their index in a chunk."""
_check = msgspec.json.Decoder(msgspec.Raw).decode
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MalformedError)


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
            self._footer = Footer(self._file.read_at, self._file.size)
            _refuse_unreadable(self._footer, file.path)
            self.block_bytes = self._footer.largest_page()
            self._rows = Rows(self._file, self._footer)
            self._types = self._rows.types
            self.size = self._footer.rows
        except _FAILURES as error:
            self._file.close()
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"is not a readable Parquet file: {reason}",
                where=file.path,
                hint="write or get the file again",
            ) from error
        except UsageError:
            self._file.close()
            raise
        self.name = name
        self.fingerprint, self.modified = self._file.fingerprint, self._file.modified
        known = {column: dtype for column, dtype in self._types.items() if dtype is not None}
        nodes = self._footer.columns
        self._variable = [
            column for column, dtype in known.items() if _is_variable(dtype, nodes[column])
        ]
        self._fixed = SCALAR_BYTES * (len(known) - len(self._variable))
        self.contents: tuple[Content, ...] = (Content(self.size, self._file.content),)
        self.declared = {
            "$schema": DIALECT,
            "type": "object",
            "properties": {
                column: rule_of(dtype, nodes[column]) for column, dtype in self._types.items()
            },
        }

    @staticmethod
    def reread(
        form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
    ) -> Batch:
        """Parse rows that were kept by themselves, as JSON objects."""
        del form
        kept = _KeptRows(records, too_long, schema.columns)
        return reread_lines(kept, kept)

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` rows that begins at `start`; None at the end.

        `max_bytes` counts their size once they are decoded.
        """
        left = self.size - start.position
        if left <= 0:
            return None
        rows = self._expected(start.position, min(left, limit), max_bytes)
        rows = self._fitting(start.position, rows, max_bytes)
        return Chunk(start, Position(start.position + rows, start.record + rows, 1))

    def _expected(self, lo: int, limit: int, max_bytes: int) -> int:
        """Return how many of the rows from `lo` fit by what the footer says of sizes; at least 1."""
        rows, at = 0, self._rows.group_at(lo)
        while rows < limit:
            group = self._footer.groups[at]
            row_bytes = max(1, self._fixed, group.plain_bytes // max(1, group.rows))
            there = min(limit - rows, group.first + group.rows - lo - rows)
            taken = min(there, max_bytes // row_bytes)
            rows, max_bytes, at = rows + taken, max_bytes - taken * row_bytes, at + 1
            if taken < there:
                break
        return max(1, rows)

    def _fitting(self, lo: int, rows: int, max_bytes: int) -> int:
        """Return how many of the rows from `lo` are within `max_bytes`; at least 1."""
        if rows == 1 or not self._variable:
            return rows
        try:
            frame = self._rows.read(lo, rows, self._variable)
            weights = frame.select(self._weight(frame.schema)).to_series()
        except _FAILURES:  # the file is damaged: `read` says where
            return rows
        return max(1, int((weights.cum_sum() <= max_bytes).sum()))

    def _weight(self, schema: pl.Schema) -> pl.Expr:
        weights = (weight_of(pl.col(name), dtype) for name, dtype in schema.items())
        return pl.sum_horizontal(pl.lit(self._fixed, pl.Int64), *weights).alias("weight")

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read a chunk as JSON lines, and parse those."""
        columns = schema.columns
        lines, errors = self._lines(
            chunk.lo, chunk.hi, {column.name: column.kind for column in columns}
        )
        rows = ParquetRows(self.name, chunk, columns, lines, errors)
        accepted, deferred = decoder_of(columns).decode(lines, b"\n".join(lines), frozenset(errors))
        return Batch(chunk, accepted, deferred, rows, self.digest(chunk))

    def _lines(self, lo: int, hi: int, kinds: dict[str, str]) -> tuple[list[bytes], Errors]:
        """Return rows as JSON lines, and what JSON cannot express in them by index."""
        nodes = self._footer.columns
        try:
            rows = self._rows.read(lo, hi - lo)
            if rows.height != hi - lo and self._types:
                raise _damaged(self.name, lo, hi, "rows are missing")
            invalid = {
                values.name: bad
                for values in rows
                if (bad := invalid_texts(values, nodes[values.name]))
            }
            rows = rows.with_columns(
                without(rows.get_column(name), found) for name, found in invalid.items()
            )
            json_columns = {
                values.name: found
                for values in rows
                if kinds.get(values.name) != "string"
                and (found := json_texts(values, nodes[values.name])) is not None
            }
            errors = self._errors(rows)
            faulty = {error.field for found in errors.values() for error in found}
            for name, texts_of in invalid.items():
                for at, value in texts_of.items():
                    errors.setdefault(at, []).append(error_of(name, value))
            texts = rows.select(
                as_json(
                    pl.col(name),
                    dtype,
                    nodes[name],
                    kinds.get(name, "json"),
                    is_sayable=name not in faulty,
                ).alias(name)
                for name, dtype in rows.schema.items()
                if name not in json_columns
            )
        except _FAILURES as error:
            raise _damaged(self.name, lo, hi, str(error).partition("\n")[0]) from error
        buffer = io.BytesIO()
        texts.write_ndjson(buffer)
        lines = buffer.getvalue().split(b"\n")[: hi - lo] if texts.width else [b"{}"] * (hi - lo)
        for at in errors:
            row = texts.row(at, named=True) if texts.width else {}
            row |= {name: values[at] for name, values in invalid.items() if at in values}
            lines[at] = json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape")
            errors[at] = [_with_value(error, row.get(error.field)) for error in errors[at]]
        for name, texts_of_json in json_columns.items():
            _insert(lines, name, texts_of_json, errors, invalid.get(name, {}))
        return lines, errors

    def _errors(self, rows: pl.DataFrame) -> Errors:
        """Return what JSON cannot express, by the index of its row."""
        found = {
            name: expression.alias(name)
            for name, dtype in rows.schema.items()
            if not are_sayable(rows.get_column(name))
            and (expression := beyond(pl.col(name), dtype, self._footer.columns[name])) is not None
        }
        errors: Errors = {}
        for cannot in rows.select(found.values()):
            for at in cannot.arg_true().to_list():
                error = error_beyond(cannot.name, rows.schema[cannot.name])
                errors.setdefault(at, []).append(error)
        return errors

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
        try:
            return self._rows.count()
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


def _is_variable(dtype: pl.DataType, node: Node) -> bool:
    """Say whether values of a type may be of any length."""
    is_number = dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean
    return dtype.is_nested() or not (is_number or node.meaning == "int96")


def _refuse_unreadable(footer: Footer, path: str) -> None:
    """Refuse a file with a column that cannot be read as it is.

    Raises:
        UsageError: If so.
    """
    for name, node in footer.columns.items():
        for element in node.walk():
            if element.problem:
                raise UsageError(
                    f"column {name} has {element.problem}",
                    where=path,
                    hint="write the file with this column as text, or without it",
                )


def _insert(
    lines: list[bytes], name: str, values: pl.Series, errors: Errors, there: Collection[int]
) -> None:
    """Add a column of JSON texts to the lines, as they are; what is not JSON is an error.

    Args:
        there: The lines that have it.
    """
    key = json.dumps(name).encode() + b":"
    for at, text in enumerate(values):
        if at in there:
            continue
        value = b"null"
        if text is not None:
            try:
                _check(text)
                value = text.encode().replace(b"\n", b" ").replace(b"\r", b" ")
            except (msgspec.DecodeError, RecursionError):
                value = json.dumps(text).encode()
                error = FieldError(
                    "malformed_json", name, "declared to be JSON, and is not", text[:80]
                )
                errors.setdefault(at, []).append(error)
        line = lines[at]
        lines[at] = line[:-1] + (b"," if len(line) > 2 else b"") + key + value + b"}"


def _with_value(error: FieldError, shown: Any) -> FieldError:
    """Return an error with the value, which JSON may not have: NaN as a string, not as null."""
    if error.value is not None:
        return error
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    return replace(error, value=text[:200])


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
        errors: Errors,
    ) -> None:
        super().__init__(name, chunk, columns)
        self.lines, self._errors = lines, errors

    def values(self, index: int) -> dict[str, Any]:
        """Return the row as JSON values."""
        if index in self._errors:
            raise UnreadableRecordError(*self._errors[index])
        self.lines[index] = _without_nulls(self.lines[index], self._columns)
        return super().values(index)

    keys = LocatedRecords.keys  # all rows have all columns

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        return None, self._chunk.lo + index, self.lines[index]


class _KeptRows(KeptRecords):
    """Rows that were kept by themselves. A null is a missing key, as in the file."""

    def values(self, index: int) -> dict[str, Any]:
        """Return the row as JSON values."""
        record = super().values(index)
        if None not in record.values():
            return record
        self.lines[index] = _without_nulls(self.lines[index], self._columns)
        return super().values(index)

    keys = LocatedRecords.keys  # all rows have all columns


def _without_nulls(line: bytes, columns: tuple[Column, ...]) -> bytes:
    """Return a row without its nulls, except for keys that are required and may be null."""
    required = {column.name for column in columns if column.required and column.nullable}
    pairs = (
        json.dumps(key).encode() + b":" + bytes(raw)
        for key, raw in decode_raw(line).items()
        if bytes(raw) != b"null" or key in required
    )
    return b"{" + b",".join(pairs) + b"}"
