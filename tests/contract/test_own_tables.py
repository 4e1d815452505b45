"""Tables of the user's own: their constraints, triggers, rules and policies decide, and are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import FatalError, TransientError
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Sink, SinkOptions
from tests.helpers.postgres import PostgresServer
from tests.helpers.stores import ADAPTERS, Store, a_record, a_request, chunk

SIZES = [1, 3, 100]
COLUMNS_OF_A_TREE = (Column("id", "integer"), Column("data", "integer"))


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    store = Store("sqlite", f"sqlite:///{tmp_path / 'users.db'}")
    yield store
    store.close()


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[Store]:
    store = Store("postgresql", postgres.new_database())
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "duckdb", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    adapter = ADAPTERS[request.param]
    server = lambda: request.getfixturevalue("postgres")  # noqa: E731 - only when it is needed
    store = Store(request.param, adapter.new_address(tmp_path, server))
    yield store
    store.close()


def store_all(store: Store, given: list[Any], size: int = 100, **facts: Any) -> tuple[Sink, Any]:
    """Store names, or pairs of id and name, as users in chunks of a size; return sink and claim."""
    pairs = [each if isinstance(each, tuple) else (at, each) for at, each in enumerate(given)]
    users = [{"id": at, "name": name} for at, name in pairs]
    sink, claim = store.claimed(store.job(**facts))
    for first in range(0, len(users), size):
        piece = users[first : first + size]
        claim.store(a_request(chunk(first, len(piece)), piece))
    return sink, claim


def counts(sink: Sink) -> dict[str, int]:
    """Records by outcome, as the ledger has them; the records of each chunk are accounted for."""
    ledger = sink.committed("users-1")
    for row in ledger:
        assert row.successful + row.failed + row.filtered == row.chunk.records
    names = ("successful", "updated", "failed", "ignored", "skipped")
    found = {name: sum(getattr(row, name) for row in ledger) for name in names}
    assert sum(row.filtered for row in ledger) == found["ignored"] + found["skipped"]
    return {name: count for name, count in found.items() if count}


def rejected(sink: Sink) -> list[tuple[int, str]]:
    return [(reject.record, reject.errors[0].code) for reject in sink.rejects("users-1")]


# -- conflict clauses of SQLite ----------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("clause", "expected", "left"),
    [
        ("ROLLBACK", {"successful": 3, "failed": 2}, [(0, "a"), (2, "b"), (4, "c")]),
        ("ABORT", {"successful": 3, "failed": 2}, [(0, "a"), (2, "b"), (4, "c")]),
        ("FAIL", {"successful": 3, "failed": 2}, [(0, "a"), (2, "b"), (4, "c")]),
        ("IGNORE", {"successful": 3, "skipped": 2}, [(0, "a"), (2, "b"), (4, "c")]),
        ("REPLACE", {"successful": 4, "updated": 1, "failed": 1}, [(2, "b"), (3, "a"), (4, "c")]),
    ],
)
def test_conflict_clauses_decide_and_are_counted(
    sqlite: Store, size: int, clause: str, expected: dict[str, int], left: list[Any]
) -> None:
    """At every chunk size; a clause that rolls back costs its record, not the ledger's truth."""
    sqlite.run(
        f"CREATE TABLE users (id INTEGER, name TEXT NOT NULL ON CONFLICT {clause} "
        f"UNIQUE ON CONFLICT {clause}, data TEXT)"
    )
    sink, claim = store_all(sqlite, ["a", None, "b", "a", "c"], size)
    assert counts(sink) == expected
    assert sqlite.rows() == left
    assert claim.finish("completed", 5) in (0, None)


@pytest.mark.parametrize("size", SIZES)
def test_clauses_of_several_kinds_in_one_table(sqlite: Store, size: int) -> None:
    """Each row is judged by the clause of the constraint that it breaks."""
    sqlite.run(
        "CREATE TABLE users (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, name TEXT NOT NULL "
        "ON CONFLICT ROLLBACK UNIQUE ON CONFLICT IGNORE, data TEXT CHECK (id <> 7))"
    )
    given = [(1, "a"), (2, None), (3, "a"), (1, "b"), (7, "c"), (4, None), (5, "d"), (5, "e")]
    sink, _ = store_all(sqlite, given, size)
    assert rejected(sink) == [(1, "not_null"), (4, "check"), (5, "not_null")]
    assert counts(sink) == {"successful": 4, "updated": 2, "failed": 3, "skipped": 1}
    assert sqlite.rows() == [(1, "b"), (5, "e")]


