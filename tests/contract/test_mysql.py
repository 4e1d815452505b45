"""What only MySQL and MariaDB have: DDL that commits, engines, collations, packets, files on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from batchimport import failpoints
from batchimport.errors import (
    DestinationNotUpError,
    FatalError,
    JobRunningElsewhereError,
    TransientError,
    UsageError,
)
from batchimport.model import Reject
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Sink, SinkOptions
from batchimport.sinks.mysql.address import parse
from batchimport.sinks.mysql.session import Session
from tests.helpers import mariadb
from tests.helpers.stores import Store, a_record, a_reject, a_request, chunk, rows
from tests.helpers.tracing import wait_for

WAITING = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"


def somebody_waits(address: str) -> bool:
    """Say whether a transaction waits for another; what is shown is renewed after 0.1 s without a look."""
    mariadb.execute(address, "SELECT SLEEP(0.15)")
    return bool(mariadb.fetch(address, WAITING))


@pytest.fixture
def server() -> Iterator[Store]:
    """An empty database."""
    store = Store("mysql", mariadb.server().new_database())
    yield store
    store.close()


@pytest.fixture
def setting(server: Store) -> Iterator[Any]:
    """Sets a global variable of the server until the test ends."""
    undo: list[str] = []

    def set_global(name: str, value: int) -> None:
        (before,) = mariadb.fetch(server.address, f"SELECT @@global.{name}")[0]
        undo.append(f"SET GLOBAL {name} = {before}")
        mariadb.execute(server.address, f"SET GLOBAL {name} = {value}")

    yield set_global
    mariadb.execute(server.address, *undo)


def codes(sink: Sink) -> list[tuple[int, str, str]]:
    found = sink.rejects("users-1")
    return [(each.record, each.errors[0].code, each.errors[0].field) for each in found]


# -- tables that are made ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_claim_that_breaks_after_its_commit_is_seen_as_done(
    server: Store, mode: Any, number: int
) -> None:
    """The table is the job's for every process, and gets its name by the next claim."""
    if mode == "replace":
        server.run("CREATE TABLE users (id INTEGER, other TEXT)")
        server.run("INSERT INTO users VALUES (7, 'before')")
        server.close()
    job = server.job(if_exists=mode)
    failpoints.arm(f"before-renaming=error@{number}")
    try:
        with pytest.raises(TransientError):
            server.claimed(job)
    finally:
        failpoints.arm("")
    server.close()
    other: Any = server.open()
    (record,) = other.jobs()
    assert (record.job_id, record.rows_before) == ("users-1", 0)
    assert other.identity_of("users")
    assert other.columns_of("users") == {"id", "name", "data"}
    assert (other.has_rows("users"), other.surplus(record)) == (False, 0)
    claim = other.claim(job, record, "other")
    assert claim.store(a_request(chunk(0, 2), rows(1, 2))).successful == 2
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
    assert mariadb.fetch(server.address, "SELECT id FROM users ORDER BY id") == [(1,), (2,)]
    assert mariadb.fetch(server.address, f"{tables} AND table_name LIKE '%new%'") == [(0,)]
    assert claim.finish("completed", 2) == 0


def test_a_claim_that_fails_leaves_no_table(server: Store) -> None:
    """What was made for it is removed again."""
    with pytest.raises(UsageError, match="no such column"):
        server.claimed(server.job(key=("nothing",)))
    found = mariadb.fetch(server.address, "SHOW TABLES")
    assert {name for (name,) in found} <= {
        f"_batchimport_{n}" for n in ("jobs", "chunks", "rejects")
    }


@pytest.mark.parametrize(
    ("statement", "mode", "message"),
    [
        ("CREATE TABLE users (id INTEGER) ENGINE=MyISAM", "append", "engine is MyISAM"),
        ("CREATE TABLE users (id INTEGER) ENGINE=MyISAM", "truncate", "engine is MyISAM"),
        ("CREATE VIEW users AS SELECT 1 AS id", "replace", "is a view"),
    ],
)
def test_what_knows_no_transactions_is_refused(
    server: Store, statement: str, mode: Any, message: str
) -> None:
    """Before anything is changed, and with what to type."""
    server.run(statement)
    with pytest.raises(UsageError, match=message):
        server.claimed(server.job(if_exists=mode), columns=(Column("id", "integer"),))
    assert server.open().jobs() == []


