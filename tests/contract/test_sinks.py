"""What every sink must keep: one suite, run over each adapter of `tests/helpers/stores.py`."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.errors import FatalError, JobRunningElsewhereError, UsageError
from batchimport.model import Reject
from batchimport.schema import Column
from batchimport.sinks.base import Sink
from batchimport.sinks.mysql.sink import MysqlSink
from batchimport.sinks.postgres import sink as postgres_sink
from batchimport.sinks.postgres.sink import PostgresSink
from batchimport.sinks.sqlite.checkpoints import LEAST_BYTES
from batchimport.testing.sinks import SINK_CHECKS, SinkPlace
from tests.helpers.cli import environment
from tests.helpers.postgres import PostgresServer, execute, fetch
from tests.helpers.stores import (
    ADAPTERS,
    COLUMNS,
    SQL,
    Store,
    a_record,
    a_reject,
    a_request,
    chunk,
    rows,
)
from tests.helpers.tracing import wait_for


def _store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    kind = request.param
    server = lambda: request.getfixturevalue("postgres")  # noqa: E731 - only when it is needed
    store = Store(kind, ADAPTERS[kind].new_address(path, server))
    store.lose_locks = lose_locks
    yield store
    store.close()


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty place of every kind."""
    yield from _store(request, tmp_path)


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty place of every kind that has constraints and statements."""
    yield from _store(request, tmp_path)


@pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(store: Store, check: Callable[[SinkPlace], None]) -> None:
    """What any sink must guarantee, also one of another package."""
    check(store)


# -- a chunk -----------------------------------------------------------------------------------


def test_a_chunk_is_stored_with_its_ledger_row_and_rejects(store: Store) -> None:
    """Rows, counts and rejects come back as they were given."""
    sink, claim = store.claimed()
    reject = a_reject(2, raw=b'{"name": "\xff\x00"}')
    result = claim.store(a_request(chunk(0, 4), rows(1, 2), [reject], filtered=1))
    assert (result.successful, result.failed, result.filtered) == (2, 1, 1)
    assert store.rows() == [(1, "user 1"), (2, "user 2")]
    data = store.rows("CAST(data AS varchar)" if store.like != "sqlite" else "data")
    assert data == [('{"a": 1.10}',)] * 2
    (row,) = sink.committed("users-1")
    assert (row.chunk, row.successful, row.failed, row.filtered) == (chunk(0, 4), 2, 1, 1)
    assert row.digest == "digest"
    assert list(sink.rejects("users-1")) == [reject]


def test_rejects_are_replayed_once(store: Store) -> None:
    """They leave the ledger with the rows that they become; the completed job stays completed."""
    sink, claim = store.claimed()
    claim.store(a_request(chunk(0, 4), rows(1), [a_reject(1), a_reject(2), a_reject(3)]))
    claim.store(a_request(chunk(4, 2), rows(4), [a_reject(5)]))
    claim.finish("completed", 6)
    (record,) = sink.jobs()
    claim = sink.claim(store.job(), record, "somebody else", replay={"sql": "SELECT 1"})
    worse = a_reject(2, "store", raw=b"worse")
    request = replace(a_request(chunk(0, 4), rows(7), [worse]), replayed=(1, 2))
    first, again = claim.store(request), claim.store(request)
    assert (first.successful, first.failed, first.already_committed) == (1, 1, False)
    assert (again.successful, again.failed, again.already_committed) == (2, 2, True)
    assert sorted(store.rows("id")) == [(1,), (4,), (7,)]
    assert [row.failed for row in sink.committed("users-1")] == [2, 1]
    assert list(sink.rejects("users-1")) == [worse, a_reject(3), a_reject(5)]
    assert list(sink.rejects("users-1", chunk(0, 4))) == [worse, a_reject(3)]
    (known,) = sink.jobs()
    assert (known.state, known.epoch) == ("completed", record.epoch + 1)
    assert known.configuration["replays"] == [{"sql": "SELECT 1"}]
    assert claim.finish("completed", None) == 0
    with pytest.raises(JobRunningElsewhereError):
        sink.join(store.job(), record).store(replace(request, replayed=(3,)))


def test_what_fails_on_the_way_leaves_nothing(database: Store) -> None:
    """A crash between the rows and the rejects: neither row nor ledger nor reject is there."""
    sink, claim = database.claimed(database.job(key=("id",)))
    request = a_request(chunk(0, 3), rows(1, 1, 2), [a_reject(2)])

    def crash(at: int, errors: Any) -> Reject:
        raise MemoryError

    with pytest.raises(MemoryError):
        claim.store(replace(request, rejecter=crash))
    assert database.rows() == []
    assert sink.committed("users-1") == []
    assert list(sink.rejects("users-1")) == []
    assert claim.store(request).successful == 2


# -- values ------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "integer": [0, -1, 2**63 - 1, -(2**63), None],
    "number": [0.1, -0.0, 1e308, 5e-324, 1.7976931348623157e308, None],
    "boolean": [True, False, None],
    "string": ["", " ", "NULL", "\\N", "\\.", 'a"b\'c,d;e\tf\r\ng', "👩‍👩‍👧‍👦 é e\u0301", "\u202eabc\u2066", "x" * 100_000],
    "json": ['{"a": 1.10, "b": [null, "\\u00e9"]}', "[]", '"text"', "1e400", "null", "true", None],
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_were(store: Store, kind: Any) -> None:
    """Extremes of every type, null and empty apart, any text."""
    columns = (Column("n", "integer"), Column("v", kind))
    _, claim = store.claimed(columns=columns)
    given = [{"n": at, "v": value} for at, value in enumerate(VALUES[kind])]
    request = a_request(chunk(0, len(given)), given, columns=columns)
    assert claim.store(request).successful == len(given)
    column = "CAST(v AS text)" if kind == "json" and store.like == "postgresql" else "v"
    found = [value for _, value in store.rows(f"n, {column}")]
    if kind == "json" and store.like == "postgresql":  # jsonb keeps the value, not its spelling
        assert json.loads(found[0]) == json.loads(given[0]["v"])
        return
    assert found == VALUES[kind]
    if store.like not in ("sqlite", "mysql"):  # which have no booleans; SQLite no negative zero
        assert list(map(str, found)) == list(map(str, VALUES[kind]))


def test_text_with_a_nul_is_stored_or_rejected(store: Store) -> None:
    """Never cut off at it."""
    sink, claim = store.claimed()
    result = claim.store(a_request(chunk(0, 2), [{"id": 1, "name": "a\0b"}, *rows(2)]))
    if store.like == "postgresql":
        assert [reject.record for reject in sink.rejects("users-1")] == [0]
        return
    assert result.successful == 2
    name = "hex(name)" if store.like == "sqlite" else "name"
    assert store.rows(f"id, {name}")[0] == (1, "610062" if store.like == "sqlite" else "a\0b")


def test_times_and_ids_have_types_of_their_own(store: Store) -> None:
    """Whatever RFC 3339 allows is one point in time; SQLite keeps texts as given."""
    kinds: tuple[Any, ...] = ("date", "date-time", "uuid")
    columns = tuple(Column(name[-4:], name) for name in kinds)
    _, claim = store.claimed(columns=columns)
    moments = ["2024-02-29T10:00:00Z", "2024-02-29t12:00:00.0+02:00", "2024-02-29T10:00:00-00:00"]
    uid = "6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e"
    given = [{"date": "2024-02-29", "time": moment, "uuid": uid} for moment in moments]
    request = a_request(chunk(0, 3), given, columns=columns)
    assert claim.store(request).successful == 3
    found = store.rows("date, time, uuid")
    if store.like == "sqlite":
        assert found == [tuple(each.values()) for each in given]
        return
    assert {str(day) for day, _, _ in found} == {"2024-02-29"}
    zone = "" if store.like == "mysql" else "+00:00"  # its columns have none; they are in UTC
    assert {moment.isoformat() for _, moment, _ in found} == {f"2024-02-29T10:00:00{zone}"}
    assert {str(each) for _, _, each in found} == {uid}


def test_rejects_come_back_as_they_were(store: Store) -> None:
    """Bytes that are no text, no line, every error with its value."""
    sink, claim = store.claimed()
    raws = [b"", b"\xff\xfe", b"\0", "💥".encode(), b"x" * 70_000, b'{"a": "\xc3"}']
    given = [replace(a_reject(at, raw=raw), line=None) for at, raw in enumerate(raws)]
    claim.store(a_request(chunk(0, len(given)), [], given))
    assert list(sink.rejects("users-1")) == given


def test_keys_without_a_column_are_kept(store: Store) -> None:
    """In the column `_extra`, which SQL tables get when the first record needs it."""
    _, claim = store.claimed()
    claim.store(a_request(chunk(0, 1), rows(1)))
    claim.store(a_request(chunk(1, 2), [*rows(2), {"id": 3, "_extra": '{"x":1}'}]))
    claim.store(a_request(chunk(3, 1), rows(4)))
    extra = store.rows("id, CAST(_extra AS varchar)" if store.like != "sqlite" else "id, _extra")
    assert [(at, text and json.loads(text)) for at, text in extra] == [
        (1, None),
        (2, None),
        (3, {"x": 1}),
        (4, None),
    ]


@pytest.mark.parametrize(
    "name", ['quo"te', "sélect", "a b; DROP TABLE users", "order", "💥", "a'b"]
)
def test_any_name_is_a_name(store: Store, name: str) -> None:
    """Tables and columns are quoted."""
    if (store.like, name) == ("mysql", "💥"):
        pytest.skip("its names have no characters of four bytes")
    columns = (Column(name, "integer"),)
    _, claim = store.claimed(store.job(table=name), columns=columns)
    assert claim.store(a_request(chunk(0, 1), [{name: 1}], columns=columns)).successful == 1
    quoted = name.replace('"', '""')
    if store.adapter.is_sql:
        assert store.rows(f'"{quoted}"', name) == [(1,)]


# -- whose job it is ---------------------------------------------------------------------------


def lose_locks(sink: Sink) -> None:
    """Let a server release a sink's locks, as if its connection had been lost."""
    if isinstance(sink, PostgresSink):
        sink.run("DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$")
    if isinstance(sink, MysqlSink):
        sink.rows("SELECT RELEASE_ALL_LOCKS()")


