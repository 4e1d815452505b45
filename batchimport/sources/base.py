"""What a source is: it cuts itself into chunks and reads one chunk at a time.

A source is asked to `cut` from a known `Position` onwards, so no index of the whole file is ever built:
a gap of the ledger always begins where the source begins or where a committed chunk ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from batchimport.model import Chunk, FieldError, Position, Reject, Stage
    from batchimport.schema import RecordSchema


class UnreadableRecordError(Exception):
    """A record that cannot be understood at all; becomes a reject of stage `parse`."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors


class RawRecords(Protocol):
    """The records of one chunk as they stand in the source, addressed by index in the chunk."""

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values, for the validator.

        Raises:
            UnreadableRecordError: If it is no record.
        """
        ...

    def row(self, index: int) -> dict[str, Any]:
        """Return a valid record as one value per column of the schema, plus `_extra` if any.

        Raises:
            UnreadableRecordError: If a value does not fit its column's type.
        """
        ...

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record: its place and its original bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One chunk, read.

    Attributes:
        frame: `INDEX` and one column per schema column, for the records that fit those types.
        deferred: Indices of all other records, to be judged one at a time.
        digest: Hash of the chunk's bytes.
        valid: A frame like the other one, of further records that are proven valid already.
    """

    chunk: Chunk
    frame: pl.DataFrame
    deferred: list[int]
    raw_records: RawRecords
    digest: str
    valid: pl.DataFrame | None = None


class Source(Protocol):
    """One or more files as a sequence of records.

    Attributes:
        name: What users call it.
        format: `jsonl`, `csv`, `tsv`, `json` or `parquet`; `mixed` if files differ.
        size: Positions in all, as it was when the source was opened.
        fingerprint: What tells another content apart: size, hash of head and of tail.
        modified: Times of last change and identities of the files, a quick hint of sameness.
        declared: JSON Schema that the files themselves declare; None if it must be inferred.
        notes: What was found out by looking and users should know, such as the delimiter.
    """

    name: str
    format: str
    size: int
    fingerprint: str
    modified: str
    declared: dict[str, Any] | None
    notes: tuple[str, ...]

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records that begins at `start`; None at the end."""
        ...

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk.

        Raises:
            SourceChangedError: If the bytes of the chunk are no longer there.
        """
        ...

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes, as `read` gives it."""
        ...

    def count(self) -> int:
        """Count all records, independently of `cut`; safe to call from another thread."""
        ...

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield about that many readable records, spread over the source; all of them for None."""
        ...

    def continues(self, fingerprint: str) -> bool:
        """Say whether records or files were only added to the source with this fingerprint.

        As far as its ends show; what is committed must be hashed again to be sure.
        """
        ...

    def file_at(self, position: int) -> str:
        """Return what users call the file that holds a position."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class OneFile:
    """What the sources of one file have in common."""

    name: str

    def continues(self, fingerprint: str) -> bool:
        """Say no: few formats let records be added at the end."""
        del fingerprint
        return False

    def file_at(self, position: int) -> str:
        """Return the file's name."""
        del position
        return self.name
