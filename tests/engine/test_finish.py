"""How a run ends in the ledger when not all of its chunks are committed."""

from __future__ import annotations

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.tables import query


def test_a_run_with_a_chunk_that_was_given_up_is_interrupted(workdir: Workdir) -> None:
    """Not an error of the accounts: the next run imports that chunk, and completes the job."""
    workdir.lines("u.jsonl", [{"id": number} for number in range(50)])
    run = ("run", "u.jsonl", "--chunk-size", 10, "--max-attempts", 1, "--json")
    first = workdir.call(*run, BATCHIMPORT_FAILPOINTS="before-store=error@2")
    assert first.code in {1, 3}
    assert first.summary["chunks"]["failed"] == 1
    assert first.summary["resume_command"]
    state = "SELECT state FROM _batchimport_jobs"
    assert query(workdir.path / "u.db", state) == [("interrupted",)]
    again = workdir.call(*run)
    assert (again.code, again.summary["this_run"]["processed"]) == (0, 10)
    assert query(workdir.path / "u.db", state) == [("completed",)]


def test_an_update_leaves_alone_what_a_record_lacks(workdir: Workdir) -> None:
    """In JSON, and in what a function returns; an empty cell of CSV is null."""
    workdir.lines("t.jsonl", [{"id": at, "a": "x", "b": "y", "n": at} for at in range(5)])
    update = ("--table", "t", "--to", "sqlite:///t.db", "--key", "id", "--on-conflict", "update")
    assert workdir.call("run", "t.jsonl", *update).code == 0
    workdir.lines("u.jsonl", [{"id": 0, "a": None}, {"id": 1, "b": "z"}, {"id": 0, "b": "z"}])
    assert workdir.call("run", "u.jsonl", *update, "--chunk-size", 2).code == 0
    workdir.write("v.csv", "id,a,b\n2,,w\n")
    assert workdir.call("run", "v.csv", *update).code == 0
    workdir.write("f.py", "def f(record):\n    record.pop('a')\n    return record\n")
    workdir.lines("w.jsonl", [{"id": 3, "a": 7, "b": "v"}, {"id": 4, "a": 7, "n": 8}])
    assert workdir.call("run", "w.jsonl", *update, "--transform", "f:f").code == 0
    workdir.lines("r.jsonl", [{"id": 4, "bee": None}])
    assert workdir.call("run", "r.jsonl", *update, "--rename", "bee=b").code == 0
    assert query(workdir.path / "t.db", "SELECT a, b, n FROM t ORDER BY id") == [
        (None, "z", 0), ("x", "z", 1), (None, "w", 2), ("x", "v", 3), ("x", None, 8)
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["error", "ignore", "update"])
def test_the_order_of_equal_keys_decides_after_a_chunk_was_given_up(
    workdir: Workdir, mode: str
) -> None:
    """A later chunk does not pass it: the next run stores both in order."""
    ids = [*range(20), *range(10, 20), *range(20, 30)]
    workdir.lines("u.jsonl", [{"id": number, "at": at} for at, number in enumerate(ids)])
    run = ["run", "u.jsonl", "--key", "id", "--on-conflict", mode, "--chunk-size", 10, "--json"]
    ended = workdir.call(*run, "--max-attempts", 1, BATCHIMPORT_FAILPOINTS="before-store=error@2")
    assert (ended.code, ended.summary["status"]) == (1, "failed")
    assert ended.summary["error"].startswith("1 chunk was given up; the last error: failpoint")
    assert query(workdir.path / "u.db", "SELECT max(at) FROM u") == [(9,)]
    workdir.call(*run)
    found = query(workdir.path / "u.db", "SELECT id, at FROM u ORDER BY id")
    first = 20 if mode == "update" else 10
    assert found == [
        *((at, at) for at in range(10)),
        *((at, at + first - 10) for at in range(10, 20)),
        *((at, at + 10) for at in range(20, 30)),
    ]
