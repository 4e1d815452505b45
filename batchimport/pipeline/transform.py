"""The user's own step between validation and store: a function over frames or records, or SQL.

A frame function or query is called once for each chunk, so it must treat each row by itself. The
hidden column `__record__` says which record a row came from; a result may keep it or drop it.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import polars as pl

from batchimport import user_code
from batchimport.errors import FatalError, UsageError, hint_for
from batchimport.model import EXTRA_COLUMN, INDEX, FieldError
from batchimport.pipeline.coerce import (
    UNFIT,
    as_record,
    as_stored,
    fit,
    kind_of,
    misfits,
    plain,
    typed,
    with_extra,
)
from batchimport.pipeline.row_wise import Findings, as_records, depends_on_chunks, inspect_plan
from batchimport.schema import Column, Kind, RecordSchema, infer_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence

    from batchimport.model import Job

MAX_CONCURRENT_RECORDS = 100
"""Maximum number of calls of an async function that wait at the same time."""
_SELECT = re.compile(r"\A\s*select\s+(?!distinct\b|all\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Transformed:
    """What became of a chunk's valid records.

    Attributes:
        frame: The table's columns; plus `_extra` if there are keys without a column.
        record_of: Returns the record, as its index in the chunk, that a row of the frame came from.
        filtered: Number of records that became no row.
        failures: Records whose transformation failed, and why.
        indices: For each row what `record_of` returns, where that is known without a search.
        left_out: For each row of the frame the columns that the result of a function lacks.
    """

    frame: pl.DataFrame
    record_of: Callable[[int], int]
    filtered: int = 0
    failures: list[tuple[int, FieldError]] = field(default_factory=list)
    indices: pl.Series | None = None
    left_out: Sequence[Collection[str]] = ()


@dataclass(frozen=True, slots=True)
class BoundTransform(ABC):
    """A transform that knows which columns it fills.

    Attributes:
        columns: The table's.
    """

    columns: tuple[Column, ...]

    @abstractmethod
    def apply(self, frame: pl.DataFrame) -> Transformed:
        """Transform the valid records of a chunk."""

    def with_columns(self, columns: tuple[Column, ...]) -> Self:
        """Return the same transform for the columns that the table turned out to have."""
        return replace(self, columns=columns)


class Transform(Protocol):
    """Turns valid records into rows."""

    def bind(self, sample: pl.DataFrame, columns: tuple[Column, ...]) -> BoundTransform:
        """Decide the table's columns from some valid records.

        Raises:
            UsageError: If the transform fails on them.
        """
        ...


def load_transform(job: Job, function: Callable[..., Any] | None = None) -> Transform:
    """Return the transform of a job.

    Args:
        function: The job's own, if it is not to be loaded by its name.

    Raises:
        UsageError: If there is no such module or function.
    """
    if job.sql is not None:
        return FrameTransform(_sql(job.sql), is_query=True)
    if job.transform is None:
        return Identity()
    function = function or _load_function(job.transform)
    if _takes_frames(function):
        return FrameTransform(function)
    return RecordTransform(function)


class LazyTransform:
    """A job's transform, whose code is loaded when records are going to pass through it."""

    def __init__(self, job: Job, function: Callable[..., Any] | None = None) -> None:
        self._job, self._function = job, function

    def bind(self, sample: pl.DataFrame, columns: tuple[Column, ...]) -> BoundTransform:
        """Load it and decide the table's columns."""
        return load_transform(self._job, self._function).bind(sample, columns)


def transform_digest(spec: str) -> str:
    """Hash the file of a transform's module: a changed function is another configuration."""
    return user_code.digest(_load_function(spec))


class Identity:
    """No transform: records are rows."""

    def bind(self, sample: pl.DataFrame, columns: tuple[Column, ...]) -> BoundTransform:
        """Bind to the records' own columns."""
        del sample
        return _BoundIdentity(columns)


