"""Parquet rows as JSON: every type without loss, what JSON does not have as a reject."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.display.report import reject_lines
from batchimport.errors import FatalError, UsageError
from batchimport.model import Position, SourceOptions
from batchimport.schema import RecordSchema
from batchimport.sources import open_source
from tests.helpers.reading import codes, read_all

NOON = datetime(2024, 1, 2, 12, 0, 0, 500, tzinfo=UTC)


def write(folder: Path, **columns: Any) -> Path:
    path = folder / "a.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def read(path: Path, schema: dict[str, Any] | None = None, **options: Any) -> Any:
    if schema is None:
        source = open_source([str(path)], SourceOptions())
        schema = source.declared
        source.close()
    return read_all(path, schema, **options)


@pytest.mark.parametrize(
    ("value", "dtype", "rule", "stored"),
    [
        (-(2**63), pl.Int64, {"type": ["integer", "null"]}, -(2**63)),
        (2**63 - 1, pl.UInt64, {"type": ["integer", "null"]}, 2**63 - 1),
        (7, pl.UInt8, {"type": ["integer", "null"]}, 7),
        (0.1, pl.Float64, {"type": ["number", "null"]}, 0.1),
        (-5e-324, pl.Float64, {"type": ["number", "null"]}, -5e-324),
        (0.5, pl.Float32, {"type": ["number", "null"]}, 0.5),
        (Decimal("1.10"), pl.Decimal(15, 2), {"type": ["number", "null"]}, 1.1),
        (Decimal("9" * 17 + ".10"), pl.Decimal(30, 2), {"type": ["string", "null"]}, "9" * 17 + ".10"),
        (True, pl.Boolean, {"type": ["boolean", "null"]}, True),
        ('a\n"\0ü', pl.String, {"type": ["string", "null"]}, 'a\n"\0ü'),
        ("x", pl.Categorical, {"type": ["string", "null"]}, "x"),
        ("y", pl.Enum(["x", "y"]), {"type": ["string", "null"]}, "y"),
        (b"\xff\0", pl.Binary, {"type": ["string", "null"]}, "/wA="),
        (date(2024, 1, 2), pl.Date, {"type": ["string", "null"], "format": "date"}, "2024-01-02"),
        (NOON, pl.Datetime("us", "Asia/Tokyo"), {"type": ["string", "null"], "format": "date-time"},
         "2024-01-02T12:00:00.000500Z"),
        (NOON.replace(tzinfo=None), pl.Datetime("ns"), {"type": ["string", "null"]},
         "2024-01-02T12:00:00.000500"),
        (time(1, 2, 3, 4), pl.Time, {"type": ["string", "null"]}, "01:02:03.000004"),
        (timedelta(days=1, seconds=3), pl.Duration, {"type": ["string", "null"]}, "P1DT3S"),
        ([1, None], pl.List(pl.Int8), {"type": ["array", "null"]}, "[1,null]"),
        ([date(2024, 1, 2)], pl.Array(pl.Date, 1), {"type": ["array", "null"]}, '["2024-01-02"]'),
        ({"a": [{"b": b"x"}], "c": None}, pl.Struct({"a": pl.List(pl.Struct({"b": pl.Binary})),
         "c": pl.Int8}), {"type": ["object", "null"]}, '{"a":[{"b":"eA=="}],"c":null}'),
        (None, pl.Null, {"type": ["string", "null"]}, None),
    ],
)  # fmt: skip
def test_a_value_keeps_what_it_says(
    tmp_path: Path, value: Any, dtype: Any, rule: dict[str, Any], stored: Any
) -> None:
    """As the file's own type demands; null beside it stays null."""
    path = write(tmp_path, x=pl.Series([value, None], dtype=dtype), id=[1, 2])
    source = open_source([str(path)], SourceOptions())
    assert source.declared is not None
    assert source.declared["properties"]["x"] == rule
    source.close()
    rows, rejects = read(path)
    first = {"id": 1} if stored is None else {"x": stored, "id": 1}
    assert (rows, rejects) == ([first, {"id": 2}], [])


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (2**63, pl.UInt64, "integer_out_of_range"),
        (float("nan"), pl.Float64, "number_out_of_range"),
        (float("-inf"), pl.Float32, "number_out_of_range"),
        ([{"a": [float("nan")]}], pl.List(pl.Struct({"a": pl.List(pl.Float64)})), "number_out_of_range"),
        ({"a": 1.0, "b": float("inf")}, pl.Struct({"a": pl.Float64, "b": pl.Float64}),
         "number_out_of_range"),
        ([float("nan")], pl.Array(pl.Float64, 1), "number_out_of_range"),
    ],
)  # fmt: skip
def test_what_json_does_not_have_is_a_reject(
    tmp_path: Path, value: Any, dtype: Any, code: str
) -> None:
    """Of that row alone, with the row as it stands."""
    path = write(tmp_path, id=[1, 2, 3], x=pl.Series([None, value, None], dtype=dtype))
    rows, rejects = read(path)
    assert [row["id"] for row in rows] == [1, 3]
    assert (codes(rejects), rejects[0].byte_offset, rejects[0].line) == ([code], 1, None)
    assert json.loads(rejects[0].raw)["id"] == 2
    assert reject_lines(rejects[0])[0].startswith("a.parquet row 1 ")


