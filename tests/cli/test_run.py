"""`batchimport run` as a user calls it: rows, rejects, output and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.tables import content, query
from tests.helpers.tracing import has_stopped, wait_for

SUMMARY_KEYS = {
    "version", "job_id", "status", "sources", "destination", "table", "engine", "delivery",
    "resumed", "total_items", "total_processed", "successful", "failed", "filtered", "this_run",
    "duration_seconds", "records_per_second", "bytes_read", "peak_memory_bytes", "chunks",
    "chunk_size", "rejects_by_code", "rejects_by_field", "rejects_file",
    "resume_command", "error", "inserted", "updated", "ignored", "skipped_by_destination",
    "waited_seconds",
}  # fmt: skip
PROGRESS_KEYS = {
    "job_id", "status", "total_items", "processed_items", "successful_items", "failed_items",
    "current_stage", "progress_percentage", "records_per_second", "eta_seconds", "chunk_size",
    "in_flight", "cpu_usage", "memory_usage", "updated_at",
}  # fmt: skip
HISTORY_KEYS = {
    "sources", "destination", "table", "begun_at", "ended_at", "duration_seconds", "runs", "error",
    "next_command",
}  # fmt: skip
REJECT_KEYS = {"record", "source", "line", "byte_offset", "stage", "errors", "raw"}


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": at, "name": f"user {at}"} for at in range(count)]


def test_the_sample_is_imported_with_every_kind_of_reject(workdir: Workdir) -> None:
    """JSONL and CSV of the same users give the same rows; counts add up; a rerun is a no-op."""
    options = ["--schema", SAMPLE / "users.schema.json", "--key", "id"]
    first = workdir.run(SAMPLE / "users.jsonl", *options)
    assert (first["status"], first["exit_code"]) == ("completed_with_rejects", 3)
    assert first["total_items"] == first["total_processed"] == 3000
    assert first["successful"] + first["failed"] == 3000
    rejects = workdir.rejects(first)
    assert len(rejects) == first["failed"] == sum(first["rejects_by_code"].values())
    assert [reject["record"] for reject in rejects] == sorted(r["record"] for r in rejects)
    data = (SAMPLE / "users.jsonl").read_bytes()
    for reject in rejects:
        raw = reject["raw"].encode()
        assert data[reject["byte_offset"] :][: len(raw)] == raw
        assert data.count(b"\n", 0, reject["byte_offset"]) + 1 == reject["line"]
    again = workdir.run(SAMPLE / "users.jsonl", *options)
    assert (again["status"], again["exit_code"]) == ("already_completed", 3)
    assert again["this_run"]["processed"] == 0
    csv = workdir.run(SAMPLE / "users.csv", *options, "--to", "sqlite:///csv.db")
    assert content(workdir.path / "csv.db", "users") == content(workdir.path / "users.db", "users")
    assert csv["failed"] == first["failed"]


def test_the_json_contract(workdir: Workdir) -> None:
    """Exact keys of summary, progress and rejects; stdout holds nothing else."""
    workdir.lines("u.jsonl", [*numbered(5), {"id": "x"}])
    schema = workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    summary = workdir.call("run", "u.jsonl", "--schema", schema, "--json", "--summary", "s/u.json")
    assert set(summary.summary) == SUMMARY_KEYS
    assert json.loads((workdir.path / "s/u.json").read_text()) == summary.summary
    assert set(summary.summary["this_run"]) == {"processed", "successful", "failed", "filtered"}
    assert set(summary.summary["chunks"]) == {"committed", "retried", "failed", "bisected"}
    assert set(summary.summary["chunk_size"]) == {"min", "max", "last"}
    (reject,) = workdir.rejects(summary.summary)
    assert set(reject) == REJECT_KEYS
    assert set(reject["errors"][0]) == {"code", "field", "message", "value"}
    status = workdir.call("status", "--json")
    assert set(json.loads(status.out)) == PROGRESS_KEYS | HISTORY_KEYS
    assert json.loads(status.out)["progress_percentage"] == 100
    (job,) = json.loads(workdir.call("jobs", "--json").out)
    assert job["job_id"] == summary.summary["job_id"]
    shown = workdir.call("rejects", job["job_id"])
    assert "u.jsonl:6 id:" in shown.out
    assert workdir.call("rejects", job["job_id"], "--raw").out == '{"id": "x"}\n'


def test_a_new_file_of_the_same_name_is_a_new_job(workdir: Workdir) -> None:
    """After a completed job; the table takes both."""
    workdir.lines("u.jsonl", numbered(3))
    first = workdir.run("u.jsonl")
    workdir.lines("u.jsonl", [{"id": 7, "name": "seven"}])
    second = workdir.run("u.jsonl")
    assert second["job_id"] != first["job_id"]
    assert (second["status"], second["successful"]) == ("completed", 1)
    assert query(workdir.path / "u.db", "SELECT count(*) FROM u") == [(4,)]
    os.utime(workdir.path / "u.jsonl", (1, 1))
    assert workdir.run("u.jsonl")["status"] == "already_completed", "touched, not changed"


def test_an_unfinished_job_is_resumed_or_refused(workdir: Workdir) -> None:
    """Resumed by the same command and by `resume`; refused when source or options changed."""
    good = [{"id": at} for at in range(4000)]
    path = workdir.lines(
        "u.jsonl", [*good[:2000], *({"id": "bad"} for _ in range(50)), *good[2000:]]
    )
    schema = workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", schema, "--chunk-size", 100, "--max-parallel", 1]
    stopped = workdir.run("u.jsonl", *options, "--max-errors", 10)
    assert (stopped["status"], stopped["exit_code"]) == ("stopped", 4)
    assert stopped["resume_command"] == f"batchimport resume {stopped['job_id']}"
    assert 0 < stopped["total_processed"] < 4050

    changed = workdir.run("u.jsonl", *options, "--limit", 10)
    assert (changed["status"], changed["exit_code"]) == ("refused", 6)
    assert "resume" in workdir.call("run", "u.jsonl", *options, "--limit", 10).err
    with path.open("a") as stream:
        stream.write('{"id": 1}\n')
    assert workdir.run("u.jsonl", *options)["exit_code"] == 6
    os.truncate(path, path.stat().st_size - len('{"id": 1}\n'))

    resumed = workdir.call("resume", stopped["job_id"], "--max-errors", 1000, "--json").summary
    assert (resumed["status"], resumed["resumed"]) == ("completed_with_rejects", True)
    assert resumed["this_run"]["processed"] == 4050 - stopped["total_processed"]
    assert query(workdir.path / "u.db", "SELECT count(*), sum(id) FROM u") == [(4000, 7998000)]
    assert len(workdir.rejects(resumed)) == 50
    nothing = workdir.call("resume", stopped["job_id"])
    assert nothing.code == 3
    assert workdir.call("resume", "no-such-job").code == 2


def test_a_job_of_that_name_begins_again_with_another_source(workdir: Workdir) -> None:
    """Nothing of the old source counts as stored, also if its job was completed."""
    workdir.lines("u.jsonl", numbered(2))
    workdir.run("u.jsonl", "--job-id", "mine")
    workdir.lines("u.jsonl", [{"id": at} for at in (7, 8, 9)])
    assert workdir.run("u.jsonl", "--job-id", "mine")["exit_code"] == 6
    options = ["--job-id", "mine", "--restart", "--if-exists", "truncate"]
    assert workdir.run("u.jsonl", *options)["successful"] == 3
    assert query(workdir.path / "u.db", "SELECT id FROM u ORDER BY id") == [(7,), (8,), (9,)]


def test_restart_duplicates_nothing_unless_asked(workdir: Workdir) -> None:
    """Refused for plain append; done with truncate, or when duplicates are wanted."""
    workdir.lines("u.jsonl", numbered(3))
    workdir.run("u.jsonl")
    assert workdir.run("u.jsonl", "--restart")["exit_code"] == 2
    doubled = workdir.run("u.jsonl", "--restart", "--allow-duplicates")
    assert (doubled["status"], doubled["successful"]) == ("completed", 3)
    assert query(workdir.path / "u.db", "SELECT count(*) FROM u") == [(6,)]
    fresh = workdir.run("u.jsonl", "--restart", "--if-exists", "truncate")
    assert (fresh["status"], fresh["successful"]) == ("completed", 3)
    assert query(workdir.path / "u.db", "SELECT count(*) FROM u") == [(3,)]
    assert workdir.run("u.jsonl")["status"] == "already_completed"
    assert workdir.run("u.jsonl", "--limit", 2)["exit_code"] == 6


@pytest.mark.parametrize(
    ("options", "is_analyzed"),
    [
        (["--key", "id"], True),
        ([], False),  # SQLite would count all rows, and learn nothing else
        (["--analyze"], True),
        (["--key", "id", "--no-analyze"], False),
    ],
)
def test_a_new_table_is_analyzed_if_it_has_indexes(
    workdir: Workdir, options: list[str], *, is_analyzed: bool
) -> None:
    """What SQLite has learned is in a table of its own."""
    workdir.run(SAMPLE / "users.jsonl", "--schema", SAMPLE / "users.schema.json", *options)
    found = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'"
    assert query(workdir.path / "users.db", found) == [(int(is_analyzed),)]


def test_a_limit_is_a_job_of_its_own(workdir: Workdir) -> None:
    """Only the first records, and a completed job."""
    workdir.lines("u.jsonl", numbered(50))
    first = workdir.run("u.jsonl", "--limit", 7)
    assert (first["status"], first["total_items"], first["successful"]) == ("completed", 7, 7)
    assert workdir.run("u.jsonl", "--limit", 7)["status"] == "already_completed"


@pytest.mark.parametrize("name", ["u.jsonl", "u.csv"])
@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_a_completed_job(workdir: Workdir, name: str, content: bytes) -> None:
    """Of no records; also the second time."""
    workdir.write(name, content)
    for status in ("completed", "already_completed"):
        summary = workdir.run(name)
        assert (summary["status"], summary["exit_code"]) == (status, 0)
        assert summary["total_items"] == 0


def test_a_header_alone_makes_an_empty_table(workdir: Workdir) -> None:
    """Its columns are there."""
    workdir.write("u.csv", "id,name\n")
    assert workdir.run("u.csv")["status"] == "completed"
    assert query(workdir.path / "u.db", "SELECT id, name FROM u") == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("u.jsonl", None, "no such file"),
        ("u.jsonl", "directory", "is a directory"),
        ("u.csv", b"PAR1abc", "Parquet"),
        ("u.json", b'"text"', "neither a JSON array"),
    ],
)
def test_an_invalid_source_is_one_line(
    workdir: Workdir, name: str, content: Any, words: str
) -> None:
    """What is wrong, where, and what to do; exit 2, and a summary nevertheless."""
    if content == "directory":
        (workdir.path / name).mkdir()
    elif content is not None:
        workdir.write(name, content)
    ended = workdir.call("run", name, "--json")
    assert ended.code == 2
    assert re.search(words, ended.err), ended.err
    assert len(ended.err.strip().splitlines()) <= 2
    assert ended.summary["status"] == "failed"
    assert not (workdir.path / "u.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-parallel", "0"],
        ["--chunk-size", "0"],
        ["--chunk-bytes", "lots"],
        ["--max-errors", "many"],
        ["--to", "oracle://host/db"],
        ["--to", "sqlite:///no/such/dir/x.db"],
        ["--schema", "nowhere.json"],
        ["--transform", "nowhere:f"],
        ["--transform", "os"],
        ["--sql", "SELECT FROM WHERE"],
        ["--job-id", "../up"],
        ["--key", "nothing"],
        ["--min-chunk-size", "10", "--max-chunk-size", "5"],
        ["--no-such-option"],
    ],
)
def test_usage_errors_leave_with_2(workdir: Workdir, arguments: list[str]) -> None:
    """And touch nothing."""
    workdir.lines("u.jsonl", numbered(2))
    ended = workdir.call("run", "u.jsonl", *arguments)
    assert ended.code == 2, ended
    assert ended.err.strip()
    if (workdir.path / "u.db").exists():
        assert query(workdir.path / "u.db", "SELECT name FROM sqlite_schema WHERE name = 'u'") == []


def test_rejects_may_be_written_elsewhere_and_tolerated(workdir: Workdir) -> None:
    """`--rejects`, `--exit-zero-on-rejects` and `--quiet`."""
    workdir.write("u.jsonl", '{"id": 1}\nbad\n')
    ended = workdir.call(
        "run", "u.jsonl", "--rejects", "r.jsonl", "--exit-zero-on-rejects", "--quiet"
    )
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert json.loads((workdir.path / "r.jsonl").read_text())["raw"] == "bad"


@pytest.mark.parametrize("options", [[], ["--quiet"], ["--json"], ["--exit-zero-on-rejects"]])
def test_chunks_that_were_given_up_fail_the_job(workdir: Workdir, options: list[str]) -> None:
    """Exit 1 with the reason, and resumable; `--exit-zero-on-rejects` is about rejects alone."""
    workdir.lines("u.jsonl", [*numbered(30), {"id": "x"}])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    run = ["run", "u.jsonl", "--schema", "s.json", "--chunk-size", 10, "--max-attempts", 1]
    ended = workdir.call(*run, *options, BATCHIMPORT_FAILPOINTS="before-store=error@2")
    reason = "1 chunk was given up; the last error: failpoint before-store"
    assert ended.code == 1
    assert ended.err.splitlines()[-2] == f"error: {reason}"
    assert ended.err.splitlines()[-1].startswith("hint: fix the cause, then run the same command")
    if options == ["--json"]:
        assert (ended.summary["status"], ended.summary["error"]) == ("failed", reason)
        assert ended.summary["chunks"]["failed"] == 1
        command = ended.summary["resume_command"]
        assert workdir.call(*command.split()[1:]).code == 3
    assert workdir.call(*run, *options).code == (0 if "--exit-zero-on-rejects" in options else 3)
    assert query(workdir.path / "u.db", "SELECT count(*) FROM u") == [(30,)]


def test_the_cause_of_an_error_is_printed_on_request(workdir: Workdir) -> None:
    """`--verbose`, on either side of what is wrong."""
    for more in (["--verbose"], []):
        ended = workdir.call("schema", "no.jsonl", *more)
        assert ended.code == 2
        assert ("cause: " in ended.err) == bool(more)


def test_transforms_by_their_annotation(workdir: Workdir) -> None:
    """Frame, record, async record and SQL; filtered records are counted; resume keeps them."""
    workdir.lines("u.jsonl", [*numbered(6), {"id": -1, "name": "x"}])
    workdir.write(
        "mine.py",
        "import polars as pl\n"
        "def frame(records: pl.LazyFrame) -> pl.LazyFrame:\n"
        "    return records.filter(pl.col('id') % 2 == 0).with_columns(twice=pl.col('id') * 2)\n"
        "def record(r: dict) -> dict | None:\n"
        "    if r['id'] < 0: raise ValueError('negative')\n"
        "    return {**r, 'twice': r['id'] * 2} if r['id'] % 2 == 0 else None\n"
        "async def slowly(r: dict) -> dict | None:\n"
        "    return record(r)\n",
    )
    expected = [(0, "user 0", 0), (2, "user 2", 4), (4, "user 4", 8)]
    for name in ("frame", "record", "slowly"):
        summary = workdir.run("u.jsonl", "--transform", f"mine:{name}", "--table", name)
        assert content(workdir.path / "u.db", name) == expected, summary
        assert summary["successful"] + summary["failed"] + summary["filtered"] == 7
        assert summary["rejects_by_code"] == ({} if name == "frame" else {"transform_failed": 1})
    query_text = "SELECT id, upper(name) AS loud FROM records WHERE id > 3"
    workdir.run("u.jsonl", "--sql", query_text, "--table", "q")
    assert content(workdir.path / "u.db", "q") == [(4, "USER 4"), (5, "USER 5")]


def test_hostile_text_stays_text(workdir: Workdir) -> None:
    """As file name, table name, key and value; nothing of it acts on the terminal."""
    evil = "a\x1b[2J\u202e'; DROP TABLE x; --\""
    path = workdir.lines(f"{evil}.jsonl", [{evil: evil}, {evil: 1, "x": "\x1b]0;t\x07"}])
    workdir.write("s.json", json.dumps({"properties": {evil: {"type": "string"}}}))
    ended = workdir.call("run", path, "--schema", "s.json", "--to", "sqlite:///e.db")
    assert ended.code == 3
    assert "\x1b" not in ended.out + ended.err
    assert "\u202e" not in ended.out + ended.err
    table = evil.partition(".")[0].replace('"', '""')
    assert query(workdir.path / "e.db", f'SELECT * FROM "{table}"') == [(evil,)]


def test_two_processes_at_once(workdir: Workdir) -> None:
    """One runs, the other says so and leaves with 6; nothing is doubled."""
    workdir.lines("u.jsonl", numbered(300))
    options = ("run", "u.jsonl", "--json", "--chunk-size", 100)
    first = workdir.start(*options, BATCHIMPORT_FAILPOINTS="before-store=stop@2")
    wait_for(lambda: has_stopped(first.pid))
    second = workdir.call(*options)
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=100)
    assert (first.returncode, second.code) == (0, 6)
    assert second.summary["status"] == "refused"
    assert "running" in second.summary["error"]
    assert query(workdir.path / "u.db", "SELECT count(*) FROM u") == [(300,)]


def test_no_local_state_is_needed_to_resume(workdir: Workdir) -> None:
    """The ledger in the destination is the truth."""
    workdir.lines("u.jsonl", [*numbered(900), *({"id": "x"} for _ in range(20)), *numbered(100)])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--chunk-size", 10, "--max-parallel", 1]
    workdir.run("u.jsonl", *options, "--max-errors", 5)
    shutil.rmtree(workdir.path / ".batchimport")
    summary = workdir.run("u.jsonl", *options)
    assert (summary["resumed"], summary["successful"], summary["failed"]) == (True, 1000, 20)


def test_foreign_rows_are_noticed(workdir: Workdir, tmp_path: Path) -> None:
    """A table that has more rows than the accounts say is never "completed"."""
    workdir.lines("u.jsonl", [*numbered(900), *({"id": "x"} for _ in range(20)), *numbered(100)])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--chunk-size", 10, "--max-parallel", 1]
    workdir.run("u.jsonl", *options, "--max-errors", 5)
    with sqlite3.connect(tmp_path / "u.db") as connection:
        connection.execute("INSERT INTO u (id) VALUES (5)")
    connection.close()
    summary = workdir.run("u.jsonl", *options)
    assert (summary["status"], summary["exit_code"]) == ("failed", 7)


def test_rejects_of_a_job_that_the_destination_does_not_know(workdir: Workdir) -> None:
    """A misspelt job id is an error, not a job without rejects."""
    workdir.lines("u.jsonl", [{"id": 1}])
    workdir.run("u.jsonl")
    ended = workdir.call("rejects", "u-nosuch", "--to", "sqlite:///u.db")
    assert ended.code == 2
    assert "no such job" in ended.err


def test_a_log_file_records_what_happened(workdir: Workdir) -> None:
    """Run after run is appended: chunks, sizes, retries, the end; also a run that did not start."""
    workdir.lines("u.jsonl", [*numbered(30), {"id": "x"}])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["u.jsonl", "--schema", "s.json", "--chunk-size", "10", "--log-file", "u.log"]
    assert workdir.call("run", *options, BATCHIMPORT_FAILPOINTS="before-commit=error@2").code == 3
    assert workdir.call("run", *options).code == 3
    assert workdir.call("run", "nosuch.jsonl", "--log-file", "u.log").code == 2
    lines = [
        line.partition(" ")[2] for line in workdir.path.joinpath("u.log").read_text().splitlines()
    ]
    assert sum("committed in" in line for line in lines) == 4
    assert sum(line.startswith("WARNING records 10 to 20: attempt 1 failed") for line in lines) == 1
    assert (
        sum(
            line.startswith("completed_with_rejects: 31 records: stored 30, rejected 1")
            for line in lines
        )
        == 1
    )
    assert sum(line.startswith("already_completed") for line in lines) == 1
    assert [line for line in lines if "ERROR" in line] == [lines[-2]]
    assert "no such file" in lines[-2]
    assert workdir.path.joinpath("u.log").stat().st_mode & 0o077 == 0
    assert workdir.call("run", "u.jsonl", "--log-file", "no/dir/u.log").code == 2


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_restart_leaves_a_job_that_runs_elsewhere_alone(
    workdir: Workdir, kind: str, request: pytest.FixtureRequest
) -> None:
    """Its ledger stays, so that it ends as if nobody had asked; another state directory is no lock."""
    address = "sqlite:///u.db"
    if kind == "postgresql":
        address = request.getfixturevalue("postgres").new_database()
    workdir.lines("u.jsonl", numbered(40))
    options = ["u.jsonl", "--to", address, "--chunk-size", "10", "--json"]
    running = workdir.start("run", *options, BATCHIMPORT_FAILPOINTS="after-commit=stop@2")
    while Path(f"/proc/{running.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        time.sleep(0.02)  # noqa: TID251 - a moment of a real process
    again = ["--restart", "--if-exists", "truncate", "--state-dir", "other"]
    refused = workdir.call("run", *options, *again)
    running.send_signal(signal.SIGCONT)  # before anything is asserted: it must not stay stopped
    out, _ = running.communicate(timeout=60)
    assert refused.code == 6
    assert (json.loads(out)["status"], json.loads(out)["successful"]) == ("completed", 40)
