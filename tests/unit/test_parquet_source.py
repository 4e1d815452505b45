"""Parquet rows as JSON: every type without loss, what JSON does not have as a reject."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from batchimport.display.report import reject_lines
from batchimport.errors import FatalError, UsageError
from batchimport.jobs.start import refuse_large_blocks
from batchimport.model import Position, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema
from batchimport.sources.opening import open_source, reread
from batchimport.sources.parquet.footer import Node
from batchimport.sources.parquet.thrift import I32, STRUCT, decode, decode_first, encode
from batchimport.sources.parquet.types import are_sayable, as_json, as_moments
from tests.helpers.reading import codes, read_all

FIXTURES = Path(__file__).parent.parent / "fixtures" / "parquet"
NOON = datetime(2024, 1, 2, 12, 0, 0, 500, tzinfo=UTC)


def write(folder: Path, **columns: Any) -> Path:
    path = folder / "a.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def write_by_duckdb(folder: Path, *values: str) -> Path:
    path = folder / "a.parquet"
    rows = " UNION ALL ".join(f"SELECT {at} AS id, {value} AS x" for at, value in enumerate(values))
    duckdb.connect().execute(f"COPY ({rows} ORDER BY id) TO '{path}' (FORMAT parquet)")
    return path


def change_footer(path: Path, change: Any) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = decode(data[-8 - length : -8])
    change(footer)
    new = encode(footer)
    path.write_bytes(data[: -8 - length] + new + len(new).to_bytes(4, "little") + b"PAR1")


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


TEXT = {"type": ["string", "null"]}
UUID = "00112233-4455-6677-8899-aabbccddeeff"


@pytest.mark.parametrize(
    ("value", "rule", "stored"),
    [
        (f"uuid '{UUID}'", TEXT | {"format": "uuid"}, UUID),
        (f"[{{'u': uuid '{UUID}'}}]", {"type": ["array", "null"]}, f'[{{"u":"{UUID}"}}]'),
        ("""'{"a": 1.10, "b":\n[1]}'::json""", {}, '{"a": 1.10, "b": [1]}'),
        ("time '24:00:00'", TEXT, "24:00:00"),
        ("[time '24:00:00', time '01:02:03.5']", {"type": ["array", "null"]},
         '["24:00:00","01:02:03.500"]'),
        ("interval '14 months 2 days 3.004 seconds'", TEXT, "P14M2DT3.004S"),
        ("map{'a': 1, 'b': 2}", {"type": ["object", "null"]}, '{"a":1,"b":2}'),
        ("[map{1: time '24:00:00', 2: null}]", {"type": ["array", "null"]},
         '[{"1":"24:00:00","2":null}]'),
        ("timestamp '9999-12-31 23:59:59.999999'", TEXT, "9999-12-31T23:59:59.999999"),
    ],
)  # fmt: skip
def test_what_polars_does_not_say_is_in_the_footer(
    tmp_path: Path, value: str, rule: dict[str, Any], stored: str
) -> None:
    """Types whose meaning Polars drops, or whose values it would change, as another program writes them."""
    path = write_by_duckdb(tmp_path, value, "NULL", value)
    source = open_source([str(path)], SourceOptions())
    assert source.declared is not None
    assert source.declared["properties"]["x"] == rule
    assert source.count() == 3
    source.close()
    rows, rejects = read(path)
    assert (rows, rejects) == ([{"x": stored, "id": 0}, {"id": 1}, {"x": stored, "id": 2}], [])


def test_timestamps_of_spark_have_all_years(tmp_path: Path) -> None:
    """INT96, in a file of several groups of rows, also in lists, at any chunk size."""
    path = tmp_path / "a.parquet"
    path.write_bytes((FIXTURES / "int96.parquet").read_bytes())
    texts = [
        "2024-01-01T01:02:03.456789", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00", None,
        "1500-02-03T04:05:06",
    ]  # fmt: skip
    for limit in (1, 3, 5):
        rows, rejects = read(path, limit=limit)
        assert [row.get("at") for row in rows] == texts
        assert [json.loads(row["many"]) for row in rows] == [[text] for text in texts]
        assert rejects == []


@pytest.mark.parametrize("days", [(-106_752,), (-106_751,), (106_750,), (106_751,), (0, 1), ()])
def test_moments_are_the_same_in_either_type(days: tuple[int, ...]) -> None:
    """INT96 at the ends of what nanoseconds of 64 bits reach, and times up to 24:00, in a unit each."""
    spark = Node("x", "int96", is_repeated=False, problem="", children=())
    parts = [(86_399_999_999_999 - day % 2, day) for day in days]
    raw = [
        rest.to_bytes(8, "little") + (day + 2_440_588).to_bytes(4, "little") for rest, day in parts
    ]
    values = pl.Series("x", [*raw, None], dtype=pl.Binary)
    units: dict[Any, int] = {
        "time-ms": 86_400_000,
        "time-us": 86_400_000_000,
        "time-ns": 86_400_000_000_000,
    }
    pairs = [(values, spark)] + [
        (pl.Series("x", [day * unit + unit - 1, None]), replace(spark, meaning=meaning))
        for meaning, unit in units.items()
        for day in days
        if day in (0, 1)
    ]
    for slow, node in pairs:
        fast = as_moments(slow, node)
        texts = [
            each.to_frame()
            .select(as_json(pl.col("x"), each.dtype, node, is_sayable=sure))
            .to_series()
            for each, sure in ((slow, False), (fast, are_sayable(fast)))
        ]
        assert texts[0].to_list() == texts[1].to_list()
    assert are_sayable(as_moments(values, spark)) == (not days or -106_751 <= days[0] <= 106_750)


def test_early_timestamps_are_in_utc(tmp_path: Path) -> None:
    """A file of the time before logical types: its converted type says microseconds in UTC."""
    path = write(tmp_path, x=pl.Series([NOON.replace(tzinfo=None)], dtype=pl.Datetime("us")))

    def age(footer: Any) -> None:
        element = footer[2][1][1][1]
        element.pop(10)
        element[6] = (5, 10)
        footer.pop(5)

    change_footer(path, age)
    assert read(path)[0] == [{"x": "2024-01-02T12:00:00.000500Z"}]


def test_a_time_that_iso_8601_does_not_have_is_a_reject(tmp_path: Path) -> None:
    """Infinity, years beyond 9999 and before 1: of that record alone, with what stands there."""
    path = write_by_duckdb(
        tmp_path, "timestamp 'infinity'", "timestamp '2020-01-01'", "timestamp '12000-01-01'"
    )
    rows, rejects = read(path)
    assert rows == [{"x": "2020-01-01T00:00:00", "id": 1}]
    assert codes(rejects) == ["time_out_of_range", "time_out_of_range"]
    assert rejects[0].errors[0].field == "x"
    assert json.loads(rejects[0].raw) == {"id": 0, "x": "infinity"}
    path = write_by_duckdb(tmp_path, "[date '-0010-01-01']", "[date '2020-01-01']", "NULL")
    rows, rejects = read(path)
    assert [row["id"] for row in rows] == [1, 2]
    assert codes(rejects) == ["time_out_of_range"]


def test_json_that_is_none_is_a_reject(tmp_path: Path) -> None:
    """A column that is declared to be JSON cannot bring other keys into its record."""
    path = write(tmp_path, id=[1, 2], x=['1,"id":7', "1"])

    def declare(footer: Any) -> None:
        element = footer[2][1][1][2]
        element[6], element[10] = (5, 19), (12, {12: (12, {})})
        footer.pop(5)

    change_footer(path, declare)
    rows, rejects = read(path)
    assert rows == [{"x": "1", "id": 2}]
    assert codes(rejects) == ["malformed_json"]


def test_half_precision_numbers(tmp_path: Path) -> None:
    """As numbers, not as the text that Polars makes of them."""
    path = write(tmp_path, x=pl.Series([1.5, None, float("nan")], dtype=pl.Float16), id=[1, 2, 3])
    rows, rejects = read(path)
    assert rows == [{"x": 1.5, "id": 1}, {"id": 2}]
    assert codes(rejects) == ["number_out_of_range"]


@pytest.mark.parametrize("annotations", [(0, 1), (4, 4), (0, None)], ids=["string", "enum", "old"])
@pytest.mark.parametrize("options", [{}, {"use_pyarrow": True}], ids=["", "dictionary"])
def test_a_text_that_is_not_utf_8_is_a_reject(
    tmp_path: Path, annotations: tuple[int, int | None], options: dict[str, Any]
) -> None:
    """Of its row alone, at every chunk size, wherever in the row it is; its bytes are kept."""
    path, bad = tmp_path / "a.parquet", b"caf\xe9"
    texts = [b"v0", b"caf\xc3\xa9", b"\n", None, b"v4", b"v5", b"v6"]
    put = [
        [bad if at == place else text for at, text in enumerate(texts)] for place in (1, 2, 5, 6)
    ]
    columns = {
        "id": pl.Series(range(7)),
        "s": pl.Series(put[0]),
        "l": pl.Series([[each, b"x"] for each in put[1]]),
        "o": pl.Series([{"t": each, "f": 1e20, "d": timedelta(1)} for each in put[2]]),
        "d": pl.Series([[{"t": [each]}] for each in put[3]]),
    }
    pl.DataFrame(columns).write_parquet(path, row_group_size=4, **options)

    def annotate(footer: Any) -> None:
        footer.pop(5, None)  # what Arrow called the types
        for element in footer[2][1][1]:
            if element.get(1, (I32, 0))[1] == 6:  # bytes
                element[6] = (I32, annotations[0])
                if annotations[1] is not None:
                    element[10] = (STRUCT, {annotations[1]: (STRUCT, {})})

    change_footer(path, annotate)
    rows, rejects = read(path)
    assert [row["id"] for row in rows] == [0, 3, 4]
    assert (rows[0]["s"], rows[0]["l"]) == ("v0", '["v0","x"]')
    found = [(each.record, each.errors[0].code, each.errors[0].field) for each in rejects]
    assert found == [
        (at, "invalid_utf8", name) for at, name in zip((1, 2, 5, 6), "slod", strict=True)
    ]
    assert all(bad in each.raw for each in rejects)
    for limit in (1, 3):
        assert read(path, limit=limit) == (rows, rejects)
    path.with_name("raw").write_bytes(b"\n".join(each.raw for each in rejects))
    assert codes(read_all(path.with_name("raw"), {}, format="jsonl")[1]) == ["invalid_utf8"] * 4


def test_json_that_is_not_utf_8_is_a_reject(tmp_path: Path) -> None:
    """In a column of JSON, and where keys of maps are texts."""
    path = write(tmp_path, x=[b'{"a": 1}', b'"caf\xe9"', b"2"])
    change_footer(path, lambda footer: footer[2][1][1][1].update({6: (I32, 19)}) or footer.pop(5))
    rows, rejects = read(path)
    assert (rows, codes(rejects)) == ([{"x": '{"a": 1}'}, {"x": "2"}], ["invalid_utf8"])
    assert read(path, limit=1) == (rows, rejects)
    path = write_by_duckdb(tmp_path, "MAP {'a'::BLOB: 1}", "MAP {'\\xE9'::BLOB: 2}")
    key = "key"

    def annotate(footer: Any) -> None:
        for element in footer[2][1][1]:
            if element[4][1] == key.encode():
                element[6] = (I32, 0)

    change_footer(path, annotate)
    rows, rejects = read(path)
    assert (rows, codes(rejects)) == ([{"id": 0, "x": '{"a":1}'}], ["invalid_utf8"])


def test_a_footer_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Its number of rows is not that of its groups of rows."""
    path = write(tmp_path, x=[1, 2, 3])
    change_footer(path, lambda footer: footer.update({3: (6, 0)}))
    with pytest.raises(UsageError, match="its footer says 0 rows, and its groups of rows have 3"):
        open_source([str(path)], SourceOptions())


