"""What a user sees of a job: while it runs, at its end, and afterwards from another terminal."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import struct
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from batchimport.importer import import_file
from batchimport.jobs.identify import Request
from batchimport.model import Job
from batchimport.policy.events import Preparing
from batchimport.state.directory import StateDirectory
from tests.cli.test_terminal import Terminal
from tests.helpers.cli import SAMPLE, Workdir

SCHEMA = '{"properties": {"id": {"type": "integer"}, "n": {"type": "integer"}}}'
FEW = [{"id": at, "n": at} for at in range(5)]


@pytest.fixture
def spoilt(workdir: Workdir) -> Workdir:
    """Five records that fit, two that do not, and their schema."""
    workdir.lines("u.jsonl", [*FEW, {"id": "x", "n": "y"}, {"id": 7, "n": "z"}])
    workdir.write("s.json", SCHEMA)
    return workdir


def test_status_tells_the_history_of_a_job(spoilt: Workdir) -> None:
    """Sources, destination, times, runs and the next command; a run that has nothing to do is none."""
    first = spoilt.run("u.jsonl", "--schema", "s.json")
    spoilt.run("u.jsonl", "--schema", "s.json")
    known = json.loads(spoilt.call("status", "--json").out)
    assert known["status"] == "completed_with_rejects"
    assert (known["runs"], known["error"], known["eta_seconds"]) == (1, None, None)
    assert known["sources"] == first["sources"]
    assert known["begun_at"] < known["ended_at"]
    assert known["next_command"] == f"batchimport rejects {first['job_id']}"
    text = spoilt.call("status").out
    for words in ("completed with rejects", "u.jsonl", "u.db, table u", "just now", "rejected"):
        assert words in text
    (listed,) = json.loads(spoilt.call("jobs", "--json").out)
    assert listed == known


def test_a_lost_state_directory_is_rebuilt_by_a_run_that_has_nothing_to_do(spoilt: Workdir) -> None:
    """The ledger has outcome and times; `status --to` reads them there, too."""
    job = spoilt.run("u.jsonl", "--schema", "s.json")["job_id"]
    elsewhere = ("--state-dir", "elsewhere")
    there = json.loads(
        spoilt.call("status", job, "--to", "sqlite:///u.db", "--json", *elsewhere).out
    )
    again = spoilt.call("run", "u.jsonl", "--schema", "s.json", *elsewhere)
    here = json.loads(spoilt.call("status", "--json", *elsewhere).out)
    assert again.code == 3
    for known in (there, here):
        assert (known["status"], known["failed_items"]) == ("completed_with_rejects", 2)
        assert known["begun_at"] <= known["ended_at"]
        assert known["sources"] == [str(spoilt.path / "u.jsonl")]


def test_already_completed_is_one_line(spoilt: Workdir) -> None:
    """When it was imported, and the rejects that remain."""
    job = spoilt.run("u.jsonl", "--schema", "s.json")["job_id"]
    again = spoilt.call("run", "u.jsonl", "--schema", "s.json")
    assert (again.code, again.err) == (3, "")
    assert again.out == (
        f"already completed: imported just now by job {job}; "
        f"2 rejects remain: batchimport replay {job}\n"
    )


def test_status_of_a_killed_job(workdir: Workdir) -> None:
    """Why it ended, no estimate, and the command that continues it; then two runs in one job."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(50)])
    run = ("run", "u.jsonl", "--chunk-size", 10)
    assert workdir.call(*run, BATCHIMPORT_FAILPOINTS="after-commit=kill@3").code == -signal.SIGKILL
    killed = json.loads(workdir.call("status", "--json").out)
    assert (killed["status"], killed["eta_seconds"], killed["in_flight"]) == (
        "interrupted",
        None,
        0,
    )
    assert "ended without a word" in killed["error"]
    assert killed["next_command"] == f"batchimport resume {killed['job_id']}"
    assert workdir.call(*killed["next_command"].split()[1:]).code == 0
    known = json.loads(workdir.call("status", "--json").out)
    assert (known["status"], known["runs"], known["error"]) == ("completed", 2, None)


def test_status_of_a_failed_job_has_its_error(workdir: Workdir) -> None:
    """Also that of a later run which could not begin."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(50)])
    run = ("run", "u.jsonl", "--chunk-size", 10, "--max-attempts", 1)
    assert workdir.call(*run, BATCHIMPORT_FAILPOINTS="before-store=error@2").code == 1
    failed = json.loads(workdir.call("status", "--json").out)
    assert failed["status"] == "failed"
    assert "failpoint before-store" in failed["error"]
    (workdir.path / "u.jsonl").rename(workdir.path / "v.jsonl")
    assert workdir.call("resume", failed["job_id"]).code == 2
    later = json.loads(workdir.call("status", "--json").out)
    assert (later["status"], "no such file" in later["error"]) == ("failed", True)
    assert "no such file" in workdir.call("status").out


def test_watch_waits_for_a_job_and_ends_with_it(workdir: Workdir) -> None:
    """By its id, before there is one; from a place that knows the destination only, too."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(50)])
    here = workdir.start("status", "mine", "--watch")
    there = workdir.start(
        *("status", "mine", "--watch", "--to", "sqlite:///u.db", "--state-dir", "no")
    )
    assert workdir.run("u.jsonl", "--job-id", "mine")["exit_code"] == 0
    for watcher in (here, there):
        out, err = watcher.communicate(timeout=100)
        assert watcher.returncode == 0, err
        assert "mine  completed" in out
        assert "50 of 50 records" in err


