"""The user's own step between validation and store: a function over frames or records, or SQL.

Frames come in chunks, so a frame function or query must look at each row by itself. The hidden
column `__record__` tells which record a row came from; keep it or not, as you like.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from batchimport import user_code
from batchimport.errors import FatalError, UsageError
from batchimport.model import EXTRA_COLUMN, INDEX, FieldError
from batchimport.pipeline.coerce import (
    UNFIT,
    as_record,
    as_stored,
    fit,
    kind_of,
    plain,
    typed,
    with_extra,
)
from batchimport.schema import Column, Kind, RecordSchema, infer_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from batchimport.model import Job

MAX_CONCURRENT_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Transformed:
    """What became of a chunk's valid records.

    Attributes:
        frame: The table's columns; plus `_extra` where there are keys without a column.
        locate: The record (its index in the chunk) that a row of the frame came from.
        failures: Records whose transformation failed.
    """

    frame: pl.DataFrame
    locate: Callable[[int], int]
    filtered: int = 0
    failures: list[tuple[int, FieldError]] = field(default_factory=list)


class Transform(Protocol):
    """Turns valid records into rows."""

    def columns(self, sample: pl.DataFrame, schema: RecordSchema) -> tuple[Column, ...]:
        """Decide the table's columns, once for the whole job, from some valid records."""
        ...

    def apply(self, frame: pl.DataFrame, columns: Sequence[Column]) -> Transformed:
        """Transform a chunk."""
        ...


def load_transform(job: Job) -> Transform:
    """Return the transform that a job asks for.

    Raises:
        UsageError: If there is no such module or function.
    """
    if job.sql is not None:
        return FrameTransform(_sql(job.sql))
    if job.transform is None:
        return Identity()
    function = _load_function(job.transform)
    if _takes_frames(function):
        return FrameTransform(function)
    return RecordTransform(function)


def transform_digest(spec: str) -> str:
    """Hash the file of a transform's module: a changed function is another configuration."""
    return user_code.digest(_load_function(spec))


class Identity:
    """No transform: records are rows."""

    def columns(self, sample: pl.DataFrame, schema: RecordSchema) -> tuple[Column, ...]:
        """Return the schema's own columns."""
        del sample
        return schema.columns

    def apply(self, frame: pl.DataFrame, columns: Sequence[Column]) -> Transformed:
        """Return the frame as it is."""
        indices = frame.get_column(INDEX)
        if any(column.name == EXTRA_COLUMN for column in columns):
            frame = with_extra(frame).with_columns(pl.col(EXTRA_COLUMN).fill_null("{}"))
        return Transformed(frame.drop(INDEX), lambda at: int(indices[at]))


