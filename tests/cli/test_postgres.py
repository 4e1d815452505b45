"""PostgreSQL from the command line: the same rows and rejects as everywhere, whatever is killed."""

from __future__ import annotations

import signal
import time
from decimal import Decimal
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.postgres import PostgresServer, execute, fetch
from tests.helpers.tables import query

SCHEMA = ["--schema", str(SAMPLE / "users.schema.json"), "--key", "id"]
PASSWORD = "canary-7f3a"


@pytest.fixture
def address(postgres: PostgresServer) -> str:
    return postgres.new_database()


def test_the_sample_is_what_sqlite_gets(workdir: Workdir, address: str) -> None:
    """Rows, counts and rejects; dates, uuids and JSON in types of their own; a rerun is a no-op."""
    found = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", address)
    same = workdir.run(SAMPLE / "users.jsonl", *SCHEMA)
    for key in ("status", "successful", "failed", "rejects_by_code", "exit_code"):
        assert found[key] == same[key]
    rows = fetch(
        address,
        "SELECT id, email, name, age, score, active::int, plan, signup_date::text, "
        "external_id::text, phone, address::text, tags::text FROM users ORDER BY id",
    )
    others = query(
        workdir.path / "users.db",
        "SELECT id, email, name, age, score, active, plan, signup_date, external_id, phone, "
        "address, tags FROM users ORDER BY id",
    )
    assert [row[:10] for row in rows] == [row[:10] for row in others]
    types = dict(
        fetch(
            address,
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_name = 'users'",
        )
    )
    assert types["signup_date"] == "date"
    assert types["created_at"] == "timestamp with time zone"
    assert (types["external_id"], types["address"]) == ("uuid", "jsonb")
    assert [r["record"] for r in workdir.rejects(found)] == [
        r["record"] for r in workdir.rejects(same)
    ]
    again = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", address)
    assert (again["status"], again["exit_code"]) == ("already_completed", 3)


def test_killed_clients_and_restarted_servers_change_nothing(
    workdir: Workdir, postgres: PostgresServer, address: str
) -> None:
    """SIGKILL of the client, and its connections cut under it: exact rows and rejects."""
    with (workdir.path / "users.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line, _, _ in make(10_000, 0.02, 3))
    whole = postgres.new_database()
    expected = workdir.run("users.jsonl", *SCHEMA, "--to", whole)
    run = ("run", "users.jsonl", *SCHEMA, "--to", address, "--chunk-size")
    killed = workdir.call(*run, 500, BATCHIMPORT_FAILPOINTS="before-commit=kill@5")
    assert killed.code == -signal.SIGKILL
    process = workdir.start(*run, 300)
    cut = 0
    while process.poll() is None and cut < 3:
        (found,) = fetch(
            whole,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = '{conninfo_to_dict(address)['dbname']}' AND query LIKE 'COPY%'",
        )
        cut += found[0]
        time.sleep(0.01)  # noqa: TID251 - a moment of a real process
    process.kill()
    process.communicate()
    assert cut
    found = workdir.run("users.jsonl", *SCHEMA, "--to", address)
    for key in ("total_items", "successful", "failed", "rejects_by_code"):
        assert found[key] == expected[key]
    statement = "SELECT t::text FROM users t ORDER BY id"
    assert fetch(address, statement) == fetch(whole, statement)
    rejects = "SELECT record, line, byte_offset, stage, raw FROM _batchimport_rejects ORDER BY 1"
    assert fetch(address, rejects) == fetch(whole, rejects)


def test_a_table_with_constraints_receives_exactly_what_it_can_hold(
    workdir: Workdir, address: str
) -> None:
    """Every other record is in the rejects, with code, column and PostgreSQL's message."""
    execute(
        address,
        "CREATE SCHEMA app",
        "CREATE TYPE app.mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE app.teams (id int PRIMARY KEY)",
        "INSERT INTO app.teams VALUES (1), (2)",
        "CREATE TABLE app.people (key bigint GENERATED ALWAYS AS IDENTITY, id smallint UNIQUE, "
        "name varchar(5) NOT NULL, price numeric(12, 2), mood app.mood, born date, "
        "at timestamptz DEFAULT now(), host inet, ref uuid, data jsonb, tags text, "
        "team int REFERENCES app.teams, CHECK (id <> 13))",
    )
    good = {"id": 1, "name": "Zoë", "price": "12345678.91", "mood": "ok", "born": "2024-02-29"}
    good |= {"host": "10.0.0.1", "ref": "6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e", "team": 1}
    good |= {"data": {"a": [1]}, "tags": ""}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"id": 1}, "unique"),
        ({"id": 13}, "check"),
        ({"id": 40000}, "out_of_range"),
        ({"id": 3, "name": None}, "not_null"),
        ({"id": 4, "name": "too long"}, "too_long"),
        ({"id": 5, "mood": "glad"}, "type"),
        ({"id": 6, "born": "2023-02-29"}, "type"),
        ({"id": 7, "host": "nowhere"}, "type"),
        ({"id": 8, "ref": "x"}, "type"),
        ({"id": 9, "team": 99}, "foreign_key"),
        ({"id": 10, "price": "99999999999"}, "out_of_range"),
        ({"id": 11, "name": "a\0b"}, "nul_character"),
        ({"id": 12, "tags": "a\0b"}, "nul_character"),
    ]
    workdir.lines("p.jsonl", [good, *({**good, **change} for change, _ in bad), {**good, "id": 2}])
    found = workdir.run("p.jsonl", "--to", address, "--table", "app.people", "--infer-rows", "all")
    assert (found["successful"], found["failed"]) == (2, len(bad)), found
    rejects = workdir.rejects(found)
    assert [reject["errors"][0]["code"] for reject in rejects] == [code for _, code in bad]
    assert {reject["stage"] for reject in rejects} == {"store"}
    rows = fetch(address, "SELECT key, id, price, tags FROM app.people ORDER BY id")
    assert [row[1:] for row in rows] == [
        (1, Decimal("12345678.91"), ""),
        (2, Decimal("12345678.91"), ""),
    ]