def test_the_table_of_jobs_fits_eighty_columns(spoilt: Workdir) -> None:
    """Long names give way, the id of a job does not."""
    name = "a-table-of-a-very-long-name-" * 2
    spoilt.lines(f"{name}.jsonl", FEW)
    spoilt.run(f"{name}.jsonl", "--to", "sqlite:///another-long-name.db", "--job-id", "long")
    job = spoilt.run("u.jsonl", "--schema", "s.json")["job_id"]
    lines = spoilt.call("jobs").out.splitlines()
    assert lines[0].split() == [
        *("job", "source", "destination", "state", "records", "rejects", "when", "time")
    ]
    assert [line.split()[0] for line in lines[1:]] == [job, "long"]
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[1:6] == ["u.jsonl", "u.db/u", "completed", "7", "2"]


def test_the_end_shows_each_reason_by_field(spoilt: Workdir) -> None:
    """With a bar, and one example of each; `rejects_by_field` counts every error."""
    ended = spoilt.call("run", "u.jsonl", "--schema", "s.json", "--summary", "sum.json")
    assert re.search(r"^2  n +type +■{20}$", ended.out, re.MULTILINE)
    assert re.search(r"^1  id +type +■{10}$", ended.out, re.MULTILINE)
    summary = json.loads((spoilt.path / "sum.json").read_text())
    assert summary["rejects_by_field"] == {"id": {"type": 1}, "n": {"type": 2}}
    assert summary["rejects_by_code"] == {"type": 2}
    assert ended.out.count("u.jsonl:") == 1, "both reasons first came in the same record"


def test_a_job_of_which_nothing_fits_stops_early(workdir: Workdir) -> None:
    """If something was guessed; `--max-errors` says that it is meant."""
    workdir.write("t.py", "def f(record: dict) -> dict:\n    return record['none']\n")
    workdir.lines("u.jsonl", [{"id": at} for at in range(45_000)])
    run = ("run", "u.jsonl", "--transform", "t.py:f", "--chunk-size", 5_000, "--max-parallel", 1)
    stopped = workdir.call(*run)
    assert stopped.code == 4
    why = "KeyError: 'none' (t.py line 2)"
    assert f"stopped: every record fails in the transform: {why}\n" in stopped.out
    assert "none of the first 10,000 records fits" in stopped.err
    assert f"{why} [transform_failed]" in stopped.out
    assert workdir.call(*run, "--max-errors", "100%").code == 3
    workdir.write("s.json", '{"properties": {"id": {"type": "string"}}}')
    ended = workdir.call("run", "u.jsonl", "--schema", "s.json", "--limit", 9)
    assert "no record fits: is this the right schema?" in ended.out


def test_nothing_stored_is_not_everything_stored(workdir: Workdir) -> None:
    """When all were filtered."""
    workdir.write("t.py", "def f(record: dict) -> dict | None:\n    return None\n")
    workdir.lines("u.jsonl", FEW)
    ended = workdir.call("run", "u.jsonl", "--transform", "t.py:f")
    assert ended.code == 0
    assert ended.out.startswith("completed: nothing is stored")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("imprt", "Did you mean run?"),
        ("load u.jsonl", "Did you mean run?"),
        ("stauts", "Did you mean status?"),
        ("u.jsonl", "To import a file: batchimport run u.jsonl"),
        ("run u.jsonl --on-conflict upsert", "'update'. Did you mean update?"),
        ("run us.jsonl", "did you mean u.jsonl?"),
        ("run https://me:secret@example.com/a.csv", "a.csv: a user or password in a URL"),
        ("run ftp://me@example.com/a.csv", "curl -fsSL ftp://example.com/a.csv | batch"),
        ("run u.jsonl --to sqlit:///u.db", "did you mean sqlite://?"),
        ("run u.jsonl --key idd", "did you mean id?"),
        ("run u.jsonl --sql 'SELECT nn FROM records'", "error: --sql: no column nn\nhint: did you"),
        ("run u.jsonl --transform syn.py:f", "error: --transform: syn.py line 2: "),
        ("run u.jsonl --transform imp:f", "imp imports nowhere_at_all, which is not installed"),
        ("run u.jsonl --transform absent:f", "there is no module absent"),
        ("run u.jsonl --transform imp2:fun", "did you mean imp2:func?"),
    ],
)
def test_messages_say_what_was_meant(workdir: Workdir, words: str, answer: str) -> None:
    """Exit 2, no traceback, and no password."""
    workdir.lines("u.jsonl", FEW)
    workdir.write("syn.py", "\ndef f(:\n")
    workdir.write("imp.py", "import nowhere_at_all\n")
    workdir.write("imp2.py", "def func(record: dict) -> dict:\n    return record\n")
    ended = workdir.call(*shlex.split(words))
    assert ended.code == 2
    assert answer in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql"])
