"""`--if-source-changed append`: a source that grew belongs to the job that it grew from."""

from __future__ import annotations

import os
from typing import Any

import pytest

from batchimport.importer import import_file
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.model import Job
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import Workdir
from tests.helpers.tables import query

APPEND = ("--if-source-changed", "append")


def ids(workdir: Workdir, table: str) -> list[int]:
    rows = query(workdir.path / f"{table}.db", f"SELECT id FROM {table} ORDER BY id")
    return [row[0] for row in rows]


def lines(*numbers: int) -> str:
    return "".join(f'{{"id": {number}}}\n' for number in numbers)


@pytest.mark.parametrize("name", ["u.jsonl", "u.csv"])
def test_only_the_tail_is_imported(workdir: Workdir, name: str) -> None:
    """By the job that imported the rest; numbers and lines go on; the table may have changed."""
    path = workdir.write(name, lines(1, 2, 3) if name == "u.jsonl" else "id\n1\n2\n3\n")
    first = workdir.run(name, *APPEND)
    assert workdir.run(name, *APPEND)["status"] == "already_completed"
    with path.open("a") as stream:
        stream.write(lines(4, 5) + "bad\n" if name == "u.jsonl" else "4\n5\nbad\n")
    grown = workdir.run(name, *APPEND)
    assert (grown["job_id"], grown["resumed"]) == (first["job_id"], True)
    assert grown["this_run"]["processed"] == 3
    assert (grown["total_items"], grown["failed"]) == (6, 1)
    assert ids(workdir, "u") == [1, 2, 3, 4, 5]
    (reject,) = workdir.rejects(grown)
    header = name == "u.csv"
    assert (reject["record"], reject["line"], reject["raw"]) == (5, 6 + header, "bad")
    assert workdir.run(name)["status"] == "already_completed"


def test_files_may_be_added_at_the_end(workdir: Workdir) -> None:
    """And lines to the last of those that were there, but nothing in their midst."""
    workdir.write("a.jsonl", lines(1))
    workdir.write("b.jsonl", lines(2, 3))
    first = workdir.run("?.jsonl", *APPEND)
    workdir.write("c.jsonl", lines(5) + "bad\n")
    with (workdir.path / "b.jsonl").open("a") as stream:
        stream.write(lines(4))
    grown = workdir.run("?.jsonl", *APPEND)
    assert (grown["job_id"], grown["this_run"]["processed"]) == (first["job_id"], 3)
    assert ids(workdir, "a") == [1, 2, 3, 4, 5]
    (reject,) = workdir.rejects(grown)
    assert (reject["record"], reject["source"], reject["line"]) == (5, "c.jsonl", 2)
    assert [name[-7:] for name in grown["sources"]] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    workdir.write("aa.jsonl", lines(9))
    refused = workdir.run("*.jsonl", *APPEND)
    assert (refused["status"], refused["exit_code"]) == ("refused", 6)
    (workdir.path / "aa.jsonl").unlink()
    assert workdir.run("?.jsonl")["status"] == "already_completed"


def test_one_file_may_become_many(workdir: Workdir) -> None:
    """Named alone first, then with the next one."""
    workdir.write("a.jsonl", lines(1, 2))
    first = workdir.run("a.jsonl")
    workdir.write("b.jsonl", "bad\n" + lines(3))
    grown = workdir.run("a.jsonl", "b.jsonl", *APPEND)
    assert (grown["job_id"], grown["this_run"]["processed"]) == (first["job_id"], 2)
    assert workdir.rejects(grown)[0]["line"] == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lines(1, 2), lines(1, 7, 3)),
        (lines(1, 2), lines(1)),
        (lines(1, 2)[:-1], lines(1, 2)[:-1] + "  \n"),
        ('{"id": 1}\n{"id"', '{"id": 1}\n{"id": 2}\n'),
        ('[{"id": 1}]', '[{"id": 1},{"id": 2}]'),
    ],
)
def test_what_changed_otherwise_is_refused(workdir: Workdir, before: str, after: str) -> None:
    """Other bytes, fewer, or a line that went on."""
    path = workdir.write("u.jsonl", before)
    assert grow(workdir, path.name).summary.total_processed
    path.write_text(after)
    refused = grow(workdir, path.name)
    assert (refused.summary.status, refused.exit_code) == ("refused", 6)


def grow(workdir: Workdir, name: str, to: str = "sqlite:///{}/u.db") -> Outcome:
    """Run in this process: import, or import what was added."""
    job = Job((str(workdir.path / name),), to.format(workdir.path), "u")
    return import_file(Request(job, state=StateDirectory(workdir.path / "state"), append=True))


def test_bytes_that_changed_in_the_midst_are_found(workdir: Workdir) -> None:
    """Though head, tail and size of the old part are the same."""
    path = workdir.write("u.jsonl", lines(*range(100_000, 130_000)))
    grow(workdir, path.name)
    content = path.read_bytes().replace(b"115000", b"999999") + lines(1).encode()
    path.write_bytes(content)
    assert grow(workdir, path.name).exit_code == 6


def test_an_unfinished_job_goes_on_with_what_was_added(workdir: Workdir) -> None:
    """Refused without the option, with a hint at it; its gap and the tail are imported."""
    good = lines(*range(300))
    path = workdir.write("u.jsonl", good.replace("\n", "\nbad\n", 30))
    stopped = workdir.run("u.jsonl", "--chunk-size", 10, "--max-parallel", 1, "--max-errors", 5)
    assert stopped["status"] == "stopped"
    with path.open("a") as stream:
        stream.write(lines(300, 301))
    refused = workdir.call("run", "u.jsonl")
    assert (refused.code, "--if-source-changed append" in refused.err) == (6, True)
    other: dict[str, Any] = workdir.run("u.jsonl", *APPEND, "--limit", 3)
    assert other["exit_code"] == 6, "another configuration"
    grown = workdir.run("u.jsonl", *APPEND)
    assert (grown["status"], grown["job_id"]) == ("completed_with_rejects", stopped["job_id"])
    assert (grown["successful"], grown["failed"]) == (302, 30)
    assert ids(workdir, "u") == list(range(302))
    os.utime(path, (1, 1))
    assert workdir.run("u.jsonl", *APPEND)["status"] == "already_completed"


@pytest.mark.parametrize("to", ["parquet:///{}/out", "duckdb:///{}/u.duckdb"])
def test_other_destinations_take_what_was_added(workdir: Workdir, to: str) -> None:
    """Parquet, whose ledger are its files, and DuckDB."""
    path = workdir.write("u.jsonl", lines(1, 2))
    grow(workdir, path.name, to)
    path.write_text(lines(1, 2, 3))
    grown = grow(workdir, path.name, to).summary
    assert (grown.status, grown.this_run.processed) == ("completed", 1)
    assert grow(workdir, path.name, to).summary.status == "already_completed"
