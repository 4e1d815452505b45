"""What a source is: it cuts itself into chunks and reads one chunk at a time.

A source is asked to `cut` from a known `Position` onwards, so no index of the whole file is ever built:
a gap of the ledger always begins where the source begins or where a committed chunk ends.

`Source` is the contract. `OneFile` and `TextSource` give what most sources do in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from batchimport.model import Chunk, FieldError, Position, Reject
from batchimport.sources.bytes.file import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from batchimport.model import Stage
    from batchimport.schema import RecordSchema
    from batchimport.sources.bytes.file import TextFile

Form = dict[str, Any]
"""How the records of a file are written."""

SAMPLE_PLACES = 20
LEAST_PLACES = 3
"""A few of many small files: most records are wanted of the other files."""
SAMPLE_CHUNK_BYTES = 1 << 22
SMALL_BYTES = 64 * 1024 * 1024
"""How far to look whether a source has no more records than a sample wants."""


class UnreadableRecordError(Exception):
    """A record that cannot be understood at all; becomes a reject of stage `parse`."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors


def unreadable(code: str, message: str) -> UnreadableRecordError:
    """Return the error of a record that has one reason."""
    return UnreadableRecordError(FieldError(code, "", message))


def too_long() -> UnreadableRecordError:
    """Return the error of a record that is longer than `--max-record-bytes`."""
    return unreadable("record_too_long", "longer than --max-record-bytes allows")


def decode_utf8(record: bytes) -> str:
    """Return the text of a record.

    Raises:
        UnreadableRecordError: If it is not UTF-8.
    """
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        message = f"no valid text at byte {error.start}: see --encoding"
        raise unreadable("invalid_utf8", message) from error


class RawRecords(Protocol):
    """The records of one chunk as they stand in the source, addressed by index in the chunk."""

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values, for the validator.

        Raises:
            UnreadableRecordError: If it is not a record of this format.
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

    def keys(self, index: int) -> Collection[str] | None:
        """Return the keys that a valid record has; None if all records have all columns."""
        ...


class LocatedRecords(ABC):
    """Raw records whose rejects name file, line, byte and the original bytes."""

    def __init__(self, name: str, chunk: Chunk) -> None:
        self._name, self._chunk = name, chunk

    @property
    def place(self) -> tuple[str, Chunk]:
        """The name of the file, and the chunk."""
        return self._name, self._chunk

    def keys(self, index: int) -> Collection[str] | None:
        """Return that all records have all columns: an empty cell is null."""
        del index
        return None

    @abstractmethod
    def _locate(self, index: int) -> tuple[int | None, int, bytes]:
        """Return the line (1-based; None if the format has no lines), the byte offset and the bytes."""

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record."""
        line, byte_offset, raw = self._locate(index)
        record = self._chunk.offset + index
        return Reject(record, self._name, line, byte_offset, stage, tuple(errors), raw)


@dataclass(frozen=True, slots=True)
class Batch:
    """One chunk, read.

    Every record of the chunk is in exactly one of `valid`, `frame` and `deferred`.

    Attributes:
        frame: `INDEX` and one column per schema column, for the accepted records: those that certainly
            fit the columns' types.
        deferred: Indices of all other records, ascending; the validator judges them one at a time.
        digest: Hash of the chunk's bytes.
        valid: A frame like `frame`, for accepted records that are proven valid already: no rule is
            checked again. None if the source proves nothing.
        digests: Of a chunk that spans several files: the hash of each file's part instead of `digest`.
    """

    chunk: Chunk
    frame: pl.DataFrame
    deferred: list[int]
    raw_records: RawRecords
    digest: str
    valid: pl.DataFrame | None = None
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of one file, not yet parsed.

    Attributes:
        source: The file's source, of a class whose `read_pieces` parses several of them.
        chunk: By its positions in the file.
        data: Its bytes.
        begin: Where the records begin in them, after a byte order mark or a header.
        digest: Hash of its bytes.
        likeness: Only pieces of the same class and likeness are parsed together.
    """

    source: Any
    chunk: Chunk
    data: bytes
    begin: int
    digest: str
    likeness: Any = None

    def is_like(self, other: Piece) -> bool:
        """Say whether both can be parsed together."""
        return type(self.source) is type(other.source) and self.likeness == other.likeness


@dataclass(frozen=True, slots=True)
class Content:
    """What one file of a source holds.

    Attributes:
        size: Its positions.
        fingerprint: Size, head and tail of the text, or of the file if it is a binary one.
    """

    size: int
    fingerprint: str


