"""DuckDB from the command line: the same rows and rejects as everywhere, whatever is killed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.helpers.cli import ROOT, SAMPLE, Workdir
from tests.helpers.tables import query

SCHEMA = ["--schema", str(SAMPLE / "users.schema.json"), "--key", "id"]


def fetch(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(duckdb.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_the_sample_is_what_sqlite_gets(workdir: Workdir) -> None:
    """Rows, counts and rejects; dates, uuids and JSON in types of their own; a rerun is a no-op."""
    to = ["--to", "duckdb:///users.duckdb"]
    found = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, *to)
    same = workdir.run(SAMPLE / "users.jsonl", *SCHEMA)
    for key in ("status", "successful", "failed", "rejects_by_code", "exit_code", "delivery"):
        assert found[key] == same[key]
    columns = (
        "id, email, name, age, score, CAST(active AS INTEGER), plan, CAST(signup_date AS TEXT), "
        "CAST(external_id AS TEXT), phone, CAST(address AS TEXT), CAST(tags AS TEXT)"
    )
    statement = f"SELECT {columns} FROM users ORDER BY id"
    path = workdir.path / "users.duckdb"
    assert fetch(path, statement) == query(workdir.path / "users.db", statement)
    types = dict(fetch(path, "SELECT column_name, column_type FROM (DESCRIBE users)"))
    assert types["created_at"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["signup_date"], types["external_id"]) == ("DATE", "UUID")
    assert (types["address"], types["id"]) == ("JSON", "BIGINT")
    assert [r["record"] for r in workdir.rejects(found)] == [
        r["record"] for r in workdir.rejects(same)
    ]
    again = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, *to)
    assert (again["status"], again["exit_code"]) == ("already_completed", 3)


def test_duckdb_shares_the_memory_limit(workdir: Workdir) -> None:
    """It would fill 80 % of the machine with blocks that it has written, whatever was said."""
    limits = []
    for number, said in enumerate([[], ["--max-memory", "1GB"]]):
        statement = "CREATE TABLE memory AS SELECT current_setting('memory_limit') AS allowed"
        options = ["--to", f"duckdb:///{number}.duckdb", "--before-sql", statement, *said]
        workdir.run(SAMPLE / "users.jsonl", *SCHEMA, *options)
        limits += fetch(workdir.path / f"{number}.duckdb", "SELECT allowed FROM memory")
    assert limits[1] == ("476.8 MiB",)  # half of 10⁹ bytes
    assert limits[0] != limits[1]


def test_a_table_with_constraints_receives_exactly_what_it_can_hold(workdir: Workdir) -> None:
    """Every other record is in the rejects, with code, column and DuckDB's words."""
    path = workdir.path / "p.duckdb"
    for statement in (
        "CREATE SCHEMA app",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE app.teams (id int PRIMARY KEY)",
        "INSERT INTO app.teams VALUES (1), (2)",
        "CREATE SEQUENCE app.keys",
        (
            "CREATE TABLE app.people (key bigint DEFAULT nextval('app.keys'), id smallint UNIQUE, "
            "name varchar NOT NULL CHECK (length(name) < 6), price decimal(12, 2), mood mood, "
            "born date, made timestamptz, n int, ref uuid, data json, tags varchar[], "
            "team int REFERENCES app.teams, twice int GENERATED ALWAYS AS (id * 2), "
            "address struct(zip varchar, no int), CHECK (id <> 13))"
        ),
        "CREATE UNIQUE INDEX names ON app.people (lower(name), n)",
    ):
        fetch(path, statement)
    good = {"id": 1, "name": "Zoë", "price": "12345678.91", "mood": "ok", "born": "2024-02-29"}
    good |= {"made": "2024-02-29t10:00:00+02:00", "n": "7", "data": {"a": [1.10]}, "team": 1}
    good |= {"ref": "6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e", "tags": ["a", "ü"]}
    good |= {"address": {"zip": "07", "no": 1}}
    bad: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({"id": 1, "name": "b"}, [("unique", "id")]),
        ({"id": 20, "name": "ZOË"}, [("unique", '(lower("name")), n')]),
        ({"id": 13, "name": "c"}, [("check", "")]),
        ({"id": 40000}, [("type", "id")]),
        ({"id": 3, "name": None, "team": 99}, [("not_null", "name"), ("foreign_key", "team")]),
        ({"id": 4, "name": "too long"}, [("check", "")]),
        ({"id": 5, "mood": "glad", "born": "2023-02-29"}, [("type", "mood"), ("type", "born")]),
        ({"id": 6, "n": "1.5"}, [("type", "n")]),
        ({"id": 7, "ref": "x"}, [("type", "ref")]),
        ({"id": 8, "price": "99999999999"}, [("type", "price")]),
        ({"id": 9, "address": {"zip": "1", "no": "x"}}, [("type", "address")]),
    ]
    records = [good, *({**good, **change} for change, _ in bad), {**good, "id": 2, "name": "d"}]
    workdir.lines("p.jsonl", records)
    kinds = {name: {"type": "string"} for name in ("price", "mood", "born", "made", "n", "ref")}
    kinds["made"]["format"] = "date-time"
    kinds |= {"id": {"type": "integer"}, "name": {"type": ["string", "null"]}}
    kinds |= {"team": {"type": "integer"}, "tags": {}, "data": {}, "address": {}}
    workdir.lines("s.json", [{"properties": kinds}])
    options = ["--to", f"duckdb:///{path}", "--table", "app.people", "--schema", "s.json"]
    found = workdir.run("p.jsonl", *options)
    rejects = workdir.rejects(found)
    codes = [[(e["code"], e["field"]) for e in reject["errors"]] for reject in rejects]
    assert codes == [code for _, code in bad]
    assert {reject["stage"] for reject in rejects} == {"store"}
    rows = fetch(path, "SELECT id, twice, CAST(data AS TEXT), tags, address.no FROM app.people")
    assert rows == [(at, 2 * at, '{"a": [1.1]}', ["a", "ü"], 1) for at in (1, 2)]


