"""What sources of JSON objects have in common, and objects that were kept by themselves, as rejects."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from batchimport.model import Chunk, Position
from batchimport.sources.base import Batch, TextSource
from batchimport.sources.bytes.file import digest_of
from batchimport.sources.flat import FlatRecords, flat
from batchimport.sources.json_decoder import decoder_of
from batchimport.sources.json_records import JsonRecords, decode_samples, on_one_line
from batchimport.sources.json_shapes import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import polars as pl

    from batchimport.model import SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.base import Form
    from batchimport.sources.bytes.file import TextFile

FLATTEN = "flatten"
"""Key of a form: nested objects are keys of the record itself."""


class JsonSource(TextSource):
    """One text of JSON objects, which may be flattened."""

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        super().__init__(text, name, options.max_record_bytes)
        self._flatten = options.flatten

    @staticmethod
    def reread(
        form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
    ) -> Batch:
        """Parse objects that were kept by themselves."""
        return reread(form, records, too_long, schema)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The format, and whether nested objects are flattened."""
        return ({"format": self.format, **({FLATTEN: True} if self._flatten else {})},)

    @abstractmethod
    def _records(self, chunk: Chunk, columns: tuple[Column, ...]) -> tuple[bytes, JsonRecords]:
        """Return the bytes of a chunk, and its records."""

    @abstractmethod
    def _head(self, chunk: Chunk, head: bytes, columns: tuple[Column, ...]) -> JsonRecords:
        """Return the one record of a chunk, which is too long, by its first bytes."""

    def _read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        data, records = self._records(chunk, schema.columns)
        shown = FlatRecords(records, schema.columns) if self._flatten else records
        valid, frame, deferred = decode(schema, shown)
        return Batch(chunk, frame, deferred, shown, digest_of(data), valid)

    def _too_long(
        self, chunk: Chunk, head: bytes, schema: RecordSchema
    ) -> tuple[pl.DataFrame, JsonRecords]:
        return decoder_of(schema.columns).empty(), self._head(chunk, head, schema.columns)

    def _samples(self, texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        samples = decode_samples(texts)
        return map(flat, samples) if self._flatten else samples


class KeptRecords(JsonRecords):
    """Records that were kept by themselves, each on one line unless it is malformed.

    Attributes:
        without: Indices of those that no decoder of lines may see.
    """

    def __init__(
        self, records: Sequence[bytes], too_long: frozenset[int], columns: tuple[Column, ...]
    ) -> None:
        self.chunk = Chunk(Position(), Position(len(records), len(records)))
        super().__init__("", self.chunk, columns)
        self.decoder = decoder_of(columns)
        self.lines, self.too_long = [on_one_line(record) for record in records], too_long
        self.without: frozenset[int] = too_long | {
            at for at, line in enumerate(self.lines) if b"\n" in line
        }

    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        return None, index, self.lines[index]


def reread(
    form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
) -> Batch:
    """Parse JSON objects that were kept by themselves."""
    kept = KeptRecords(records, too_long, schema.columns)
    return reread_lines(kept, FlatRecords(kept, schema.columns) if form.get(FLATTEN) else kept)


def reread_lines(kept: KeptRecords, shown: JsonRecords) -> Batch:
    """Return the batch of records that were kept by themselves.

    Args:
        shown: The same, maybe with other keys.
    """
    lines = [b"" if at in kept.without else line for at, line in enumerate(shown.lines)]
    frame, deferred = kept.decoder.decode(lines, b"\n".join(lines), kept.without)
    return Batch(kept.chunk, frame, deferred, shown, "")
