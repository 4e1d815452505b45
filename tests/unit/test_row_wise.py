"""A query or frame function that needs all records is refused; one that treats each by itself is not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.errors import UsageError
from batchimport.model import INDEX, Job
from batchimport.pipeline.transform import FrameTransform, load_transform
from batchimport.schema import RecordSchema

RECORDS = pl.DataFrame(
    {
        INDEX: pl.Series(range(6), dtype=pl.UInt32),
        "a": [3, 1, 2, 1, 5, 6],
        "g": ["x", "y", "x", "z", "y", "x"],
        "s": ["1", "2", "3", "4", "5", None],
    }
)
SCHEMA = RecordSchema({"properties": {"a": {"type": "integer"}, "g": {"type": "string"}, "s": {}}})
a, g, s = pl.col("a"), pl.col("g"), pl.col("s")
SMALL = "read_csv('small.csv')"

NEED_ALL_SQL = [
    "SELECT g, sum(a) AS s FROM records GROUP BY g",
    "SELECT count(*) AS n FROM records",
    "SELECT DISTINCT g FROM records",
    "SELECT * FROM records ORDER BY a",
    "SELECT * FROM records LIMIT 2",
    "SELECT a FROM records OFFSET 1",
    "SELECT a, row_number() OVER (ORDER BY a) AS r FROM records",
    "SELECT r.a FROM records r JOIN records q ON r.a = q.a",
    "SELECT a FROM records UNION ALL SELECT a FROM records",
    "SELECT a FROM records UNION SELECT 5 AS a",
    "SELECT a FROM records EXCEPT SELECT a FROM records",
    "SELECT a FROM records WHERE a IN (SELECT a FROM records)",
    "SELECT a FROM records WHERE a > (SELECT avg(a) FROM records)",
    "WITH x AS (SELECT g, max(a) AS m FROM records GROUP BY g) SELECT * FROM x",
    f"SELECT s.w, r.a FROM {SMALL} s LEFT JOIN records r ON r.g = s.g",
    f"SELECT r.a FROM records r FULL JOIN {SMALL} s ON r.g = s.g",
]
ROW_WISE_SQL = [
    "SELECT * FROM records",
    "SELECT a, upper(g) AS g FROM records WHERE a > 1",
    "SELECT a * 2 AS d, CASE WHEN a > 1 THEN 'b' END AS k, CAST(s AS INT) AS s FROM records",
    "WITH x AS (SELECT a, g FROM records WHERE a < 4) SELECT * FROM x",
    f"SELECT r.a, s.w FROM records r LEFT JOIN {SMALL} s ON r.g = s.g",
    f"SELECT r.a, s.w FROM records r JOIN {SMALL} s ON r.g = s.g",
    f"SELECT a FROM records WHERE g IN (SELECT g FROM {SMALL})",
    f"SELECT a, w FROM records r LEFT JOIN (SELECT g, max(w) AS w FROM {SMALL} GROUP BY g) m ON r.g = m.g",
]
NEED_ALL: dict[str, Callable[[pl.LazyFrame], Any]] = {
    "sum": lambda f: f.select(a.sum()),
    "cum_sum": lambda f: f.with_columns(a.cum_sum()),
    "shift": lambda f: f.with_columns(a.shift()),
    "rank": lambda f: f.with_columns(a.rank()),
    "forward_fill": lambda f: f.with_columns(s.forward_fill()),
    "with_row_index": lambda f: f.with_row_index(),
    "unique": lambda f: f.unique("g"),
    "head": lambda f: f.head(3),
    "over": lambda f: f.with_columns(a.max().over("g")),
    "is_duplicated": lambda f: f.filter(g.is_duplicated()),
    "rolling_mean": lambda f: f.with_columns(a.rolling_mean(2)),
    "join": lambda f: f.join(f.group_by("g").agg(m=a.max()), on="g"),
    "concat": lambda f: pl.concat([f, f]),
    "collected": lambda f: f.collect().unique("g").lazy(),
    "collected sum": lambda f: f.collect().with_columns(a.sum()).lazy(),
    "sorted without the record": lambda f: f.collect().sort("a").select("a"),
    "sample": lambda f: f.collect().sample(3).lazy(),
    "a Python function": lambda f: f.with_columns(
        a.map_batches(lambda column: column - column.min(), return_dtype=pl.Int64)
    ),
}
ROW_WISE: dict[str, Callable[[pl.LazyFrame], Any]] = {
    "with_columns": lambda f: f.with_columns(b=a * 2, u=g.str.to_uppercase()),
    "filter": lambda f: f.filter(a > 1, g.is_in(["x", "y"])),
    "select": lambda f: f.select("a"),
    "rename": lambda f: f.rename({"a": "b"}).drop("s"),
    "lists": lambda f: f.with_columns(k=pl.concat_list("a", "a").list.sum()),
    "a Python function": lambda f: f.with_columns(
        a.map_batches(lambda column: column * 3, return_dtype=pl.Int64)
    ),
    "collected": lambda f: f.collect().with_columns(a * 2).lazy(),
    "a left join": lambda f: f.join(pl.scan_csv("small.csv"), on="g", how="left"),
    "an inner join": lambda f: f.join(pl.scan_csv("small.csv"), on="g"),
    "a semi join": lambda f: f.join(pl.scan_csv("small.csv"), on="g", how="semi").select("a"),
}


@pytest.fixture(autouse=True)
def _small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.csv").write_text("g,w\nx,1.5\ny,2.5\n")


def of_sql(query: str) -> Any:
    return load_transform(Job(("u.csv",), "sqlite:///u.db", "u", sql=query))


@pytest.mark.parametrize("query", NEED_ALL_SQL)
def test_a_query_that_needs_all_records_is_refused(query: str) -> None:
    """By its plan: its result would depend on where chunks are cut."""
    with pytest.raises(UsageError, match="needs all records at once"):
        of_sql(query).bind(RECORDS, SCHEMA.columns)


@pytest.mark.parametrize("query", ROW_WISE_SQL)
def test_a_row_wise_query_gives_the_same_in_any_chunks(query: str) -> None:
    """Functions of one row, and joins with a small file, whatever was done to that file."""
    bound = of_sql(query).bind(RECORDS, SCHEMA.columns)
    whole = bound.apply(RECORDS).frame
    pieces = [bound.apply(RECORDS.slice(at, 2)).frame for at in (0, 2, 4)]
    assert pl.concat(pieces).equals(whole)


@pytest.mark.parametrize("name", NEED_ALL)
def test_a_function_that_needs_all_records_is_refused(name: str) -> None:
    """By its plan, or because its results differ when a sample is cut otherwise."""
    with pytest.raises(UsageError, match="needs all records at once"):
        FrameTransform(NEED_ALL[name]).bind(RECORDS, SCHEMA.columns)


@pytest.mark.parametrize("name", ROW_WISE)
def test_a_row_wise_function_is_allowed(name: str) -> None:
    """Also one whose plan does not show what it does."""
    assert FrameTransform(ROW_WISE[name]).bind(RECORDS, SCHEMA.columns).columns


def test_random_values_are_allowed() -> None:
    """A function that gives other results each time has the right number of rows."""
    numbers = count()

    def transform(records: pl.LazyFrame) -> pl.LazyFrame:
        return records.with_columns(n=pl.lit(next(numbers))).collect().lazy()

    assert FrameTransform(transform).bind(RECORDS, SCHEMA.columns).columns


@pytest.mark.parametrize("query", [f"SELECT a, w FROM records JOIN {SMALL} s ON records.g = s.g"])
def test_a_record_that_becomes_several_rows_is_noticed(query: str) -> None:
    """Even if as many others became none."""
    Path("small.csv").write_text("g,w\ny,1\ny,2\n")
    with pytest.raises(Exception, match="more rows than it was given"):
        of_sql(query).bind(RECORDS, SCHEMA.columns).apply(RECORDS)


@pytest.mark.parametrize("how", ["inner", "left"])
def test_a_join_that_hides_its_records_is_refused(how: Any) -> None:
    """Nobody could see which record became two rows, and a reject might name another record."""

    def transform(records: pl.LazyFrame) -> pl.LazyFrame:
        return records.join(pl.scan_csv("small.csv"), on="g", how=how).select("a", "w")

    with pytest.raises(UsageError, match="which record"):
        FrameTransform(transform).bind(RECORDS, SCHEMA.columns)
