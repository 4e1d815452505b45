"""`--atomic`, `--before-sql` and `--after-sql`: all of it once, or nothing of it, whatever is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.sinks import open_sink
from tests.faults.sweep import KILLED
from tests.helpers.cli import Ended
from tests.helpers.destinations import Destination, make_destination
from tests.helpers.forked import call
from tests.helpers.postgres import fetch

KINDS = ("sqlite", "postgresql", "duckdb")
POINTS = ("after-table", "after-claim", "after-commit", "before-finish", "after-publishing",
          "after-sql", "after-finish")  # fmt: skip
RECORDS = 60
Rows = list[tuple[Any, ...]]


class Place:
    """A destination with a table of the user's own, which others look at and refer to."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder = kind, folder
        server = lambda: request.getfixturevalue("postgres")  # noqa: E731 - only when it is needed
        self.destination: Destination = make_destination(kind, folder, server)
        lines = [json.dumps({"id": at, "name": f"n{at}"}) for at in range(RECORDS)]
        (folder / "users.jsonl").write_text("\n".join(lines) + "\n")

    def sql(self, *statements: str) -> None:
        sink: Any = open_sink(self.destination.address)
        for statement in statements:
            sink.run(statement)
        sink.close()

    def ask(self, query: str) -> Rows:
        sink: Any = open_sink(self.destination.address)
        try:
            return list(sink.rows(query))
        finally:
            sink.close()

    def run(self, *more: object, failpoints: str = "") -> Ended:
        words = ["run", "users.jsonl", "--to", self.destination.address, "--chunk-size", 20]
        return call(self.folder, *words, "--quiet", *more, failpoints=failpoints)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A table `users` with a view, an index, and, but in DuckDB, a child."""
    made = Place(request.param, tmp_path, request)
    made.sql(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE)",
        "CREATE INDEX by_name ON users (name, id)",
        "CREATE VIEW seen AS SELECT id, name FROM users",
        "INSERT INTO users VALUES (1, 'old one'), (2, 'old two'), (1000, 'gone')",
        "CREATE TABLE log (what VARCHAR(9))",
    )
    if made.kind != "duckdb":
        made.sql(
            "CREATE TABLE pets (owner INTEGER REFERENCES users (id) ON DELETE CASCADE)",
            "INSERT INTO pets VALUES (1), (1000)",
        )
    if made.kind == "postgresql":
        made.sql("GRANT SELECT ON users TO PUBLIC")
    return made


OPTIONS = ("--atomic", "--if-exists", "replace", "--key", "id",
           "--before-sql", "INSERT INTO log VALUES ('before')",
           "--after-sql", "INSERT INTO log VALUES ('after'); DELETE FROM users WHERE id = 59")  # fmt: skip
OLD = [(1, "old one"), (2, "old two"), (1000, "gone")]


def test_killed_at_every_point(place: Place) -> None:
    """Old rows until the end, then all new ones; the statements once; and all that hangs on the table."""
    for point in POINTS:
        ended = place.run(*OPTIONS, failpoints=f"{point}=kill")
        assert ended.code == KILLED, (point, ended.err)
        if point != "after-finish":
            assert place.ask("SELECT id, name FROM seen ORDER BY id") == OLD, point
            assert place.ask("SELECT count(*) FROM log") == [(point != "after-table",)], point
    for _ in range(2):
        ended = place.run(*OPTIONS)
        assert ended.code == 0, ended.err
    new = [(at, f"n{at}") for at in range(RECORDS - 1)]
    assert place.ask("SELECT id, name FROM seen ORDER BY id") == new
    assert place.ask("SELECT what FROM log ORDER BY what") == [("after",), ("before",)]
    left = place.ask("SELECT count(*) FROM users WHERE name = 'n3'")
    assert left == [(1,)]
    if place.kind != "duckdb":
        assert place.ask("SELECT owner FROM pets") == [(1,)], "who is still there keeps its pet"
    if place.kind == "postgresql":
        grants = "SELECT 1 FROM information_schema.role_table_grants WHERE table_name = 'users' "
        assert fetch(place.destination.address, grants + "AND grantee = 'PUBLIC'") == [(1,)]
        tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE '\\_batchimport\\_new%'"
        assert place.ask(tables) == [(0,)]


def test_rejects_above_the_limit_leave_the_old_rows(place: Place) -> None:
    """The table's own constraints judge the new rows; a restart begins anew."""
    with (place.folder / "users.jsonl").open("a") as file:
        file.write('{"id": 3, "name": "twice"}\n{"id": 99, "name": "n4"}\n{"id": 98}\n')
    ended = place.run(*OPTIONS, "--max-errors", 1)
    assert ended.code == 4
    assert place.ask("SELECT id, name FROM seen ORDER BY id") == OLD
    assert place.run(*OPTIONS, "--restart", "--max-errors", 3).code == 3
    assert place.ask("SELECT count(*) FROM users") == [(RECORDS - 1,)]