def test_a_table_of_nearly_that_name_is_suggested(
    workdir: Workdir, request: pytest.FixtureRequest, kind: str
) -> None:
    """As a note, when a name that was typed makes a new table; not for another number."""
    workdir.lines("u.jsonl", FEW)
    workdir.lines("v.jsonl", [{"id": "other"}])
    files = {"sqlite": "sqlite:///x.db", "duckdb": "duckdb:///x.duckdb"}
    to = files.get(kind) or request.getfixturevalue("postgres").new_database()
    workdir.call("run", "u.jsonl", "--to", to, "--table", "customers_2024")
    said = workdir.call("run", "v.jsonl", "--to", to, "--table", "customers_2025")
    assert (said.code, "did you mean" in said.err) == (0, False)
    workdir.lines("w.jsonl", [{"id": "third"}])
    said = workdir.call("run", "w.jsonl", "--to", to, "--table", "custmers_2024")
    assert said.code == 0
    assert "table custmers_2024 is new; did you mean --table customers_2024?" in said.err


@pytest.mark.parametrize(("to", "made"), [("x.db", "x.db"), ("out.parquet/", "out.parquet")])
def test_a_path_is_a_destination_by_its_suffix(workdir: Workdir, to: str, made: str) -> None:
    """Without a scheme."""
    workdir.lines("u.jsonl", FEW)
    assert workdir.run("u.jsonl", "--to", to)["successful"] == 5
    assert (workdir.path / made).exists()


def test_a_narrowed_terminal_shows_no_torn_lines(workdir: Workdir) -> None:
    """After a resize, what is erased is what the drawn lines take in the new width."""
    line = '{"id": %d, "name": "somebody", "tags": ["a", "b"], "address": {"city": "Rome"}}\n'
    workdir.write("u.jsonl", "".join(line % at for at in range(100_000)))
    terminal = Terminal(workdir, "run", "u.jsonl", "--chunk-size", "500")
    terminal.read_until(b"stored ")
    size = struct.pack("HHHH", 24, 40, 0, 0)
    ioctl(terminal._mine, termios.TIOCSWINSZ, size)
    terminal.screen = b""
    terminal.read_until(b"\x1b[J")
    erased = terminal.screen.partition(b"\x1b[J")[0]
    up = int(re.findall(rb"\x1b\[(\d+)A", erased)[-1])
    assert up > 2, "three lines of up to 79 columns take more rows in 40"
    terminal.screen = b""
    terminal.read_until(b"\x1b[J")
    drawn = re.sub(rb"\x1b\[[0-9;]*[mA]", b"", terminal.screen.partition(b"\x1b[J")[0])
    assert all(len(each) < 40 for each in drawn.decode().strip("\r\n").split("\r\n"))
    os.kill(terminal.process.pid, signal.SIGINT)
    assert "Ctrl-C again leaves at once" in terminal.read_to_end().replace("\r\n", " ")


def test_the_keyboard_as_standard_input_is_said(workdir: Workdir) -> None:
    """And how to end it."""
    terminal = Terminal(workdir, "run", "-", "--table", "u", "--format", "jsonl")
    terminal.read_until(b"end with Ctrl-D")
    os.write(terminal._mine, b'{"id": 1}\n\x04')
    assert "completed: every record is stored" in terminal.read_to_end()


def test_what_is_prepared_is_counted_and_shown(tmp_path: Path) -> None:
    """Unpacking announces the compressed bytes, and its time is part of the run's."""
    packed = tmp_path / "u.jsonl.gz"
    packed.write_bytes(gzip.compress((SAMPLE / "users.jsonl").read_bytes()))
    heard = []
    job = Job((str(packed),), f"sqlite:///{tmp_path / 'u.db'}", "u")
    import_file(Request(job, state=StateDirectory(tmp_path / "state")), heard.append)
    prepared = [event for event in heard if isinstance(event, Preparing)]
    size = packed.stat().st_size
    assert Preparing("unpacking u.jsonl.gz", size, size) in prepared
    assert "inferring a schema of u.jsonl.gz" in {event.what for event in prepared}