# -- the table ---------------------------------------------------------------------------------


def test_rows_that_nobody_accounts_for_are_noticed(store: Store) -> None:
    """In a table that the job made, another program's rows make a surplus."""
    sink, claim = store.claimed()
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    assert claim.finish("completed", 2) == 0
    store.intrude()
    assert claim.finish("completed", 2) == 1
    assert sink.jobs()[0].state == "interrupted"


@pytest.mark.parametrize(("mode", "left"), [("append", 3), ("truncate", 2), ("replace", 2)])
def test_an_existing_table_is_treated_as_asked(store: Store, mode: Any, left: int) -> None:
    """`--if-exists` decides what becomes of the rows that are there."""
    _, before = store.claimed()
    before.store(a_request(chunk(0, 1), rows(50)))
    before.finish("completed", 1)
    store.close()
    sources = ("/data/more.jsonl",)
    _, claim = store.claimed(store.job(if_exists=mode, sources=sources), job_id="users-2")
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    assert len(store.rows()) == left
    assert claim.finish("completed", 2) in (0, None)
    store.close()
    with pytest.raises(UsageError, match="exists"):
        store.claimed(store.job(if_exists="fail"), job_id="users-3")


def test_a_table_with_other_columns_is_refused_or_replaced(store: Store) -> None:
    """Before the first chunk, where none of the columns is in it."""
    store.claimed(columns=(Column("a", "integer"), Column("b", "string")))
    store.close()
    with pytest.raises(UsageError, match="no column id, name, data"):
        store.claimed(job_id="users-2")
    store.close()
    _, claim = store.claimed(store.job(if_exists="replace"), job_id="users-2")
    assert claim.store(a_request(chunk(0, 1), rows(1))).successful == 1


