"""Parquet from the command line: one dataset for every reader, whatever is killed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from tests.bench.make_records import make
from tests.helpers.cli import COMMAND, SAMPLE, Workdir, environment
from tests.helpers.tables import query

SCHEMA = ["--schema", str(SAMPLE / "users.schema.json")]
NAMES = (
    "id, email, name, age, score, active, plan, CAST(signup_date AS TEXT), external_id, phone, "
    "address, tags"
)


def dataset(folder: Path) -> list[tuple[Any, ...]]:
    """Return all rows, read by DuckDB."""
    files = f"read_parquet('{folder}/*.parquet')"
    return duckdb.sql(
        f"SELECT {NAMES}, CAST(created_at AS TEXT) FROM {files} ORDER BY 1"
    ).fetchall()


def test_the_sample_is_what_sqlite_gets(workdir: Workdir) -> None:
    """Rows, counts and rejects; dates in types of their own; a rerun is a no-op."""
    found = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", "parquet:///out")
    same = workdir.run(SAMPLE / "users.jsonl", *SCHEMA)
    for key in ("status", "successful", "failed", "rejects_by_code", "exit_code"):
        assert found[key] == same[key]
    assert found["delivery"].startswith("exactly-once")
    rows = [row[:-1] for row in dataset(workdir.path / "out")]
    assert rows == query(workdir.path / "users.db", f"SELECT {NAMES} FROM users ORDER BY id")
    assert workdir.rejects(found) == workdir.rejects(same)
    types = pl.read_parquet_schema(next((workdir.path / "out").glob("part-*")))
    assert (types["signup_date"], types["created_at"]) == (pl.Date, pl.Datetime("us", "UTC"))
    assert list(types)[-1] == "_extra"
    again = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", "parquet:///out")
    assert (again["status"], again["exit_code"]) == ("already_completed", 3)


def test_every_reader_sees_one_dataset(workdir: Workdir) -> None:
    """By pattern and by directory, while the job runs and after; nothing but Parquet is there."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(3000)])
    options = ["u.jsonl", "--to", "parquet:///out", "--chunk-size", 100]
    out = workdir.path / "out"
    process = workdir.start("run", *options, BATCHIMPORT_FAILPOINTS="before-commit=stop@9")
    while len(list(out.glob("part-*"))) < 5:
        assert process.poll() is None
    counts = {
        pl.scan_parquet(out).select(pl.len()).collect().item() % 100,
        pl.read_parquet(f"{out}/*.parquet").height % 100,
        duckdb.sql(f"SELECT count(*) FROM read_parquet('{out}/*.parquet')").fetchall()[0][0] % 100,
    }
    assert counts == {0}
    process.kill()
    process.communicate()
    assert workdir.run(*options)["successful"] == 3000
    assert pl.read_parquet(out).get_column("id").sort().to_list() == list(range(3000))
    assert {path.suffix for path in out.iterdir()} == {".parquet"}
    parts = sorted(out.glob("part-*"))
    assert pl.concat([pl.read_parquet(each) for each in parts])["id"].is_sorted()


def test_a_restart_stores_nothing_twice(workdir: Workdir) -> None:
    """The job's own files are known, and go; those of other jobs stay."""
    workdir.lines("u.jsonl", [{"id": 1}, {"id": 2}])
    workdir.lines("v.jsonl", [{"id": 3}])
    to = ["--to", "parquet:///out"]
    workdir.run("v.jsonl", *to)
    workdir.run("u.jsonl", *to)
    assert workdir.run("u.jsonl", *to, "--restart")["this_run"]["successful"] == 2
    assert sorted(pl.read_parquet(workdir.path / "out").get_column("id")) == [1, 2, 3]
    assert workdir.run("u.jsonl", *to, "--restart", "--if-exists", "replace")["exit_code"] == 0
    assert sorted(pl.read_parquet(workdir.path / "out").get_column("id")) == [1, 2]
    assert workdir.run("v.jsonl", *to)["status"] == "completed", "its rows had been removed"


def test_a_dataset_may_begin_with_an_empty_file(workdir: Workdir) -> None:
    """Its columns are those of the first records; all of its files then have them."""
    for at, content in enumerate(("\n\n", '{"id": 1}\n', "")):
        workdir.write(f"u{at}.jsonl", content)
        assert workdir.run(f"u{at}.jsonl", "--to", "parquet:///out")["exit_code"] == 0
    out = workdir.path / "out"
    assert pl.read_parquet(out).get_column("id").to_list() == [1]
    assert len({str(pl.read_parquet_schema(path)) for path in out.iterdir()}) == 1
    assert workdir.run("u0.jsonl", "--to", "parquet:///out")["status"] == "already_completed"


def test_killed_over_a_restart(workdir: Workdir) -> None:
    """Half of the files are gone: the job counts as never begun."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(10)])
    options = ["u.jsonl", "--to", "parquet:///out", "--chunk-size", "1"]
    workdir.run(*options)
    out = workdir.path / "out"
    killed = workdir.call(
        "run", *options, "--restart", BATCHIMPORT_FAILPOINTS="during-removal=kill@4"
    )
    assert killed.code == -9
    assert 0 < len(list(out.glob("part-*"))) < 10
    found = workdir.run(*options)
    assert (found["status"], found["this_run"]["successful"]) == ("completed", 10)
    assert pl.read_parquet(out).height == 10


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--to", "parquet://out"], "three slashes", 2),
        (["--to", "parquet:///u.jsonl"], "not a directory", 2),
        (["--to", "parquet:///no/such/out"], "does not exist", 2),
        (["--to", "parquet:///out", "--key", "id"], "keys unique", 2),
        (["--to", "parquet:////proc/out"], "cannot be read or written", 1),
    ],
)
def test_what_cannot_be_is_one_line(
    workdir: Workdir, options: list[str], words: str, code: int
) -> None:
    """What to fix, before anything is written."""
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", *options, "--json")
    assert ended.code == code, ended
    assert words in ended.err
    assert list(workdir.path.rglob("*.parquet")) == []


def test_a_full_disk_is_no_loss(workdir: Workdir) -> None:
    """Here: a limit on the size of files. The job stops, and the next run goes on."""
    with (workdir.path / "users.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line, _, _ in make(3000, 0, 3))
    options = ["users.jsonl", *SCHEMA, "--to", "parquet:///out", "--json"]
    command = ["sh", "-c", 'ulimit -f 60; exec "$@"', "sh", *COMMAND, "run", *options]
    limited = subprocess.run(
        command,
        cwd=workdir.path,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert limited.returncode == 1, limited
    assert "cannot be read or written: File too large" in limited.stderr
    assert list(workdir.path.glob("out/part-*")) == []
    assert workdir.run(*options)["successful"] == 3000
