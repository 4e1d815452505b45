"""The local engine: attempts, isolation, order, early stops; over a real file and a real database."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.engines.local import LocalEngine
from batchimport.errors import (
    BatchImportError,
    FatalError,
    JobInterrupted,
    TooManyRejects,
    TransientError,
)
from batchimport.model import ChunkResult, RunOptions, SourceOptions
from batchimport.pipeline.chunk import Work
from batchimport.pipeline.transform import Identity
from batchimport.policy.events import ChunkFailed, ChunkFinished, ChunkRetried, ChunkStarted, Event
from batchimport.policy.plan import Plan
from batchimport.policy.sizing import FixedSizer, LoadReading
from batchimport.policy.stop_rules import StopRule
from batchimport.schema import RecordSchema
from batchimport.sinks import open_sink
from batchimport.sinks.base import StoreRequest
from batchimport.sources.opening import open_source
from tests.helpers.stores import a_job, a_record
from tests.helpers.tables import query

SCHEMA = RecordSchema({"properties": {"id": {"type": "integer"}}, "required": ["id"]})
IDLE = LoadReading(0.0, 0.0, 0.0, 0, 1 << 40, 2)
Trouble = Callable[[StoreRequest], None]


class Shop:
    """An engine with all it needs; `trouble` is called before each store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.naps: list[float] = []
        self.on_retry: Callable[[], None] = lambda: None

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def ids(self) -> list[int]:
        return [row[0] for row in query(self.path / "u.db", "SELECT id FROM users ORDER BY rowid")]

    def run(
        self,
        lines: list[Any],
        trouble: Trouble = lambda _: None,
        *,
        size: int = 10,
        interrupt_at: int | None = None,
        **facts: Any,
    ) -> BatchImportError | None:
        (self.path / "u.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with self._opened(trouble) as work:
            options = RunOptions(chunk_size=size, **facts)
            plan = Plan(work.source.size, [row.chunk for row in self.committed()])

            async def nap(seconds: float) -> None:
                self.naps.append(seconds)

            def watch(event: Event) -> None:
                self.events.append(event)
                if isinstance(event, ChunkRetried):
                    self.on_retry()
                at = len(self.of(ChunkStarted))
                if isinstance(event, ChunkStarted) and at == interrupt_at:
                    engine.interrupt("interrupted by SIGINT")

            engine = LocalEngine(
                work,
                plan,
                FixedSizer(size, options.max_parallel),
                options,
                StopRule(options, 0, 0),
                observer=watch,
                read_load=lambda: IDLE,
                sleep=nap,
            )
            try:
                asyncio.run(engine.run())
            except BatchImportError as error:
                return error
            return None

    @contextmanager
    def _opened(self, trouble: Trouble) -> Iterator[Work]:
        address = f"sqlite:///{self.path / 'u.db'}"
        source = open_source([str(self.path / "u.jsonl")], SourceOptions())
        sink = open_sink(address)
        job = a_job(address)
        claim = sink.claim(job, a_record(job, columns=SCHEMA.columns, size=source.size), "me")
        self.committed = lambda: sink.committed("users-1")
        store = claim.store

        def troubled(request: StoreRequest) -> ChunkResult:
            trouble(request)
            return store(request)

        claim.store = troubled  # type: ignore[method-assign]
        try:
            yield Work(source, SCHEMA, Identity().bind(pl.DataFrame(), SCHEMA.columns), claim)
        finally:
            sink.close()
            source.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def numbered(count: int) -> list[dict[str, int]]:
    return [{"id": at} for at in range(count)]


def fails(*offsets: int, times: int = 99, error: Exception | None = None) -> Trouble:
    left = dict.fromkeys(offsets, times)

    def trouble(request: StoreRequest) -> None:
        if left.get(request.chunk.offset, 0) > 0:
            left[request.chunk.offset] -= 1
            raise error or TransientError("the connection is lost")

    return trouble


def test_all_records_are_stored_in_source_order(shop: Shop) -> None:
    """With one writer, chunks commit in the order in which they stand."""
    assert shop.run(numbered(1000), max_parallel=8) is None
    assert shop.ids() == list(range(1000))
    assert len(shop.of(ChunkFinished)) == 100


def test_a_failing_chunk_is_tried_again_after_growing_waits(shop: Shop) -> None:
    """Two failures, then success: nothing is lost, nothing doubled."""
    assert shop.run(numbered(100), fails(50, times=2)) is None
    assert sorted(shop.ids()) == list(range(100))
    assert [event.attempt for event in shop.of(ChunkRetried)] == [1, 2]
    assert 1.0 <= shop.naps[0] <= 1.25
    assert 2.0 <= shop.naps[1] <= 2.25


def test_a_chunk_out_of_attempts_stays_a_gap(shop: Shop) -> None:
    """The others go on, and the next run does only that one."""
    error = shop.run(numbered(100), fails(50), max_attempts=3)
    assert isinstance(error, FatalError)
    assert error.message == "1 chunk was given up; the last error: the connection is lost"
    assert sorted(shop.ids()) == [at for at in range(100) if not 50 <= at < 60]
    assert [event.chunk.offset for event in shop.of(ChunkFailed)] == [50]
    shop.events.clear()
    assert shop.run(numbered(100)) is None
    assert [event.chunk.offset for event in shop.of(ChunkStarted)] == [50]
    assert sorted(shop.ids()) == list(range(100))


def test_an_error_that_nobody_classified_is_tried_again(shop: Shop) -> None:
    """The ledger makes another attempt harmless."""
    assert shop.run(numbered(20), fails(10, times=1, error=RuntimeError("odd"))) is None
    assert sorted(shop.ids()) == list(range(20))


def test_a_reply_that_was_lost_does_not_store_twice(shop: Shop) -> None:
    """The attempt was committed, its answer did not arrive: the next attempt learns it."""
    done: list[int] = []

    def store_and_lose(request: StoreRequest) -> None:
        if request.chunk.offset == 10 and not done:
            done.append(1)
            sink = open_sink(f"sqlite:///{shop.path / 'u.db'}")
            try:
                sink.join(a_job(""), sink.jobs()[0]).store(request)
            finally:
                sink.close()
            raise TransientError("no answer")

    assert shop.run(numbered(30), store_and_lose) is None
    assert sorted(shop.ids()) == list(range(30))


def test_a_fatal_error_stops_the_job(shop: Shop) -> None:
    """No attempt is made again, and no further chunk is started."""
    error = shop.run(numbered(1000), fails(0, error=FatalError("the disk is full")), max_parallel=2)
    assert isinstance(error, FatalError)
    assert shop.naps == []
    assert len(shop.of(ChunkStarted)) < 20


def test_a_destination_that_is_gone_stops_the_job_early(shop: Shop) -> None:
    """Three chunks in a row without success are enough."""
    error = shop.run(numbered(1000), fails(*range(1000)), max_parallel=2, max_attempts=2)
    assert isinstance(error, FatalError)
    assert "in a row" in error.message
    assert len(shop.of(ChunkFailed)) < 10


def test_an_interrupt_drains(shop: Shop) -> None:
    """What is in flight is committed, the rest is left for the next run."""
    error = shop.run(numbered(1000), interrupt_at=5, max_parallel=2)
    assert isinstance(error, JobInterrupted)
    assert len(shop.of(ChunkFinished)) == len(shop.of(ChunkStarted)) < 20
    assert shop.run(numbered(1000)) is None
    assert sorted(shop.ids()) == list(range(1000))


@pytest.mark.parametrize(
    ("facts", "stops"),
    [
        ({"max_errors": 19}, True),
        ({"max_errors": 2000}, False),
        ({"max_errors_share": 0.4}, True),
        ({"max_errors_share": 0.6}, False),
    ],
)
def test_too_many_rejects_stop_the_job(shop: Shop, facts: dict[str, Any], stops: bool) -> None:
    """By count at once, by share after a thousand records."""
    lines = [{"id": at if at % 2 else "bad"} for at in range(3000)]
    error = shop.run(lines, size=100, max_parallel=1, **facts)
    assert isinstance(error, TooManyRejects) == stops
    done = sum(event.result.chunk.records for event in shop.of(ChunkFinished))
    assert (done < 3000) == stops
    if "max_errors_share" in facts:
        assert done >= 1000


def test_an_attempt_that_takes_too_long_never_commits_late(shop: Shop) -> None:
    """After the timeout its thread is told; the next attempt stores the chunk once."""
    told = threading.Event()
    shop.on_retry = told.set

    def slow_once(request: StoreRequest) -> None:
        if request.chunk.offset == 10 and request.attempt == 1:
            assert told.wait(60)

    assert shop.run(numbered(100), slow_once, chunk_timeout_seconds=1.0) is None
    assert sorted(shop.ids()) == list(range(100))
    assert 10 in {each.chunk.offset for each in shop.of(ChunkRetried)}