def test_a_value_that_has_no_column_rejects_its_record(store: Store) -> None:
    """Whether its key was seen when the job began or later: one rule."""
    columns = (Column("id", "integer"), Column("name", "string"))
    if store.adapter.is_sql:
        store.run("CREATE TABLE users (id INTEGER, name TEXT)")
    else:
        store.claimed(columns=columns)
        store.close()
    sink, claim = store.claimed(job_id="users-2")
    given = [*rows(1, 2), {"id": 3, "name": "has no data"}]
    assert claim.store(a_request(chunk(0, 3), given)).counts == (1, 2, 0)
    errors = [error for reject in sink.rejects("users-2") for error in reject.errors]
    assert [(error.code, error.field) for error in errors] == [("unknown_key", "data")] * 2


def test_a_table_that_cannot_take_the_columns_is_refused(store: Store) -> None:
    """By the name of the column and its type."""
    store.claimed(columns=(*COLUMNS[:2], Column("data", "integer")))
    store.close()
    with pytest.raises(UsageError, match="column data"):
        store.claimed(job_id="users-2")


@pytest.mark.parametrize("exists", [False, True])
def test_keys_that_would_share_a_column_are_refused(database: Store, exists: bool) -> None:
    """Keys that differ in case alone, where the database knows no case, or its table has but one."""
    if exists:
        database.run("CREATE TABLE users (id INTEGER)")
    columns = (Column("id", "integer"), Column("ID", "integer"))
    if database.like == "postgresql" and not exists:
        database.claimed(columns=columns)
        return
    with pytest.raises(UsageError, match=r"share a column: id, ID|both go into column id"):
        database.claimed(columns=columns)