class FrameTransform:
    """`f(LazyFrame) -> LazyFrame`, or a query."""

    def __init__(self, function: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
        self._function = function

    def columns(self, sample: pl.DataFrame, schema: RecordSchema) -> tuple[Column, ...]:
        """Return the columns of the function's result."""
        self._given = schema.columns
        self._kinds = {column.name: column.kind for column in schema.columns}
        try:
            result = self._run(sample)
        except Exception as error:
            raise UsageError(
                f"the transform fails on a sample of the records: {type(error).__name__}: {error}",
                hint="mend it and run the same command again",
            ) from error
        return tuple(
            Column(name, self._kind(name, dtype))
            for name, dtype in result.schema.items()
            if name not in (INDEX, EXTRA_COLUMN)
        )

    def apply(self, frame: pl.DataFrame, columns: Sequence[Column]) -> Transformed:
        """Run the function; records that make it fail are found by halving."""
        failures: list[tuple[int, FieldError]] = []
        pieces = self._isolate(frame, failures)
        result = pl.concat(pieces, how="diagonal_relaxed") if pieces else frame.clear()
        if failures:
            bad = pl.Series([at for at, _ in failures], dtype=pl.UInt32)
            frame = frame.filter(~pl.col(INDEX).is_in(bad.implode()))
        if result.height > frame.height:
            raise FatalError(
                "the transform returned more rows than it was given",
                hint="one record may become one row or none",
            )
        _refuse_new_columns(result, columns)
        rows = result.select([as_stored(result, column) for column in _with_extra(columns, result)])
        locate = self._locator(frame, result)
        filtered = frame.height - result.height
        misfits = _misfits(result, rows, columns)
        if misfits:
            failures += [(locate(at), error) for at, error in misfits.items()]
            kept = [at for at in range(rows.height) if at not in misfits]
            return Transformed(rows[kept], lambda at: locate(kept[at]), filtered, failures)
        return Transformed(rows, locate, filtered, failures)

    def _run(self, frame: pl.DataFrame) -> pl.DataFrame:
        parsed = with_extra(frame).with_columns(
            typed(frame, column) for column in self._given if column.kind in ("date", "date-time")
        )
        result: Any = self._function(parsed.lazy())
        return result.collect() if isinstance(result, pl.LazyFrame) else pl.DataFrame(result)

    def _isolate(
        self, frame: pl.DataFrame, failures: list[tuple[int, FieldError]]
    ) -> list[pl.DataFrame]:
        try:
            return [self._run(frame)]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            if frame.height <= 1:
                at = int(frame.get_column(INDEX)[0]) if frame.height else 0
                failures.append((at, _failure(error)))
                return []
        half = frame.height // 2
        return self._isolate(frame.head(half), failures) + self._isolate(
            frame.slice(half), failures
        )

    def _locator(self, frame: pl.DataFrame, result: pl.DataFrame) -> Callable[[int], int]:
        if INDEX in result.columns:
            kept = result.get_column(INDEX)
            return lambda at: int(kept[at])
        given = frame.get_column(INDEX)
        if result.height == frame.height:
            return lambda at: int(given[at])

        def search(at: int) -> int:
            """Find the shortest head of the chunk that yields the row."""
            heads = range(frame.height + 1)
            end = bisect_left(heads, at + 1, key=lambda size: self._run(frame.head(size)).height)
            return int(given[end - 1])

        return search

    def _kind(self, name: str, dtype: pl.DataType) -> Kind:
        if dtype == pl.String and name in self._kinds:
            given = self._kinds[name]
            return given if given in ("json", "uuid") else "string"
        return kind_of(dtype)


class RecordTransform:
    """`f(dict) -> dict | None`, sync or async; None filters the record out."""

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)

    def columns(self, sample: pl.DataFrame, schema: RecordSchema) -> tuple[Column, ...]:
        """Return the columns that the function's results show."""
        self._schema = schema
        results = list(filter(None, map(_plain_or_none, self._call_all(sample))))
        if not results:
            return schema.columns
        known = {column.name: column.kind for column in schema.columns}
        found = RecordSchema(infer_schema(results)).columns
        return tuple(
            Column(column.name, known[column.name])
            if column.name in known and all(item.get(column.name) is None for item in results)
            else Column(column.name, column.kind)
            for column in found
            if column.name != EXTRA_COLUMN
        )

    def apply(self, frame: pl.DataFrame, columns: Sequence[Column]) -> Transformed:
        """Call the function for each record; one that raises rejects that record only."""
        failures: list[tuple[int, FieldError]] = []
        kept: list[int] = []
        rows: list[dict[str, Any]] = []
        indices = frame.get_column(INDEX).to_list()
        filtered = 0
        for at, result in zip(indices, self._call_all(frame), strict=True):
            if result is None:
                filtered += 1
                continue
            fitted = result if isinstance(result, FieldError) else fit(result, columns)
            if isinstance(fitted, FieldError):
                failures.append((at, fitted))
            else:
                kept.append(at)
                rows.append(fitted)
        types = {column.name: column.dtype for column in columns}
        if any(EXTRA_COLUMN in row for row in rows):
            types[EXTRA_COLUMN] = pl.String()
        return Transformed(pl.DataFrame(rows, schema=types), kept.__getitem__, filtered, failures)

    def _call_all(self, frame: pl.DataFrame) -> list[Any]:
        records = [as_record(row, self._schema.columns) for row in frame.drop(INDEX).to_dicts()]
        if self._is_async:
            return _background_loop().run(self._gather(records))
        return [self._call(record) for record in records]

    def _call(self, record: dict[str, Any]) -> Any:
        try:
            return self._function(record)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return _failure(error)

    async def _gather(self, records: list[dict[str, Any]]) -> list[Any]:
        room = asyncio.Semaphore(MAX_CONCURRENT_RECORDS)

        async def call(record: dict[str, Any]) -> Any:
            async with room:
                try:
                    return await self._function(record)
                except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                    return _failure(error)

        return list(await asyncio.gather(*map(call, records)))


