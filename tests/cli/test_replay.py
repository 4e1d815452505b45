"""Rejects until there are none: shown, edited, and replayed in the same job."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.helpers.cli import Ended, Workdir
from tests.helpers.destinations import SqliteFile, make_destination
from tests.helpers.forked import call

SCHEMA = {
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"], "minimum": 0},
    }
}
AGES: list[Any] = [3, "x", 5, -1, None, "y"]
RECORDS = [{"id": at, "name": f"n;{at}", "age": age} for at, age in enumerate(AGES)]
BAD = [1, 3, 5]


class Job:
    """A job in a directory, and its commands, each in a process of its own."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        self.place = SqliteFile(f"sqlite:///{workdir.path / 'users.db'}")
        workdir.write("schema.json", json.dumps(SCHEMA))

    def run(self, *sources: str, more: Sequence[object] = ()) -> Ended:
        words = ("--schema", "schema.json", "--to", self.place.address, "--table", "users")
        return self.call("run", *sources, *words, "--job-id", "users-1", "--json", *more)

    def replay(self, *more: object) -> dict[str, Any]:
        ended = self.call("replay", "users-1", "--to", self.place.address, "--json", *more)
        return {**ended.summary, "exit_code": ended.code}

    def rejects(self, *more: object) -> str:
        return self.call("rejects", "users-1", "--to", self.place.address, *more).out

    def call(self, *words: object) -> Ended:
        return call(self.workdir.path, *words, *(("--quiet",) if words[0] != "rejects" else ()))

    def correct(self, raws: dict[int, Any], name: str = "edited.jsonl") -> None:
        """Edit records of the rejects file; leave the other lines out."""
        known = map(json.loads, self.rejects("--json").splitlines())
        lines = [{**each, "raw": raws[each["record"]]} for each in known if each["record"] in raws]
        self.workdir.lines(name, lines)

    def rows(self) -> list[Any]:
        return sorted(self.place.fetch("SELECT id, name, age FROM users"))


@pytest.fixture
def job(workdir: Workdir) -> Job:
    return Job(workdir)


def as_lines(records: list[Any]) -> list[str]:
    return [json.dumps(record) for record in records]


def write(job: Job, kind: str, records: list[Any]) -> tuple[str, list[str]]:
    """Write records as a file; return its name and each record as `raw` has it."""
    if kind in ("csv", "tsv"):
        end = ";" if kind == "csv" else "\t"
        rows = [
            end.join(
                f'"{v}"' if v == f"n;{at}" else str("" if v is None else v) for v in r.values()
            )
            for at, r in enumerate(records)
        ]
        name = f"users.{kind}"
        job.workdir.write(name, "\r\n".join([end.join(records[0]), *rows, ""]))
        return name, rows
    if kind == "json":
        job.workdir.write("users.json", json.dumps(records, indent=1))
    elif kind == "jsonl":
        job.workdir.lines("users.jsonl", records)
    else:
        frame = pl.DataFrame({name: [str(r[name]) for r in records] for name in records[0]})
        frame.with_columns(pl.col("id").cast(pl.Int64)).write_parquet(
            job.workdir.path / "users.parquet"
        )
    return f"users.{kind}", as_lines(records)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_edited_records_come_home(job: Job, kind: str) -> None:
    """In the form of their source: stored, given up, refused again or left, whatever the format."""
    name, _ = write(job, kind, RECORDS)
    bad = list(range(6)) if kind == "parquet" else BAD  # ages are strings there
    assert job.run(name).summary["failed"] == len(bad)
    _, fixed = write(job, kind, [{**each, "age": 7} for each in RECORDS])
    (job.workdir.path / name).unlink()  # it is not needed any more
    _, worse = write(job, kind, [{**each, "age": "z"} for each in RECORDS])
    job.correct({1: fixed[1], 3: None, 5: worse[5]})
    summary = job.replay("--from", "edited.jsonl")
    assert summary["this_run"] == {"processed": 3, "successful": 1, "failed": 1, "filtered": 1}
    assert (summary["exit_code"], summary["failed"], summary["filtered"]) == (3, len(bad) - 2, 1)
    assert (1, "n;1", 7) in job.rows()
    (again,) = [
        each for each in map(json.loads, job.rejects("--json").splitlines()) if each["record"] == 5
    ]
    assert again["errors"][0]["value"] == "z"
    assert again["source"] == name
    repeated = job.replay("--from", "edited.jsonl")
    assert repeated["this_run"]["processed"] == 1, "only what is a reject still"
    job.correct({at: fixed[at] for at in bad if at not in (1, 3)}, f"rejects-{kind}.jsonl")
    done = job.replay("--from", f"rejects-{kind}.jsonl")
    assert (done["exit_code"], done["status"], done["rejects_file"]) == (0, "completed", None)
    assert [row[0] for row in job.rows()] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("--where", "minimum"), 2),
        (("--where", "code=type", "--where", "field=age"), 1),
        (("--where", "stage=store"), 3),
        ((), 0),
    ],
)
def test_a_better_schema_for_those_that_are_meant(job: Job, words: Any, left: int) -> None:
    """Only for them; the job keeps its own schema, and the same command finds it completed."""
    write(job, "jsonl", RECORDS)
    job.run("users.jsonl")
    job.workdir.write(
        "better.json", json.dumps({"properties": {**SCHEMA["properties"], "age": {}}})
    )
    summary = job.replay(
        "--sql", "SELECT id, name, 1 AS age FROM records", "--schema", "better.json", *words
    )
    assert (summary["failed"], summary["exit_code"]) == (left, 3 if left else 0)
    ended = job.run("users.jsonl")
    assert (ended.code, ended.summary["status"]) == (3 if left else 0, "already_completed")
    assert ended.summary["successful"] == len(job.rows()) == 6 - left


