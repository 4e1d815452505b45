"""JSON Lines: one JSON object a line, decoded straight into typed columns.

The typed decoder accepts only what certainly fits the columns; every other line is left to the one
authority, the validator, by way of `JsonLines`.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from itertools import accumulate, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl

from batchimport.errors import SourceChangedError
from batchimport.job import EXTRA_COLUMN, INDEX, Chunk, FieldError, Mark, Reject, Stage
from batchimport.sources.base import Batch, UnreadableRecordError
from batchimport.sources.codec import HEAD_BYTES, digest_of
from batchimport.sources.framing import BLANK, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.job import SourceOptions
    from batchimport.schema import Column, RecordSchema
    from batchimport.sources.codec import TextFile

BOM = b"\xef\xbb\xbf"
INT64 = 2**63
SAMPLE_PLACES = 20
_DETACHED_COLON = re.compile(rb'"[ \t\r]+:')
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""Characters that JSON escapes in a name."""
_Int64 = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64 - 1)]
_TYPES: dict[str, Any] = {"integer": _Int64, "number": float, "boolean": bool, "json": msgspec.Raw}
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class JsonLinesSource:
    """One file of JSON lines."""

    format = "jsonl"

    def __init__(self, text: TextFile, name: str, options: SourceOptions) -> None:
        self.name = name
        self.size = text.size
        self.fingerprint = text.fingerprint
        self.modified = text.modified
        self.notes: tuple[str, ...] = ()
        self._text = text
        self._lines = Lines(text)
        self._max_record_bytes = options.max_record_bytes
        self._decoders: dict[tuple[Column, ...], _TypedLines] = {}

    def cut(self, start: Mark, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` lines that begins at `start`; None at the end."""
        return self._lines.cut(start, limit, max_bytes)

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        size = chunk.hi - chunk.lo
        typed = self._decoders.setdefault(schema.columns, _TypedLines(schema.columns))
        if chunk.records == 1 and size > self._max_record_bytes:
            head = self._text.read_at(chunk.lo, HEAD_BYTES)
            origin = JsonLines(self.name, chunk, schema.columns, [head], frozenset({0}))
            digest = self._text.digest(chunk.lo, chunk.hi)
            return Batch(chunk, typed.empty(), [0], origin, digest)
        data = self._text.read_at(chunk.lo, size)
        all_lines = lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if chunk.lo == 0 and lines and lines[0].startswith(BOM):
            lines = [lines[0][len(BOM) :], *lines[1:]]
        numbers: Sequence[int] = range(len(lines))
        if len(lines) != chunk.records:
            numbers = [at for at, line in enumerate(lines) if line.strip(BLANK)]
            lines = [lines[at] for at in numbers]
        if len(lines) != chunk.records:
            raise SourceChangedError("the file changed while it was read", where=self.name)
        too_long: frozenset[int] = frozenset()
        if max(map(len, lines), default=0) > self._max_record_bytes:
            sizes = enumerate(map(len, lines))
            too_long = frozenset(at for at, size in sizes if size > self._max_record_bytes)
        origin = JsonLines(self.name, chunk, schema.columns, lines, too_long, numbers, all_lines)
        frame, doubtful = typed.parse(lines, data, too_long)
        return Batch(chunk, frame, doubtful, origin, digest_of(data))

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        return self._text.digest(chunk.lo, chunk.hi)

    def count(self) -> int:
        """Count the lines that are not blank."""
        return self._lines.count()

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield readable records: all of them, or about `records` from twenty places."""
        for line in self._sample_lines(records):
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record

    def _sample_lines(self, records: int | None) -> Iterator[bytes]:
        whole = self._lines.cut(Mark(), records, 64 * 1024 * 1024) if records else None
        if records is None or (whole is not None and whole.hi == self.size):
            starts, wanted = [0], self.size
        else:
            starts = [self.size * place // SAMPLE_PLACES for place in range(SAMPLE_PLACES)]
            wanted = max(1, records // SAMPLE_PLACES)
        for start in starts:
            at = Mark(self._next_line(start))
            left = wanted
            while left > 0 and (chunk := self._lines.cut(at, min(left, 4000), 1 << 24)):
                if chunk.hi - chunk.lo <= 1 << 24:
                    yield from self._lines_of(chunk)
                left -= chunk.records
                at = chunk.end

    def _lines_of(self, chunk: Chunk) -> list[bytes]:
        data = self._text.read_at(chunk.lo, chunk.hi - chunk.lo)
        return data.removeprefix(BOM).split(b"\n")

    def _next_line(self, position: int) -> int:
        if position == 0:
            return 0
        chunk = self._lines.cut(Mark(position - 1), 1, 1 << 24)
        return chunk.hi if chunk else position

    def close(self) -> None:
        """Close the file."""
        self._text.close()


class JsonLines:
    """The lines of one chunk, one at a time."""

    def __init__(
        self,
        name: str,
        chunk: Chunk,
        columns: tuple[Column, ...],
        lines: Sequence[bytes],
        too_long: frozenset[int] = frozenset(),
        numbers: Sequence[int] = (0,),
        all_lines: Sequence[bytes] = (),
    ) -> None:
        self._name = name
        self._chunk = chunk
        self._columns = columns
        self._lines = lines
        self._too_long = too_long
        self._numbers = numbers
        self._all_lines = all_lines

    def values(self, index: int) -> dict[str, Any]:
        """Return the line's object, if it is one and has no key twice."""
        if index in self._too_long:
            raise _unreadable("record_too_long", "longer than --max-record-bytes allows")
        line = self._lines[index]
        try:
            line.decode()
            record = msgspec.json.decode(line)
        except UnicodeDecodeError as error:
            raise _unreadable("invalid_utf8", f"not UTF-8 at byte {error.start}") from error
        except msgspec.ValidationError as error:
            raise _unreadable("number_out_of_range", str(error)) from error
        except msgspec.DecodeError as error:
            raise _unreadable("malformed_json", _explain(line, str(error))) from error
        except RecursionError as error:
            raise _unreadable("too_deep", "nested too deeply") from error
        if not isinstance(record, dict):
            name = type(record).__name__
            raise _unreadable("not_an_object", f"expected a JSON object, found {name}")
        twice = _repeated_keys(line)
        if twice:
            raise UnreadableRecordError(
                *(
                    FieldError("duplicate_key", key, "the key is there more than once")
                    for key in twice
                )
            )
        return record

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns; nested ones as the JSON text that stands there."""
        raw = _decode_raw(self._lines[index])
        row: dict[str, Any] = {}
        for column in self._columns:
            if column.name in raw:
                row[column.name] = _convert(column, raw.pop(column.name))
        if raw:
            pairs = (f"{json.dumps(key)}:{bytes(value).decode()}" for key, value in raw.items())
            row[EXTRA_COLUMN] = "{" + ",".join(pairs) + "}"
        return row

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a line."""
        number = self._numbers[index]
        line = self._lines[index]
        before = self._lengths[number - 1] + number if number else 0
        return Reject(
            record=self._chunk.offset + index,
            source=self._name,
            line=self._chunk.start.line + number,
            byte_offset=self._chunk.lo + before,
            stage=stage,
            errors=tuple(errors),
            raw=(line[:HEAD_BYTES] if index in self._too_long else line).removesuffix(b"\r"),
        )

    @cached_property
    def _lengths(self) -> list[int]:
        """Bytes of all lines up to and with each, blank ones included, line ends apart."""
        return list(accumulate(map(len, self._all_lines)))


class _TypedLines:
    """Lines into a frame with the columns of a schema."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._fields = [f"f{at}" for at in range(len(columns))]
        self._decode: Any = None
        if any(map(_ESCAPED.search, (column.name for column in columns))):
            return  # msgspec takes no such names: every line is doubtful
        record = msgspec.defstruct(
            "Record",
            [
                (field, *_field_type(column))
                for field, column in zip(self._fields, columns, strict=True)
            ],
            rename=dict(zip(self._fields, (column.name for column in columns), strict=True)),
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
        )
        self._decode = msgspec.json.Decoder(record).decode

    def parse(
        self, lines: list[bytes], data: bytes, too_long: frozenset[int]
    ) -> tuple[pl.DataFrame, list[int]]:
        """Return the frame of the lines that certainly fit, and the indices of the others."""
        if self._decode is None:
            return self.empty(), list(range(len(lines)))
        records: list[Any] = []
        doubtful: list[int] = sorted(too_long)
        decoded = map(self._decode, lines)
        while len(records) < len(lines):
            try:  # by the thousand, so that other threads get a turn
                records.extend(islice(decoded, 1000))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                doubtful.append(len(records))
                records.append(None)
        unfit = set(doubtful)
        try:
            frame, keys, nulls = self._frame(records, unfit)
        except pl.exceptions.PolarsError:  # not UTF-8: msgspec does not look into raw values
            unfit.update(at for at, line in enumerate(lines) if not _is_utf8(line))
            frame, keys, nulls = self._frame(records, unfit)
        twice = self._lines_with_repeated_keys(lines, data, unfit, keys)
        if twice or nulls:
            unfit.update(twice, nulls)
            frame, *_ = self._frame(records, unfit)
        return frame, sorted(unfit)

    def empty(self) -> pl.DataFrame:
        """Return a frame of no records."""
        return self._frame([], set())[0]

    def _frame(self, records: list[Any], without: set[int]) -> tuple[pl.DataFrame, int, list[int]]:
        """Return the columns of decoded records, how many keys their text has, and forbidden nulls.

        The last are the records that have null where an object or array must be, which the typed
        decoder lets pass.
        """
        index: Sequence[int] = range(len(records))
        nulls: list[int] = []
        if without:
            index = [at for at in index if at not in without]
            records = [records[at] for at in index]
        series = [pl.Series(INDEX, index, dtype=pl.UInt32)]
        keys = 0
        for field, column in zip(self._fields, self._columns, strict=True):
            values = list(map(attrgetter(field), records))
            missing = 0
            if not column.required:
                missing = values.count(msgspec.UNSET)
                keys -= missing
                if missing:
                    values = [None if value is msgspec.UNSET else value for value in values]
            keys += len(values)
            if column.kind == "json":
                text = b"\n".join([b"null" if value is None else value for value in values])
                keys += text.count(b'":')
                texts = _json_texts(column.name, text, len(values))
                series.append(texts)
                if not column.nullable and texts.null_count() > missing:
                    found = texts.is_null().arg_true().to_list()
                    nulls += [index[at] for at in found if values[at] is not None]
            else:
                series.append(pl.Series(column.name, values, dtype=column.dtype))
        return pl.DataFrame(series), keys, nulls

    def _lines_with_repeated_keys(
        self, lines: list[bytes], data: bytes, unfit: set[int], keys: int
    ) -> list[int]:
        """Find lines that have a key twice, which msgspec hides: the last one would win.

        Every key adds one `":` to the text. Counted for the whole chunk first: that comes out even
        unless strings contain `":` or spaces part a key from its colon.
        """
        found = data.count(b'":') - sum(lines[at].count(b'":') for at in unfit)
        if found == keys and not _has_detached_colon(data):
            return []
        return [at for at, line in enumerate(lines) if at not in unfit and _repeated_keys(line)]


def _field_type(column: Column) -> tuple[Any, ...]:
    kind = _TYPES.get(column.kind, str)
    if column.nullable and column.kind != "json":
        kind = kind | None
    return (kind,) if column.required else (kind | msgspec.UnsetType, msgspec.UNSET)


def _json_texts(name: str, text: bytes, count: int) -> pl.Series:
    """Return raw JSON values, one a line, as text; `null` becomes null.

    Split by Polars, which lets other threads run meanwhile and refuses what is not UTF-8.
    """
    if not count:
        return pl.Series(name, [], dtype=pl.String)
    whole = pl.Series(name, [text], dtype=pl.Binary).cast(pl.String)
    series = whole.str.split("\n").explode()
    return series.set(series == "null", None)


def _has_detached_colon(data: bytes) -> bool:
    """Say whether spaces part some key from its colon; plain search is faster than the pattern."""
    suspicious = b"\t" in data or b"\r" in data or _contains(data, b" :")
    return suspicious and _DETACHED_COLON.search(data) is not None


def _contains(data: bytes, needle: bytes) -> bool:
    """Search by Polars: faster than Python's own search, and other threads run meanwhile."""
    return bool(pl.Series([data], dtype=pl.Binary).bin.contains(needle).any())


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _convert(column: Column, raw: msgspec.Raw) -> Any:
    value = msgspec.json.decode(raw)
    if value is None:
        return None
    if column.kind == "json":
        return bytes(raw).decode()
    if column.kind == "integer":
        value = int(value)
        if not -INT64 <= value < INT64:
            error = FieldError(
                "integer_out_of_range", column.name, "beyond 64 bits", str(value)[:80]
            )
            raise UnreadableRecordError(error)
    elif column.kind == "number":
        value = float(value)
    return value


def _repeated_keys(line: bytes) -> list[str]:
    """Return the keys that the line's own object has more than once."""
    outermost: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [key for key, _ in pairs]  # the outermost object comes last

    try:
        json.loads(line, object_pairs_hook=remember)
    except (ValueError, RecursionError):
        return []
    return sorted({key for key in outermost if outermost.count(key) > 1})


def _unreadable(code: str, message: str) -> UnreadableRecordError:
    return UnreadableRecordError(FieldError(code, "", message))


def _explain(line: bytes, message: str) -> str:
    if "truncated" in message and b"\\u" in line:
        return "ends too soon, or has half of a surrogate pair"
    return message[:1].lower() + message[1:]
