"""`--dry-run`: the same path, the same rejects, the same exit code, and nothing is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.destinations import SWEPT, Database, Destination, ParquetFolder, make_destination

OPTIONS = ["--schema", str(SAMPLE / "users.schema.json"), "--chunk-size", "500"]
SAME = ("status", "exit_code", "total_items", "successful", "failed", "rejects_by_code")


@pytest.fixture(params=SWEPT)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    return make_destination(request.param, tmp_path, lambda: request.getfixturevalue("postgres"))


def everything(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}


def reported(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in SAME}


def test_a_dry_run_reports_what_a_run_reports(workdir: Workdir, place: Destination) -> None:
    """Including rejects by the table itself; no file, table or job is left."""
    options = [*OPTIONS, *place.options, "--to", place.address]
    source = SAMPLE / "users.jsonl"
    dry = workdir.run(source, *options, "--dry-run")
    assert dry["delivery"] == "nothing is kept (dry run)"
    rejects = workdir.rejects(dry)
    left = {name for name in everything(workdir.path) if "/locks/" not in name}
    assert left == {dry["rejects_file"]}
    assert workdir.call("jobs", "--json").out.strip() in ("[]", "")
    real = workdir.run(source, *options)
    assert reported(dry) == reported(real)
    assert rejects == workdir.rejects(real)


def test_existing_rows_count_and_stay(workdir: Workdir, place: Destination) -> None:
    """A key in the table rejects the record; `--if-exists truncate` truncates nothing."""
    if not isinstance(place, Database):
        pytest.skip("no key, no conflict")
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 2}, {"id": 2}])
    place.execute("CREATE TABLE users (id INTEGER UNIQUE)")
    place.execute("INSERT INTO users VALUES (1), (9)")
    dry = ["users.jsonl", "--to", place.address, "--dry-run"]
    found = workdir.run(*dry)
    assert (found["successful"], found["rejects_by_code"]) == (1, {"unique": 2})
    found = workdir.run(*dry, "--if-exists", "truncate")
    assert (found["successful"], found["rejects_by_code"]) == (2, {"unique": 1})
    assert place.fetch("SELECT id FROM users ORDER BY id") == [(1,), (9,)]


def test_existing_files_stay(workdir: Workdir, tmp_path: Path) -> None:
    """`--if-exists replace` of a dataset replaces nothing."""
    place = make_destination("parquet", tmp_path, lambda: None)
    assert isinstance(place, ParquetFolder)
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 2}])
    workdir.lines("more.jsonl", [{"id": "x"}])
    workdir.run("users.jsonl", "--to", place.address)
    before = everything(place.path)
    found = workdir.run("more.jsonl", "--to", place.address, "--dry-run", "--if-exists", "replace")
    assert found["successful"] == 1
    assert everything(place.path) == before
    assert place.rows("users") == [(1, None), (2, None)]


def test_the_report_of_a_dry_run(workdir: Workdir) -> None:
    """It says that nothing is kept, and suggests no command that would fail."""
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", "--dry-run")
    assert ended.code == 0
    assert "dry run, nothing is kept" in ended.out
    assert "next:" not in ended.out