@pytest.mark.parametrize("mode", ["ignore", "update"])
def test_a_clause_that_rolls_back_keeps_what_an_upsert_knows(sqlite: Store, mode: Any) -> None:
    """The keys that were written before in the chunk are known when it has begun again."""
    sqlite.run(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL ON CONFLICT ROLLBACK, "
        "data TEXT)"
    )
    given = [(1, "a"), (2, "b"), (1, "c"), (3, None), (2, "d"), (4, "e"), (5, None)]
    sink, _ = store_all(sqlite, given, on_conflict=mode, key=("id",))
    more = {"successful": 5, "updated": 2} if mode == "update" else {"successful": 3, "ignored": 2}
    assert counts(sink) == more | {"failed": 2}
    names = ["c", "d", "e"] if mode == "update" else ["a", "b", "e"]
    assert [name for _, name in sqlite.rows()] == names


def test_a_dry_run_that_is_rolled_back_writes_nothing(sqlite: Store) -> None:
    """Its one transaction is gone: it ends with an error, and the table is as it was."""
    sqlite.run(
        "CREATE TABLE users (id INTEGER, name TEXT NOT NULL ON CONFLICT ROLLBACK, data TEXT)"
    )
    sqlite.close()
    dry = open_sink(sqlite.address, SinkOptions(dry_run=True))
    claim = dry.claim(sqlite.job(), a_record(sqlite.job()), "me")
    given = [{"id": 1, "name": "a"}, {"id": 2}, {"id": 3, "name": "b"}]
    with pytest.raises(FatalError, match="ends a dry run"):
        claim.store(a_request(chunk(0, 3), given))
    dry.close()
    sqlite.open()
    assert sqlite.rows() == []


# -- triggers ----------------------------------------------------------------------------------


def sqlite_trigger(store: Store, action: str, when: str = "BEFORE") -> None:
    store.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT, data TEXT)")
    store.run("CREATE TABLE log (name TEXT UNIQUE)")
    store.run(
        f"CREATE TRIGGER t {when} INSERT ON users WHEN new.name LIKE 'bad%' "
        f"BEGIN INSERT OR IGNORE INTO log VALUES (new.name); {action}; END"
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("how", ["ABORT", "FAIL", "ROLLBACK"])
@pytest.mark.parametrize("text", ["account is locked", "disk is full of crumbs", "x"])
def test_a_trigger_that_raises_refuses_its_row(
    sqlite: Store, size: int, when: str, how: str, text: str
) -> None:
    """Whatever it says, and whatever it leaves of the transaction."""
    sqlite_trigger(sqlite, f"SELECT RAISE({how}, '{text}')", when)
    sink, _ = store_all(sqlite, ["a", "bad", "b", "bad 2", "bad", "c"], size)
    assert rejected(sink) == [(1, "trigger"), (3, "trigger"), (4, "trigger")]
    assert {reject.errors[0].message for reject in sink.rejects("users-1")} == {text}
    assert sqlite.rows() == [(0, "a"), (2, "b"), (5, "c")]
    assert sqlite.rows("name", "log") == []


@pytest.mark.parametrize("size", SIZES)
def test_a_trigger_that_skips_is_counted(sqlite: Store, size: int) -> None:
    """Not as stored; what it does besides stays."""
    sqlite_trigger(sqlite, "SELECT RAISE(IGNORE)")
    sink, _ = store_all(sqlite, ["a", "bad", "b", "bad 2", "c", "bad"], size)
    assert counts(sink) == {"successful": 3, "skipped": 3}
    assert sqlite.rows("name", "log") == [("bad",), ("bad 2",)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ignore", {"successful": 2, "ignored": 2, "skipped": 2}),
        ("update", {"successful": 4, "updated": 2, "skipped": 2}),
    ],
)
def test_skipped_is_not_ignored(
    database: Store, size: int, mode: Any, expected: dict[str, int]
) -> None:
    """A row whose key is there is told from one that a trigger leaves out."""
    if database.like in ("duckdb", "mysql"):
        pytest.skip("it has no triggers that leave out rows")
    skip_bad(database)
    given = [(1, "a"), (1, "b"), (2, "bad"), (3, "c"), (3, "d"), (4, "bad")]
    sink, _ = store_all(database, given, size, on_conflict=mode, key=("id",))
    assert counts(sink) == expected
    names = ["b", "d"] if mode == "update" else ["a", "c"]
    assert database.rows() == [(1, names[0]), (3, names[1])]