@pytest.mark.parametrize("place", ["sqlite", "postgresql", "duckdb"], indirect=True)
def test_other_columns_take_the_place_of_the_table(place: Place) -> None:
    """With `replace` the table gets the columns of the records, as without `--atomic`."""
    place.sql("CREATE TABLE plain (id INTEGER, other INTEGER)", "INSERT INTO plain VALUES (7, 7)")
    words = ("--table", "plain", "--atomic", "--if-exists", "replace")
    for point in ("before-finish", "after-publishing"):
        assert place.run(*words, failpoints=f"{point}=kill").code == KILLED
        assert place.ask("SELECT * FROM plain") == [(7, 7)]
    assert place.run(*words).code == 0
    assert len(place.ask("SELECT id, name FROM plain")) == RECORDS
    assert place.run("--table", "fresh", "--atomic", "--if-exists", "fail").code == 0
    assert len(place.ask("SELECT id, name FROM fresh")) == RECORDS


def test_a_statement_that_fails_can_be_mended(place: Place) -> None:
    """The job is not completed until it is; which statement it was is said."""
    words = ("--table", "mine", "--after-sql")
    ended = place.run(*words, "INSERT INTO log VALUES ('x'); SELECT * FROM nothing")
    assert ended.code == 1
    assert "--after-sql: statement 2 of 2 failed (SELECT * FROM nothing)" in ended.err
    assert place.ask("SELECT count(*) FROM log") == [(0,)]
    (place.folder / "after.sql").write_text("INSERT INTO log\n  VALUES ('x');\n")
    assert place.run(*words, "@after.sql").code == 0
    assert place.run(*words, "@after.sql").code == 0, "it is completed"
    assert place.ask("SELECT count(*) FROM log") == [(1,)]
    ended = place.run("--table", "new", "--before-sql", "INSERT INTO log VALUES ('y'); nonsense")
    assert ended.code == 1
    assert place.ask("SELECT count(*) FROM log") == [(1,)]


def test_the_table_may_be_made_before(place: Place) -> None:
    """Its types are seen when the records are looked at: a text stays as it is written."""
    (place.folder / "users.jsonl").write_text("id,name\n1,1.10\n")
    ddl = "CREATE TABLE made (id INTEGER, name VARCHAR(9))"
    ended = place.run("--format", "csv", "--table", "made", "--before-sql", ddl)
    assert ended.code == 0, ended.err
    assert place.ask("SELECT name FROM made") == [("1.10",)]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
def test_indexes_are_there_again(place: Place) -> None:
    """Killed at every point, and begun again; a unique one always judges the rows."""
    indexes = {
        "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'users'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'users'",
    }[place.kind]
    before = sorted(place.ask(indexes))
    (name,) = [name for (name,) in before if name == "by_name"]
    place.sql("DROP TABLE pets", "DELETE FROM users")
    words = ("--defer-indexes", "--if-exists", "truncate")
    points = ("after-table", "after-commit", "before-finish", "after-finish")
    for point in points:
        assert place.run(*words, failpoints=f"{point}=kill").code == KILLED, point
        is_whole = point in ("after-table", "after-finish")
        assert ((name,) in place.ask(indexes)) == is_whole, point
        assert len(place.ask(indexes)) == len(before) - (not is_whole)
    assert sorted(place.ask(indexes)) == before
    assert place.run(*words, "--restart", failpoints="after-commit=kill").code == KILLED
    assert place.run("--if-exists", "truncate", "--restart").code == 0
    assert sorted(place.ask(indexes)) == before