def test_a_table_that_others_refer_to_is_not_replaced(server: Store) -> None:
    """It could not be removed after the claim; truncating it says why it cannot."""
    server.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, data TEXT)")
    server.run("CREATE TABLE pets (owner INTEGER REFERENCES users (id))")
    server.run("INSERT INTO users VALUES (1, 'a', NULL)")
    server.run("INSERT INTO pets VALUES (1)")
    with pytest.raises(UsageError, match="foreign keys of pets"):
        server.claimed(server.job(if_exists="replace"))
    server.close()
    with pytest.raises(FatalError, match="foreign key"):
        server.claimed(server.job(if_exists="truncate"))
    assert mariadb.fetch(server.address, "SELECT id FROM users") == [(1,)]


def test_a_dry_run_adds_no_column(server: Store) -> None:
    """The server could not undo it; nothing is changed, and the job ends."""
    server.run("CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    server.close()
    dry = open_sink(server.address, SinkOptions(dry_run=True))
    with closing(dry):
        job = server.job(new_columns="extra")
        claim = dry.claim(job, a_record(job), "me")
        assert claim.store(a_request(chunk(0, 1), rows(1))).successful == 1
        with pytest.raises(FatalError, match="cannot undo a new column"):
            claim.store(a_request(chunk(1, 1), [{"id": 2, "_extra": '{"x": 1}'}]))
    assert mariadb.fetch(server.address, "SHOW TABLES") == [("users",)]
    assert mariadb.fetch(server.address, "SELECT * FROM users") == []


# -- values and rows ---------------------------------------------------------------------------

TABLE = """CREATE TABLE users (nr INTEGER AUTO_INCREMENT PRIMARY KEY, id SMALLINT UNIQUE,
    name VARCHAR(5) NOT NULL, price DECIMAL(6, 2), mood ENUM('sad', 'ok'), born DATE, at DATETIME,
    big BIGINT UNSIGNED, flag {flag}, doc JSON, plain VARCHAR(9) CHARACTER SET latin1,
    team INTEGER REFERENCES teams (id), CHECK (id <> 13))"""
GOOD = {"id": 1, "name": "Zoë", "price": "1234.50", "mood": "ok", "born": "2024-02-29", "team": "1"}
GOOD |= {"at": "2024-02-29 10:00:00", "big": "18446744073709551615", "flag": "yes", "doc": "[1]"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": 1}, "unique"),
    ({"id": 13}, "check"),
    ({"id": 40000}, "out_of_range"),
    ({"name": None}, "not_null"),
    ({"name": "too long"}, "too_long"),
    ({"mood": "glad"}, "type"),
    ({"born": "2023-02-29"}, "type"),
    ({"born": "0000-00-00"}, "type"),
    ({"at": "soon"}, "type"),
    ({"price": "12345.6"}, "out_of_range"),
    ({"price": "12abc"}, "type"),
    ({"big": "1.5"}, "type"),
    ({"big": "-1"}, "out_of_range"),
    ({"flag": "maybe"}, "type"),
    ({"doc": "{"}, "check"),
    ({"plain": "💥"}, "type"),
    ({"team": "9"}, "foreign_key"),
    ({"name": "stop"}, "trigger"),
]
KINDS: tuple[Any, ...] = (
    Column("id", "integer"),
    *(Column(name, "string") for name in [*list(GOOD)[1:], "plain"]),
)


@pytest.mark.parametrize("files", [0, 1])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_table_decides_whichever_way_rows_take(
    server: Store, setting: Any, files: int, size: int
) -> None:
    """Loaded from memory or inserted, at every size: the same rows, codes and columns."""
    setting("local_infile", files)
    server.run("CREATE TABLE teams (id INTEGER PRIMARY KEY)")
    server.run("INSERT INTO teams VALUES (1)")
    # A column of bits is never loaded: the text of a number would be its digits' bits.
    server.run(TABLE.format(flag="BIT(1)" if size == 4 else "BOOLEAN"))
    server.run(
        "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW IF new.name = 'stop' THEN "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF"
    )
    given: list[dict[str, Any]] = [GOOD]
    given += [GOOD | {"id": 100 + at} | bad for at, (bad, _) in enumerate(BAD)]
    given += [GOOD | {"id": 2}, GOOD | {"id": 3}]
    sink, claim = server.claimed(columns=KINDS)
    for first in range(0, len(given), size):
        piece = given[first : first + size]
        claim.store(a_request(chunk(first, len(piece)), piece, columns=KINDS))
    found = codes(sink)
    assert [code for _, code, _ in found] == [code for _, code in BAD]
    assert [record for record, _, _ in found] == list(range(1, len(BAD) + 1))
    fields = [field for _, code, field in found if code not in ("check", "trigger")]
    assert fields == [next(iter(bad)) for bad, code in BAD if code not in ("check", "trigger")]
    stored = mariadb.fetch(
        server.address,
        "SELECT id, name, price, mood, born, at, big, flag + 0, doc, team FROM users ORDER BY id",
    )
    assert [row[0] for row in stored] == [1, 2, 3]
    assert [str(value) for value in stored[0][1:]] == [
        *("Zoë", "1234.50", "ok", "2024-02-29", "2024-02-29 10:00:00", "18446744073709551615"),
        *("1", "[1]", "1"),
    ]


def test_a_table_that_numbers_its_rows_has_writers_side_by_side(server: Store) -> None:
    """No two records can be in conflict where the server makes the only key."""
    server.run("CREATE TABLE users (id INTEGER AUTO_INCREMENT PRIMARY KEY, name TEXT, data TEXT)")
    _, claim = server.claimed(columns=(Column("name", "string"),))
    assert (claim.hints.writers, claim.hints.keeps_order) == (2, False)
    server.close()
    _, claim = server.claimed(server.job(sources=("/data/more.jsonl",)), job_id="users-2")
    assert (claim.hints.writers, claim.hints.keeps_order) == (1, True)


def test_keys_that_differ_as_text_stay_different(server: Store) -> None:
    """Case, accents and spaces at the end: in the table that is made, whatever the server's default."""
    columns = (Column("id", "string"), Column("n", "integer"))
    keys = ["a", "A", "á", "a ", " a", "ß", "ss"]
    _, claim = server.claimed(server.job(key=("id",), on_conflict="update"), columns=columns)
    given = [{"id": key, "n": at} for at, key in enumerate([*keys, "A"])]
    assert claim.store(a_request(chunk(0, 8), given, columns=columns)).counts == (8, 0, 0)
    stored = dict(mariadb.fetch(server.address, "SELECT id, n FROM users"))
    assert stored == {key: at for at, key in enumerate(keys)} | {"A": 7}


@pytest.mark.parametrize("size", [1, 100])
def test_an_update_changes_the_row_of_its_key_and_no_other(server: Store, size: int) -> None:
    """A row that is in conflict with another unique column is a reject, as everywhere."""
    server.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(9) UNIQUE, data TEXT)")
    server.run("INSERT INTO users VALUES (1, 'a', NULL), (2, 'b', NULL)")
    sink, claim = server.claimed(server.job(key=("id",), on_conflict="update"))
    given = [{"id": 3, "name": "a"}, {"id": 2, "name": "c"}, {"id": 4, "name": "b"}]
    for first in range(0, 3, size):
        claim.store(a_request(chunk(first, min(3, size)), given[first : first + size]))
    assert codes(sink) == [(0, "unique", "name")]
    assert server.rows() == [(1, "a"), (2, "c"), (4, "b")]
    assert sum(row.updated for row in sink.committed("users-1")) == 1


