"""`resume`, `status` and `rejects` from anywhere: the ledger in the destination is enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from batchimport.jobs.finish import resume_command
from batchimport.jobs.identify import Request
from batchimport.model import Job
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import Workdir
from tests.helpers.destinations import SqliteFile

STOPPED = ["--chunk-size", 10, "--max-parallel", 1, "--max-errors", 2]


@pytest.fixture
def stopped(workdir: Workdir) -> Workdir:
    """A job `ops-1` in DuckDB whose ledger has a schema of its own; its state directory is lost."""
    workdir.lines("u.jsonl", [{"id": at if at % 5 else "x"} for at in range(100)])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--job-id", "ops-1", "--ledger-schema", "ops"]
    found = workdir.run("u.jsonl", *options, *STOPPED, "--to", "duckdb:///u.duckdb")
    assert found["status"] == "stopped"
    assert found["resume_command"] == (
        f"batchimport resume ops-1 --to duckdb:///{workdir.path}/u.duckdb --ledger-schema ops"
    )
    shutil.rmtree(workdir.path / ".batchimport")
    return workdir


def test_a_job_is_resumed_by_the_printed_command(stopped: Workdir) -> None:
    """It contains what is needed without the state directory."""
    missing = stopped.call("resume", "ops-1", "--to", "duckdb:///u.duckdb")
    assert missing.code == 2
    assert "check --to and --ledger-schema" in missing.err
    command = f"resume ops-1 --to duckdb:///{stopped.path}/u.duckdb --ledger-schema ops"
    ended = stopped.call(*command.split(), "--json")
    assert (ended.code, ended.summary["resumed"]) == (3, True)
    assert (ended.summary["successful"], ended.summary["failed"]) == (80, 20)


def test_status_shows_what_the_ledger_knows(stopped: Workdir) -> None:
    """By its id, or the latest; a job that is not there is said; `--watch` ends."""
    place = ["--to", "duckdb:///u.duckdb", "--ledger-schema", "ops"]
    before = json.loads(stopped.call("status", "ops-1", *place, "--json").out)
    assert (before["job_id"], before["status"]) == ("ops-1", "interrupted")
    assert before["processed_items"] == before["successful_items"] + before["failed_items"]
    assert 0 < before["progress_percentage"] < 100
    assert stopped.call("resume", "ops-1", *place).code == 3
    shutil.rmtree(stopped.path / ".batchimport")
    after = json.loads(stopped.call("status", *place, "--watch", "--json").out)
    assert (after["status"], after["current_stage"]) == ("completed_with_rejects", "finished")
    assert (after["successful_items"], after["failed_items"]) == (80, 20)
    assert after["total_items"] == 100
    assert after["progress_percentage"] == 100
    missing = stopped.call("status", "ops-2", *place)
    assert (missing.code, "no such job there" in missing.err) == (2, True)
    assert "add --to" in stopped.call("status", "ops-1").err


def test_status_of_the_latest_job_of_a_destination(workdir: Workdir) -> None:
    """`--to` without a job is not answered with the latest job of another destination."""
    (workdir.path / "u.jsonl").write_text('{"id": 1}\n')
    for name in ("a", "b"):
        workdir.run("u.jsonl", "--to", f"{name}.db", "--job-id", f"job-{name}")
    shown = workdir.call("status", "--to", "a.db", "--json")
    assert json.loads(shown.out)["job_id"] == "job-a"
    assert json.loads(workdir.call("status", "--json").out)["job_id"] == "job-b"
    SqliteFile(f"sqlite:///{workdir.path}/none.db").execute("CREATE TABLE t (a)")
    assert workdir.call("status", "--to", "none.db").code == 2


def test_the_state_directory_is_no_url(workdir: Workdir) -> None:
    """A bucket is not a directory here: it is said, and none of that name is made."""
    (workdir.path / "u.jsonl").write_text('{"id": 1}\n')
    ended = workdir.call("run", "u.jsonl", "--state-dir", "s3://bucket/state")
    assert (ended.code, "not a URL" in ended.err) == (2, True), ended
    assert [path.name for path in workdir.path.iterdir()] == ["u.jsonl"]


def test_status_of_a_job_that_was_killed(workdir: Workdir) -> None:
    """Its row still says running; its process does not live any more."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(40)])
    options = ["u.jsonl", "--job-id", "k-1", "--chunk-size", 10]
    workdir.call("run", *options, BATCHIMPORT_FAILPOINTS="after-commit=kill@2")
    shutil.rmtree(workdir.path / ".batchimport")
    found = json.loads(workdir.call("status", "k-1", "--to", "sqlite:///u.db", "--json").out)
    assert (found["status"], found["processed_items"]) == ("interrupted", 20)
    assert found["progress_percentage"] == pytest.approx(50, abs=3)


def test_rejects_are_read_from_the_ledger(stopped: Workdir) -> None:
    """With the address and the schema of the ledger."""
    place = ["--to", "duckdb:///u.duckdb", "--ledger-schema", "ops"]
    raw = stopped.call("rejects", "ops-1", *place, "--raw")
    assert raw.out.splitlines()[0] == '{"id": "x"}'
    assert stopped.call("rejects", "ops-1", "--to", "duckdb:///u.duckdb").code == 2


@pytest.mark.parametrize(
    ("destination", "schema", "state", "expected"),
    [
        ("sqlite:////data/u.db", None, ".batchimport", "batchimport resume j-1"),
        ("sqlite:////data/u.db", None, "my state", "batchimport resume j-1 --state-dir 'my state'"),
        ("postgresql://u@db/x", None, ".batchimport", "batchimport resume j-1"),
        (
            "postgresql://u@db/x",
            "ops",
            ".batchimport",
            "batchimport resume j-1 --to postgresql://u@db/x --ledger-schema ops",
        ),
        (
            "postgresql://u:secret@db/x",
            "ops",
            ".batchimport",
            "PGPASSWORD=... batchimport resume j-1 --to postgresql://u@db/x --ledger-schema ops",
        ),
        (
            "postgresql://db/x?user=u&password=secret",
            None,
            ".batchimport",
            "PGPASSWORD=... batchimport resume j-1 --to postgresql://u@db/x",
        ),
    ],
)
def test_the_command_contains_what_is_needed_and_no_password(
    destination: str, schema: str | None, state: str, expected: str
) -> None:
    """The address where a password or the ledger's schema was in it."""
    job = Job(("/u.jsonl",), destination, "u", ledger_schema=schema)
    request = Request(job, state=StateDirectory(Path(state)))
    assert resume_command(request, "j-1") == expected


def test_the_state_is_found_from_below(workdir: Workdir) -> None:
    """By commands about known jobs, not by `run`; not where others may have put it."""
    workdir.lines("users.jsonl", [{"id": 1}])
    job = workdir.run("users.jsonl")["job_id"]
    below = workdir.path / "a" / "b"
    below.mkdir(parents=True)
    (known,) = json.loads(Workdir(below).call("jobs", "--json").out)
    assert known["job_id"] == job
    assert Workdir(below).run(workdir.path / "users.jsonl", "--limit", 1)["status"] == "completed"
    assert (below / ".batchimport" / ".gitignore").exists()
    workdir.path.chmod(0o777)
    assert json.loads(Workdir(workdir.path / "a").call("jobs", "--json").out) == []