def skip_bad(store: Store) -> None:
    """A table with a trigger that leaves out rows of the name `bad`."""
    if store.like == "sqlite":
        sqlite_trigger(store, "SELECT RAISE(IGNORE)")
        return
    store.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT, data TEXT)")
    trigger(store, "IF new.name = 'bad' THEN RETURN NULL; END IF; RETURN new;")


def trigger(store: Store, body: str, when: str = "BEFORE") -> None:
    store.run(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    store.run(f"CREATE TRIGGER t {when} INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["error", "ignore"])
def test_rows_that_postgresql_skips_are_counted(server: Store, size: int, mode: Any) -> None:
    """In a chunk that is copied as in one whose rows are isolated; partitions have triggers, too."""
    server.run(
        "CREATE TABLE users (id INTEGER, name TEXT CHECK (name <> 'no'), data TEXT) "
        "PARTITION BY RANGE (id)"
    )
    server.run("CREATE TABLE part PARTITION OF users FOR VALUES FROM (0) TO (100)")
    trigger(server, "IF new.name = 'bad' THEN RETURN NULL; END IF; RETURN new;")
    sink, _ = store_all(server, ["a", "bad", "b", "bad", "c"], size, on_conflict=mode)
    assert counts(sink) == {"successful": 3, "skipped": 2}
    server.close()
    server.run("TRUNCATE users, _batchimport_chunks, _batchimport_jobs")
    sink, _ = store_all(server, ["a", "bad", "no", "bad", "c"], size, on_conflict=mode)
    assert counts(sink) == {"successful": 2, "skipped": 2, "failed": 1}


RAISES = [
    "RAISE EXCEPTION 'no'",
    "RAISE EXCEPTION 'no' USING ERRCODE = 'MY001'",
    "RAISE EXCEPTION 'no' USING ERRCODE = 'no_data_found'",
    "RAISE EXCEPTION 'no' USING ERRCODE = 'assert_failure'",
    "RAISE EXCEPTION 'no' USING ERRCODE = 'insufficient_privilege'",
    "RAISE EXCEPTION 'no' USING ERRCODE = 'feature_not_supported'",
    "RAISE EXCEPTION 'no' USING ERRCODE = '40001'",
    "RAISE EXCEPTION 'no' USING ERRCODE = '57014'",
    "RAISE EXCEPTION 'no' USING ERRCODE = '53100'",
    "RAISE EXCEPTION 'no' USING ERRCODE = '21000'",
    "ASSERT false, 'no'",
    "INSERT INTO nowhere VALUES (1)",
]


@pytest.mark.parametrize("mode", ["error", "ignore", "update"])
def test_a_row_that_postgresql_refuses_is_a_reject(server: Store, mode: Any) -> None:
    """By whatever SQLSTATE, when it fails by itself while the connection stands."""
    server.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT, data TEXT)")
    cases = (f"IF new.name = 'bad {at}' THEN {each}; END IF;" for at, each in enumerate(RAISES))
    trigger(server, f"{' '.join(cases)} RETURN new;")
    bad = [f"bad {at}" for at in range(len(RAISES))]
    sink, _ = store_all(server, [*bad, "good"], on_conflict=mode, key=("id",))
    assert [record for record, _ in rejected(sink)] == list(range(len(bad)))
    assert server.rows() == [(len(bad), "good")]


@pytest.mark.parametrize("statement", RAISES)
def test_a_copy_that_a_trigger_stops_is_tried_row_by_row(server: Store, statement: str) -> None:
    """Each code by itself, since the first one of a chunk decides what becomes of the chunk."""
    server.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    trigger(server, f"IF new.name = 'bad' THEN {statement}; END IF; RETURN new;")
    sink, _ = store_all(server, ["bad", "good"])
    assert [record for record, _ in rejected(sink)] == [0]
    assert server.rows() == [(1, "good")]


def test_a_statement_that_takes_too_long_is_no_reject(server: Store) -> None:
    """The server's own time limit is another attempt's business."""
    server.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT, data TEXT)")
    trigger(server, "IF new.name = 'slow' THEN PERFORM pg_sleep(60); END IF; RETURN new;")
    _, claim = server.claimed()
    users = [{"id": at, "name": name} for at, name in enumerate(["a", "slow"])]
    request = replace(a_request(chunk(0, 2), users), timeout_seconds=0.3)
    with pytest.raises(TransientError):
        claim.store(request)
    assert server.rows() == []