def test_names_that_the_database_cuts_are_not_merged(database: Store) -> None:
    """PostgreSQL keeps 63 bytes: a long key has a column, two of the same beginning are refused."""
    one, other = (Column("ü" * 31 + name, "integer") for name in ("-one", "-other"))
    frame = pl.DataFrame({one.name: [1], other.name: [2]})
    request = a_request(chunk(0, 1), rows(1))
    _, claim = database.claimed(columns=(one,))
    assert claim.store(replace(request, frame=frame.select(one.name))).counts == (1, 0, 0)
    database.close()
    _, claim = database.claimed(database.job(table="more"), "more-1", columns=(one,))
    assert claim.store(replace(request, frame=frame.select(one.name))).counts == (1, 0, 0)
    database.close()
    if database.like != "postgresql":
        return
    with pytest.raises(UsageError, match="are equal in 63 bytes would share a column"):
        database.claimed(database.job(table="both"), "both-1", columns=(one, other))
    with pytest.raises(UsageError, match="the name has 70 bytes, and 63 are kept"):
        database.claimed(database.job(table="t" * 70), "long-1")
    database.close()
    _, claim = database.claimed(
        database.job(table="more", new_columns="add"), "more-2", columns=(one,)
    )
    extra = pl.Series("_extra", [json.dumps({other.name: 3})])
    given = replace(request, frame=frame.select(one.name).with_columns(extra))
    assert claim.store(given).counts == (0, 1, 0)


def test_a_later_format_is_not_touched(database: Store) -> None:
    """A ledger that a later version wrote stops this one."""
    sink, _ = database.claimed()
    database.run("UPDATE _batchimport_jobs SET format_version = 99")
    with pytest.raises(FatalError, match="format 99"):
        sink.jobs()


# -- constraints -------------------------------------------------------------------------------


def codes(sink: Sink) -> list[tuple[int, str]]:
    return [(reject.record, reject.errors[0].code) for reject in sink.rejects("users-1")]


