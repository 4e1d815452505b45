"""State and ledgers of earlier versions, of later ones, and damaged ones.

`tests/fixtures/format_1` is a job that was killed over its third chunk, as its version left it, in
SQLite and in Parquet. It stays as it is: a later version that changes the format brings a fixture of
its own.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer import Typer
from typer.main import get_command

from batchimport.cli import app
from batchimport.errors import BatchImportError
from batchimport.model import Job
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.tables import query

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "format_1"
OPTIONS = ["users.jsonl", "--schema", SAMPLE / "users.schema.json", "--key", "id"]


@pytest.fixture
def old(workdir: Workdir) -> Workdir:
    """A directory as an earlier version left it."""
    shutil.copy(FIXTURE / "users.jsonl", workdir.path)
    with closing(sqlite3.connect(workdir.path / "users.db")) as connection:
        connection.executescript(here(workdir, "users.sql"))
    state = StateDirectory(workdir.path / ".batchimport")
    state.save("old", json.loads(here(workdir, "job.json")))
    return workdir


def here(workdir: Workdir, name: str) -> str:
    """Return a part of the fixture in which paths are those of this directory."""
    return relocated(workdir, (FIXTURE / name).read_text())


def relocated(workdir: Workdir, text: str) -> str:
    target = Job((str(workdir.path / "users.jsonl"),), "", "users").target_hash()
    return text.replace("/HERE", str(workdir.path)).replace("TARGET", target)


def test_an_old_job_is_resumed(old: Workdir) -> None:
    """By its recorded options; it ends like a job of today."""
    ended = old.call("resume", "old", "--json").summary
    assert (ended["status"], ended["resumed"]) == ("completed_with_rejects", True)
    assert ended["this_run"]["processed"] == 40 - 16
    rows = query(old.path / "users.db", "SELECT * FROM users ORDER BY id")
    fresh = old.run(*OPTIONS, "--to", "sqlite:///fresh.db")
    assert rows == query(old.path / "fresh.db", "SELECT * FROM users ORDER BY id")
    assert (ended["failed"], len(rows)) == (fresh["failed"], fresh["successful"])


def test_an_old_ledger_is_enough(old: Workdir) -> None:
    """Without the state directory, by the command that began it."""
    shutil.rmtree(old.path / ".batchimport")
    ended = old.run(*OPTIONS, "--job-id", "old")
    assert (ended["resumed"], ended["this_run"]["processed"]) == (True, 40 - 16)


def test_an_old_dataset_is_resumed(old: Workdir) -> None:
    """Its ledger is in footers, whose keys are a file format as well."""
    shutil.copytree(FIXTURE / "users", old.path / "users")
    for path in (old.path / "users").glob("*.parquet"):
        footer = pl.read_parquet_metadata(path)
        ours = {key: relocated(old, text) for key, text in footer.items() if key != "ARROW:schema"}
        pl.read_parquet(path).write_parquet(path, metadata=ours)
    shutil.rmtree(old.path / ".batchimport")
    options = [*OPTIONS[:3], "--to", "parquet:///users", "--job-id", "old"]
    ended = old.run(*options)
    assert (ended["resumed"], ended["this_run"]["processed"]) == (True, 40 - 16)
    fresh = old.run(*OPTIONS[:3], "--to", "parquet:///fresh")
    assert (ended["failed"], ended["successful"]) == (fresh["failed"], fresh["successful"])
    assert ended["rejects_by_code"] == fresh["rejects_by_code"]
    whole, resumed = (pl.read_parquet(old.path / name).sort("id") for name in ("fresh", "users"))
    assert resumed.equals(whole)


def test_a_later_ledger_is_refused_in_words(old: Workdir) -> None:
    """And not touched."""
    query(old.path / "users.db", "UPDATE _batchimport_jobs SET format_version = 2")
    ended = old.call("resume", "old")
    assert ended.code == 1
    assert "the ledger has format 2, this version knows 1" in ended.err
    assert query(old.path / "users.db", "SELECT epoch FROM _batchimport_jobs") == [(1,)]


def test_a_later_checkpoint_is_as_good_as_none(old: Workdir) -> None:
    """The ledger is the truth, and `run` continues by it."""
    path = old.path / ".batchimport" / "old" / "job.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert old.call("resume", "old").code == 2
    assert old.run(*OPTIONS, "--job-id", "old")["resumed"] is True


def damaged(body: bytes, step: int) -> list[bytes]:
    """Return copies with one byte changed, and copies that are too short."""
    places = range(0, len(body), step)
    changed = [
        body[:at] + value + body[at + 1 :] for at in places for value in (b"0", b'"', b"\xff")
    ]
    return changed + [body[:at] for at in places]


def check_damage(old: Workdir, step: int) -> None:
    path = old.path / ".batchimport" / "old" / "job.json"
    # In a fork of the tests' server, the parser is built already.
    command = get_command(app) if isinstance(app, Typer) else app
    state = StateDirectory(path.parents[1])
    whole = state.load("old")
    for body in damaged(path.read_bytes(), step):
        path.write_bytes(body)
        assert state.load("old") in (None, whole), f"what is damaged is believed: {body!r}"
        words: list[list[Any]] = [["jobs"], ["jobs", "--json"], ["status", "old"]]
        words.append(["resume", "old", "--to", "sqlite:///no/such/directory/x.db", "--quiet"])
        for each in words:
            nowhere = io.StringIO()
            with suppress(BatchImportError), redirect_stdout(nowhere), redirect_stderr(nowhere):
                command([*each, "--state-dir", str(path.parents[1])], standalone_mode=False)


def test_a_damaged_checkpoint_harms_nobody(old: Workdir) -> None:
    """As if it were not there, for its digest is another one; never a traceback."""
    check_damage(old, 307)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_third_byte_of_a_checkpoint_damaged(old: Workdir) -> None:
    """The same, many times."""
    check_damage(old, 3)


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "{}",
        "null",
        '{"format_version": 1}',
        "[" * 100_000,
        '{"format_version":1,"progress":[]}',
    ],
)
def test_a_checkpoint_that_is_none(workdir: Workdir, document: str) -> None:
    """Other JSON is no job."""
    path = workdir.write("job.json", document)
    folder = workdir.path / "state" / "job"
    folder.mkdir(parents=True)
    path.rename(folder / "job.json")
    assert StateDirectory(workdir.path / "state").jobs() == []
    assert json.loads(workdir.call("jobs", "--json", "--state-dir", "state").out) == []


@pytest.mark.parametrize(
    "change",
    [
        "epoch = 'x'",
        "state = 'odd'",
        "columns = '[{\"nme\": 1}]'",
        "columns = 'x'",
        'columns = \'[{"name": "id", "kind": "odd"}]\'',
        "configuration = '[]'",
        "size = 'much'",
    ],
)
def test_a_job_that_was_changed_by_hand_is_named(old: Workdir, change: str) -> None:
    """In plain words, by every command that reads it."""
    with closing(sqlite3.connect(old.path / "users.db")) as connection:
        connection.execute(f"UPDATE _batchimport_jobs SET {change}")
        connection.commit()
    shutil.rmtree(old.path / ".batchimport")
    for command in ("resume", "status"):
        ended = old.call(command, "old", "--to", "sqlite:///users.db")
        assert ended.code == 1
        assert "job old: a row of _batchimport_jobs cannot be read" in ended.err


@pytest.mark.parametrize("owner", ["x", "a|b|c|d", "temporal:x", "", "|||"])
def test_an_odd_owner_is_nobody(old: Workdir, owner: str) -> None:
    """The job is resumed as if its owner's host were unknown."""
    with closing(sqlite3.connect(old.path / "users.db")) as connection:
        connection.execute("UPDATE _batchimport_jobs SET owner = ?", (owner,))
        connection.commit()
    assert old.call("resume", "old").code == 3


