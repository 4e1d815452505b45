"""What becomes of a record whose key is in the table: one suite over every sink that has keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.errors import UsageError
from batchimport.model import ABSENT, Chunk
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Sink, StoreRequest
from tests.helpers.stores import ADAPTERS, COLUMNS, SQL, a_job, a_record, a_request, chunk, rows

Opener = Callable[[], Sink]


@pytest.fixture(params=SQL)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    adapter = ADAPTERS[request.param]
    return adapter.new_address(tmp_path, lambda: request.getfixturevalue("postgres"))


@pytest.fixture
def sink(address: str) -> Iterator[Sink]:
    sink = open_sink(address)
    yield sink
    sink.close()


def run(sink: Sink, statement: str) -> Any:
    return sink.run(statement)  # type: ignore[attr-defined]


def stored(sink: Sink) -> list[tuple[Any, ...]]:
    return sink.rows("SELECT id, name FROM users ORDER BY id, name")  # type: ignore[attr-defined]


def chunks(total: int, size: int, seed: int) -> list[Chunk]:
    """The chunks of a source, in an order in which they might be committed."""
    found = [chunk(at, min(size, total - at)) for at in range(0, total, size)]
    random.Random(seed).shuffle(found)
    return found


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_last_record_in_source_order_wins(sink: Sink, address: str, size: int) -> None:
    """Whatever the chunks and the order of their commits; what is refused does not count."""
    run(
        sink,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'), data TEXT)",
    )
    run(sink, "INSERT INTO users VALUES (3, 'before', 'kept'), (99, 'before', 'kept')")
    chance = random.Random(size)
    given = [
        {
            "id": chance.choice([None, *range(12)]),
            "name": chance.choice(["bad", f"n{at}", f"m{at}"]),
        }
        for at in range(60)
    ]
    given = [
        {**each, "id": each["id"] if each["id"] is not None else 100 + at}
        for at, each in enumerate(given)
    ]
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job), "me")
    for place in chunks(60, size, size):
        claim.store(a_request(place, given[place.offset : place.offset + place.records]))
    expected = {3: "before", 99: "before"} | {
        each["id"]: each["name"] for each in given if each["name"] != "bad"
    }
    assert stored(sink) == sorted(expected.items())
    bad = [at for at, each in enumerate(given) if each["name"] == "bad"]
    assert [reject.record for reject in sink.rejects("users-1")] == bad
    assert sum(row.successful for row in sink.committed("users-1")) == 60 - len(bad)
    assert claim.finish("completed", 60) is None
    tables = "SELECT count(*) FROM users"
    assert sink.rows(tables) == [(len(expected),)]  # type: ignore[attr-defined]


def a_partial_request(
    place: Chunk, given: list[dict[str, Any]], columns: tuple[Column, ...]
) -> StoreRequest:
    """A chunk of records of which some lack keys."""
    request = a_request(place, given, columns=columns)
    return replace(
        request,
        frame=request.frame.with_columns(
            pl.Series(ABSENT + name, [name not in each for each in given])
            for name in request.frame.columns
            if any(name not in each for each in given)
        ),
    )


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_update_changes_what_the_record_says(sink: Sink, address: str, size: int) -> None:
    """One after the other: an absent key leaves its column alone, null sets it, a reject does neither."""
    run(
        sink,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'), "
        "data TEXT, c0 TEXT NOT NULL, CHECK (data IS NULL OR name IS NOT NULL))",
    )
    run(sink, "INSERT INTO users VALUES " + ", ".join(f"({at}, 'n', 'd', 'm')" for at in range(9)))
    chance = random.Random(7)
    values = {"name": [None, "bad", "a", "b"], "data": [None, "1", "2"], "c0": [None, "x", "y"]}
    given = [
        {"id": chance.randrange(12)}
        | {name: chance.choice(some) for name, some in values.items() if chance.random() < 0.6}
        for _ in range(80)
    ]
    table = {at: {"id": at, "name": "n", "data": "d", "c0": "m"} for at in range(9)}
    refused = []
    for at, each in enumerate(given):
        row = {"id": 0, **dict.fromkeys(values)} | table.get(each["id"], {}) | each
        if row["name"] == "bad" or row["c0"] is None or (row["data"] and row["name"] is None):
            refused.append(at)
        else:
            table[each["id"]] = row
    columns = (*COLUMNS, Column("c0", "string"))  # called as the first one is on its way
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job, columns=columns), "me")
    for start in range(0, 80, size):
        some = given[start : start + size]
        claim.store(a_partial_request(chunk(start, len(some)), some, columns))
    assert [reject.record for reject in sink.rejects("users-1")] == refused
    found = sink.rows("SELECT id, name, data, c0 FROM users ORDER BY id")  # type: ignore[attr-defined]
    assert [list(map(str, row)) for row in found] == [
        list(map(str, row.values())) for _, row in sorted(table.items())
    ]


def test_a_column_that_no_record_has_may_be_one_that_must_have_a_value(
    sink: Sink, address: str
) -> None:
    """The rows that are there have it; a new one is a reject."""
    run(
        sink,
        "CREATE TABLE users (id INTEGER, must TEXT NOT NULL, name TEXT, data TEXT, UNIQUE (id))",
    )
    run(sink, "INSERT INTO users VALUES (1, 'kept', 'before', '{}')")
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job), "me")
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    assert sink.rows("SELECT id, must, name FROM users") == [(1, "kept", "user 1")]  # type: ignore[attr-defined]
    assert [reject.errors[0].code for reject in sink.rejects("users-1")] == ["not_null"]


def test_columns_that_a_job_does_not_write_are_left_alone(sink: Sink, address: str) -> None:
    """An update changes the job's own columns."""
    run(sink, "CREATE TABLE users (id INTEGER, name TEXT, data TEXT, note TEXT, UNIQUE (id))")
    run(sink, "INSERT INTO users VALUES (1, 'before', '{}', 'mine')")
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job), "me")
    claim.store(a_request(chunk(0, 1), rows(1)))
    found = sink.rows("SELECT name, note FROM users")  # type: ignore[attr-defined]
    assert found == [("user 1", "mine")]


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_record_whose_key_is_there_is_left_out(
    sink: Sink, address: str, key: tuple[str, ...]
) -> None:
    """It counts as filtered; other constraints still make rejects."""
    run(
        sink,
        "CREATE TABLE users (id INTEGER UNIQUE, name TEXT NOT NULL CHECK (name <> 'bad'), "
        "data TEXT)",
    )
    run(sink, "INSERT INTO users VALUES (1, 'before', NULL)")
    job = a_job(address, on_conflict="ignore", key=key)
    claim = sink.claim(job, a_record(job), "me")
    given = [*rows(1, 2), {"id": 2, "name": "twice"}, {"id": 3, "name": "bad"}, {"id": 4}]
    result = claim.store(a_request(chunk(0, 7), [*given, *rows(5)], filtered=1))
    assert result.counts == (2, 2, 3)
    assert [name for _, name in stored(sink)] == ["before", "user 2", "user 5"]
    assert sink.committed("users-1")[0].filtered == 3
    assert [reject.errors[0].code for reject in sink.rejects("users-1")] == ["check", "not_null"]