@pytest.mark.parametrize("place", ["duckdb"], indirect=True)
def test_duckdb_defers_no_index(place: Place) -> None:
    """Said, and nothing is changed."""
    ended = place.run("--defer-indexes")
    assert ended.code == 2
    assert "--defer-indexes: DuckDB" in ended.err
    assert len(place.ask("SELECT * FROM users")) == 3


def test_a_dataset_is_exchanged(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Parquet: the old files until all new ones are there, whatever is killed; files of others stay."""
    place = Place("parquet", tmp_path, request)
    folder = tmp_path / "users"
    users = place.folder / "users.jsonl"
    lines = users.read_text()
    users.write_text('{"id": 1000, "name": "old"}\n')
    to = ("--to", f"parquet:///{folder}", "--table", "users")
    assert place.run(*to).code == 0
    (folder / "README").write_text("not ours")
    old = pl.read_parquet(f"{folder}/*.parquet").rows()
    users.write_text(lines)
    words = (*to, "--atomic", "--if-exists", "replace")
    for point in (
        "after-table",
        "after-claim",
        "after-commit",
        "before-finish",
        "after-publishing",
    ):
        assert place.run(*words, failpoints=f"{point}=kill").code == KILLED, point
        found = pl.read_parquet(f"{folder}/*.parquet").sort("id").rows()
        assert (found == old) == (point != "after-publishing"), point
        assert len(found) in (1, RECORDS), point
    for status in ("completed", "already_completed"):
        ended = place.run(*words, "--json")
        assert (ended.code, json.loads(ended.out)["status"]) == (0, status), ended.err
    assert len(pl.read_parquet(f"{folder}/*.parquet")) == RECORDS
    assert (folder / "README").read_text() == "not ours"
    assert [path.name for path in tmp_path.glob(".users*")] == []
    assert place.run(*words, "--restart", failpoints="after-commit=kill").code == KILLED
    assert len(pl.read_parquet(f"{folder}/*.parquet")) == RECORDS
    assert place.run(*words, "--restart").code == 0
    assert len(pl.read_parquet(f"{folder}/*.parquet")) == RECORDS
    assert place.run(*to, "--atomic", "--if-exists", "fail", "--limit", 3).code == 2


def test_parquet_has_no_statements(tmp_path: Path) -> None:
    """Said before anything is read or made."""
    (tmp_path / "users.jsonl").write_text('{"id": 1}\n')
    for words in (["--after-sql", "SELECT 1"], ["--analyze"]):
        ended = call(tmp_path, "run", "users.jsonl", "--to", "parquet:///out", *words)
        assert ended.code == 2
        assert words[0] in ended.err


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "parquet"])
def test_replayed_before_it_is_finished(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The old rows stay until the job is resumed and completed; then what was mended is among the new."""
    place = Place(kind, tmp_path, request)
    assert place.run().code == 0
    (tmp_path / "users.jsonl").write_text(
        "".join(f'{{"id": {at if at % 9 else chr(34) * 2}}}\n' for at in range(RECORDS))
    )
    (tmp_path / "s.json").write_text('{"properties": {"id": {"type": "integer"}}}')
    words = ("--atomic", "--if-exists", "replace", "--schema", "s.json", "--job-id", "new-1",
             "--max-parallel", 1)  # fmt: skip
    assert place.run(*words, failpoints="before-commit=kill@3").code == KILLED
    lines = [json.dumps({"record": at, "raw": {"id": at}}) for at in (9, 27)]
    (tmp_path / "edited.jsonl").write_text("\n".join(lines))
    replay = ("replay", "new-1", "--from", "edited.jsonl", "--json", "--quiet")
    summary = call(tmp_path, *replay).summary
    assert (summary["status"], summary["failed"]) == ("interrupted", 3)
    assert "n5" in [row[1] for row in place.destination.rows("users")], "the old rows"
    ended = place.run(*words, "--json")
    assert (ended.code, ended.summary["successful"], ended.summary["failed"]) == (3, 55, 5)
    stored = [at for at in range(RECORDS) if at % 9 or at in (9, 27)]
    assert sorted(row[0] for row in place.destination.rows("users")) == stored
