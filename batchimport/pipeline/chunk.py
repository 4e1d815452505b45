"""The way of a chunk: read, validate, transform, store. Both engines call this one function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchimport import failpoints
from batchimport.errors import without_panics
from batchimport.model import EXTRA_COLUMN, INDEX, ChunkResult, FieldError, Reject
from batchimport.pipeline.coerce import changed
from batchimport.sinks.base import StoreRequest
from batchimport.sources.base import UnreadableRecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.model import Chunk
    from batchimport.pipeline.transform import Transform
    from batchimport.schema import Column, RecordSchema
    from batchimport.sinks.base import Sink
    from batchimport.sources.base import Batch, Source


@dataclass(frozen=True, slots=True)
class Work:
    """What a chunk passes on its way; shared by all chunks of a run.

    Attributes:
        store_seconds: How long a statement of the destination may take.
    """

    source: Source
    schema: RecordSchema
    transform: Transform
    columns: tuple[Column, ...]
    sink: Sink
    store_seconds: float | None = None


@without_panics()
def process_chunk(
    work: Work, chunk: Chunk, attempt: int, before_store: Callable[[], None]
) -> ChunkResult:
    """Import one chunk: in the end it is committed as a whole, or not at all.

    Args:
        before_store: Called when all is ready to be stored; may wait for its turn, and raises
            TransientError if the attempt was cancelled meanwhile.

    Raises:
        TransientError: If another attempt may succeed.
        BatchImportError: If it may not.
    """
    batch = work.source.read(chunk, work.schema)
    frame, rejects = judge(batch, work.schema)
    done = work.transform.apply(frame, work.columns)
    rejects += [
        batch.raw_records.reject(index, "transform", [error]) for index, error in done.failures
    ]
    before_store()

    def reject_row(at: int, errors: Sequence[FieldError]) -> Reject:
        return batch.raw_records.reject(done.locate(at), "store", errors)

    request = StoreRequest(
        chunk,
        done.frame,
        rejects,
        done.filtered,
        batch.digest,
        attempt,
        reject_row,
        work.store_seconds,
    )
    failpoints.reach("before-store")
    result = work.sink.store(request)
    failpoints.reach("after-commit")
    return result


def judge(batch: Batch, schema: RecordSchema) -> tuple[pl.DataFrame, list[Reject]]:
    """Split a batch into valid records and rejects.

    Records that the vectorised rules accept are valid; the validator judges the deferred ones.
    """
    frame, deferred = batch.frame, batch.deferred
    accepts = _accepts(batch, schema)
    if not accepts.all():
        also_deferred = frame.filter(~accepts).get_column(INDEX).to_list()
        deferred = sorted([*deferred, *also_deferred])
        frame = frame.filter(accepts)
    judged_valid, rejects = [], []
    for index in deferred:
        verdict = _judge_one(batch, schema, index)
        if isinstance(verdict, Reject):
            rejects.append(verdict)
        else:
            judged_valid.append({INDEX: index, **verdict})
    if judged_valid:
        types = dict(batch.frame.schema)
        if any(EXTRA_COLUMN in row for row in judged_valid):
            types[EXTRA_COLUMN] = pl.String()
        more = pl.DataFrame(judged_valid, schema=types)
        frame = pl.concat([frame, more], how="diagonal").sort(INDEX)
    if batch.valid is None:
        return frame, rejects
    if frame.is_empty() and frame.columns == batch.valid.columns:
        return batch.valid, rejects
    return pl.concat([batch.valid, frame], how="diagonal").sort(INDEX), rejects


def _accepts(batch: Batch, schema: RecordSchema) -> pl.Series:
    if batch.frame.is_empty():
        return pl.Series(dtype=pl.Boolean)
    return schema.accepts_rows(batch.frame) if schema.vectorised else _ask(batch, schema)


def _ask(batch: Batch, schema: RecordSchema) -> pl.Series:
    """Ask the validator about each record that fits the columns."""

    def is_valid(index: int) -> bool:
        try:
            return schema.accepts(batch.raw_records.values(index))
        except UnreadableRecordError:
            return False

    indices = batch.frame.get_column(INDEX).to_list()
    return pl.Series(map(is_valid, indices), dtype=pl.Boolean)


def _judge_one(batch: Batch, schema: RecordSchema, index: int) -> dict[str, object] | Reject:
    try:
        record = batch.raw_records.values(index)
        errors, changes = schema.judge(record)
        if not errors:
            row = batch.raw_records.row(index)
            fitted = changed(row, record, changes, schema.columns) if changes else row
            if not isinstance(fitted, FieldError):
                return fitted
            errors = (fitted,)
    except UnreadableRecordError as error:
        return batch.raw_records.reject(index, "parse", error.errors)
    return batch.raw_records.reject(index, "validate", errors)