def test_what_is_ignored_fires_no_trigger(server: Store) -> None:
    """And a conflict of another column than the key's is a reject."""
    server.run(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(9), data VARCHAR(9) UNIQUE)"
    )
    server.run("INSERT INTO users VALUES (1, 'a', '1')")
    server.run(
        "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW SET new.name = concat(new.name, '!')"
    )
    sink, claim = server.claimed(server.job(key=("id",), on_conflict="ignore"))
    given = [{"id": 1, "data": "2"}, {"id": 2, "data": "1"}, {"id": 1, "data": "1"}, {"id": 3}]
    assert claim.store(a_request(chunk(0, 4), given)).counts == (1, 1, 2)
    assert codes(sink) == [(1, "unique", "data")]
    assert server.rows() == [(1, "a"), (3, None)]


def test_a_record_that_a_later_one_has_overtaken_is_judged(server: Store) -> None:
    """Its values do not count; what the table refuses of it is a reject all the same."""
    server.run("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    server.run("INSERT INTO parents VALUES (1)")
    server.run(
        "CREATE TABLE users (id INTEGER UNIQUE, name VARCHAR(9), data INTEGER REFERENCES parents (id))"
    )
    columns = (Column("id", "integer"), Column("name", "string"), Column("data", "integer"))
    sink, claim = server.claimed(server.job(key=("id",), on_conflict="update"), columns=columns)
    late = [{"id": 1, "name": "late", "data": 1}]
    early = [{"id": 1, "name": "early", "data": 1}, {"id": 1, "name": "bad", "data": 9}]
    early += [{"id": 2, "name": "new", "data": 1}]
    claim.store(a_request(chunk(5, 1), late, columns=columns))
    claim.store(a_request(chunk(0, 3), early, columns=columns))
    assert codes(sink) == [(1, "foreign_key", "data")]
    assert server.rows() == [(1, "late"), (2, "new")]


def test_a_record_that_fits_into_no_statement_stops_the_job(server: Store, setting: Any) -> None:
    """It says what to raise; where rows are loaded from memory it is stored."""
    setting("max_allowed_packet", 1024 * 1024)
    sink, claim = server.claimed(server.job(key=("id",)))
    wide = {"id": 2, "name": "x" * 2_000_000}
    assert claim.store(a_request(chunk(0, 2), [*rows(1), wide])).successful == 2
    with pytest.raises(FatalError, match="max_allowed_packet is 1,048,576"):
        claim.store(a_request(chunk(2, 2), [*rows(1), wide | {"id": 3}]))
    assert len(sink.committed("users-1")) == 1


# -- other sessions ----------------------------------------------------------------------------


def test_nobody_claims_a_job_while_its_chunk_is_being_stored(server: Store) -> None:
    """The new owner waits for the commit of a chunk that is past its fence."""
    job = server.job(key=("id",))
    sink, claim = server.claimed(job)
    other: Any = server.open()
    seen: list[int] = []

    def take_over() -> None:
        other.claim(job, a_record(job), "other")
        seen.append(len(other.committed("users-1")))

    owner = threading.Thread(target=take_over)

    def rejecter(place: int, errors: Any) -> Reject:
        owner.start()
        wait_for(lambda: seen != [] or somebody_waits(server.address))
        return a_reject(place, "store", *errors)

    sink.rows("SELECT RELEASE_ALL_LOCKS()")  # type: ignore[attr-defined]
    claim.store(replace(a_request(chunk(0, 2), rows(1, 1)), rejecter=rejecter))
    owner.join()
    assert seen == [1]
    with pytest.raises(JobRunningElsewhereError):
        claim.store(a_request(chunk(2, 1), rows(3)))


def test_a_deadlock_is_another_attempts_business(server: Store) -> None:
    """The server has undone all of the chunk, and the next attempt stores it."""
    server.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, data TEXT)")
    sink, claim = server.claimed()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            claim.store(a_request(chunk(0, 2), rows(1, 2)))
        except TransientError as error:
            raised.append(error)

    other = pymysql.connect(
        unix_socket=parse(server.address).socket,
        user="root",
        database=parse(server.address).database,
    )
    thread = threading.Thread(target=work)
    with closing(other), other.cursor() as cursor:
        many = ", ".join(f"({at})" for at in range(100, 400))  # the lighter one is undone
        cursor.execute(f"INSERT INTO users (id) VALUES (2), {many}")
        thread.start()
        wait_for(lambda: somebody_waits(server.address))
        cursor.execute("INSERT INTO users (id) VALUES (1)")
        thread.join()
        other.rollback()
    assert [type(error) for error in raised] == [TransientError]
    assert sink.committed("users-1") == []
    assert claim.store(a_request(chunk(0, 2), rows(1, 2))).successful == 2