def test_every_common_type_takes_its_values(workdir: Workdir, address: str) -> None:
    """Digits, arrays, bytes, times and domains arrive as they were given; what does not fit, not."""
    execute(
        address,
        "CREATE DOMAIN code AS varchar(3) CHECK (VALUE <> 'no')",
        "CREATE TABLE t (id int PRIMARY KEY, exact numeric, cents numeric(8, 2), "
        "long varchar(4), fix char(3), flag boolean, day date, at timestamp, zoned timestamptz, "
        "clock time, bytes bytea, names text[], grid int[][], code code, js json, net cidr, "
        '"What? 100%" real, span interval, made int GENERATED ALWAYS AS (id * 2) STORED)',
    )
    digits = "12345678901234567890.12345678901234567890"
    line = (
        f'{{"id": 1, "exact": {digits}, "cents": 1.10, "long": "abcd", "fix": "x", "flag": true, '
        '"day": "2024-02-29", "at": "2024-02-29T01:02:03", "zoned": "2024-02-29T01:02:03+02:00", '
        '"clock": "23:59:59.5", "bytes": "\\\\x00ff", "names": ["a\\"b", null, "", "{}", "NULL"], '
        '"grid": [[1, 2], [3, 4]], "code": "yes", "js": {"b": 1.10, "a": 1}, "net": "10.0.0.0/8", '
        '"What? 100%": 1.5, "span": "1 day"}\n'
    )
    bad = [
        ('"cents": 1.10', '"cents": 12345678', "out_of_range", "cents"),
        ('"long": "abcd"', '"long": "abcde"', "too_long", "long"),
        ('"code": "yes"', '"code": "yess"', "too_long", "code"),
        ('"code": "yes"', '"code": "no"', "check", "code"),
        ('"grid": [[1, 2], [3, 4]]', '"grid": [[1, "x"]]', "type", "grid"),
        ('"net": "10.0.0.0/8"', '"net": "10.0.0.1/8"', "type", "net"),
        ('"clock": "23:59:59.5"', '"clock": "25:00"', "type", "clock"),
    ]
    lines = [line]
    for at, (old, new, _, _) in enumerate(bad, 2):
        lines.append(line.replace('"id": 1', f'"id": {at}').replace(old, new))
    workdir.write("t.jsonl", "".join(lines))
    found = workdir.run("t.jsonl", "--to", address, "--infer-rows", "1", "--max-parallel", "1")
    rejects = [reject["errors"][0] for reject in workdir.rejects(found)]
    assert [(one["code"], one["field"]) for one in rejects] == [(c, f) for _, _, c, f in bad]
    row = (
        f'(1,{digits},1.10,abcd,"x  ",t,2024-02-29,"2024-02-29 01:02:03",'
        '"2024-02-28 23:02:03+00",23:59:59.5,"\\\\x00ff",'
        '"{""a\\\\""b"",NULL,"""",""{}"",""NULL""}","{{1,2},{3,4}}",yes,'
        '"{""b"": 1.10, ""a"": 1}",10.0.0.0/8,1.5,"1 day",2)'
    )
    shown = fetch(address + "&options=-c%20timezone%3DUTC", "SELECT t::text FROM t")
    assert shown == [(row,)]


def test_constraints_that_wait_and_triggers_that_refuse(workdir: Workdir, address: str) -> None:
    """A deferred foreign key and a trigger's own exception reject their record alone."""
    execute(
        address,
        "CREATE TABLE p (id int PRIMARY KEY)",
        "INSERT INTO p VALUES (1)",
        "CREATE TABLE c (id int, p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.id = 13 THEN RAISE 'unlucky'; END IF; RETURN new; END $$",
        "CREATE TRIGGER no BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION no()",
    )
    workdir.lines("c.jsonl", [{"id": 1, "p": 1}, {"id": 2, "p": 2}, {"id": 13}, {"id": 4}])
    found = workdir.run("c.jsonl", "--to", address)
    assert found["rejects_by_code"] == {"foreign_key": 1, "trigger": 1}
    assert fetch(address, "SELECT id FROM c ORDER BY id") == [(1,), (4,)]