@pytest.mark.parametrize("sink", ["sqlite:///u.db", "duckdb:///u.duckdb", "parquet:///u"])
def test_a_file_name_that_is_not_utf_8(workdir: Workdir, sink: str) -> None:
    """Its rejects are stored under a name that every database takes."""
    Path(os.fsdecode(bytes(workdir.path) + b"/u\xff.jsonl")).write_text('{"id": 1}\nbad\n')
    summary = workdir.run("u*.jsonl", "--to", sink)
    assert (summary["status"], summary["failed"]) == ("completed_with_rejects", 1)
    assert workdir.rejects(summary)[0]["source"] == "u\\xff.jsonl"


def test_a_table_keeps_the_short_name_that_it_had(workdir: Workdir) -> None:
    """Earlier versions called `sales.2023.csv` by its first word; two of them now have two tables."""
    for year in ("2023", "2024"):
        workdir.write(f"sales.{year}.csv", f"id\n{year}\n")
    old = workdir.run("sales.2023.csv", "--table", "sales", "--to", "sqlite:///sales.db")
    assert old["job_id"].startswith("sales-")
    again = workdir.run("sales.2023.csv")
    assert (again["status"], again["job_id"]) == ("already_completed", old["job_id"])
    new = workdir.run("sales.2024.csv")
    assert (new["table"], new["destination"]) == (
        "sales_2024",
        f"sqlite:///{workdir.path}/sales_2024.db",
    )
