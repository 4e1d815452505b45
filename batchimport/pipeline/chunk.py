"""Import one chunk: read, validate, transform, store. Both engines call `process_chunk`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import polars as pl

from batchimport import failpoints
from batchimport.errors import BatchImportError, without_panics
from batchimport.model import ABSENT, EXTRA_COLUMN, INDEX, ChunkResult, FieldError, Reject
from batchimport.pipeline.additions import NOTHING, Additions
from batchimport.pipeline.coerce import changed
from batchimport.sinks.base import StoreRequest, StoreSeparatelyError
from batchimport.sources.base import UnreadableRecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.model import Chunk
    from batchimport.pipeline.transform import BoundTransform, Transformed
    from batchimport.schema import RecordSchema
    from batchimport.sinks.base import Claim
    from batchimport.sources.base import Batch, Source
    from batchimport.sources.shape import ShapedSource

_NOT_THE_RECORD = (BatchImportError, MemoryError, OSError)
"""Errors that say nothing about the record that was judged when they arose."""


@dataclass(frozen=True, slots=True)
class Work:
    """What processes the chunks of a run; all chunks share it.

    Attributes:
        store_seconds: Maximum time of one statement in the destination; None for no limit.
    """

    source: Source
    schema: RecordSchema
    transform: BoundTransform
    claim: Claim
    store_seconds: float | None = None
    additions: Additions = NOTHING


@without_panics()
def process_chunk(
    work: Work,
    chunk: Chunk,
    attempt: int,
    before_store: Callable[[], None],
    parts: Sequence[Chunk] = (),
) -> ChunkResult:
    """Import one chunk: it is committed as a whole, or not at all.

    Args:
        before_store: Called when the rows are ready to be stored. It may wait for its turn, and
            raises TransientError if the attempt was cancelled meanwhile.
        parts: Of a chunk that spans several files, the part of each file.

    Raises:
        StoreSeparatelyError: If the parts can only be imported one by one; nothing was stored.
        TransientError: If another attempt may succeed.
        BatchImportError: If it may not.
    """
    if len(parts) > 1:
        batch = cast("ShapedSource", work.source).read_together(parts, work.schema)
    else:
        batch = work.source.read(chunk, work.schema)
    valid, rejects = judge(batch, work.schema)
    done = work.transform.apply(work.additions.add_to(valid, batch))
    rejects += [
        batch.raw_records.reject(index, "transform", [error]) for index, error in done.failures
    ]
    request = StoreRequest(
        chunk,
        done.frame,
        rejects,
        done.filtered,
        batch.digest,
        attempt,
        lambda row, errors: batch.raw_records.reject(done.record_of(row), "store", errors),
        work.store_seconds,
    )
    if batch.digests:
        numbers = _numbers(done, chunk)
        if numbers is None:
            raise StoreSeparatelyError
        together = tuple(zip(parts, batch.digests, strict=True))
        request = replace(request, parts=together, numbers=numbers)
    if work.claim.record.configuration.get("on_conflict") == "update":
        request = replace(request, frame=_for_update(done, batch, chunk))
    before_store()
    failpoints.reach("before-store")
    result = work.claim.store(request)
    failpoints.reach("after-commit")
    return result


def _numbers(done: Transformed, chunk: Chunk) -> pl.Series | None:
    """Return the number of each row's record in the job; None where that is not known."""
    return None if done.indices is None else done.indices.cast(pl.Int64) + chunk.offset


def _for_update(done: Transformed, batch: Batch, chunk: Chunk) -> pl.DataFrame:
    """Return a chunk's rows with all that decides which values of a row in the table change."""
    rows, numbers = _with_absent(done, batch), _numbers(done, chunk)
    return rows if numbers is None else rows.with_columns(numbers.alias(INDEX))


def _with_absent(done: Transformed, batch: Batch) -> pl.DataFrame:
    """Return a chunk's rows, with a column for each column that some record lacks: which ones do.

    Absent is what is null in a row and not a key of its record, or not one of a function's result.
    """
    frame, absent = done.frame, dict[str, list[int]]()
    nulls = frame.select(pl.col(name).is_null() for name in frame.columns)
    names = [values.name for values in nulls if values.any()]
    if not names:
        return frame
    for row in nulls.select(pl.any_horizontal(names).alias("any")).to_series().arg_true():
        keys = batch.raw_records.keys(done.record_of(row))
        left_out = done.left_out[row] if done.left_out else ()
        for name in names:
            if (keys is not None and name not in keys) or name in left_out:
                absent.setdefault(name, []).append(row)
    return frame.with_columns(
        (pl.int_range(pl.len()).is_in(places) & pl.col(name).is_null()).alias(ABSENT + name)
        for name, places in absent.items()
    )


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
        frame = pl.concat([frame, more], how="diagonal").sort(INDEX) if len(frame) else more
    if batch.valid is None:
        return frame, rejects
    if frame.is_empty() and frame.columns == batch.valid.columns:
        return batch.valid, rejects
    return pl.concat([batch.valid, frame], how="diagonal").sort(INDEX), rejects


def _accepts(batch: Batch, schema: RecordSchema) -> pl.Series:
    """Return for each row of the frame whether its record is certainly valid."""
    if batch.frame.is_empty():
        return pl.Series(dtype=pl.Boolean)
    return schema.accepts_rows(batch.frame) if schema.vectorised else _validate(batch, schema)


def _validate(batch: Batch, schema: RecordSchema) -> pl.Series:
    """Return for each row of the frame whether the validator accepts its record."""

    def is_valid(index: int) -> bool:
        try:
            return schema.accepts(batch.raw_records.values(index))
        except _NOT_THE_RECORD:
            raise
        except Exception:  # noqa: BLE001 - the record is deferred: `_judge_one` says what is wrong
            return False

    indices = batch.frame.get_column(INDEX).to_list()
    return pl.Series(map(is_valid, indices), dtype=pl.Boolean)


def _judge_one(batch: Batch, schema: RecordSchema, index: int) -> dict[str, object] | Reject:
    """Return the row of a record, or its reject.

    Whatever is raised while one record is judged rejects that record: it must not fail the chunk,
    whose other records no run could store then.
    """
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
    except _NOT_THE_RECORD:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        message = f"cannot be judged: {type(error).__name__}: {error}"[:200]
        errors = (FieldError("unverifiable", "", message),)
    return batch.raw_records.reject(index, "validate", errors)
