"""JSON objects that were kept by themselves, as rejects: parsed without the file that they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.model import Chunk, Position
from batchimport.sources.base import Batch
from batchimport.sources.flat import FlatRecords
from batchimport.sources.json_decoder import decoder_of
from batchimport.sources.json_records import JsonRecords, on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.base import Form

FLATTEN = "flatten"
"""Key of a form: nested objects are keys of the record itself."""


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