def test_a_cause_that_went_away(job: Job) -> None:
    """A reject of stage store passes without an edit once its parent row is there."""
    for statement in (
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "INSERT INTO parents VALUES (1)",
        "CREATE TABLE users (id INTEGER, name TEXT, age INTEGER REFERENCES parents)",
    ):
        job.place.execute(statement)
    job.workdir.lines(
        "users.jsonl", [{"id": 1, "name": "a", "age": 1}, {"id": 2, "name": "b", "age": 2}]
    )
    assert job.run("users.jsonl").summary["rejects_by_code"] == {"foreign_key": 1}
    assert job.replay()["failed"] == 1
    job.place.execute("INSERT INTO parents VALUES (2)")
    dry = job.replay("--dry-run")
    assert (dry["failed"], len(job.rows())) == (0, 1)
    assert job.replay()["exit_code"] == 0
    assert job.rows() == [(1, "a", 1), (2, "b", 2)]


@pytest.mark.parametrize(
    ("kind", "size"), [("sqlite", 2), ("sqlite", 9), ("postgresql", 9), ("duckdb", 9)]
)
def test_the_last_record_of_a_key_keeps_the_last_word(
    kind: str, size: int, workdir: Workdir, request: pytest.FixtureRequest
) -> None:
    """Of those that update a row, also where an earlier one comes home after it."""
    place = make_destination(kind, workdir.path, lambda: request.getfixturevalue("postgres"))
    workdir.write("schema.json", json.dumps(SCHEMA))
    given = [(7, "x"), (1, "x"), (1, 5), (2, 3), (2, "x"), (2, "x"), (3, "x"), (3, 4)]
    workdir.lines("users.jsonl", [{"id": key, "age": age} for key, age in given])
    words = ("--schema", "schema.json", "--to", place.address, "--table", "users", "--quiet")
    upsert = ("--key", "id", "--on-conflict", "update", "--chunk-size", size)
    call(workdir.path, "run", "users.jsonl", *words, *upsert, "--job-id", "users-1")
    bad = [{"record": at, "raw": {"id": given[at][0], "age": 10 + at}} for at in (0, 1, 4, 5, 6)]
    for part in (bad[::2], bad[1::2]):
        workdir.lines("edited.jsonl", part)
        ended = call(
            workdir.path,
            *("replay", "users-1", "--to", place.address, "--from", "edited.jsonl", "--json"),
        )
    assert ended.code == 0
    ages = {row[0]: row[-1] for row in place.rows("users")}
    assert ages == {7: 10, 1: 5, 2: 15, 3: 4}


def test_raw_is_a_file_of_the_same_form(job: Job) -> None:
    """With header, dialect and line ends: edited and imported like any file, it reads right."""
    write(job, "csv", RECORDS)
    job.run("users.csv")
    raw = job.rejects("--raw")
    assert raw.splitlines() == ["id;name;age", '1;"n;1";x', '3;"n;3";-1', '5;"n;5";y']
    assert job.rejects("--raw", "--code", "minimum").splitlines()[1:] == ['3;"n;3";-1']
    job.workdir.write("mended.csv", raw.replace("x", "1").replace("-1", "3").replace("y", "5"))
    words = ("--to", job.place.address, "--table", "users", "--schema", "schema.json", "--json")
    assert job.call("run", "mended.csv", *words).summary["successful"] == 3
    assert [row[:2] for row in job.rows()] == [(at, f"n;{at}") for at in range(6)]