class _BoundIdentity(BoundTransform):
    def apply(self, frame: pl.DataFrame) -> Transformed:
        indices = frame.get_column(INDEX)
        if any(column.name == EXTRA_COLUMN for column in self.columns):
            frame = with_extra(frame).with_columns(pl.col(EXTRA_COLUMN).fill_null("{}"))
        return Transformed(frame.drop(INDEX), lambda row: int(indices[row]), indices=indices)


class FrameTransform:
    """`f(LazyFrame) -> LazyFrame`, or a query."""

    def __init__(
        self, function: Callable[[pl.LazyFrame], pl.LazyFrame], *, is_query: bool = False
    ) -> None:
        self._function, self._is_query = function, is_query
        self._option = "--sql" if is_query else "--transform"

    def bind(self, sample: pl.DataFrame, columns: tuple[Column, ...]) -> BoundTransform:
        """Bind to the columns of the function's result for the sample."""
        bound = _BoundFrameTransform((), columns, self._function, self._option)
        try:
            result = bound.run(sample)
        except Exception as error:
            raise self._failed(error, [column.name for column in columns]) from error
        bound.refuse_if_not_row_wise(sample, result)
        kinds = {column.name: column.kind for column in columns}
        return bound.with_columns(
            tuple(
                Column(name, _kind(dtype, kinds.get(name)))
                for name, dtype in result.schema.items()
                if name not in (INDEX, EXTRA_COLUMN)
            )
        )

    def _failed(self, error: Exception, columns: Sequence[str]) -> UsageError:
        """Return the error for a function or query that fails on the first records."""
        text = _first_line(error)
        if isinstance(error, pl.exceptions.ColumnNotFoundError):
            found = re.search(r'"([^"]+)"', text)
            name = found[1] if found else text
            hint = hint_for(name, columns, f"columns: {', '.join(columns[:20])}")
            place = "" if self._is_query else user_code.place_of(error)
            return UsageError(f"no column {name}{place}", self._option, hint)
        text = f"{type(error).__name__}: {text}{user_code.place_of(error)}"
        if self._is_query:
            return UsageError(text, self._option, f"columns: {', '.join(columns[:20])}")
        return UsageError(
            f"fails on a sample of the records: {text}",
            self._option,
            "fix it, then run the same command again",
        )


def _kind(dtype: pl.DataType, kind: Kind | None) -> Kind:
    """Return the kind of a result's column; the records' column of that name, if any, has `kind`."""
    if dtype == pl.String and kind is not None:
        return kind if kind in ("json", "uuid") else "string"
    return kind_of(dtype)