@pytest.mark.parametrize("mode", ["error", "ignore", "update"])
def test_a_key_must_be_one(sink: Sink, address: str, mode: Any) -> None:
    """Without a unique index on the columns nothing would tell records apart."""
    run(sink, "CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    job = a_job(address, on_conflict=mode, key=("id",))
    with pytest.raises(UsageError, match="needs a unique index"):
        sink.claim(job, a_record(job), "me")
    job = a_job(address, on_conflict=mode, key=("nothing",))
    with pytest.raises(UsageError, match="no such column: nothing"):
        sink.claim(job, a_record(job), "me")


@pytest.mark.parametrize("name", ['a"b', "$$; DROP TABLE users; $$", "what? 50% off", "x'y"])
def test_names_are_names_where_rows_are_refused(sink: Sink, address: str, name: str) -> None:
    """The exact way quotes its names as well as the fast one."""
    job = a_job(address, table=name, on_conflict="update", key=(name,))
    columns = (Column(name, "integer"), Column("name", "string"))
    claim = sink.claim(job, a_record(job, columns=columns), "me")
    request = a_request(chunk(0, 3), rows(1, 1, 2))
    frame = request.frame.select(pl.col("id").alias(name), pl.lit("$batchimport$").alias("name"))
    assert claim.store(replace(request, frame=frame)).counts == (3, 0, 0)


REQUIRED = (
    Column("id", "integer"),
    Column("name", "string", required=True, nullable=False),
    Column("data", "json", required=True),
)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("mode", ["error", "ignore", "update"])
def test_a_table_that_is_made_takes_no_record_without_its_key(
    sink: Sink, address: str, mode: Any, size: int
) -> None:
    """Nor one without a value that the schema requires; also in a later job, whose schema does not."""
    given = [{"id": 1, "name": "a"}, {"name": "b"}, {"id": 2}, {}, {"id": 1, "name": "c"}]
    for job_id, columns in (("one", REQUIRED), ("two", COLUMNS)):
        job = a_job(address, on_conflict=mode, key=("id",))
        claim = sink.claim(job, a_record(job, job_id, columns=columns), "me")
        for place in (chunk(at, min(size, 5 - at)) for at in range(0, 5, size)):
            claim.store(a_request(place, given[place.offset : place.offset + place.records]))
        reasons = {each.record: each.errors[0] for each in sink.rejects(job_id)}
        conflicts = (
            {} if mode != "error" else {4: "unique"} | ({0: "unique"} if "two" in job_id else {})
        )
        codes = {at: error.code for at, error in reasons.items()}
        assert codes == {1: "not_null", 2: "not_null", 3: "not_null"} | conflicts
        assert [reasons[at].field for at in (1, 2)] == ["id", "name"]
        assert stored(sink) == [(1, "c" if mode == "update" else "a")]
    assert sink.jobs()[0].configuration["made_with"] == ["primary key id", "NOT NULL name"]
    assert "made_with" not in sink.jobs()[1].configuration


def test_a_table_that_is_made_has_the_key(sink: Sink, address: str) -> None:
    """With `--key` and no table, the columns are its primary key; accounts are kept with ignore."""
    job = a_job(address, on_conflict="ignore", key=("id",))
    claim = sink.claim(job, a_record(job), "me")
    assert claim.store(a_request(chunk(0, 3), rows(1, 1, 2))).counts == (2, 0, 1)
    assert claim.finish("completed", 3) == 0


def test_a_job_that_begins_again_forgets_who_wrote_what(sink: Sink, address: str) -> None:
    """After `--restart` the first record may write each key again."""
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job), "me")
    claim.store(a_request(chunk(5, 1), [{"id": 1, "name": "late"}]))
    claim = sink.claim(job, a_record(job), "me", sink.jobs())
    claim.store(a_request(chunk(0, 1), [{"id": 1, "name": "early"}]))
    assert stored(sink) == [(1, "early")]