class Source(Protocol):
    """One or more files as a sequence of records.

    Positions count bytes, or whatever else the source can address quickly (Parquet: rows); they run
    from 0 to `size`. The content is that of the moment when the source was opened. `cut` is called by
    one thread, `read`, `digest` and `count` by several at the same time.

    A source that follows this contract is imported exactly once: a job may be interrupted at any time,
    go on in another process, and ask for chunks of other sizes than before.

    Attributes:
        name: What users call it.
        format: Its name in the registry; `mixed` if files differ.
        size: The position after the last record, fixed when the source was opened.
        fingerprint: Differs if the content differs; cheap: size and hashes of head and tail.
        contents: What each of its files holds, in order, whatever the files were unpacked from.
        modified: Times of last change and identities of the files; equal if certainly nothing changed.
        declared: JSON Schema that the files themselves declare; None if it must be inferred.
        notes: What was detected and users should know, such as the delimiter.
        headers: For each file whose first line names the fields of its records: those names.
        forms: For each file how its records are written, as JSON: its `format`, and what `reread` of
            the format's class needs to read one of them without the file.
        block_bytes: Memory that reading even one record takes, where records are compressed in blocks:
            the size of the largest block once it is decompressed. 0 if there are no blocks, or if all
            are small.
    """

    name: str
    format: str
    size: int
    fingerprint: str
    contents: tuple[Content, ...]
    modified: str
    declared: dict[str, Any] | None
    notes: tuple[str, ...]
    headers: Mapping[str, Sequence[str]]
    block_bytes: int

    @property
    def forms(self) -> tuple[Form, ...]:
        """How the records of each file are written."""
        ...

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk that begins at `start`.

        Guarantees, for every sequence of limits:
        - Chunks tile the source: the first begins at `Position()`, each next one where the one before
          ended, the last one ends at `size`. What is not a record (header, blank lines) belongs to the
          chunk of a neighbour; a chunk without records is allowed at the end of the source only.
        - The same records come out, with the same numbers and lines, whatever the limits were.
        - It depends on `start` alone and not on earlier calls: another process may go on from any end.

        Args:
            start: `Position()`, or the end of a chunk that this source or an equal one cut before.
            limit: Maximum number of records, at least 1.
            max_bytes: Target for the size of the chunk; one record is cut even if it is longer.

        Returns:
            None if `start` is at the end of the source.
        """
        ...

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk.

        Guarantees that each of the chunk's records is accepted or deferred, exactly once, and that an
        accepted record has the values that `RawRecords.row` gives: to accept is to be certain, to
        defer is always allowed. Whether a record is accepted may depend on the chunk, its outcome may
        not. Uses memory in proportion to the chunk; a longer record than `--max-record-bytes` is
        deferred without being held in memory.

        Raises:
            SourceChangedError: If the chunk's records are no longer there.
        """
        ...

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes: the same as `read` gives, without parsing."""
        ...

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the first positions of one file, for each number of them, in one pass.

        The same as `digest` of a chunk that begins where the file begins.

        Args:
            file: Which of its files, from 0.
            stops: Numbers of positions, none larger than the file.
        """
        ...

    def count(self) -> int:
        """Count all records, to check `cut`.

        It must not share code with `cut` and `read` wherever records are regular, so that a mistake
        there that loses or repeats a record is noticed. Called once for each run, in its own thread.
        """
        ...

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield records as JSON values, to infer a schema from; unreadable ones are left out.

        Args:
            records: Yield about that many, spread over the whole source; None for all of them.
        """
        ...

    def continues(self, fingerprint: str) -> bool:
        """Say whether the source with this fingerprint was a beginning of this one.

        True only if whole records or files were added at its end. Judged by its ends: what is
        committed is hashed again by `digest` to be sure. False is always allowed.
        """
        ...

    def file_at(self, position: int) -> str:
        """Return what users call the file that holds a position."""
        ...

    def close(self) -> None:
        """Close all files. The source is not used afterwards."""
        ...


class OneFile(ABC):
    """What the sources of one file have in common."""

    name: str
    format: str
    size: int
    declared: dict[str, Any] | None = None
    headers: Mapping[str, Sequence[str]] = MappingProxyType({})
    block_bytes: int = 0

    @property
    def forms(self) -> tuple[Form, ...]:
        """How the records are written: all that is to be known of most formats is their name."""
        return ({"format": self.format},)

    @staticmethod
    @abstractmethod
    def reread(
        form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
    ) -> Batch:
        """Parse records that were kept by themselves, as the bytes of their rejects.

        A record may be anything: its user has edited it. Its outcome is that which it would have in a
        file of this form, and it cannot change that of another one.

        Args:
            form: How they are written.
            too_long: Indices of records that are longer than is allowed, or not whole.
        """

    @abstractmethod
    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records that begins at `start`; None at the end."""

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from twenty places."""
        for chunk in self._sample_chunks(records):
            yield from self._readable(chunk)

    def _sample_chunks(self, records: int | None) -> Iterator[Chunk]:
        """Yield small chunks with about `records` records."""
        starts: Iterable[int | None] = [0]
        wanted = self.size
        if records is not None and not self._has_at_most(records):
            parts = min(SAMPLE_PLACES, max(LEAST_PLACES, records))
            places = [self.size * place // parts for place in range(1, parts)]
            starts = [0, *map(self._next_record, places)]
            wanted = max(1, records // parts)
        is_first = True
        for start in starts:
            at, left = Position(start or 0), wanted if start is not None else 0
            while left > 0 and (chunk := self.cut(at, left, SAMPLE_CHUNK_BYTES)):
                if is_first or chunk.hi - chunk.lo <= 2 * SAMPLE_CHUNK_BYTES:
                    yield chunk  # of the chunks that are one huge record, the first one is enough
                is_first = False
                left -= max(1, chunk.records)
                at = chunk.end

    def _has_at_most(self, records: int) -> bool:
        whole = self.cut(Position(), records, SMALL_BYTES)
        return whole is None or whole.hi == self.size

    @abstractmethod
    def _next_record(self, position: int) -> int | None:
        """Return where a record begins, or seems to, from `position` on; None if not nearby."""

    @abstractmethod
    def _readable(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """Yield the readable records of a chunk as JSON values, for a sample."""

    def continues(self, fingerprint: str) -> bool:
        """Say no: most formats do not let records be added at the end."""
        del fingerprint
        return False

    def file_at(self, position: int) -> str:
        """Return the file's name."""
        del position
        return self.name

    def piece(self, chunk: Chunk) -> Piece | None:
        """Return a chunk to be parsed with those of other files, by `read_pieces`; None if it cannot."""
        del chunk
        return None

    def pause(self) -> bool:
        """Close the file until `resume`, if it can be opened again so much quicker; say whether it is."""
        return False

    def resume(self) -> bool:
        """Open the file again after a `pause`; say whether it is what it was. If not, it stays closed."""
        return True


