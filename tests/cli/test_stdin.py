"""Standard input as a source: kept until its job is completed, so that it can be resumed."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.cli import COMMAND, Workdir, environment
from tests.helpers.tables import query

LINES = b"".join(b'{"id": %d}\n' % at for at in range(2000))
BROKEN = b'{"id": "x"}\n' * 5 + LINES
OPTIONS = ("--schema", "s.json", "--chunk-size", 100, "--max-parallel", 1)
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Where files must be small, Python would leave cut ones in its cache, which no later process can read."""
SCHEMA = '{"properties": {"id": {"type": "integer"}}}'


def kept(workdir: Workdir) -> list[Path]:
    """Return all that is kept of standard input."""
    state = workdir.path / ".batchimport"
    return [*state.glob("*/stdin"), *(state / "spool").glob("*")]


@pytest.mark.parametrize(
    "content", [LINES, b"id\n" + b"".join(b"%d\n" % at for at in range(2000))], ids=["jsonl", "csv"]
)
def test_a_pipe_is_imported(workdir: Workdir, content: bytes) -> None:
    """By its content; the same content again is the same job; nothing is left behind."""
    first = workdir.pipe(content, "run", "-", "--json")
    assert (first.code, first.summary["status"]) == (0, "completed"), first.err
    assert (first.summary["sources"], first.summary["table"]) == (["-"], "stdin")
    assert first.summary["job_id"].startswith("stdin-")
    assert query(workdir.path / "stdin.db", "SELECT count(*), sum(id) FROM stdin")[0][0] == 2000
    again = workdir.pipe(content, "run", "-", "--json").summary
    assert (again["status"], again["job_id"]) == ("already_completed", first.summary["job_id"])
    assert kept(workdir) == []


def test_an_interrupted_pipe_is_resumed(workdir: Workdir) -> None:
    """By `resume`, from what was kept; by the same content; other content is refused."""
    workdir.write("s.json", SCHEMA)
    first = workdir.pipe(BROKEN, "run", "-", *OPTIONS, "--max-errors", 2, "--json").summary
    assert first["status"] == "stopped"
    (path,) = kept(workdir)
    assert path.stat().st_mode & 0o777 == 0o600
    other = workdir.pipe(LINES, "run", "-", *OPTIONS)
    assert (other.code, f"resume {first['job_id']}" in other.err) == (6, True)
    assert kept(workdir) == [path]
    same = workdir.pipe(BROKEN, "run", "-", *OPTIONS, "--max-errors", 2, "--json").summary
    assert (same["status"], same["job_id"]) == ("stopped", first["job_id"])
    ended = workdir.call("resume", first["job_id"], "--max-errors", 9, "--json").summary
    assert (ended["successful"], ended["failed"], ended["resumed"]) == (2000, 5, True)
    assert {reject["source"] for reject in workdir.rejects(ended)} == {"stdin"}
    assert kept(workdir) == []
    gone = workdir.call("resume", first["job_id"])
    assert (gone.code, "no longer there" in gone.err) == (2, True)


def test_files_and_standard_input_together(workdir: Workdir) -> None:
    """In their order; rejects name `stdin`."""
    workdir.lines("a.jsonl", [{"id": -1}])
    workdir.write("s.json", SCHEMA)
    summary = workdir.pipe(BROKEN, "run", "a.jsonl", "-", "--schema", "s.json", "--json").summary
    assert (summary["table"], summary["successful"], summary["failed"]) == ("a", 2001, 5)
    assert workdir.rejects(summary)[0]["line"] == 1


def start(workdir: Workdir, *arguments: object, **more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "run", "-", *map(str, arguments)],
        cwd=workdir.path,
        env=environment(**NO_BYTECODE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,  # type: ignore[call-overload]
    )


def wait_for_spool(workdir: Workdir, process: subprocess.Popen[bytes]) -> None:
    """Wait until standard input has been read from."""
    while process.poll() is None and not any(path.stat().st_size for path in kept(workdir)):
        os.sched_yield()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_is_read(workdir: Workdir, number: signal.Signals) -> None:
    """Ends at once with 5: nothing was imported, nothing is kept."""
    process = start(workdir, "--json")
    assert process.stdin is not None
    process.stdin.write(LINES)
    process.stdin.flush()
    wait_for_spool(workdir, process)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 5, err
    assert json.loads(out)["status"] == "interrupted"
    assert b"before anything was imported" in err
    assert kept(workdir) == []
    assert not (workdir.path / "stdin.db").exists()


def test_what_a_killed_process_left_is_swept(workdir: Workdir) -> None:
    """By the next one."""
    process = start(workdir)
    assert process.stdin is not None
    process.stdin.write(LINES)
    process.stdin.flush()
    wait_for_spool(workdir, process)
    process.kill()
    process.communicate()
    assert len(kept(workdir)) == 1
    assert workdir.pipe(LINES, "run", "-").code == 0
    assert kept(workdir) == []


def test_a_full_disk_is_one_line(workdir: Workdir) -> None:
    """And leaves nothing."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start(workdir, preexec_fn=small_files)
    _, err = process.communicate(LINES)
    assert process.returncode == 1
    assert b"standard input cannot be kept: File too large" in err
    assert len(err.strip().splitlines()) == 2
    assert kept(workdir) == []


def test_a_full_disk_while_an_archive_is_unpacked(workdir: Workdir) -> None:
    """Is one line, too."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    workdir.write("a.jsonl.gz", gzip.compress(LINES))
    ended = subprocess.run(
        [*COMMAND, "run", "a.jsonl.gz"],
        cwd=workdir.path,
        env=environment(**NO_BYTECODE),
        capture_output=True,
        check=False,
        preexec_fn=small_files,
    )
    assert ended.returncode == 1
    assert b"unpacked into .batchimport/spool: File too large" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 2


def test_its_schema_is_printed(workdir: Workdir) -> None:
    """By `schema -`, which keeps nothing."""
    ended = workdir.pipe(LINES, "schema", "-")
    assert json.loads(ended.out)["properties"] == {"id": {"type": ["integer", "null"]}}
    assert list(workdir.path.iterdir()) == []


def test_empty_and_closed_input(workdir: Workdir) -> None:
    """No records are a completed job; no input at all is a usage error, as is a pipe by name."""
    assert workdir.pipe(b"", "run", "-", "--json").summary["status"] == "completed"
    closed = subprocess.run(
        ["sh", "-c", f"{COMMAND[0]} -m batchimport run - <&-"],
        cwd=workdir.path,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    assert (closed.returncode, closed.stderr.startswith("error: standard input is closed")) == (
        2,
        True,
    )
    os.mkfifo(workdir.path / "pipe")
    named = workdir.call("run", "pipe")
    assert (named.code, "is a pipe" in named.err) == (2, True)