def test_a_missing_right_is_no_reject(server: Store) -> None:
    """It stops the job, although rights are what a trigger may complain about, too."""
    server.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    _, claim = server.claimed()
    server.run("CREATE ROLE somebody")
    for table in ("_batchimport_jobs", "_batchimport_chunks", "_batchimport_rejects"):
        server.run(f"GRANT ALL ON {table} TO somebody")
    with claim._database._chunk_connection() as connection:  # type: ignore[attr-defined]
        connection.execute("SET ROLE somebody")
    with pytest.raises(FatalError, match="permission denied"):
        claim.store(a_request(chunk(0, 1), [{"id": 1, "name": "a"}]))
    server.run("DROP OWNED BY somebody")
    server.run("DROP ROLE somebody")


# -- rules, views, policies --------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_rule_is_obeyed_in_every_chunk(server: Store, size: int) -> None:
    """COPY knows no rules, so it is not used."""
    server.run("CREATE TABLE users (id INTEGER, name TEXT CHECK (name <> 'no'), data TEXT)")
    server.run("CREATE RULE r AS ON INSERT TO users WHERE new.name = 'bad' DO INSTEAD NOTHING")
    sink, _ = store_all(server, ["a", "bad", "b", "no"], size)
    assert counts(sink) == {"successful": 2, "skipped": 1, "failed": 1}
    assert server.rows() == [(0, "a"), (2, "b")]


@pytest.mark.parametrize("size", SIZES)
def test_a_view_takes_rows(server: Store, size: int) -> None:
    """What its check option refuses is a reject."""
    server.run("CREATE TABLE people (id INTEGER, name TEXT, data TEXT)")
    server.run("CREATE VIEW users AS SELECT * FROM people WHERE name <> 'bad' WITH CHECK OPTION")
    sink, _ = store_all(server, ["a", "bad", "b"], size)
    assert rejected(sink) == [(1, "check")]
    assert server.rows() == [(0, "a"), (2, "b")]