def test_a_table_is_not_made_wider_than_the_database_takes(sink: Sink, address: str) -> None:
    """What is too wide is refused before the old rows are gone; the widest table still finds a bad row."""
    limits = {"sqlite": 2000, "postgresql": 1600, "mysql": 1017}
    most = limits.get(address.partition(":")[0])
    if most is None:
        pytest.skip("as wide as it gets")
    run(sink, "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    run(sink, "INSERT INTO users VALUES (1, 'old')")
    columns = (COLUMNS[0], *(Column(f"c{at}", "string") for at in range(most)))
    for job in (
        a_job(address, if_exists="replace"),
        a_job(address, new_columns="add"),
        a_job(address, table="new"),
    ):
        with pytest.raises(UsageError, match="columns are more than") as refused:
            sink.claim(job, a_record(job, columns=columns), "me")
        assert "--columns" in str(refused.value.hint)
    assert stored(sink) == [(1, "old")]
    columns, job = columns[:most], a_job(address, if_exists="replace", key=("id",))
    if "mysql" in address:  # whose rows of so many texts do not fit into a page
        with pytest.raises(UsageError, match="cannot be made: Row size too large"):
            sink.claim(job, a_record(job, columns=columns), "me")
        assert stored(sink) == [(1, "old")]
        return
    claim = sink.claim(job, a_record(job, columns=columns), "me")
    claim.store(a_request(chunk(0, 3), [{"id": at} for at in (1, 1, 2)], columns=columns))
    assert [reject.record for reject in sink.rejects("users-1")] == [1]


def test_a_wide_table_is_updated_where_records_lack_keys(sink: Sink, address: str) -> None:
    """Whatever is noted of absent keys takes no column for each."""
    columns = (COLUMNS[0], *(Column(f"c{at}", "integer") for at in range(900)))
    run(
        sink,
        f"CREATE TABLE users (id INTEGER PRIMARY KEY, {', '.join(f'c{at} INTEGER' for at in range(900))})",
    )
    job = a_job(address, on_conflict="update", key=("id",))
    claim = sink.claim(job, a_record(job, columns=columns), "me")
    given = [
        {"id": 1} | {f"c{at}": 1234567890 for at in range(900)},
        {"id": 1, "c7": 7},
        {"id": 2, "c899": 9},
    ]
    result = claim.store(a_partial_request(chunk(0, 3), given, columns))
    assert result.successful == 3
    found = sink.rows("SELECT id, c6, c7, c899 FROM users ORDER BY id")  # type: ignore[attr-defined]
    assert [tuple(row) for row in found] == [(1, 1234567890, 7, 1234567890), (2, None, None, 9)]