def test_rows_that_the_table_refuses_are_rejected_alone(database: Store) -> None:
    """First, middle and last of a chunk, with the database's reason; the others are stored."""
    sink, claim = database.claimed(database.job(key=("id",)))
    claim.store(a_request(chunk(0, 3), rows(1, 2, 3)))
    result = claim.store(a_request(chunk(3, 7), rows(3, 4, 4, 5, 6, 1), [a_reject(9)]))
    assert (result.successful, result.failed, result.bisected) == (3, 4, True)
    assert [row[0] for row in database.rows()] == [1, 2, 3, 4, 5, 6]
    found = {reject.record: reject for reject in sink.rejects("users-1")}
    assert sorted(found) == [3, 5, 8, 9]
    assert {found[at].stage for at in (3, 5, 8)} == {"store"}
    assert {found[at].errors[0].code for at in (3, 5, 8)} == {"unique"}
    assert found[3].errors[0].field == "id"
    assert sink.committed("users-1")[1].failed == 4


def test_any_name_is_the_name_of_a_column_that_is_refused(database: Store) -> None:
    """Also names that a sink might use for itself."""
    names = ("row", "c0", "k0", "first", "n", "_record", "rowid")
    columns = tuple(Column(name, "integer") for name in names)
    for mode in ("error", "ignore", "update"):
        job = database.job(key=("row", "n"), on_conflict=mode, table=f"{mode}s")
        _, claim = database.claimed(job, job_id=mode, columns=columns)
        given = [dict.fromkeys(names, at) for at in (1, 1, 2)]
        result = claim.store(a_request(chunk(0, 3), given, columns=columns))
        assert result.counts == {"error": (2, 1, 0), "ignore": (2, 0, 1), "update": (3, 0, 0)}[mode]
        assert database.rows("c0, n", f"{mode}s") == [(1, 1), (2, 2)]


def test_the_first_of_equal_keys_wins(database: Store) -> None:
    """In the order of the source; null is equal to nothing; a refused row takes no key."""
    database.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT UNIQUE NOT NULL, data TEXT)")
    sink, claim = database.claimed()
    names = [(1, "a"), (2, "a"), (2, "b"), (None, "c"), (None, "d"), (1, "b"), (3, None), (3, "e")]
    given = [{"id": at, "name": name} for at, name in names]
    result = claim.store(a_request(chunk(0, len(given)), given))
    assert codes(sink) == [(1, "unique"), (5, "unique"), (6, "not_null")]
    assert result.successful == 5
    assert sorted(name for _, name in database.rows()) == ["a", "b", "c", "d", "e"]


def test_a_chunk_of_bad_rows_is_all_rejects(database: Store) -> None:
    """Every row is refused, and the next chunk is stored."""
    _, claim = database.claimed(database.job(key=("id",)))
    claim.store(a_request(chunk(0, 1), rows(7)))
    result = claim.store(a_request(chunk(1, 300), rows(*[7] * 300)))
    assert (result.successful, result.failed) == (0, 300)
    assert claim.store(a_request(chunk(301, 1), rows(8))).successful == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("CREATE TABLE users (a INTEGER, b TEXT)", "no column id, name, data"),
        ("CREATE TABLE users (id INTEGER, name TEXT, data INTEGER)", "column data"),
        (
            "CREATE TABLE users (id INTEGER, name TEXT, data TEXT, must TEXT NOT NULL)",
            "may not be null",
        ),
    ],
)
def test_a_foreign_table_that_cannot_take_the_columns_is_refused(
    database: Store, table: str, message: str
) -> None:
    """Before the first chunk; no ledger row of the job is left."""
    database.run(table)
    with pytest.raises(UsageError, match=message):
        database.claimed()
    assert database.open().jobs() == []


@pytest.mark.parametrize(("mode", "left"), [("append", 3), ("truncate", 2), ("replace", 2)])
def test_a_foreign_table_is_treated_as_asked(database: Store, mode: Any, left: int) -> None:
    """`--if-exists` decides what becomes of another program's rows."""
    database.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    database.run("INSERT INTO users VALUES (50, 'before', NULL)")
    _, claim = database.claimed(database.job(if_exists=mode))
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    assert len(database.rows()) == left


