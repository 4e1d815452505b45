"""State, files and addresses that another user may have made: nothing is redirected, shown or run."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from batchimport.state.directory import StateDirectory
from tests.helpers.cli import COMMAND, Workdir, environment
from tests.helpers.postgres import PostgresServer, fetch
from tests.helpers.tables import query


@pytest.fixture
def job(workdir: Workdir) -> Workdir:
    workdir.write("u.csv", "id\n1\n2\n")
    workdir.run("u.csv", "--job-id", "j")
    return workdir


def forge(workdir: Workdir, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Write the job's state as another user of this program would."""
    state = StateDirectory(workdir.path / ".batchimport")
    document = state.load("j")
    assert document is not None
    assert document.pop("trusted") is True
    monkeypatch.setenv("XDG_STATE_HOME", str(workdir.path / "another home"))
    job = document["job"] | changes.pop("job", {})  # type: ignore[operator]
    state.save("j", document | {"job": job} | changes)
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["spool", "locks", "j"])
def test_state_follows_no_link(workdir: Workdir, name: str) -> None:
    """What a link leads to is neither emptied nor written to, and no table is made."""
    workdir.write("u.csv", "id\n1\n")
    other = workdir.path / "other"
    other.mkdir()
    (other / "kept").write_text("x")
    (workdir.path / ".batchimport").mkdir()
    (workdir.path / ".batchimport" / name).symlink_to(other)
    ended = subprocess.run(
        [*COMMAND, "run", "-", "--table", "u", "--to", "sqlite:///u.db", "--job-id", "j"],
        cwd=workdir.path,
        env=environment(),
        input="id\n1\n",
        capture_output=True,
        check=False,
        text=True,
    )
    assert (ended.returncode, "is a link" in ended.stderr) == (2, True), ended.stderr
    assert [path.name for path in other.iterdir()] == ["kept"]
    assert not query(workdir.path / "u.db", "SELECT 1 FROM sqlite_master WHERE name = 'u'")


def test_folders_are_private_and_ignored(job: Workdir) -> None:
    """Other users cannot read them, and Git does not see them."""
    state = job.path / ".batchimport"
    for path in (state, state / "j", state / "locks"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (state / ".gitignore").read_text() == "*\n"


def test_a_dry_run_leaves_nothing(workdir: Workdir) -> None:
    """Not even a state directory."""
    workdir.write("u.csv", "id\n1\n")
    workdir.run("u.csv", "--dry-run")
    assert [path.name for path in workdir.path.iterdir()] == ["u.csv"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--rejects", "u.csv"), "the source"),
        (("--summary", "./u.csv"), "the source"),
        (("--log-file", "link"), "the source"),
        (("--rejects", "hard"), "the source"),
        (("--rejects", "u.db"), "the destination"),
        (("--summary", "u.db-wal"), "the destination"),
        (("--summary", "s.json", "--schema", "s.json"), "the file of --schema"),
        (("--summary", "x", "--log-file", "./x"), "the file of --summary"),
        (("--rejects", "x", "--summary", "x"), "the file of --rejects"),
        (("--to", "parquet:///pq", "--rejects", "pq/r.jsonl"), "dataset"),
    ],
)
def test_an_output_is_no_input(workdir: Workdir, options: tuple[str, ...], what: str) -> None:
    """Compared by file, whatever its name; everything stays as it was."""
    source = workdir.write("u.csv", "id\n1\nx\n")
    schema = workdir.write("s.json", "{}")
    (workdir.path / "link").symlink_to("u.csv")
    (workdir.path / "hard").hardlink_to(source)
    ended = workdir.call("run", "u.csv", "--to", "sqlite:///u.db", *options)
    assert (ended.code, what in ended.err) == (2, True), ended.err
    assert (source.read_text(), schema.read_text()) == ("id\n1\nx\n", "{}")
    assert not (workdir.path / "u.db").exists()


