"""A program that embeds batchimport hears it on the logger `batchimport`."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from batchimport import failpoints
from batchimport.importer import import_file
from batchimport.jobs.identify import Request
from batchimport.model import Job, RunOptions
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import ROOT, environment


def a_request(path: Path, **options: int) -> Request:
    source = path / "u.jsonl"
    source.write_text("".join(f'{{"id": {at}}}\n' for at in range(30)))
    job = Job((str(source),), f"sqlite:///{path / 'u.db'}", "u")
    return Request(job, RunOptions(chunk_size=10, **options), StateDirectory(path / "state"))


def test_events_are_log_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Chunks and the end as INFO, a retry as WARNING, an error as ERROR."""
    caplog.set_level(logging.INFO, "batchimport")
    failpoints.arm("before-store=error@2")
    try:
        import_file(a_request(tmp_path, max_attempts=1))
    finally:
        failpoints.arm("")
    found = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert {each.name for each in caplog.records} == {"batchimport"}
    assert sum("committed in" in text for level, text in found if level == "INFO") == 2
    assert ("WARNING", "records 10 to 20: given up: failpoint before-store") in found
    (error,) = (text for level, text in found if level == "ERROR")
    assert error.startswith("1 chunk was given up; the last error: failpoint before-store")
    assert found[-1][1].startswith("failed: 20 records: stored 20")


def test_a_program_without_logging_stays_quiet(tmp_path: Path) -> None:
    """Where Python would print warnings to stderr."""
    program = (
        "from batchimport.importer import import_file\n"
        "from batchimport.jobs.identify import Request\n"
        "from batchimport.model import Job\n"
        f"import_file(Request(Job(('{tmp_path}/none',), 'sqlite:///{tmp_path}/u.db', 'u')))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr) == ("", "")