def test_the_ledger_may_live_elsewhere(workdir: Workdir, address: str) -> None:
    """In a schema that is made for it; jobs are found there again, and nothing is beside the table."""
    workdir.lines("u.jsonl", [{"id": 1}, {"id": "x"}])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--to", address, "--ledger-schema", "import log"]
    found = workdir.run("u.jsonl", *options)
    assert (found["successful"], found["failed"]) == (1, 1)
    assert workdir.run("u.jsonl", *options)["status"] == "already_completed"
    assert workdir.call("rejects", found["job_id"], "--raw").out == '{"id": "x"}\n'
    tables = (
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^pg_|^info' ORDER BY 2"
    )
    assert [schema for schema, _ in fetch(address, tables)] == ["import log"] * 3 + ["public"]


def test_a_role_without_rights_is_told_what_to_do(workdir: Workdir, address: str) -> None:
    """One line with a hint; nothing is written."""
    execute(
        address,
        "CREATE ROLE reader LOGIN PASSWORD 'x'",
        "CREATE TABLE u (id bigint)",
        "GRANT SELECT ON u TO reader",
    )
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", "--to", address.replace("postgres:@", "reader@"))
    assert ended.code == 1
    assert "permission denied for schema public" in ended.err
    assert "--ledger-schema" in ended.err


def test_a_chunk_of_bad_rows_is_linear(workdir: Workdir, address: str) -> None:
    """Ten thousand rows that all break a check are ten thousand rejects."""
    execute(address, "CREATE TABLE n (id bigint CHECK (id < 0))")
    workdir.lines("n.jsonl", [{"id": at} for at in range(10_000)])
    found = workdir.run("n.jsonl", "--to", address, "--chunk-size", 10_000)
    assert (found["successful"], found["failed"]) == (0, 10_000)
    assert found["chunks"]["bisected"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.replace("/test", "/nosuch"), "does not exist"),
        (lambda a: a.replace("host=", "host=/nowhere"), "cannot connect"),
        (lambda a: a.replace("postgres:", f"nobody:{PASSWORD}"), "nobody"),
        (lambda a: f"postgresql://u:{PASSWORD}@localhost:1/x", "cannot connect"),
        (lambda a: f"postgresql://localhost:1/x?password={PASSWORD}", "cannot connect"),
        (
            lambda a: f"postgresql://u:{PASSWORD}@localhost:bad/x",
            "not an address that libpq understands",
        ),
    ],
)
def test_a_place_that_is_none_is_one_line(
    workdir: Workdir, address: str, change: Any, words: str
) -> None:
    """What to fix; nothing is written, the password appears nowhere."""
    workdir.lines("u.jsonl", [{"id": 1}])
    command = ("run", "u.jsonl", "--json", "--verbose", "--destination-wait", 0)
    ended = workdir.call(*command, "--to", change(address))
    assert ended.code in (1, 2), ended
    assert words in ended.err
    seen = ended.out + ended.err
    for path in workdir.path.rglob("*"):
        seen += str(path) + (path.read_text(errors="replace") if path.is_file() else "")
    assert PASSWORD not in seen


def test_the_password_appears_nowhere(workdir: Workdir, address: str) -> None:
    """Not in output, state, or ledger; `resume` takes the address from the environment."""
    secret = address.replace("postgres:@", f"postgres:{PASSWORD}@")
    workdir.lines("u.jsonl", [{"id": at if at != 700 else "x"} for at in range(1000)])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--to", secret, "--chunk-size", "10", "--max-parallel", "1"]
    stopped = workdir.call("run", "u.jsonl", *options, "--max-errors", "0", "--json", "--verbose")
    assert stopped.code == 4
    job = stopped.summary["job_id"]
    ended = workdir.call("resume", job, "--max-errors", "9", "--json", BATCHIMPORT_TO=secret)
    assert ended.summary["status"] == "completed_with_rejects"
    seen = stopped.out + stopped.err + ended.out + ended.err
    for path in workdir.path.rglob("*.json*"):
        seen += path.read_text()
    for table in ("jobs", "chunks", "rejects"):
        seen += str(fetch(address, f"SELECT * FROM _batchimport_{table}"))
    assert PASSWORD not in seen


def test_a_table_that_others_refer_to(workdir: Workdir, address: str) -> None:
    """It cannot be emptied first; the way out is named, and works."""
    execute(
        address,
        "CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (1), (2);"
        "CREATE TABLE pets (owner integer REFERENCES users); INSERT INTO pets VALUES (1)",
    )
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 3}])
    words = ("run", "users.jsonl", "--to", address, "--if-exists", "truncate", "--quiet")
    ended = workdir.call(*words)
    assert (ended.code, "--atomic" in ended.err) == (2, True), ended.err
    assert workdir.call(*words, "--atomic").code == 0
    assert fetch(address, "SELECT id FROM users ORDER BY id") == [(1,), (3,)]