def test_the_server_gets_no_file_that_it_asks_for(server: Store) -> None:
    """It may ask for any in answer to any statement; the one that is being loaded is all it gets."""
    server.run("CREATE TABLE words (word TEXT)")
    session = Session(parse(server.address))
    with pytest.raises(pymysql.OperationalError, match="asked for a file"):
        session.run("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE words")
    session.close()
    assert mariadb.fetch(server.address, "SELECT * FROM words") == []


def test_a_commit_that_is_not_on_disk_is_said(server: Store, setting: Any) -> None:
    """The setting is the server's: nobody but its owner can change it."""
    assert server.open().hints.delivery == "exactly-once"
    setting("innodb_flush_log_at_trx_commit", 2)
    assert "innodb_flush_log_at_trx_commit" in server.open().hints.delivery


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("mysql://root@/?unix_socket=SOCKET", UsageError, "names no database"),
        ("mysql://root@/nowhere?unix_socket=SOCKET", FatalError, "Unknown database"),
        ("mysql://nobody:pw@/mysql?unix_socket=SOCKET", FatalError, "Access denied"),
        ("mysql://root@127.0.0.1:1/x?connect_timeout=1", DestinationNotUpError, "cannot connect"),
    ],
)
def test_a_place_that_cannot_be_opened_is_said(
    server: Store, address: str, error: type[Exception], message: str
) -> None:
    """With a hint, and without the password."""
    with pytest.raises(error, match=message) as raised:
        open_sink(address.replace("SOCKET", parse(server.address).socket))
    assert "pw" not in str(raised.value)
    assert raised.value.hint  # type: ignore[attr-defined]
