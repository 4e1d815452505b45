"""What the keys of a source's records become: renamed, selected, read by another type.

`ShapedSource` is what every source looks like to a job. The source itself is read by a schema of its own
names; where nothing is changed, by the job's schema, without any cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import UsageError, hint_for
from batchimport.model import EXTRA_COLUMN, INDEX, FieldError
from batchimport.rules import pairs_of
from batchimport.schema import RecordSchema
from batchimport.schema.infer import rule_of
from batchimport.schema.moments import date_formats
from batchimport.sources.base import Batch, UnreadableRecordError
from batchimport.sources.convert import Converter
from batchimport.sources.json_decoder import decode_raw
from batchimport.sources.registry import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from batchimport.model import Chunk, Kind, Reject, SourceOptions, Stage
    from batchimport.schema import Column
    from batchimport.sources.base import RawRecords, Source

_encode = msgspec.json.Encoder().encode


class Shape:
    """What options say about keys."""

    def __init__(self, options: SourceOptions) -> None:
        self._new = pairs_of("--rename", options.rename)
        self._kept = options.columns
        self.types: dict[str, Kind] = pairs_of("--type", options.types)  # type: ignore[assignment]  # checked
        self.formats = options.date_formats
        self._readings: dict[tuple[RecordSchema, bool], _Reading | None] = {}
        date_formats(options.date_formats)  # refuses what is none

    @property
    def renamed(self) -> tuple[str, ...]:
        """The keys that are called otherwise."""
        return tuple(self._new)

    @property
    def is_empty(self) -> bool:
        """Whether keys stay as they are."""
        return not (self._new or self._kept)

    def key(self, old: str) -> str | None:
        """Return what a key is called; None if it is not imported."""
        new = self._new.get(old, old)
        return new if not self._kept or new in self._kept else None

    def keys(self, names: Iterable[str]) -> list[str]:
        """Return what some keys are called that are all there; only those that are imported.

        Raises:
            UsageError: If two keys would have one name.
        """
        renamed = [(old, new) for old in names if (new := self.key(old)) is not None]
        by_name: dict[str, str] = {}
        for old, new in renamed:
            if by_name.setdefault(new, old) != old:
                raise UsageError(
                    f"{by_name[new]} and {old} are both called {new}", where="--rename"
                )
        return list(by_name)

    def old(self, new: str) -> str:
        """Return what a key is called in the source."""
        return next((old for old, name in self._new.items() if name == new), new)

    def record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record with its keys as they are called.

        Raises:
            UnreadableRecordError: If two of them would have one name.
        """
        if self.is_empty:
            return record
        shaped: dict[str, Any] = type(record)()
        for old, value in record.items():
            new = self.key(old)
            if new in shaped:
                error = FieldError("duplicate_key", new, f"another key is renamed to {new}")
                raise UnreadableRecordError(error)
            if new is not None:
                shaped[new] = value
        return shaped

    def read(
        self, schema: RecordSchema, read: Callable[[RecordSchema], Batch], *, is_text: bool
    ) -> Batch:
        """Return the records of a chunk under the keys that they are asked to have.

        Args:
            read: Reads the chunk by a schema of the source's own keys.
            is_text: The source's values are cells of delimited text.
        """
        known = (schema, is_text)
        if known not in self._readings:
            self._readings[known] = _reading(self, schema, is_text=is_text)
        reading = self._readings[known]
        return read(schema) if reading is None else reading.shaped(read(reading.schema))

    def describe(self, document: dict[str, Any], seen: Iterable[str]) -> dict[str, Any]:
        """Return the schema of records whose keys were renamed, in the order and of the types asked for.

        Args:
            document: Made of such records.
            seen: The keys that the source has.

        Raises:
            UsageError: If an option names a key that is not there.
        """
        rules, seen = document["properties"], list(seen)
        names = [self._new.get(old, old) for old in seen]
        for option, wanted, there in (
            ("--rename", self._new, seen),
            ("--columns", self._kept, names),
            ("--type", self.types, names),
        ):
            for name in wanted if there else ():
                _check_there(option, name, list(there))
        ignored = [old for old in seen if self.key(old) is None]
        types = {name: rule_of(kind, self.formats) for name, kind in self.types.items()}
        kept = [name for name in self._kept or rules if name in rules]
        properties = {name: _typed(rules[name], types.get(name)) for name in kept}
        return document | {"properties": properties} | ({"x-ignored": ignored} if ignored else {})

    def order(self, document: Any) -> Any:
        """Return a schema that the user gave, with only the columns that are imported, in their order."""
        if not self._kept or not isinstance(document, dict):
            return document
        rules = document.get("properties", {})
        ordered = {name: rules[name] for name in self._kept if name in rules}
        required = [name for name in document.get("required", []) if name in self._kept]
        changed = {
            "properties": ordered,
            "required": required,
            "x-ignored": [self.old(name) for name in rules if name not in ordered],
        }
        return document | {key: value for key, value in changed.items() if value or key in document}