@dataclass(frozen=True, slots=True)
class _BoundFrameTransform(BoundTransform):
    """A function over frames.

    Attributes:
        given: Columns of the records.
        option: The option that the function came from.
    """

    given: tuple[Column, ...]
    function: Callable[[pl.LazyFrame], pl.LazyFrame]
    option: str = "--transform"

    def apply(self, frame: pl.DataFrame) -> Transformed:
        """Call the function; records that make it fail are found by halving the chunk."""
        failures: list[tuple[int, FieldError]] = []
        pieces = self._isolate(frame, failures)
        result = pl.concat(pieces, how="diagonal_relaxed") if pieces else frame.clear()
        if failures:
            failed = pl.Series([index for index, _ in failures], dtype=pl.UInt32)
            frame = frame.filter(~pl.col(INDEX).is_in(failed.implode()))
        repeats = INDEX in result.columns and result.get_column(INDEX).is_duplicated().any()
        if repeats or result.height > frame.height:
            raise FatalError(
                "the transform returned more rows than it was given",
                hint="one record may become one row or none",
            )
        if INDEX in result.columns:
            result = result.sort(INDEX)  # a join may have put them into another order
        _refuse_new_columns(result, self.columns)
        stored = _with_extra(self.columns, result)
        rows = result.select([as_stored(result, column) for column in stored])
        record_of = self._record_of(frame, result)
        indices = None
        if INDEX in result.columns or result.height == frame.height:
            indices = (result if INDEX in result.columns else frame).get_column(INDEX)
        filtered = frame.height - result.height
        unfit = misfits(result, rows, self.columns)
        if unfit:
            failures += [(record_of(row), error) for row, error in unfit.items()]
            kept = [row for row in range(rows.height) if row not in unfit]
            indices = None if indices is None else indices.gather(kept)
            return Transformed(
                rows[kept], lambda row: record_of(kept[row]), filtered, failures, indices
            )
        return Transformed(rows, record_of, filtered, failures, indices)

    def run(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Call the function; its dates and points in time are typed."""
        result: Any = self.function(self._typed(frame).lazy())
        return result.collect() if isinstance(result, pl.LazyFrame) else pl.DataFrame(result)

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        return with_extra(frame).with_columns(
            typed(frame, column) for column in self.given if column.kind in ("date", "date-time")
        )

    def refuse_if_not_row_wise(self, sample: pl.DataFrame, result: pl.DataFrame) -> None:
        """Refuse a function whose results would depend on where chunks are cut.

        Args:
            result: What it returned for the sample.

        Raises:
            UsageError: If so.
        """
        plan: Any = self.function(as_records(self._typed(sample)))
        found = inspect_plan(plan) if isinstance(plan, pl.LazyFrame) else Findings(unproven=True)
        reason = found.reason
        if reason is None and found.unproven and sample.height > 1:
            with suppress(Exception):  # fails for some piece: its records will be rejects
                if depends_on_chunks(self.run, sample):
                    reason = "its results differ when the records are cut or ordered otherwise"
        if reason is not None:
            raise UsageError(
                f"the transform needs all records at once, but it is called for each chunk: {reason}",
                where=self.option,
                hint="treat each record by itself; group, sort and join in the database afterwards",
            )
        is_ambiguous = found.reorders or (found.multiplies and found.drops)
        if is_ambiguous and INDEX not in result.columns:
            raise UsageError(
                "after a join nothing says which record a row came from",
                where=self.option,
                hint=f"keep the column {INDEX}, such as with select({INDEX!r}, ...)",
            )

    def _isolate(
        self, frame: pl.DataFrame, failures: list[tuple[int, FieldError]]
    ) -> list[pl.DataFrame]:
        """Return the results of the frame's parts that do not fail; add the records that do."""
        try:
            return [self.run(frame)]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            if frame.height <= 1:
                index = int(frame.get_column(INDEX)[0]) if frame.height else 0
                failures.append((index, _failure(error)))
                return []
        half = frame.height // 2
        return self._isolate(frame.head(half), failures) + self._isolate(
            frame.slice(half), failures
        )

    def _record_of(self, frame: pl.DataFrame, result: pl.DataFrame) -> Callable[[int], int]:
        if INDEX in result.columns:
            kept = result.get_column(INDEX)
            return lambda row: int(kept[row])
        indices = frame.get_column(INDEX)
        if result.height == frame.height:
            return lambda row: int(indices[row])

        def search(row: int) -> int:
            """Find the shortest head of the chunk that yields the row."""
            heads = range(frame.height + 1)
            end = bisect_left(heads, row + 1, key=lambda size: self.run(frame.head(size)).height)
            return int(indices[end - 1])

        return search


class RecordTransform:
    """`f(dict) -> dict | None`, sync or async; None filters the record out."""

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function

    def bind(self, sample: pl.DataFrame, columns: tuple[Column, ...]) -> BoundTransform:
        """Bind to the columns of the function's results for the sample."""
        bound = _BoundRecordTransform(columns, columns, self._function)
        results = list(filter(None, map(_plain_or_none, bound.call_all(sample))))
        if not results:
            return bound
        known = {column.name: column.kind for column in columns}
        return bound.with_columns(
            tuple(
                Column(column.name, known[column.name])
                if column.name in known and all(item.get(column.name) is None for item in results)
                else Column(column.name, column.kind)
                for column in RecordSchema(infer_schema(results)).columns
                if column.name != EXTRA_COLUMN
            )
        )


@dataclass(frozen=True, slots=True)
class _BoundRecordTransform(BoundTransform):
    """A function over records.

    Attributes:
        given: Columns of the records.
    """

    given: tuple[Column, ...]
    function: Callable[[dict[str, Any]], Any]

    def apply(self, frame: pl.DataFrame) -> Transformed:
        """Call the function for each record; an exception rejects that record only."""
        failures: list[tuple[int, FieldError]] = []
        kept: list[int] = []
        rows: list[dict[str, Any]] = []
        left_out: list[Collection[str]] = []
        names = {column.name for column in self.columns}
        indices = frame.get_column(INDEX).to_list()
        filtered = 0
        for index, result in zip(indices, self.call_all(frame), strict=True):
            if result is None:
                filtered += 1
                continue
            fitted = result if isinstance(result, FieldError) else fit(result, self.columns)
            if isinstance(fitted, FieldError):
                failures.append((index, fitted))
            else:
                kept.append(index)
                rows.append(fitted)
                left_out.append(names - result.keys())
        types = {column.name: column.dtype for column in self.columns}
        if any(EXTRA_COLUMN in row for row in rows):
            types[EXTRA_COLUMN] = pl.String()
        return Transformed(
            pl.DataFrame(rows, schema=types),
            kept.__getitem__,
            filtered,
            failures,
            pl.Series(kept, dtype=pl.UInt32),
            left_out,
        )

    def call_all(self, frame: pl.DataFrame) -> list[Any]:
        """Return the function's result for each record; a FieldError where it raises."""
        rows = frame.drop(INDEX).to_dicts()
        if inspect.iscoroutinefunction(self.function):
            return _run_async(self._gather(rows))
        return [self._call(row) for row in rows]

    def _call(self, row: dict[str, Any]) -> Any:
        try:
            return self.function(as_record(row, self.given))
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return _failure(error)

    async def _gather(self, rows: list[dict[str, Any]]) -> list[Any]:
        room = asyncio.Semaphore(MAX_CONCURRENT_RECORDS)

        async def call(row: dict[str, Any]) -> Any:
            async with room:
                try:
                    return await self.function(as_record(row, self.given))
                except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                    return _failure(error)

        return list(await asyncio.gather(*map(call, rows)))


_loop_lock = threading.Lock()


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="transform", daemon=True).start()
    return loop