def test_filters_hold_for_every_output(job: Job) -> None:
    """Code, field, stage and limit together; the summary counts what is meant."""
    write(job, "jsonl", RECORDS)
    job.run("users.jsonl")
    found = job.rejects("--json", "--field", "age", "--code", "type", "--limit", 1)
    assert [json.loads(line)["record"] for line in found.splitlines()] == [1]
    assert json.loads(job.rejects("--summary", "--json", "--stage", "validate")) == {
        "age": {"minimum": 1, "type": 2}
    }
    assert "2  age  type" in job.rejects("--summary")
    assert job.rejects("--raw", "--field", "name") == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"record": 1}', "neither raw nor raw_base64"),
        ('{"record": 1, "raw": 5}', "line 2"),
        ("{", "line 2"),
        ('{"record": 1, "raw": "{}", "source": "other.jsonl", "byte_offset": 3}', "of another job"),
    ],
)
def test_a_line_that_cannot_be_meant(job: Job, line: str, words: str) -> None:
    """Is refused by its number before anything is changed."""
    write(job, "jsonl", RECORDS)
    job.run("users.jsonl")
    job.workdir.write("edited.jsonl", '{"record": 3, "raw": "{\\"id\\": 3}"}\n' + line + "\n")
    ended = job.call("replay", "users-1", "--to", job.place.address, "--from", "edited.jsonl")
    assert (ended.code, len(job.rows())) == (2, 3)
    assert "line 2" in ended.err
    assert words in ended.err


def test_an_edit_cannot_change_its_neighbours(job: Job) -> None:
    """A quote that is not closed, or a second row in one, costs that record alone."""
    write(job, "csv", RECORDS)
    job.run("users.csv")
    job.correct({1: '1;"open', 3: "3;a;3\n9;b;9", 5: "5;c;5"})
    summary = job.replay("--from", "edited.jsonl")
    assert summary["rejects_by_code"] == {"not_one_record": 1, "unclosed_quote": 1}
    assert [row[0] for row in job.rows()] == [0, 2, 4, 5]


def test_a_record_of_which_only_the_head_was_kept(job: Job) -> None:
    """Stays a reject, for what was kept may look like a whole record; an edit brings it home."""
    job.workdir.write("users.csv", "id,name\n1," + "x" * 5000 + "\n2,b\n")
    words = ("--to", job.place.address, "--table", "users", "--job-id", "users-1", "--json")
    ended = job.call("run", "users.csv", *words, "--max-record-bytes", 1000)
    assert ended.summary["rejects_by_code"] == {"record_too_long": 1}
    assert job.replay()["rejects_by_code"] == {"record_too_long": 1}
    job.correct({0: "1,short"})
    assert job.replay("--from", "edited.jsonl")["exit_code"] == 0


def test_an_unfinished_job_may_be_replayed(job: Job) -> None:
    """Before it is resumed; then the accounts balance all the same."""
    write(job, "jsonl", RECORDS)
    words = ("--schema", "schema.json", "--to", job.place.address, "--table", "users")
    killed = call(
        job.workdir.path,
        *("run", "users.jsonl", *words, "--job-id", "users-1", "--chunk-size", 2),
        failpoints="before-commit=kill@3",
    )
    assert killed.code == -9
    job.correct({1: None})
    summary = job.replay("--from", "edited.jsonl")
    assert (summary["status"], summary["filtered"], summary["failed"]) == ("interrupted", 1, 1)
    resumed = job.run("users.jsonl").summary
    assert (resumed["status"], resumed["failed"], resumed["filtered"]) == (
        "completed_with_rejects",
        2,
        1,
    )


def test_edited_where_it_lies(job: Job, workdir: Workdir) -> None:
    """The rejects file itself may be edited: it is written again, and gone once there are none."""
    write(job, "jsonl", RECORDS)
    path = workdir.path / job.run("users.jsonl").summary["rejects_file"]
    path.write_text(path.read_text().replace('\\"x\\"', "4").replace("-1", "4"))
    summary = job.replay("--from", path, "--where", "minimum")
    assert ('4}"' in path.read_text(), summary["failed"]) == (True, 2), "an edit is not lost"
    assert job.replay("--from", path)["failed"] == 1
    assert [json.loads(line)["record"] for line in path.read_text().splitlines()] == [5]
    path.write_text(path.read_text().replace('\\"y\\"', "4"))
    assert job.replay("--from", path)["rejects_file"] is None
    assert not Path(path).exists()
    status = json.loads(call(workdir.path, "status", "users-1", "--json").out)
    assert (status["status"], status["failed_items"]) == ("completed", 0)