class _BackgroundLoop:
    """One event loop for all async transforms, so that their clients and pools stay valid."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="transform", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_loops: list[_BackgroundLoop] = []
_loops_lock = threading.Lock()


def _background_loop() -> _BackgroundLoop:
    with _loops_lock:
        if not _loops:
            _loops.append(_BackgroundLoop())
        return _loops[0]


def _load_function(spec: str) -> Callable[..., Any]:
    function = user_code.load(spec, "--transform")
    if not callable(function):
        raise UsageError(f"{spec} is not a function", where="--transform")
    return function  # type: ignore[no-any-return]  # checked above


def _takes_frames(function: Callable[..., Any]) -> bool:
    notes = inspect.get_annotations(inspect.unwrap(function))
    return any("LazyFrame" in str(note) or "DataFrame" in str(note) for note in notes.values())


def _sql(query: str) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    def run(frame: pl.LazyFrame) -> pl.LazyFrame:
        return pl.SQLContext(records=frame).execute(query)

    return run


def _refuse_new_columns(result: pl.DataFrame, columns: Sequence[Column]) -> None:
    known = {INDEX, EXTRA_COLUMN, *(column.name for column in columns)}
    new = [name for name in result.columns if name not in known]
    filled = [name for name in new if result.get_column(name).null_count() < result.height]
    if filled:
        raise FatalError(
            f"the transform returned a column that it did not return for the first records: {filled[0]}",
            hint="return the same columns for all records, null where there is no value",
        )


def _with_extra(columns: Sequence[Column], result: pl.DataFrame) -> list[Column]:
    """Add the column of extra keys where a result has any."""
    has_extra = EXTRA_COLUMN in result.columns
    if has_extra and result.get_column(EXTRA_COLUMN).null_count() < result.height:
        kept = [column for column in columns if column.name != EXTRA_COLUMN]
        return [*kept, Column(EXTRA_COLUMN, "json")]
    return list(columns)


def _plain_or_none(result: Any) -> dict[str, Any] | None:
    try:
        return plain(result) if isinstance(result, dict) else None
    except UNFIT:
        return None


def _misfits(
    result: pl.DataFrame, rows: pl.DataFrame, columns: Sequence[Column]
) -> dict[int, FieldError]:
    """Return the rows in which a value was lost because it does not fit its column."""
    kinds = {column.name: column.kind for column in columns}
    misfits: dict[int, FieldError] = {}
    for name in rows.columns:
        if name not in result.columns or rows.get_column(name).null_count() == 0:
            continue
        lost = rows.get_column(name).is_null() & result.get_column(name).is_not_null()
        for at in lost.arg_true().to_list():
            value, kind = result.get_column(name)[at], kinds.get(name, "json")
            message = f"the transform's value does not fit a column of {kind}"
            misfits.setdefault(at, FieldError("type", name, message, str(value)[:200]))
    return misfits


def _failure(error: Exception) -> FieldError:
    return FieldError("transform_failed", "", f"{type(error).__name__}: {error}"[:300])