def test_a_chunk_of_bad_rows_is_linear(workdir: Workdir) -> None:
    """Thousands of rows that all break a check, or a type, are thousands of rejects."""
    path = workdir.path / "n.duckdb"
    fetch(path, "CREATE TABLE n (id bigint CHECK (id < 0), day date)")
    workdir.lines("n.jsonl", [{"id": at, "day": "x"} for at in range(10_000)])
    found = workdir.run("n.jsonl", "--to", f"duckdb:///{path}", "--chunk-size", 10_000)
    assert (found["successful"], found["failed"]) == (0, 10_000)
    assert found["chunks"]["bisected"] == 1


def test_an_open_database_is_refused(workdir: Workdir) -> None:
    """Exit 6, with who has the file open, once `--destination-wait` is over."""
    path = workdir.path / "u.duckdb"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "open\n"
    workdir.lines("u.jsonl", [{"id": 1}])
    run = ("run", "u.jsonl", "--to", "duckdb:///u.duckdb", "--json")
    ended = workdir.call(*run, "--destination-wait", "0")
    holder.communicate("\n")
    assert (ended.code, ended.summary["status"]) == (6, "refused")
    assert f"PID {holder.pid}" in ended.err
    assert workdir.run("u.jsonl", "--to", "duckdb:///u.duckdb")["status"] == "completed"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("duckdb://u.duckdb", "three slashes"),
        ("duckdb:///", "three slashes"),
        ("duckdb:///nosuch/u.duckdb", "directory does not exist"),
        ("duckdb:////", "is a directory"),
        ("duckdb:////dev/null", "is not a file"),
        ("duckdb:///u.db?access_mode=read_only", "no parameters"),
        ("duckdb:///u.jsonl", "not a DuckDB database"),
    ],
)
def test_a_place_that_is_none_is_one_line(workdir: Workdir, address: str, words: str) -> None:
    """What to fix, exit 2; nothing is written."""
    source = workdir.lines("u.jsonl", [{"id": 1, "text": "x" * 9000}])
    before = source.read_bytes()
    ended = workdir.call("run", "u.jsonl", "--to", address, "--json")
    assert ended.code == 2, ended
    assert words in ended.err
    assert source.read_bytes() == before


def test_a_missing_driver_names_its_extra(workdir: Workdir) -> None:
    """Exit 2 and the command to type."""
    workdir.lines("u.jsonl", [{"id": 1}])
    workdir.write(
        "sitecustomize.py",
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'duckdb': raise ModuleNotFoundError('no duckdb', name='duckdb')\n"
        "sys.meta_path.insert(0, Hide())\n",
    )
    ended = workdir.spawn(
        "run", "u.jsonl", "--to", "duckdb:///u.duckdb", PYTHONPATH=f"{workdir.path}:{ROOT}"
    )
    assert ended.code == 2
    assert "pip install 'batchimport[duckdb]'" in ended.err