@pytest.mark.parametrize("command", ["rejects", "resume", "report"])
def test_a_forged_state_connects_nowhere(
    job: Workdir, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It says where it would connect, and what to type if that is right."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d"
        forge(job, monkeypatch, destination=address)
        ended = job.call(command, "j", PGPASSWORD="CANARY")
        assert (ended.code, f"--to {address}" in ended.err) == (2, True), ended.err
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_forged_state_runs_no_code(job: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user names the code, and then only if records will pass through it."""
    job.write("evil.py", "open('ran', 'w')\ndef f(record: dict) -> dict: return record\n")
    forge(job, monkeypatch, job={"transform": "evil:f"})
    ended = job.call("resume", "j")
    assert (ended.code, "--transform evil:f" in ended.err) == (2, True), ended.err
    assert job.call("resume", "j", "--transform", "evil:g").code == 2
    job.call("resume", "j", "--transform", "evil:f")
    assert not (job.path / "ran").exists()


def test_own_state_is_trusted(job: Workdir) -> None:
    """Its signature is this user's; status shows also what is not."""
    document = json.loads((job.path / ".batchimport" / "j" / "job.json").read_text())
    assert document["signature"]
    assert job.call("status", "j", XDG_STATE_HOME=str(job.path / "elsewhere")).code == 0


def test_what_was_typed_does_not_act_on_the_terminal(workdir: Workdir) -> None:
    """In errors of the parser, of the program, and in what is reported."""
    workdir.write("u.csv", "id\n1\n")
    bad = "\x1b[31m\u202e"
    for words in (
        ("run", "u.csv", f"--{bad}"),
        ("run", "u.csv", "--adaptive", bad),
        (f"ru{bad}n",),
        (f"--{bad}",),
        ("run", f"{bad}.csv"),
        ("run", "u.csv", "--rejects", f"{bad}.jsonl"),
        ("run", "u.csv", "--to", f"sqlite:///{bad}.db", "--summary", f"{bad}/x"),
        ("status", bad),
    ):
        ended = workdir.call(*words)
        assert not set("\x1b\u202e") & set(ended.out + ended.err), words


def test_no_password_is_shown_or_kept(workdir: Workdir, postgres: PostgresServer) -> None:
    """In output, errors, state, log, summary, rejects, report and ledger; the address works."""
    workdir.write("u.csv", "id,n\n1,a\nx,b\n")
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    address = postgres.new_database()
    mark = "&" if "?" in address else "?"
    seen = ""
    for number, secret in enumerate(("password=CAN@ARY", "p%61ssword=CAN@ARY")):
        options = (
            "--to",
            f"{address}{mark}{secret}",
            "--schema",
            "s.json",
            "--table",
            f"u{number}",
        )
        files = ("--log-file", "log", "--summary", f"summary{number}", "--verbose")
        ended = workdir.call("run", "u.csv", *options, *files)
        assert ended.code == 3, ended.err
        seen += ended.out + ended.err
        job_id = json.loads((workdir.path / f"summary{number}").read_text())["job_id"]
        for where in (("--to", f"{address}{mark}{secret}", "--state-dir", "none"), ()):
            for form in ((), ("--json",)):
                ended = workdir.call("report", job_id, *where, *form, "--verbose")
                assert ended.code == 0, ended.err
                seen += ended.out + ended.err
    for wrong in ("postgresql://u:CAN@ARY@h/d", "postgresql//u:CANARY@h", "host=h password=CANARY"):
        ended = workdir.call("run", "u.csv", "--to", wrong, "--verbose")
        assert ended.code == 2
        seen += ended.out + ended.err
    for path in workdir.path.rglob("*"):
        seen += path.read_text() if path.is_file() else ""
    for table in ("jobs", "chunks", "rejects"):
        seen += str(fetch(address, f"SELECT * FROM _batchimport_{table}"))
    assert not [part for part in ("CAN", "ARY") if part in seen]


def test_the_key_is_private(tmp_path: Path, workdir: Workdir) -> None:
    """Only its owner may read it."""
    workdir.write("u.csv", "id\n1\n")
    workdir.call("run", "u.csv", XDG_STATE_HOME=str(tmp_path / "home"))
    key = tmp_path / "home" / "batchimport" / "key"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
