"""Columns that are renamed, typed and added in a whole job, and what a resumed job remembers."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.helpers.cli import Workdir

DAYS = "id;tag;wert;datum\n" + "".join(f"{at};x;{at},5;{at % 28 + 1}.12.2023\n" for at in range(40))


def rows(workdir: Workdir, query: str) -> list[Any]:
    """Return what is in the table."""
    with closing(sqlite3.connect(workdir.path / "u.db")) as database:
        return database.execute(query).fetchall()


def test_a_transform_sees_the_columns_as_they_are_called(workdir: Workdir) -> None:
    """Renamed, selected, added; and the start says what was guessed, in a line each."""
    workdir.write("u.csv", DAYS)
    ended = workdir.call(
        *("run", "u.csv", "--to", "sqlite:///u.db", "--rename", "wert=value", "--json"),
        *("--columns", "datum,value", "--add-column", "no=record", "--add-column", "src=file"),
        *("--add-column", "ln=line", "--add-column", "job=job", "--add-column", 'who="me"'),
        *("--sql", "SELECT value * 2 AS twice, datum, no, ln, src, job, who FROM records"),
    )
    assert ended.code == 0, ended.err
    job = ended.summary["job_id"]
    found = rows(workdir, "SELECT * FROM u")
    assert found[:2] == [
        (1.0, "2023-12-01", 0, 2, "u.csv", job, "me"),
        (3.0, "2023-12-02", 1, 3, "u.csv", job, "me"),
    ]
    assert "numbers: decimal ','" in ended.err
    assert "column datum: dates, written %d.%m.%Y" in ended.err
    assert "  value  number     40 decimals\n" in ended.err
    assert "columns, inferred" not in workdir.call("run", "u.csv", "--quiet", "--restart").err


def test_a_resumed_job_reads_and_stamps_as_it_began(workdir: Workdir) -> None:
    """The ledger says how the file is written and when the job began, whatever is detected now."""
    workdir.write("u.csv", "id,a\n" + "1,x\n" * 20 + "2\n" * 20)
    command = ("run", "u.csv", "--to", "sqlite:///u.db", "--add-column", "at=loaded_at", "--json")
    killed = workdir.call(
        *command, "--chunk-size", 10, BATCHIMPORT_FAILPOINTS="after-commit=kill@1"
    )
    assert killed.code < 0
    with closing(sqlite3.connect(workdir.path / "u.db")) as database:
        (text,) = database.execute("SELECT configuration FROM _batchimport_jobs").fetchone()
        facts = json.loads(text)
        [(form, names)] = facts["detected"]
        assert (form["pads"], names) == (False, ["u.csv"])
        form["pads"] = True
        facts["loaded_at"] = "2001-02-03T04:05:06Z"
        database.execute("UPDATE _batchimport_jobs SET configuration = ?", (json.dumps(facts),))
        database.commit()
    ended = workdir.call(*command, "--chunk-size", 7)
    assert (ended.code, ended.summary["resumed"]) == (0, True), ended.err
    assert rows(workdir, "SELECT id, a, count(*) FROM u GROUP BY 1, 2 ORDER BY 1") == [
        (1, "x", 20),
        (2, None, 20),
    ]
    stamps = dict(rows(workdir, "SELECT at, count(*) FROM u GROUP BY 1"))
    assert stamps["2001-02-03T04:05:06Z"] >= 30


def test_a_job_of_an_earlier_version_goes_on_as_it_began(workdir: Workdir) -> None:
    """Without such facts in its ledger, marks of numbers and the last delimiter mean nothing."""
    workdir.write("u.csv", "a;b;c\n" + "1,5;1.234;x\n" * 40)
    command = ("run", "u.csv", "--to", "sqlite:///u.db", "--json", "--chunk-size", 10)
    assert workdir.call(*command, BATCHIMPORT_FAILPOINTS="after-commit=kill@1").code < 0
    with closing(sqlite3.connect(workdir.path / "u.db")) as database:
        (text,) = database.execute("SELECT configuration FROM _batchimport_jobs").fetchone()
        facts = json.loads(text)
        del facts["detected"], facts["loaded_at"], facts["options"]["decimal"]
        kinds = {"a": "string", "b": "number", "c": "string"}
        schema = {"properties": {name: {"type": [kind, "null"]} for name, kind in kinds.items()}}
        database.execute(
            "UPDATE _batchimport_jobs SET configuration = ?, schema = ?",
            (json.dumps(facts), json.dumps(schema)),
        )
        database.execute("DELETE FROM _batchimport_chunks")
        database.execute("DELETE FROM u")
        database.commit()
    ended = workdir.call(*command)
    assert (ended.code, ended.summary["successful"]) == (0, 40), ended.err
    assert rows(workdir, "SELECT DISTINCT b FROM u") == [("1.234",)]