def test_constraints_of_an_existing_table_reject_records(database: Store) -> None:
    """NOT NULL, CHECK and foreign keys name their code; triggers do not confuse the count."""
    for statement in (
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "INSERT INTO parents VALUES (1), (2), (3)",
        """CREATE TABLE users (id INTEGER REFERENCES parents,
           name TEXT NOT NULL CHECK (name <> 'bad'), data TEXT)""",
        "CREATE TABLE log (id INTEGER)",
    ):
        database.run(statement)
    if database.like == "sqlite":
        database.run(
            "CREATE TRIGGER t AFTER INSERT ON users BEGIN INSERT INTO log VALUES (new.id); END"
        )
    sink, claim = database.claimed()
    given = [{"id": 1, "name": "a"}, {"id": 2}, {"id": 2, "name": "bad"}, {"id": 9, "name": "b"}]
    result = claim.store(a_request(chunk(0, 5), [*given, {"id": 3, "name": "c"}]))
    assert (result.successful, result.failed) == (2, 3)
    assert codes(sink) == [(1, "not_null"), (2, "check"), (3, "foreign_key")]


@pytest.mark.parametrize("made", ["STORED", "VIRTUAL"])
def test_a_column_that_is_computed_takes_no_values(database: Store, made: str) -> None:
    """Said before the first chunk, by its name; nobody needs to fill it."""
    if (database.like, made) in (("postgresql", "VIRTUAL"), ("duckdb", "STORED")):
        pytest.skip("not in this database")
    data = f"data TEXT GENERATED ALWAYS AS (name) {made}"
    database.run(f"CREATE TABLE users (id INTEGER, name TEXT, {data})")
    with pytest.raises(UsageError, match="column data is generated"):
        database.claimed()
    database.close()
    _, claim = database.claimed(columns=COLUMNS[:2])
    assert claim.store(a_request(chunk(0, 1), rows(1), columns=COLUMNS[:2])).successful == 1


# -- what only PostgreSQL has ------------------------------------------------------------------


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Store]:
    """An empty PostgreSQL database."""
    store = Store("postgresql", postgres.new_database())
    yield store
    store.close()


def test_nobody_claims_a_job_while_its_chunk_is_being_stored(server: Store) -> None:
    """Else the chunk would land in the ledger of a new owner who had not seen it.

    The chunk is past its fence when the new owner comes, who must wait for the commit.
    """
    job = server.job(key=("id",))
    sink, claim = server.claimed(job)
    other: Any = server.open()
    (pid,) = other.rows("SELECT pg_backend_pid()")[0]
    seen: list[int] = []

    def take_over() -> None:
        other.claim(job, a_record(job), "other")
        seen.append(len(other.committed("users-1")))

    owner = threading.Thread(target=take_over)

    def rejecter(place: int, errors: Any) -> Reject:
        owner.start()
        waits = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
        wait_for(lambda: seen != [] or bool(fetch(server.address, waits)))
        return a_reject(place, "store", *errors)

    lose_locks(sink)
    claim.store(replace(a_request(chunk(0, 2), rows(1, 1)), rejecter=rejecter))
    owner.join()
    assert seen == [1]
    with pytest.raises(JobRunningElsewhereError):
        claim.store(a_request(chunk(2, 1), rows(3)))


def test_a_claim_leaves_the_users_lock_timeout(server: Store) -> None:
    """What the address sets is in force again as soon as the job is claimed."""
    server.address += "&options=-c%20lock_timeout%3D7s"
    sink: Any = server.claimed()[0]
    assert sink.rows("SHOW lock_timeout") == [("7s",)]


