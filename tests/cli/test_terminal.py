"""A real terminal: what is drawn, and what Ctrl-C does."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from fcntl import ioctl

import pytest

from tests.helpers.cli import COMMAND, Workdir, environment
from tests.helpers.tables import query
from tests.helpers.tracing import has_stopped, wait_for

RECORDS = 60_000


class Terminal:
    """A process on a pty of 80 columns."""

    def __init__(self, workdir: Workdir, *arguments: str, **more: str) -> None:
        self._mine, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=workdir.path,
            env=environment(**more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.screen = b""

    def read_until(self, found: bytes) -> None:
        while found not in self.screen:
            if not self._read():
                raise AssertionError(f"ended without {found!r}: {self.screen!r}")

    def read_to_end(self) -> str:
        while self._read():
            pass
        self.process.wait(60)
        os.close(self._mine)
        return self.screen.decode(errors="replace")

    def _read(self) -> bool:
        ready, _, _ = select.select([self._mine], [], [], 60)
        try:
            more = os.read(self._mine, 65536) if ready else b""
        except OSError:  # the other end is closed
            more = b""
        self.screen += more
        return bool(more)


@pytest.fixture
def big(workdir: Workdir) -> Workdir:
    line = '{"id": %d, "name": "somebody", "tags": ["a", "b"], "address": {"city": "Köln"}}\n'
    workdir.write("u.jsonl", "".join(line % at for at in range(RECORDS)))
    return workdir


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_readable_screen_and_a_command_that_resumes(
    big: Workdir, number: signal.Signals
) -> None:
    """Exit 5, the cursor is restored, and the printed command finishes the job."""
    words = ("run", "u.jsonl", "--chunk-size", "500", "--max-parallel", "2")
    terminal = Terminal(big, *words, BATCHIMPORT_FAILPOINTS="after-commit=stop@20")
    wait_for(lambda: has_stopped(terminal.process.pid))
    terminal.process.send_signal(number)
    terminal.process.send_signal(signal.SIGCONT)
    screen = terminal.read_to_end()
    assert terminal.process.returncode == 5, screen
    assert screen.rfind("\x1b[?25h") >= screen.rfind("\x1b[?25l")
    assert "interrupted" in screen
    command = screen.rpartition("next: batchimport ")[2].splitlines()[0].strip()
    done = query(big.path / "u.db", "SELECT count(*) FROM u")[0][0]
    assert done < RECORDS
    ended = big.call(*command.split(), "--json")
    assert ended.summary["status"] == "completed"
    assert ended.summary["this_run"]["processed"] == RECORDS - done
    assert query(big.path / "u.db", "SELECT count(*), count(DISTINCT id) FROM u") == [
        (RECORDS, RECORDS)
    ]


def test_a_second_signal_ends_at_once(big: Workdir) -> None:
    """With 130, and nothing is half stored."""
    points = "before-commit=stop,after-commit=stop"
    process = big.start("run", "u.jsonl", "--chunk-size", 10_000, BATCHIMPORT_FAILPOINTS=points)
    database = big.path / "u.db"
    wait_for(lambda: has_stopped(process.pid))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: query(database, "SELECT 1 FROM u") != [])  # so it is at the second point, soon
    wait_for(lambda: has_stopped(process.pid))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode in (130, 5)  # 5 if it was done before the second one came
    assert big.run("u.jsonl")["status"] == "completed"
    assert query(database, "SELECT count(DISTINCT id) FROM u") == [(RECORDS,)]


def test_the_display_fits_eighty_columns(big: Workdir) -> None:
    """No line is longer than the terminal, to the end."""
    screen = Terminal(big, "run", "u.jsonl").read_to_end()
    assert "completed: every record is stored" in screen
    assert "100.0%" in screen or "100%" in screen


def test_status_from_a_second_terminal(big: Workdir) -> None:
    """While the job runs and after it was killed."""
    words = ("run", "u.jsonl", "--chunk-size", "1000", "--progress", "none")
    process = big.start(*words, BATCHIMPORT_FAILPOINTS="before-store=stop@9")
    wait_for(lambda: has_stopped(process.pid))
    running = json.loads(big.call("status", "--json").out)
    process.kill()
    process.communicate()
    killed = json.loads(big.call("status", "--json").out)
    assert running["status"] == "running"
    assert 0 <= running["progress_percentage"] < 100
    assert killed["status"] == "interrupted"
