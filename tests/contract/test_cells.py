"""Cells are read by the type of the column that they go to, in every database alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchimport.schema import Column
from tests.helpers.cli import Workdir
from tests.helpers.stores import ADAPTERS, Store, a_request, chunk


@pytest.fixture(params=["sqlite", "duckdb", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    adapter = ADAPTERS[request.param]
    server = lambda: request.getfixturevalue("postgres")  # noqa: E731 - only when it is needed
    store = Store(request.param, adapter.new_address(tmp_path, server))
    yield store
    store.close()


BAD = type("Bad", (), {"__repr__": lambda _: "BAD"})()
CASES: list[tuple[str, str, list[tuple[Any, Any]]]] = [
    (
        "string",
        "INTEGER",
        [("1", 1), (" 2 ", 2), ("+3", 3), ("4.0", 4), ("5.", 5), ("abc", BAD), ("1.5", BAD)]
        + [("", BAD), ("9" * 30, BAD), ("0x1", BAD), ("-7", -7), ("-0.00", 0)]
        + [("1e3", 1000), (" -1.5E1", -15), ("1e-1", BAD), ("1e17", BAD), ("1e400", BAD)],
    ),
    ("number", "INTEGER", [(1.0, 1), (1.5, BAD), (-2.0, -2), (1e300, BAD)]),
    ("number", "BIGINT", [(2.0**53, 2**53), (2.0**63, BAD), (-(2.0**63), -(2**63))]),
    (
        "string",
        "BOOLEAN",
        [(word, True) for word in ("1", "t", "TRUE", "Yes", "y", "on")]
        + [(word, False) for word in ("0", "f", "False", "no", "N", "off")]
        + [("2", BAD), ("maybe", BAD), ("", BAD)],
    ),
    ("integer", "BOOLEAN", [(1, True), (0, False), (2, BAD), (-1, BAD)]),
    (
        "string",
        "DATE",
        [("20240131", "2024-01-31"), ("2024-02-29", "2024-02-29")]
        + [("01/02/2024", BAD), ("31.12.2023", BAD), ("1-2-24", BAD)],
    ),
    ("integer", "DATE", [(20240131, "2024-01-31")]),
    (
        "json",
        "INTEGER",
        [("12", 12), ('"12"', 12), ('" 7 "', 7), ("2.0", 2), ('"\\u0031"', 1)]
        + [(bad, BAD) for bad in ('"abc"', '"\\u00e9"', '""', "true", "1.5", "[1]", '{"a":1}')],
    ),
    ("json", "BOOLEAN", [("true", True), ('"no"', False), ("1", True), ("2", BAD), ("[]", BAD)]),
]


@pytest.mark.parametrize(
    ("kind", "declared", "cells"), CASES, ids=[f"{kind}-{own}" for kind, own, _ in CASES]
)
@pytest.mark.parametrize("size", [1, 100])
def test_cells_are_read_by_the_type_of_their_column(
    database: Store, kind: Any, declared: str, cells: list[tuple[Any, Any]], size: int
) -> None:
    """A cell that cannot be read rejects its record alone, and names the column."""
    database.run(f"CREATE TABLE users (id INTEGER, v {declared})")
    columns = (Column("id", "integer"), Column("v", kind, inferred=True))
    sink, claim = database.claimed(columns=columns)
    given = [{"id": at, "v": cell} for at, (cell, _) in enumerate(cells)]
    for first in range(0, len(given), size):
        piece = given[first : first + size]
        claim.store(a_request(chunk(first, len(piece)), piece, columns=columns))
    found = dict(database.rows("id, CAST(v AS varchar)" if declared == "DATE" else "id, v"))
    expected = {at: value for at, (_, value) in enumerate(cells) if value is not BAD}
    assert found == expected
    rejects = list(sink.rejects("users-1"))
    assert [reject.record for reject in rejects] == [
        at for at, (_, value) in enumerate(cells) if value is BAD
    ]
    assert {(each.errors[0].code, each.errors[0].field) for each in rejects} <= {("type", "v")}


@pytest.mark.parametrize("kind", ["string", "date-time"])
@pytest.mark.parametrize("size", [1, 100])
def test_an_offset_is_never_dropped(database: Store, kind: Any, size: int) -> None:
    """A time with an offset goes into a column without one in UTC, at every size."""
    if database.like == "sqlite":
        pytest.skip("it keeps the text as given")
    digits = "(6)" if database.like == "mysql" else ""  # without it a column there has no fractions
    database.run(f"CREATE TABLE users (id INTEGER, v TIMESTAMP{digits})")
    columns = (Column("id", "integer"), Column("v", kind))
    _, claim = database.claimed(columns=columns)
    cells = {
        "2024-01-31T10:00:00+02:00": "2024-01-31 08:00:00",
        "2024-01-31T23:30:00.25-05:30": "2024-02-01 05:00:00.25",
        "2024-01-31T10:00:00Z": "2024-01-31 10:00:00",
    }
    if kind == "string":
        cells |= {
            "2024-01-31 10:00:00+02": "2024-01-31 08:00:00",
            "2024-01-31 10:00+0200": "2024-01-31 08:00:00",
            "2024-01-31 10:00:00": "2024-01-31 10:00:00",
            "2024-01-31T10:00:00.123456 +02:00": "2024-01-31 08:00:00.123456",
        }
    given = [{"id": at, "v": cell} for at, cell in enumerate(cells)]
    for first in range(0, len(given), size):
        piece = given[first : first + size]
        claim.store(a_request(chunk(first, len(piece)), piece, columns=columns))
    found = [value for _, value in database.rows("id, CAST(v AS varchar)")]
    if digits:
        found = [value.rstrip("0").rstrip(".") if "." in value else value for value in found]
    assert found == list(cells.values())


@pytest.mark.parametrize("declared", ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
def test_integers_are_the_time_since_1970(database: Store, declared: str) -> None:
    """In a column of times, by their number of digits; too few of them, or text without an order, are none."""
    if database.like in ("sqlite", "mysql"):
        pytest.skip("it keeps the value as given, or has no fractions in such columns")
    database.run(f"CREATE TABLE users (id INTEGER, v {declared}, w {declared})")
    columns = (Column("id", "integer"), Column("v", "integer"), Column("w", "string"))
    sink, claim = database.claimed(columns=columns)
    cells = [1700000000, 1700000000123, 1700000000123456, 12345, None]
    texts = ["2024-01-31 10:00:00", "2024-01-31T10:00:00+02:00", None, None, "01/02/2024 10:00"]
    given = [{"id": at, "v": cell, "w": texts[at]} for at, cell in enumerate(cells)]
    claim.store(a_request(chunk(0, len(given)), given, columns=columns))
    found = database.rows("CAST(v AS varchar), CAST(w AS varchar)")
    assert [(v.removesuffix("+00"), w and w.removesuffix("+00")) for v, w in found] == [
        ("2023-11-14 22:13:20", "2024-01-31 10:00:00"),
        ("2023-11-14 22:13:20.123", "2024-01-31 08:00:00"),
        ("2023-11-14 22:13:20.123456", None),
    ]
    errors = [(each.record, each.errors[0].field) for each in sink.rejects("users-1")]
    assert errors == [(3, "v"), (4, "w")]


TEXT = {"sqlite": "TEXT", "duckdb": "VARCHAR", "postgresql": "varchar(20)"} | {"mysql": "text"}


@pytest.mark.parametrize(("form", "size"), [("csv", "1"), ("csv", "100"), ("jsonl", "100")])
def test_a_value_reaches_a_text_column_as_it_is_written(
    database: Store, workdir: Workdir, form: str, size: str
) -> None:
    """Numbers keep their zeros and exponents, booleans their case."""
    kind = TEXT[database.like]
    database.run(f"CREATE TABLE users (id INTEGER, n {kind}, b {kind}, e {kind}, i {kind})")
    database.close()
    if form == "csv":
        text = "id,n,b,e,i\n1,1.10,True,1e5,10\n2,2.0,False,1E-2,20\n3,,True,5e0,0\n"
        expected = [("1.10", "True", "1e5", "10"), ("2.0", "False", "1E-2", "20")]
        expected.append((None, "True", "5e0", "0"))  # type: ignore[arg-type]
    else:
        text = (
            '{"id":1,"n":1.10,"b":true,"e":1e5,"i":10}\n{"id":2,"n":2.0,"b":false,"e":1E-2,"i":7}\n'
        )
        expected = [("1.10", "true", "1e5", "10"), ("2.0", "false", "1E-2", "7")]
    (workdir.path / f"users.{form}").write_text(text)
    workdir.run(f"users.{form}", "--to", database.address, "--chunk-size", size)
    database.open()
    assert [row[1:] for row in database.rows("id, n, b, e, i")] == expected


def test_keys_that_differ_as_text_are_two(database: Store, workdir: Workdir) -> None:
    """Section numbers 1.1 and 1.10 make the key of a table that is made a text."""
    (workdir.path / "users.csv").write_text("sec,title\n1.1,a\n1.10,b\n1.2,c\n")
    workdir.run("users.csv", "--to", database.address, "--key", "sec")
    database.open()
    assert database.rows("sec, title") == [("1.1", "a"), ("1.10", "b"), ("1.2", "c")]


def test_json_of_several_types_is_read_by_the_column(database: Store, workdir: Workdir) -> None:
    """Neither a string nor an object among numbers refuses the job."""
    database.run("CREATE TABLE users (id INTEGER, n INTEGER)")
    database.close()
    lines = ['{"id":1,"n":5}', '{"id":2,"n":"6"}', '{"id":3,"n":"abc"}', '{"id":4,"n":[7]}']
    (workdir.path / "users.jsonl").write_text("\n".join(lines))
    summary = workdir.run("users.jsonl", "--to", database.address)
    assert [reject["line"] for reject in workdir.rejects(summary)] == [3, 4]
    database.open()
    assert database.rows("id, n") == [(1, 5), (2, 6)]


def test_one_bad_cell_rejects_one_record(database: Store, workdir: Workdir) -> None:
    """And not the job, wherever it stands."""
    database.run("CREATE TABLE users (id INTEGER, n INTEGER)")
    database.close()
    (workdir.path / "users.csv").write_text("id,n\n1,5\n2,abc\n3,7.0\n")
    summary = workdir.run("users.csv", "--to", database.address)
    assert (summary["successful"], summary["failed"], summary["exit_code"]) == (2, 1, 3)
    assert [reject["line"] for reject in workdir.rejects(summary)] == [3]
    database.open()
    assert database.rows("id, n") == [(1, 5), (3, 7)]
