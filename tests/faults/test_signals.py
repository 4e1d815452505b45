"""Signals at any moment: a run ends with a documented exit code, and the next one completes it."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.sweep import write_source
from tests.helpers.cli import Workdir

CODES = {0, 3, 5, 130, 143, -signal.SIGINT, -signal.SIGTERM}
"""The last two: a signal before Python, or this program, has installed its handlers."""
LONGEST_RUN = 2.5
STARTING = ("Could not import runpy module", "init_import_site", "init_sys_streams")
"""What Python says of a SIGINT before it runs any program; then it exits with 1."""


def interrupted(path: Path, dice: random.Random, scheme: str) -> None:
    """Start an import, send it one or two signals, and then run it to its end."""
    workdir = Workdir(path)
    options = ("run", "users.jsonl", "--infer-rows", "all", "--chunk-size", 100)
    process = workdir.start_anew(*options, "--to", f"{scheme}:///d.db", "--quiet")
    for _ in range(dice.choice((1, 1, 2))):
        time.sleep(dice.random() * LONGEST_RUN)  # noqa: TID251 - at any moment
        process.send_signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
    _, err = process.communicate(timeout=100)
    if not any(words in err for words in STARTING):
        assert process.returncode in CODES, (process.returncode, err)
        assert "Traceback" not in err or process.returncode < 0, err
    assert workdir.run(*options[1:], "--to", f"{scheme}:///d.db")["total_processed"] == 300


def _many(tmp_path: Path, scheme: str, rounds: int) -> None:
    dice = random.Random(scheme)
    for number in range(rounds):
        path = tmp_path / str(number)
        path.mkdir()
        write_source(path, 300)
        interrupted(path, dice, scheme)
        shutil.rmtree(path)


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
def test_signals_at_a_few_moments(tmp_path: Path, scheme: str) -> None:
    """Three runs of each kind; the long sweep has two thousand."""
    _many(tmp_path, scheme, 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_first_line_drains(tmp_path: Path, number: int) -> None:
    """From then on the run ends with 5, also before its engine is at work."""
    workdir = Workdir(tmp_path)
    write_source(tmp_path, 2000)
    options = ("run", "users.jsonl", "--to", "d.db", "--chunk-size", 10, "--progress", "plain")
    for _ in range(4):
        process = workdir.start_anew(*options, "--restart", "--if-exists", "replace")
        assert process.stderr
        assert process.stderr.readline().startswith("job ")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 5, (process.returncode, err)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
def test_signals_at_two_thousand_moments(tmp_path: Path, scheme: str) -> None:
    """No crash, no other exit code, nothing lost."""
    _many(tmp_path, scheme, 500)
