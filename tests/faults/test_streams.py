"""Closed streams and terminals that hang up: the import continues or drains, with its own exit code."""

from __future__ import annotations

import shlex
import signal
import subprocess

import pytest

from batchimport.failpoints import VARIABLE
from tests.helpers.cli import COMMAND, Workdir, environment
from tests.helpers.tables import query
from tests.helpers.tracing import has_stopped, wait_for

RECORDS = 20_000


def shell(workdir: Workdir, redirection: str) -> tuple[int, str]:
    """Run an import in a shell, with redirected streams; return its exit code and its stdout."""
    command = f"{shlex.join(COMMAND)} run u.jsonl --json {redirection}"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=workdir.path,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout


@pytest.mark.parametrize(
    ("redirection", "is_printed"),
    [(">&-", False), ("2>&-", True), ("<&- >&- 2>&-", False), ("| true", False)],
)
def test_streams_that_are_closed(workdir: Workdir, redirection: str, is_printed: bool) -> None:
    """The exit code tells how the import ended; the database does not get a stream's descriptor."""
    workdir.lines("u.jsonl", [{"id": 1}, {"id": 1.5}, {"id": "x"}])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    code, out = shell(workdir, f"--schema s.json {redirection}")
    assert (code, bool(out)) == (3, is_printed)
    assert query(workdir.path / "u.db", "SELECT id FROM u") == [(1,)]
    assert (workdir.path / "u.db").read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_hangs_up(workdir: Workdir, is_ignored: bool) -> None:
    """It drains and can be resumed; under `nohup` it runs to its end."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(RECORDS)])
    words = ["run", "u.jsonl", "--chunk-size", "200", "--progress", "none", "--json"]
    words.append("--exit-zero-on-rejects")  # an interrupted job is not one with rejects alone
    process = subprocess.Popen(
        [*(["nohup"] if is_ignored else ["env", "--default-signal=HUP"]), *COMMAND, *words],
        cwd=workdir.path,
        env=environment(**{VARIABLE: "before-store=stop@3"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: has_stopped(process.pid))  # in its third chunk of many
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == (0 if is_ignored else 5)
    assert workdir.run("u.jsonl")["successful"] == RECORDS
    assert query(workdir.path / "u.db", "SELECT count(DISTINCT id) FROM u") == [(RECORDS,)]
