"""PostgreSQL from the command line: the same rows and rejects as everywhere, whatever is killed."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

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
    """SIGKILL of the client, its connections cut under it, and again: exact rows and rejects."""
    with (workdir.path / "users.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line, _, _ in make(40_000, 0.02, 3))
    whole = postgres.new_database()
    expected = workdir.run("users.jsonl", *SCHEMA, "--to", whole)
    for size, moment in ((500, 0.9), (3000, 1.2), (1000, 1.0)):
        process = workdir.start(
            "run", "users.jsonl", *SCHEMA, "--to", address, "--chunk-size", size
        )
        deadline = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)  # noqa: TID251 - a moment of a real process
            if size == 1000:
                execute(
                    whole,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'batchimport' AND query LIKE 'COPY%'",
                )
        process.kill()
        process.communicate()
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
        (lambda a: f"postgresql://u:{PASSWORD}@localhost:bad/x", "port"),
    ],
)
def test_a_place_that_is_none_is_one_line(
    workdir: Workdir, address: str, change: Any, words: str
) -> None:
    """What to fix; nothing is written, the password appears nowhere."""
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", "--json", "--verbose", "--to", change(address))
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