def test_a_page_with_more_values_than_its_column_is_refused(tmp_path: Path) -> None:
    """Polars would ask for memory for fewer than no values, and end the process."""
    path = write(tmp_path, x=[1, 2, 3])
    data = path.read_bytes()
    page, length = decode_first(data[4:])
    header = next(page[each][1] for each in (5, 7, 8) if each in page)
    header[1] = (I32, -1)
    path.write_bytes(data[:4] + encode(page) + data[4 + length :])
    with pytest.raises(UsageError, match="one of its pages says that it has -1 values"):
        open_source([str(path)], SourceOptions())


def test_a_type_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    """Before anything is begun."""
    path = write_by_duckdb(tmp_path, "1::variant")
    with pytest.raises(UsageError, match="column x has values of type VARIANT"):
        open_source([str(path)], SourceOptions())


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
    if code == "number_out_of_range":  # nor is it null when the row is replayed as it is
        assert rejects[0].errors[0].value == json.dumps(value)
        schema = RecordSchema({"properties": {"id": {}, "x": {}}})
        batch = reread({"format": "parquet"}, [rejects[0].raw], frozenset(), schema)
        [again] = judge(batch, schema)[1]
        assert again.errors[0].message.endswith(
            ("NaN is not a JSON number", "Infinity is not a JSON number")
        )


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


def test_chunks_are_cut_by_the_decoded_size_of_their_rows(tmp_path: Path) -> None:
    """A small head promises nothing, nor does a dictionary that holds one large value once."""
    path = write(tmp_path, s=["a"] * 100 + ["b" * 100_000] * 100)
    source = open_source([str(path)], SourceOptions())
    at, sizes = Position(), []
    while chunk := source.cut(at, 1000, 1_000_000):
        sizes.append(chunk.records)
        at = chunk.end
    source.close()
    assert (sum(sizes), max(sizes[1:])) == (200, 9)


def test_a_page_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    """By its decompressed size, before anything is begun; a few KB may be gigabytes."""
    path = write(tmp_path, s=["x" * 50_000_000 + str(at) for at in range(4)])
    assert path.stat().st_size < 100_000
    source = open_source([str(path)], SourceOptions())
    with pytest.raises(UsageError, match=r"has a page of 200 MB .* --max-memory is 300 MB"):
        refuse_large_blocks(source, 300_000_000)
    refuse_large_blocks(source, 500_000_000)
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