def _run_async(calls: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Run calls on the one event loop of all async transforms: their clients and pools stay valid."""
    with _loop_lock:  # `cache` alone lets two threads make two loops
        loop = _background_loop()
    return asyncio.run_coroutine_threadsafe(calls, loop).result()


def _load_function(spec: str) -> Callable[..., Any]:
    function = user_code.load(spec, "--transform")
    if not callable(function):
        raise UsageError(f"{spec} is not a function", where="--transform")
    return function  # type: ignore[no-any-return]  # checked above


def _takes_frames(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function).__call__
    notes = inspect.get_annotations(inspect.unwrap(named))
    return any("LazyFrame" in str(note) or "DataFrame" in str(note) for note in notes.values())


def _sql(query: str) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Return a query as a function; where possible it also selects which record a row is from."""
    selecting = _SELECT.sub(f"SELECT {INDEX}, ", query, count=1)

    def run(frame: pl.LazyFrame) -> pl.LazyFrame:
        context = pl.SQLContext(records=frame)
        plain = context.execute(query)
        names = plain.collect_schema().names()
        if INDEX not in names:
            with suppress(pl.exceptions.PolarsError):
                kept = context.execute(selecting)
                if kept.collect_schema().names() == [INDEX, *names]:
                    return kept
        return plain

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


def _failure(error: Exception) -> FieldError:
    place = user_code.place_of(error)
    text = f"{type(error).__name__}: {_first_line(error)}"
    return FieldError("transform_failed", "", text[: 300 - len(place)] + place)


def _first_line(error: Exception) -> str:
    """Return the first line of an error: Polars appends the whole plan of a query."""
    return (str(error).splitlines() or [""])[0]