@pytest.mark.parametrize("by", ["address", "database"])
def test_a_commit_is_on_disk_whatever_the_default(server: Store, by: str) -> None:
    """Where database or address turn synchronous commits off, chunks and claims turn them on."""
    execute(
        server.address,
        "CREATE TABLE log (setting text)",
        "CREATE TABLE users (id bigint, name text, data jsonb)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO log VALUES (current_setting('synchronous_commit')); RETURN new; END $$",
        "CREATE TRIGGER note AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note()",
    )
    if by == "database":
        name = fetch(server.address, "SELECT current_database()")[0][0]
        execute(server.address, f"ALTER DATABASE {name} SET synchronous_commit = off")
    else:
        server.address += "&options=-c%20synchronous_commit%3Doff"
    assert fetch(server.address, "SHOW synchronous_commit") == [("off",)]
    sink, claim = server.claimed()
    claim.store(a_request(chunk(0, 1), rows(1)))
    assert sink.rows("SHOW synchronous_commit") == [("on",)]  # type: ignore[attr-defined]
    assert fetch(server.address, "SELECT setting FROM log") == [("on",)]


def test_a_statement_timeout_of_the_role_ends_no_claim(postgres: PostgresServer) -> None:
    """It is meant for queries of users; the claim and the final count may take longer."""
    address = postgres.new_database()
    name = address.partition("/test")[2].partition("?")[0]
    execute(address, f"ALTER DATABASE test{name} SET statement_timeout = '20ms'")
    store = Store("postgresql", address)
    sink: Any = store.claimed()[0]
    assert sink.rows("SELECT 1 FROM pg_sleep(0.1)") == [(1,)]
    store.close()


def test_a_commit_without_its_standby_is_bounded(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim does not hang for ever; it is said what is missing."""
    monkeypatch.setattr(postgres_sink, "COMMIT_SECONDS", 0.5)
    address = postgres.new_database()
    standby = "ALTER SYSTEM SET synchronous_standby_names = '%s'"
    try:
        execute(address, standby % "nobody", "SELECT pg_reload_conf()")
        store = Store("postgresql", address + "&options=-csynchronous_commit%3Don")
        with pytest.raises(FatalError, match="no synchronous standby"):
            store.claimed()
        store.close()
    finally:
        execute(address, standby % "", "SELECT pg_reload_conf()")


def test_sigint_in_a_statement_of_sqlite_is_pythons(tmp_path: Path) -> None:
    """The driver would catch it, and ask SQLite to cancel, which it cannot."""
    script = """
import os, signal, sys, threading
from batchimport.sinks import open_sink
sink = open_sink(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, if a script runs this beside it
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
many = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 9000000)"
try:
    sink.rows(f"{many} SELECT count(*) FROM s")
    threading.Event().wait(20)  # a busy machine may send the signal late
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
"""
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/d.db"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment()
    )
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


# -- what only SQLite has ----------------------------------------------------------------------


def test_a_commit_of_sqlite_is_on_disk(tmp_path: Path) -> None:
    """EXTRA syncs the log at each commit, and in rollback mode the directory of the journal."""
    store = Store("sqlite", f"sqlite:///{tmp_path / 'users.db'}")
    sink: Any = store.claimed()[0]
    assert sink.rows("PRAGMA synchronous") == [(3,)]
    assert sink.rows("PRAGMA journal_mode") == [("wal",)]
    assert sink.rows("PRAGMA page_size") == [(8192,)]
    store.close()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_of_the_user_keeps_its_journal_mode(tmp_path: Path, mode: str) -> None:
    """Before, during and after the import: only a file that is made here is switched to WAL."""
    path = tmp_path / "users.db"
    with closing(sqlite3.connect(path)) as own:
        own.execute(f"PRAGMA journal_mode = {mode}")
        own.execute("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
        own.commit()
    store = Store("sqlite", f"sqlite:///{path}")
    sink: Any
    sink, claim = store.claimed()
    claim.store(a_request(chunk(0, 2), rows(0, 1)))
    assert sink.rows("PRAGMA journal_mode") == [(mode,)]
    store.close()
    with closing(sqlite3.connect(path)) as own:
        assert own.execute("PRAGMA journal_mode").fetchall() == [(mode,)]
        assert own.execute("SELECT count(*) FROM users").fetchall() == [(2,)]


def test_what_is_committed_to_sqlite_is_soon_in_the_file(tmp_path: Path) -> None:
    """A thread of its own brings it there, long before SQLite would, which waits for 8 MB."""
    store = Store("sqlite", f"sqlite:///{tmp_path / 'users.db'}")
    sink: Any
    sink, claim = store.claimed()
    claim.store(a_request(chunk(0, 2), rows(0, 1)))
    sink._checkpoints.wait()
    assert _rows_without_the_log(tmp_path) is None, "two rows are not worth a checkpoint"
    many = range(2, 2 + LEAST_BYTES // 100)
    long = [row | {"name": "n" * 100} for row in rows(*many)]
    claim.store(a_request(chunk(2, len(many)), long))
    sink._checkpoints.wait()
    assert _rows_without_the_log(tmp_path) == many.stop
    store.close()


def _rows_without_the_log(folder: Path) -> int | None:
    """Return the number of rows in the database file alone; None if the table is not in it."""
    (folder / "copy.db").write_bytes((folder / "users.db").read_bytes())
    with closing(sqlite3.connect(folder / "copy.db")) as copy, suppress(sqlite3.OperationalError):
        return int(copy.execute("SELECT count(*) FROM users").fetchone()[0])
    return None


# -- what only files have ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Store]:
    """A Parquet dataset."""
    store = Store("parquet", f"parquet:///{tmp_path / 'users'}")
    yield store
    store.close()


def test_a_dataset_takes_what_its_columns_can_hold(folder: Store, tmp_path: Path) -> None:
    """Another program's files decide the columns; values that do not fit are rejects."""
    (tmp_path / "users").mkdir()
    other = {"name": pl.String, "id": pl.Int8, "data": pl.String, "more": pl.Date}
    pl.DataFrame({"id": [5]}, schema_overrides=other).select(
        *(pl.col(n) if n == "id" else pl.lit(None, t).alias(n) for n, t in other.items())
    ).write_parquet(tmp_path / "users" / "other.parquet")
    sink, claim = folder.claimed()
    result = claim.store(a_request(chunk(0, 3), [*rows(1, 200), {"id": 2, "_extra": '{"x": 1}'}]))
    assert (result.successful, result.failed) == (1, 2)
    found = [(each.record, each.errors[0].code) for each in sink.rejects("users-1")]
    assert found == [(1, "type"), (2, "unknown_key")]
    assert folder.rows("id, more") == [(1, None), (5, None)]
    assert claim.finish("completed", 3) == 0
    with pytest.raises(UsageError, match="does not remove it"):
        folder.claimed(folder.job(if_exists="replace"), job_id="users-2")


def test_files_of_different_columns_are_no_dataset(folder: Store, tmp_path: Path) -> None:
    """Refused by the name of the file."""
    folder.claimed()
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "users" / "odd.parquet")
    with pytest.raises(UsageError, match="odd"):
        folder.claimed(job_id="users-2")