def test_files_of_any_form_in_one_job(job: Job, workdir: Workdir) -> None:
    """Each record is read by the header and the dialect of its own file, which may be gone."""
    workdir.write("a.csv", "id,name,age\n1,a,x\n")
    workdir.write("b.csv", "age;name;id\ny;b;2\n3;c;3\n")
    workdir.write("c.jsonl.gz", gzip.compress(b'{"id": 4, "age": "z"}\n'))
    job.run("a.csv", "b.csv", "c.jsonl.gz")
    for path in workdir.path.glob("?.*"):
        path.unlink()
    ended = job.call("rejects", "users-1", "--to", job.place.address, "--raw")
    assert (ended.code, ended.out) == (2, "")
    assert "different headers" in ended.err
    job.correct({0: "1,a,1", 1: "2;b;2", 3: {"id": 4, "name": "d", "age": 4}})
    assert job.replay("--from", "edited.jsonl")["exit_code"] == 0
    assert job.rows() == [(1, "a", 1), (2, "b", 2), (3, "c", 3), (4, "d", 4)]


def test_options_of_reading_hold_for_edited_records(job: Job, workdir: Workdir) -> None:
    """Renamed, flattened, added and typed columns, and numbers as the file writes them."""
    properties = {"n": {"type": "integer"}, "a.b": {"type": "number", "minimum": 0}}
    workdir.write("shape.json", json.dumps({"properties": properties}))
    words = ("--to", job.place.address, "--schema", "shape.json", "--json")
    more = ("--rename", "id=n", "--add-column", "at=record", "--add-column", "of=file")
    workdir.write("c.csv", "id;a.b\n1;-1,5\n2;2,5\n3;3,5\n")
    call(workdir.path, "run", "c.csv", *words, *more, "--table", "c", "--job-id", "c", "--quiet")
    workdir.lines("j.jsonl", [{"id": 1, "a": {"b": -1}}, {"id": 2, "a": {"b": 2}}])
    flat = (*more, "--flatten", "--table", "j", "--job-id", "j", "--quiet")
    call(workdir.path, "run", "j.jsonl", *words, *flat)
    for name, raw in (("c", "1;1,5"), ("j", {"id": 1, "a": {"b": 1.5}})):
        workdir.lines("edited.jsonl", [{"record": 0, "raw": raw}])
        ended = call(workdir.path, "replay", name, "--from", "edited.jsonl", "--quiet")
        assert ended.code == 0, ended.err
        rows = job.place.fetch(f'SELECT n, "a.b", at, of FROM {name} WHERE n = 1')
        assert [row[:3] for row in rows] == [(1, 1.5, 0)]
        assert rows[0][3].startswith(f"{name}.")


def test_a_job_of_an_earlier_version(job: Job, workdir: Workdir) -> None:
    """Has no form in its ledger: the source is looked at, as long as it is there."""
    name, _ = write(job, "csv", RECORDS)
    job.run(name)
    column = "json_remove(configuration, '$.forms', '$.contents')"
    job.place.execute(f"UPDATE _batchimport_jobs SET configuration = {column}")
    job.correct({1: '1;"n;1";1'})
    assert job.replay("--from", "edited.jsonl")["failed"] == 2
    (workdir.path / name).unlink()
    ended = job.call("replay", "users-1", "--to", job.place.address)
    assert (ended.code, "its source is needed" in ended.err) == (2, True)


def test_content_that_another_job_has_stored_since(job: Job, workdir: Workdir) -> None:
    """Is not stored once more by a replay of the job that had rejected all of it."""
    workdir.lines("users.jsonl", [{"id": 1, "age": "x"}])
    assert job.run("users.jsonl").summary["successful"] == 0
    workdir.write("any.json", "{}")
    words = ("--to", job.place.address, "--table", "users", "--job-id", "users-2", "--json")
    query = "SELECT id, NULL AS name, 1 AS age FROM records"
    assert job.call("run", "users.jsonl", *words, "--sql", query).summary["successful"] == 1
    ended = job.call("replay", "users-1", "--to", job.place.address, "--sql", query)
    assert (ended.code, "users-2 has imported the same content" in ended.err) == (6, True)


def test_a_foreign_transform_is_not_run(job: Job, workdir: Workdir) -> None:
    """Code that only the ledger names is run once the user names it, too."""
    workdir.write("code.py", "def good(record: dict) -> dict:\n    return {**record, 'age': 1}\n")
    write(job, "jsonl", RECORDS)
    job.run("users.jsonl", more=("--transform", "code.py:good"))
    (workdir.path / ".batchimport").rename(workdir.path / "lost")
    ended = job.call("replay", "users-1", "--to", job.place.address)
    assert (ended.code, "--transform code.py:good" in ended.err) == (2, True)
    assert job.replay("--transform", "code.py:good")["failed"] == 3