def test_a_schema_of_the_user_judges_rows_as_json(tmp_path: Path) -> None:
    """Null is a missing key; types are strict; other columns are kept, or forbidden."""
    path = write(tmp_path, id=[1, 2, None], n=[1.0, 2.5, 3.0], s=["a", None, None])
    schema: dict[str, Any] = {"properties": {"id": {"type": "integer"}, "n": {"type": "integer"}}}
    rows, rejects = read(path, schema)
    assert rows == [{"id": 1, "n": 1, "_extra": '{"s":"a"}'}, {"n": 3}]
    assert codes(rejects) == ["type"]
    closed = schema | {"required": ["id"], "additionalProperties": False}
    rows, rejects = read(path, closed)
    assert rows == []
    assert codes(rejects) == ["additional_properties", "type", "required"]


def test_a_long_decimal_is_a_number_if_the_schema_wants_one(tmp_path: Path) -> None:
    """The nearest double, as of any number that is written so."""
    path = write(tmp_path, x=pl.Series([Decimal("1.25")], dtype=pl.Decimal(38, 2)))
    assert read(path, {"properties": {"x": {"type": "number"}}})[0] == [{"x": 1.25}]
    assert read(path, {"properties": {"x": {"type": "string"}}})[0] == [{"x": "1.25"}]


@pytest.mark.parametrize("content", [b"", b"text", b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    """In one line, before anything is begun."""
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UsageError, match="is not a readable Parquet file"):
        open_source([str(tmp_path / "a.parquet")], SourceOptions())


def test_damage_in_the_midst_stops_the_job(tmp_path: Path) -> None:
    """Where it is, is said."""
    path = tmp_path / "a.parquet"
    values = [f"{at * 7919 % 10007:x}" * 3 for at in range(20_000)]
    pl.DataFrame({"s": values}).write_parquet(path, row_group_size=5000)
    data = bytearray(path.read_bytes())
    middle = len(data) * 5 // 8
    data[middle : middle + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    source = open_source([str(path)], SourceOptions())
    chunk = source.cut(Position(10_000, 10_000), 10_000, 1 << 30)
    assert chunk is not None
    with pytest.raises(
        FatalError, match=r"a.parquet rows 10,000 to 20,000: the Parquet file is dam"
    ):
        source.read(chunk, RecordSchema({}))
    source.close()


def test_files_of_different_columns_are_united(tmp_path: Path) -> None:
    """By name; a column whose types differ may be anything."""
    pl.DataFrame({"a": [1], "b": [1], "c": ["x"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"b": [1.5], "c": [True], "d": [b"x"]}).write_parquet(tmp_path / "2.parquet")
    paths = [str(tmp_path / name) for name in ("1.parquet", "2.parquet")]
    source = open_source(paths, SourceOptions())
    assert source.declared is not None
    types = {name: rule.get("type") for name, rule in source.declared["properties"].items()}
    source.close()
    assert types == {
        "a": ["integer", "null"], "b": ["number", "null"], "c": None, "d": ["string", "null"],
    }  # fmt: skip
