"""The report of a job: what it says, of whatever job, and that it is harmless."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batchimport.jobs.report import EXAMPLES
from batchimport.jobs.timeline import NAME, Timeline, read_timeline
from batchimport.model import Chunk, ChunkResult, Position
from batchimport.policy.events import ChunkFinished, ChunkRetried, ChunkStarted, JobStarted
from batchimport.policy.progress import Tally
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import Workdir

EVIL = "<script>document.title='owned'</script><img src='http://evil.test/x'>\u202e"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def job(workdir: Workdir) -> Workdir:
    """A job `j` of 300 records, of which every tenth is rejected."""
    workdir.write("s.json", '{"properties": {"n": {"type": ["integer", "null"]}}}')
    workdir.lines("u.jsonl", [{"id": at, "n": at if at % 10 else EVIL} for at in range(300)])
    run = ("run", "u.jsonl", "--schema", "s.json", "--job-id", "j", "--chunk-size", 20)
    assert workdir.call(*run, "--retry-initial", 0, BATCHIMPORT_FAILPOINTS="before-store=error@3")
    return workdir


def data(workdir: Workdir, *options: str, job_id: str = "j") -> dict:
    ended = workdir.call("report", job_id, "--json", *options)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_the_report_as_data(job: Workdir) -> None:
    """It has the accounts, the runs, what went wrong, the reasons with ten examples, the columns."""
    known = data(job)
    assert known["job"]["status"] == "completed_with_rejects"
    accounts = known["accounts"]
    assert (accounts["total_items"], accounts["successful"], accounts["failed"]) == (300, 270, 30)
    assert accounts["balanced"]
    assert [(run["records"], run["status"]) for run in known["runs"]] == [
        (300, "completed_with_rejects")
    ]
    assert sum(part["records"] for part in known["timeline"]) == 300
    assert sum(part["retried_chunks"] for part in known["timeline"]) == 1
    assert [(event["event"], event["records"]) for event in known["events"]["shown"]] == [
        ("retried", 20)
    ]
    assert known["events"]["decisions"][0]["reason"] == "fixed size"
    (reason,) = known["rejects"]["reasons"]
    assert (reason["field"], reason["code"], reason["count"]) == ("n", "type", 30)
    assert len(reason["examples"]) == EXAMPLES
    assert [(each["name"], each["errors"]) for each in known["columns"]] == [("n", 30)]
    assert known["configuration"]["table"] == "u"


def test_the_page_is_text(job: Workdir) -> None:
    """A file beside the job's id, in which data is text, and nothing is loaded or run."""
    ended = job.call("report", "j")
    page = (job.path / "j.html").read_text()
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("report: j.html (")
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|img|link|iframe|object)\b|\u202e|@import|url\(", page)
    assert page.count("&lt;script&gt;") == EXAMPLES * 2, "in the message and in the record"
    assert "270 of 300 records are stored; 30 were rejected." in page
    assert page.count("<svg") >= 3


def test_the_ledger_is_enough(job: Workdir) -> None:
    """From a host that knows the destination only; all but what is recorded of the run is the same."""
    here = data(job)
    there = data(job, "--to", "sqlite:///u.db", "--state-dir", "none")
    for name in ("accounts", "rejects", "columns", "schema", "configuration"):
        assert there[name] == here[name], name
    assert sum(run["records"] for run in there["runs"]) == 300
    assert job.call("report", "j", "-o", "-").out.startswith("<!DOCTYPE html>")


def test_a_killed_job_has_what_the_ledger_has(workdir: Workdir) -> None:
    """Also what was committed after the last checkpoint; a pause between runs is no time of work."""
    workdir.lines("u.jsonl", [{"id": at} for at in range(200)])
    run = ("run", "u.jsonl", "--job-id", "j", "--chunk-size", 20, "--max-parallel", 1)
    workdir.call(*run, BATCHIMPORT_FAILPOINTS="before-store=kill@6")
    killed = data(workdir)
    assert (killed["job"]["status"], killed["job"]["processed_items"]) == ("interrupted", 100)
    assert killed["job"]["next_command"] == "batchimport resume j"
    assert killed["runs"][0]["status"] is None
    workdir.call("resume", "j")
    runs = data(workdir)["runs"]
    assert [(each["records"], each["status"]) for each in runs] == [(100, None), (100, "completed")]
    assert runs[1]["second"] == runs[0]["seconds"]


def test_a_destination_that_is_gone_is_said(job: Workdir) -> None:
    """And the rest is reported; with `--to`, it is an error."""
    (job.path / "u.db").rename(job.path / "v.db")
    ended = job.call("report", "j", "--json")
    known = json.loads(ended.out)
    assert (ended.code, known["rejects"], known["accounts"]["failed"]) == (0, None, 30)
    assert "the destination could not be read" in ended.err
    assert known["notes"][0] in ended.err
    assert job.call("report", "j").code == 0
    assert job.call("report", "j", "--to", "sqlite:///u.db").code == 2
    assert "did you mean j?" in job.call("report", "jj").err
    (job.path / "v.db").rename(job.path / "u.db")
    refused = job.call("report", "j", "-o", "u.jsonl")
    assert (refused.code, "would overwrite the source" in refused.err) == (2, True)


def test_a_week_of_events_is_a_small_file(tmp_path: Path) -> None:
    """Samples become rarer, other events are limited, and torn lines are left out."""
    seconds = [0.0]
    tally, state = Tally(lambda: seconds[0]), StateDirectory(tmp_path)
    timeline = Timeline(state, tally)
    started = JobStarted("j", ("u",), "sqlite:///u.db", "u", 1)
    chunk = Chunk(Position(), Position(10, 10))
    for observer in (tally, timeline):
        observer(started)
    while seconds[0] < 7 * 86_400:
        for event in (
            ChunkStarted(chunk),
            ChunkRetried(chunk, 1, "x" * 5000),
            ChunkFinished(ChunkResult(chunk, 10, 0, 0), 1),
        ):
            tally(event)
            timeline(event)
        seconds[0] += 20
    file = tmp_path / "j" / NAME
    assert file.stat().st_size < 500_000
    with file.open("a") as stream:
        stream.write('{"at": "2026')
    events = read_timeline(state, "j")
    assert {event["event"] for event in events} == {"began", "sample", "retried"}
    assert events[-1]["records"] > 0


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
def test_a_browser_shows_it_and_asks_for_nothing_else(job: Workdir, tmp_path: Path) -> None:
    """A browser whose every request goes to one server asks for the page alone, and runs nothing."""
    page = job.call("report", "j", "-o", "-").out
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        """Answers for every host."""

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_CONNECT(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
        shown = subprocess.run(
            [
                *(str(CHROMIUM), *options, *quiet, f"--user-data-dir={tmp_path / 'profile'}"),
                f"--proxy-server=127.0.0.1:{server.server_port}",
                *("--proxy-bypass-list=<-loopback>", "--dump-dom", "http://report.test/j.html"),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=110,
        )
        server.shutdown()
    own = [path for path in asked if "report.test" in path or "evil.test" in path]
    assert own == ["http://report.test/j.html"]
    assert "<title>j: completed with rejects</title>" in shown.stdout
    assert shown.stdout.count("<svg") == page.count("<svg")
