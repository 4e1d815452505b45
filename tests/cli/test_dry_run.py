"""`--dry-run`: the same path, the same rejects, the same exit code, and nothing is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.postgres import execute, fetch
from tests.helpers.tables import query

OPTIONS = ["--schema", str(SAMPLE / "users.schema.json"), "--key", "id", "--chunk-size", "500"]
SAME = ("status", "exit_code", "total_items", "successful", "failed", "rejects_by_code")


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'users.db'}"
    return str(request.getfixturevalue("postgres").new_database())


def everything(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}


def told(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in SAME}


def test_a_dry_run_reports_what_a_run_reports(workdir: Workdir, address: str) -> None:
    """Rejects of the table itself included; no file, table or job is left."""
    source = SAMPLE / "users.jsonl"
    dry = workdir.run(source, *OPTIONS, "--to", address, "--dry-run")
    assert dry["delivery"] == "nothing is kept (dry run)"
    rejects = workdir.rejects(dry)
    left = {name for name in everything(workdir.path) if "/locks/" not in name}
    assert left == {dry["rejects_file"]}
    assert workdir.call("jobs", "--json").out.strip() in ("[]", "")
    real = workdir.run(source, *OPTIONS, "--to", address)
    assert told(dry) == told(real)
    assert rejects == workdir.rejects(real)


def test_rows_that_are_there_count_and_stay(workdir: Workdir, address: str) -> None:
    """A key of the table rejects the record; `--if-exists truncate` truncates nothing."""
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 2}, {"id": 2}])
    make = ["CREATE TABLE users (id INTEGER UNIQUE)", "INSERT INTO users VALUES (1), (9)"]
    if address.startswith("sqlite"):
        for statement in make:
            query(Path(address.removeprefix("sqlite:///")), statement)
    else:
        execute(address, *make)
    found = workdir.run("users.jsonl", "--to", address, "--dry-run")
    assert (found["successful"], found["rejects_by_code"]) == (1, {"unique": 2})
    found = workdir.run("users.jsonl", "--to", address, "--dry-run", "--if-exists", "truncate")
    assert (found["successful"], found["rejects_by_code"]) == (2, {"unique": 1})
    rows = "SELECT id FROM users ORDER BY id"
    path = Path(address.removeprefix("sqlite:///"))
    there = query(path, rows) if address.startswith("sqlite") else fetch(address, rows)
    assert there == [(1,), (9,)]


def test_words_of_a_dry_run(workdir: Workdir) -> None:
    """It says that nothing is kept, and names no command that would fail."""
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", "--dry-run")
    assert ended.code == 0
    assert "dry run, nothing is kept" in ended.out
    assert "next:" not in ended.out