class TextSource(OneFile):
    """What the sources of one text file have in common: positions are bytes."""

    def __init__(self, text: TextFile, name: str, max_record_bytes: int) -> None:
        self.name = name
        self.size = text.size
        self.fingerprint, self.modified = text.fingerprint, text.modified
        self.contents: tuple[Content, ...] = (Content(text.size, text.content),)
        self.notes = text.notes
        self._text = text
        self._max_record_bytes = max_record_bytes

    def _may_be_too_long(self, chunk: Chunk) -> bool:
        return chunk.records == 1 and chunk.hi - chunk.lo > self._max_record_bytes

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        if self._may_be_too_long(chunk):
            start, length = self._only_record(chunk)
            if length > self._max_record_bytes:
                head = self._text.read_at(start.position, min(length, HEAD_BYTES))
                frame, raw_records = self._too_long(Chunk(start, chunk.end), head, schema)
                return Batch(chunk, frame, [0], raw_records, self.digest(chunk))
        return self._read(chunk, schema)

    @abstractmethod
    def _only_record(self, chunk: Chunk) -> tuple[Position, int]:
        """Return where the only record of a chunk begins, and its length in bytes."""

    @abstractmethod
    def _too_long(
        self, chunk: Chunk, head: bytes, schema: RecordSchema
    ) -> tuple[pl.DataFrame, RawRecords]:
        """Return an empty frame, and the raw records of a chunk whose one record is too long.

        Args:
            head: The first bytes of the record.
        """

    @abstractmethod
    def _read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk that fits into memory."""

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, chunk.hi)

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the first bytes, for each number of them."""
        del file
        return self._text.head_digests(stops)

    def pause(self) -> bool:
        """Close the file until `resume`, unless its text is a temporary file."""
        if self._text.can_pause:
            self._text.pause()
        return self._text.can_pause

    def resume(self) -> bool:
        """Open the file again; say whether it is what it was."""
        return self._text.resume()

    def close(self) -> None:
        """Close the file."""
        self._text.close()
