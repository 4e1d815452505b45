"""A chunk: what becomes of its records, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import FatalError
from batchimport.model import Position, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.pipeline.transform import RecordTransform
from batchimport.schema import RecordSchema
from batchimport.sources.base import Batch, RawRecords
from batchimport.sources.json_records import JsonRecords
from batchimport.sources.opening import open_source

SCHEMA = {"properties": {"id": {"type": "integer"}}}


class Failing:
    """Records of which one makes its reader fail."""

    def __init__(self, records: RawRecords, index: int, method: str, error: Exception) -> None:
        self._records = records
        self._failure = (index, method, error)

    def __getattr__(self, name: str) -> Any:
        index, method, error = self._failure

        def call(at: int, *rest: Any) -> Any:
            if (at, name) == (index, method):
                raise error
            return getattr(self._records, name)(at, *rest)

        return call


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(f'{{"id": {at}}}\n' for at in range(4)))
    source = open_source([str(path)], SourceOptions())
    chunk = source.cut(Position(), 10, 1000)
    assert chunk
    yield source.read(chunk, RecordSchema(SCHEMA))
    source.close()


@pytest.mark.parametrize("method", ["values", "row"])
@pytest.mark.parametrize("slow", [{}, {"minProperties": 0}], ids=["fast", "slow"])
def test_any_error_while_one_record_is_judged_is_its_reject(
    batch: Batch, method: str, slow: Any
) -> None:
    """Not the chunk's failure: the others are valid, whatever becomes of it."""
    assert isinstance(batch.raw_records, JsonRecords)
    failing = Failing(batch.raw_records, 2, method, ZeroDivisionError("oops"))
    deferred = replace(batch, raw_records=failing, frame=batch.frame[[0, 1, 3]], deferred=[2])
    frame, [reject] = judge(deferred, RecordSchema(SCHEMA | slow))
    assert frame.get_column("id").to_list() == [0, 1, 3]
    assert (reject.record, reject.stage, reject.raw) == (2, "validate", b'{"id": 2}')
    [error] = reject.errors
    assert (error.code, error.message) == (
        "unverifiable",
        "cannot be judged: ZeroDivisionError: oops",
    )


@pytest.mark.parametrize("error", [MemoryError(), FatalError("x"), OSError()], ids=repr)
def test_an_error_that_is_not_about_the_record_rejects_none(batch: Batch, error: Any) -> None:
    """A computer short of memory must not turn good records into rejects."""
    failing = Failing(batch.raw_records, 2, "values", error)
    for slow in ({}, {"minProperties": 0}):
        deferred = replace(batch, raw_records=failing, deferred=[2])
        with pytest.raises(type(error)):
            judge(deferred, RecordSchema(SCHEMA | slow))


def test_a_value_that_python_cannot_read_is_the_failure_of_its_record(tmp_path: Path) -> None:
    """A record with a number of a large exponent reaches the function as a decimal."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"any": 1e1000000000000000000}\n{"any": 1}\n')
    schema = RecordSchema({"properties": {"any": {}}})
    source = open_source([str(path)], SourceOptions())
    chunk = source.cut(Position(), 10, 1000)
    assert chunk
    frame, _ = judge(source.read(chunk, schema), schema)
    seen: list[Any] = []
    done = (
        RecordTransform(lambda record: seen.append(record["any"]))
        .bind(frame, schema.columns)
        .apply(frame)
    )
    assert (done.filtered, done.failures) == (2, [])
    assert [float(value) for value in seen[-2:]] == [float("inf"), 1]
    source.close()