def test_a_part_of_another_program_is_not_believed(folder: Store, tmp_path: Path) -> None:
    """A file that has a part's name and no ledger row stops the job; so does a damaged one."""
    sink, claim = folder.claimed()
    claim.store(a_request(chunk(0, 1), rows(1)))
    (part,) = (tmp_path / "users").glob("part-*")
    pl.read_parquet(part).write_parquet(part)
    with pytest.raises(FatalError, match="no row of the ledger"):
        sink.committed("users-1")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(FatalError, match="damaged"):
        sink.committed("users-1")


def test_a_file_system_without_nameless_files(
    folder: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files have hidden names; those of killed processes go when a job begins."""
    monkeypatch.delattr("os.O_TMPFILE")
    _, claim = folder.claimed()
    left, fresh = (tmp_path / "users" / f".draft-{name}" for name in ("left", "fresh"))
    for draft in (left, fresh):
        draft.write_bytes(b"half of a part")
    os.utime(left, (0, 0))
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    _, again = folder.claimed()
    assert again.store(a_request(chunk(0, 2), rows(1, 2))).already_committed
    assert folder.rows() == [(1, "user 1"), (2, "user 2")]
    hidden = [path.name for path in (tmp_path / "users").glob(".*")]
    assert hidden == [".draft-fresh"]