@pytest.mark.parametrize("size", SIZES)
def test_a_policy_refuses_rows(server: Store, size: int) -> None:
    """Row-level security is obeyed as by INSERT; COPY would not take it."""
    server.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    server.run("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    server.run("CREATE POLICY p ON users USING (true) WITH CHECK (name <> 'bad')")
    server.run("ALTER TABLE users FORCE ROW LEVEL SECURITY")
    server.run("CREATE ROLE limited LOGIN")
    server.run("ALTER TABLE users OWNER TO limited")
    server.run("GRANT ALL ON SCHEMA public TO limited")
    server.close()
    address = server.address
    server.address += ("&" if "?" in address else "?") + "options=-c%20role%3Dlimited"
    sink, _ = store_all(server, ["a", "bad", "b"], size)
    assert rejected(sink) == [(1, "policy")]
    assert server.rows() == [(0, "a"), (2, "b")]
    server.close()
    server.address = address
    server.run("DROP OWNED BY limited")
    server.run("DROP ROLE limited")


# -- deferred constraints ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["error", "ignore", "update"])
def test_a_deferred_foreign_key_refuses_its_row(database: Store, mode: Any) -> None:
    """And the rows that refer to that one; not the whole chunk."""
    deferred = "DEFERRABLE INITIALLY DEFERRED" if database.like in ("sqlite", "postgresql") else ""
    database.run("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    database.run("INSERT INTO parents VALUES (1), (2)")
    database.run(
        f"CREATE TABLE users (id INTEGER PRIMARY KEY REFERENCES parents {deferred}, "
        "name TEXT, data TEXT)"
    )
    given = [(1, "a"), (8, "b"), (2, "c"), (9, "d")]
    sink, _ = store_all(database, given, on_conflict=mode, key=("id",))
    assert rejected(sink) == [(1, "foreign_key"), (3, "foreign_key")]
    assert database.rows() == [(1, "a"), (2, "c")]


def test_a_row_whose_parent_is_refused_is_refused(sqlite: Store) -> None:
    """Deferred keys are looked at when all rows of the chunk are there."""
    sqlite.run(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, data INTEGER REFERENCES users "
        "DEFERRABLE INITIALLY DEFERRED, name TEXT)"
    )
    sink, claim = sqlite.claimed(columns=COLUMNS_OF_A_TREE)
    given = [(1, 2), (2, None), (3, 4), (4, 9), (5, 1)]
    users = [{"id": at, "data": parent} for at, parent in given]
    claim.store(a_request(chunk(0, 5), users, columns=COLUMNS_OF_A_TREE))
    assert rejected(sink) == [(2, "foreign_key"), (3, "foreign_key")]
    assert [at for at, _ in sqlite.rows()] == [1, 2, 5]


# -- keys without a column ---------------------------------------------------------------------

WITH_MORE = [{"id": 1, "name": "a"}, {"id": 2, "name": "b", "_extra": '{"nick": "x", "n": 1.10}'}]


def names(database: Store) -> list[str]:
    sink: Any = database.opened[-1]
    return [own.name for own in sink.columns("users")]


def extra(database: Store, column: str = "_extra") -> list[Any]:
    cast = column if database.kind == "sqlite" else f"CAST({column} AS varchar)"
    return [text and json.loads(text) for _, text in database.rows(f"id, {cast}")]


def test_a_table_of_the_user_is_not_altered_unless_asked(database: Store) -> None:
    """A record with a key that it has no column for is a reject that says what to type."""
    database.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    sink, claim = database.claimed()
    assert claim.store(a_request(chunk(0, 2), WITH_MORE)).counts == (1, 1, 0)
    (reject,) = sink.rejects("users-1")
    assert [(error.code, error.field) for error in reject.errors] == [
        ("unknown_key", "nick"),
        ("unknown_key", "n"),
    ]
    assert reject.record == 1
    assert "--new-columns add" in reject.errors[0].message
    assert names(database) == ["id", "name", "data"]


def test_sqlite_numbers_the_rows_of_a_table_by_itself(sqlite: Store) -> None:
    """A key that is the row's own number may be missing in the records, though it is not null."""
    sqlite.run("CREATE TABLE users (n INTEGER NOT NULL PRIMARY KEY, id INTEGER, name TEXT)")
    _, claim = sqlite.claimed()
    records = [{"id": number, "name": "a"} for number in (7, 8)]
    assert claim.store(a_request(chunk(0, 2), records)).counts == (2, 0, 0)
    assert sqlite.rows("n, id") == [(1, 7), (2, 8)]


@pytest.mark.parametrize("choice", ["extra", "add"])
def test_a_table_of_the_user_is_altered_when_asked(database: Store, choice: Any) -> None:
    """All keys are kept, in `_extra` or in columns of their own; also those of a later chunk."""
    database.run("CREATE TABLE users (id INTEGER, name TEXT)")
    _, claim = database.claimed(database.job(new_columns=choice))
    given = [{**each, "data": '{"a": 2}'} for each in WITH_MORE]
    assert claim.store(a_request(chunk(0, 2), given)).counts == (2, 0, 0)
    more = {"id": 3, "name": "c", "_extra": '{"n": 2, "ID": 4, "none": null}'}
    result = claim.store(a_request(chunk(2, 1), [more]))
    if choice == "extra":
        assert names(database) == ["id", "name", "_extra"]
        assert extra(database) == [
            {"data": {"a": 2}},
            {"nick": "x", "n": 1.1, "data": {"a": 2}},
            {"n": 2, "ID": 4, "none": None},
        ]
        return
    assert names(database) == ["id", "name", "data", "n", "nick"]
    assert result.counts == (0, 1, 0)  # ID differs in case alone from a column
    assert extra(database, "nick") == [None, "x"]
    assert extra(database, "n") == [None, 1.1]


def test_a_table_that_batchimport_made_keeps_new_keys(database: Store) -> None:
    """Also by another job, and by one that was begun again; unless they are to be rejected."""
    database.claimed()
    database.close()
    sources = ("/data/more.jsonl",)
    sink, claim = database.claimed(database.job(sources=sources), job_id="users-2")
    old = [record for record in sink.jobs() if record.job_id == "users-1"]
    claim = sink.claim(database.job(), a_record(database.job(), "users-3"), "me", old)
    assert claim.store(a_request(chunk(0, 2), WITH_MORE)).counts == (2, 0, 0)
    assert extra(database) == [None, {"nick": "x", "n": 1.1}]
    database.close()
    strict = database.job(sources=("/data/4.jsonl",), new_columns="reject", table="others")
    _, claim = database.claimed(strict, job_id="users-4")
    assert claim.store(a_request(chunk(0, 2), WITH_MORE)).counts == (1, 1, 0)


def test_a_row_after_one_with_unknown_keys_is_rejected_as_itself(database: Store) -> None:
    """The place of a row is that of its record, whatever was taken out before."""
    database.run("CREATE TABLE users (id INTEGER UNIQUE, name TEXT, data TEXT)")
    sink, claim = database.claimed()
    given = [WITH_MORE[1], *WITH_MORE[:1], {"id": 1, "name": "again"}]
    claim.store(a_request(chunk(0, 3), given))
    assert rejected(sink) == [(0, "unknown_key"), (2, "unique")]
