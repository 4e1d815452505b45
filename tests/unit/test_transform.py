"""What a transform returns is stored in a sensible form, or is a reject: nothing is lost silently."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from batchimport.errors import FatalError
from batchimport.model import INDEX
from batchimport.pipeline.transform import FrameTransform, RecordTransform, transform_digest
from batchimport.schema import Column, RecordSchema

NAIVE = datetime(2024, 2, 3, 4, 5, 6, 7)  # noqa: DTZ001 - users have such
SCHEMA = RecordSchema({"properties": {"id": {"type": "integer"}, "any": {}}})


def frame(ids: int = 2, **columns: list[Any]) -> pl.DataFrame:
    given = {"any": ["1.10"] * ids} | columns
    return pl.DataFrame({INDEX: range(ids), "id": range(ids), **given}).with_columns(
        pl.col(INDEX).cast(pl.UInt32)
    )


def run(transform: Any, records: pl.DataFrame) -> tuple[dict[str, Column], Any]:
    bound = transform.bind(records, SCHEMA.columns)
    return {column.name: column for column in bound.columns}, bound.apply(records)


@pytest.mark.parametrize(
    ("value", "dtype", "kind", "stored"),
    [
        (date(2024, 2, 3), pl.Date, "date", "2024-02-03"),
        (NAIVE, None, "date-time", "2024-02-03T04:05:06.000007"),
        (datetime(2024, 2, 3, tzinfo=UTC), None, "date-time", "2024-02-03T00:00:00Z"),
        (time(1, 2, 3, 4), pl.Time, "string", "01:02:03.000004"),
        (timedelta(days=1, seconds=2), None, "string", "P1DT2S"),
        (b"\xff", pl.Binary, "string", "/w=="),
        ("x", pl.Categorical, "string", "x"),
        ("x", pl.Enum(["x"]), "string", "x"),
        (Decimal("12.340"), pl.Decimal(20, 3), "number", 12.34),
        (Decimal("1234567890123456.789"), pl.Decimal(30, 3), "number", None),
        (2**63, pl.UInt64, "integer", None),
        (7, pl.Int128, "integer", 7),
        (float("nan"), pl.Float64, "number", None),
        (float("inf"), pl.Float64, "number", float("inf")),
        ([1, 2], pl.List(pl.Int64), "json", "[1,2]"),
        ([1, 2], pl.Array(pl.Int64, 2), "json", "[1,2]"),
        ([float("nan")], pl.List(pl.Float64), "json", None),
        ({"a": date(2024, 1, 1), "b": Decimal("1.10")}, None, "json", '{"a":"2024-01-01","b":1.10}'),
        ({1}, pl.Object, "json", "[1]"),
        (True, pl.Boolean, "boolean", True),
    ],
    ids=str,
)  # fmt: skip
def test_every_type_of_polars_has_a_form(value: Any, dtype: Any, kind: str, stored: Any) -> None:
    """Where there is none, the record is a reject."""
    series = pl.Series("v", [value, value], dtype=dtype)
    columns, done = run(FrameTransform(lambda records: records.with_columns(series)), frame())
    assert columns["v"].kind == kind
    if stored is None:
        assert [(at, error.field) for at, error in done.failures] == [(0, "v"), (1, "v")]
        assert done.frame.height == 0
    else:
        assert done.failures == []
        assert done.frame.get_column("v").to_list() == [stored, stored]


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (date(2024, 2, 3), "string", "2024-02-03"),
        (datetime(2024, 2, 3, tzinfo=UTC), "string", "2024-02-03T00:00:00Z"),
        (timedelta(seconds=2), "string", "PT2S"),
        (UUID(int=1), "string", "00000000-0000-0000-0000-000000000001"),
        (b"abc", "string", "YWJj"),
        (Decimal("1.10"), "number", 1.1),
        (Decimal("0.12345678901234567890123"), "json", "0.12345678901234567890123"),
        (2**70, "json", "1180591620717411303424"),
        ({2, 1}, "json", "[1,2]"),
        ((1, "a"), "json", '[1,"a"]'),
        ({"a": {1: Decimal("1.10")}}, "json", '{"a":{"1":1.10}}'),
    ],
    ids=str,
)
def test_every_value_of_python_has_a_form(value: Any, kind: str, stored: Any) -> None:
    """The one that JSON has, or that people write."""
    columns, done = run(RecordTransform(lambda record: {**record, "v": value}), frame())
    assert columns["v"].kind == kind
    assert done.failures == []
    assert done.frame.get_column("v").to_list() == [stored, stored]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (1, "x"),
        (1, True),
        (1, 2**63),
        (1.5, float("nan")),
        (1.5, Decimal("0.12345678901234567890123")),
        (1.5, 2**53 + 1),
        (True, 1),
        ("x", frozenset),
        ({"a": 1}, {"a": float("inf")}),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_a_reject(good: Any, bad: Any) -> None:
    """Of its record alone, with the field; never another value."""
    records = frame(3)
    transform = RecordTransform(
        lambda record: {"id": record["id"], "v": good if record["id"] else bad}
    )
    done = transform.bind(records.slice(1), SCHEMA.columns).apply(records)
    assert done.frame.get_column("id").to_list() == [1, 2]
    assert [(at, error.code, error.field) for at, error in done.failures] == [(0, "type", "v")]


def test_what_a_function_leaves_alone_keeps_its_digits() -> None:
    """Also in the values that are JSON."""
    long = '{"a":0.12345678901234567890123}'
    _, done = run(RecordTransform(lambda record: record), frame(any=[long, "1.5"]))
    assert done.frame.get_column("any").to_list() == [long, "1.5"]


@pytest.mark.parametrize(
    "make", [lambda: FrameTransform(lambda records: records), lambda: RecordTransform(lambda r: r)]
)
def test_keys_without_a_column_pass_a_transform(make: Callable[[], Any]) -> None:
    """A frame has them in the column `_extra`, a record among its own keys."""
    records = frame(any=["1", "2"], _extra=[None, '{"more":[1]}'])
    bound = make().bind(records.head(1), SCHEMA.columns)
    assert [column.name for column in bound.columns] == ["id", "any"]
    done = bound.apply(records)
    assert done.frame.get_column("_extra").to_list() == [None, '{"more":[1]}']


def test_a_column_that_comes_later_is_no_column() -> None:
    """It would be lost: the job stops, and says what to do."""
    transform = FrameTransform(
        lambda records: records if len(records.collect()) == 1 else records.with_columns(new=1)
    )
    bound = transform.bind(frame(1), SCHEMA.columns)
    with pytest.raises(FatalError, match="new"):
        bound.apply(frame(2))


def test_what_python_has_built_in_has_no_file() -> None:
    """It is the same code in every run."""
    assert transform_digest("os:getcwd") == transform_digest("os.path:join")
    assert transform_digest("json:dumps") != transform_digest("os:getcwd")