def _typed(inferred: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the rule of a column; what was found to mean null stays so under another type."""
    if given is None:
        return inferred
    return given | ({"x-missing": inferred["x-missing"]} if "x-missing" in inferred else {})


def _check_there(option: str, name: str, there: Sequence[str]) -> None:
    if name not in there:
        hint = hint_for(name, there, f"columns: {', '.join(there[:20])}")
        raise UsageError(f"no column {name}", where=option, hint=hint)


class ShapedSource:
    """A source whose records have the keys that the options ask for.

    Attributes:
        seen: The keys that records of the last sample had in the source itself.
    """

    def __init__(self, source: Source, options: SourceOptions) -> None:
        self._source, self.shape = source, Shape(options)
        self.seen: dict[str, None] = {}
        self.cut, self.digest, self.count = source.cut, source.digest, source.count
        self.head_digests, self.continues = source.head_digests, source.continues
        self.file_at, self.close = source.file_at, source.close
        self._take()

    def _take(self) -> None:
        """Take the attributes of the source."""
        source = self._source
        self.name, self.format, self.size = source.name, source.format, source.size
        self.fingerprint, self.contents = source.fingerprint, source.contents
        self.modified, self.notes = source.modified, source.notes
        self.forms = source.forms
        self.block_bytes = source.block_bytes
        self.headers: Mapping[str, Sequence[str]] = MappingProxyType(
            {name: self.shape.keys(header) for name, header in source.headers.items()}
        )
        names = {name for header in source.headers.values() for name in header}
        for old in self.shape.renamed if names else ():
            _check_there("--rename", old, sorted(names))
        self.declared = None
        if source.declared is not None:
            rules = source.declared["properties"]
            kept = {self.shape.key(name): rules[name] for name in rules if self.shape.key(name)}
            self.shape.keys(rules)
            self.declared = self.shape.describe(source.declared | {"properties": kept}, rules)
            if "required" in self.declared:
                self.declared["required"] = self.shape.keys(self.declared["required"])

    @property
    def detected(self) -> dict[str, dict[str, Any]]:
        """How each file is written, as far as that was detected."""
        return getattr(self._source, "detected", {})

    def adopt(self, detected: Mapping[str, dict[str, Any]]) -> None:
        """Read the files as they were read when their job began."""
        if detected and detected != self.detected:
            self._source.adopt(detected)  # type: ignore[attr-defined]  # it has detected something
            self._take()

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield records as JSON values, under the keys that they are asked to have."""
        for record in self._source.sample(records):
            self.seen |= dict.fromkeys(record)
            try:
                yield self.shape.record(record)
            except UnreadableRecordError:
                continue

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        return self._shaped(schema, partial(self._source.read, chunk))

    @property
    def reads_together(self) -> bool:
        """Whether chunks of several files are read as one."""
        return getattr(self._source, "reads_together", False)

    def read_together(self, chunks: Sequence[Chunk], schema: RecordSchema) -> Batch:
        """Read and parse chunks that follow each other, as one."""
        many: Any = self._source
        return self._shaped(schema, partial(many.read_together, chunks))

    def _shaped(self, schema: RecordSchema, read: Callable[[RecordSchema], Batch]) -> Batch:
        is_text = self.format in FORMATS and FORMATS[self.format].is_untyped
        return self.shape.read(schema, read, is_text=is_text)


def _reading(shape: Shape, schema: RecordSchema, *, is_text: bool) -> _Reading | None:
    """Return how a source is read by a schema; None if it can be read by the schema itself."""
    converters = {}
    for column in schema.columns:
        formats = schema.date_formats.get(column.name, ())
        is_date = column.kind in ("date", "date-time")
        if column.name in shape.types and not is_text and shape.types[column.name] != "json":
            kind = shape.types[column.name]
            given = date_formats(tuple(dict.fromkeys([*formats, *shape.formats])))
            converters[column.name] = Converter(column.name, kind, given, from_json=True)
        elif is_date and (column.name in schema.date_formats or shape.formats):
            given = date_formats(tuple(dict.fromkeys([*formats, *shape.formats])))
            converters[column.name] = Converter(
                column.name, column.kind, given, form=schema.forms.get(column.name)
            )
    if shape.is_empty and not converters:
        return None
    names = {column.name: shape.old(column.name) for column in schema.columns}
    rules = {names[column.name]: _rule(column, schema, converters) for column in schema.columns}
    ignored = dict.fromkeys(schema.ignored, {"type": ["string", "null"]} if is_text else {})
    document = {
        "type": "object",
        "properties": ignored | rules,
        "required": [names[column.name] for column in schema.columns if column.required],
        "additionalProperties": not schema.closed,
    }
    exact = frozenset(
        names[column.name].lower()
        for column in schema.columns
        if column.kind == "json" and column.name not in converters
    )
    own = RecordSchema(document, exact, inferred=schema.inferred)
    return _Reading(shape, schema, own, names, converters)


def _rule(
    column: Column, schema: RecordSchema, converters: Mapping[str, Converter]
) -> dict[str, Any]:
    """Return the rule by which the source reads a column."""
    converter, types = converters.get(column.name), schema.types[column.name]
    if converter is not None:
        return {} if converter.from_json else {"type": ["string", "null"]}
    rule: dict[str, Any] = {} if types is None else {"type": sorted(types)}
    if column.kind in ("date", "date-time", "uuid"):
        rule["x-type"] = column.kind
    if column.name in schema.missing:
        rule["x-missing"] = sorted(schema.missing[column.name])
    if column.name in schema.forms:
        rule["x-inferred"] = schema.forms[column.name].mark
    return rule


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a source is read by a schema.

    Attributes:
        schema: The schema of the source's own keys.
        names: By column, the key in the source.
    """

    shape: Shape
    outer: RecordSchema
    schema: RecordSchema
    names: Mapping[str, str]
    converters: Mapping[str, Converter]

    def shaped(self, batch: Batch) -> Batch:
        """Return a batch of the source as one of the job."""
        frame = batch.frame
        if batch.valid is not None:
            frame = pl.concat([batch.valid, frame], how="diagonal").sort(INDEX)
        series, fits = [frame.get_column(INDEX)], []
        for column in self.outer.columns:
            cells = frame.get_column(self.names[column.name]).alias(column.name)
            converter = self.converters.get(column.name)
            if converter is not None:
                values = converter.read(cells)
                fits.append(values.is_not_null() | cells.is_null())
                cells = values
            series.append(cells)
        extra = self._extra(frame)
        shaped = pl.DataFrame([*series, *([] if extra is None else [extra])])
        deferred = batch.deferred
        for fit in fits:
            if not fit.all():
                deferred = sorted({*deferred, *shaped.get_column(INDEX).filter(~fit).to_list()})
        if len(deferred) > len(batch.deferred):
            shaped = shaped.filter(~pl.col(INDEX).is_in(deferred))
        records = ShapedRecords(batch.raw_records, self)
        return replace(batch, frame=shaped, deferred=deferred, raw_records=records, valid=None)

    def _extra(self, frame: pl.DataFrame) -> pl.Series | None:
        if EXTRA_COLUMN not in frame.columns:
            return None
        texts = frame.get_column(EXTRA_COLUMN)
        if self.shape.is_empty:
            return texts
        texts = texts.map_elements(self.rest, return_dtype=pl.String, skip_nulls=True)
        return None if texts.null_count() == len(texts) else texts

    def rest(self, text: str) -> str | None:
        """Return the keys that have no column, as they are called."""
        items = self.shape.record(dict(decode_raw(text)))
        return _encode(items).decode() if items else None


class ShapedRecords:
    """The raw records of a chunk, with the keys that are asked for."""

    def __init__(self, records: RawRecords, reading: _Reading) -> None:
        self._records, self._reading = records, reading
        self._shape = reading.shape
        self.reject: Callable[[int, Stage, Sequence[FieldError]], Reject] = records.reject

    def keys(self, index: int) -> Collection[str] | None:
        """Return the keys that a valid record has, as they are called; None if it has all columns."""
        keys = self._records.keys(index)
        return None if keys is None else {name for old in keys if (name := self._shape.key(old))}

    def values(self, index: int) -> dict[str, Any]:
        """Return the record as JSON values."""
        reading = self._reading
        record = reading.shape.record(self._records.values(index))
        given = {name: each for name, each in reading.converters.items() if name in record}
        row = self._records.row(index) if any(each.from_json for each in given.values()) else {}
        errors = []
        for name, converter in given.items():
            text = row.get(reading.names[name]) if converter.from_json else record[name]
            if not isinstance(text, str):
                continue
            value = converter.one(text)
            if value is not None:
                record[name] = value
            elif converter.kind == "date-time":  # of others, the validator says what is wrong
                errors.append(converter.error(text))
        if errors:
            raise UnreadableRecordError(*errors)
        return record

    def row(self, index: int) -> dict[str, Any]:
        """Return the values of the columns."""
        reading = self._reading
        given = self._records.row(index)
        row: dict[str, Any] = {}
        for name, old in reading.names.items():
            if old in given:
                value, converter = given[old], reading.converters.get(name)
                if converter is not None and isinstance(value, str):
                    value = converter.one(value)
                    if value is None:
                        raise UnreadableRecordError(converter.error(given[old]))
                row[name] = value
        extra = given.get(EXTRA_COLUMN)
        text = extra if extra is None or reading.shape.is_empty else reading.rest(extra)
        return row if text is None else row | {EXTRA_COLUMN: text}
