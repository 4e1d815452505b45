"""Run the command line hundreds of times, in processes forked from one that has imported it all.

A fork behaves like a process that was started anew, at a tenth of the cost. The parent has imported
`tests/helpers/preloaded.py`, and has started no thread of Polars, which would not survive the fork.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

import pytest

from batchimport import failpoints
from batchimport.cli import main
from tests.helpers import breaks
from tests.helpers.cli import ROOT, SERVERS, Ended, environment
from tests.helpers.tracing import trace

LONGEST_SECONDS = 60

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.helpers.preloaded"])


@dataclass(frozen=True)
class Call:
    """A command to run in a directory, and the faults to inject.

    Attributes:
        failpoints: As in `BATCHIMPORT_FAILPOINTS`.
        strace: Options of strace, which kills, fails or lists system calls.
        limits: Limits by their name in the `resource` module; RLIMIT_NOFILE counts from what is open.
        variables: Of its environment.
        stdin: What it finds on its standard input.
    """

    cwd: Path
    arguments: Sequence[Any]
    failpoints: str = ""
    strace: Sequence[str] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""


def call(cwd: Path, *arguments: Any, **faults: Any) -> Ended:
    """Run one command to its end; a negative exit code is the signal that killed it."""
    return call_all([Call(cwd, arguments, **faults)])[0]


def call_all(calls: Sequence[Call]) -> list[Ended]:
    """Run commands side by side."""
    processes = [Started(call) for call in calls]  # all of them, before the first is waited for
    return [process.end() for process in processes]


class Started:
    """A command that runs; what it has in common with `subprocess.Popen` has the same names."""

    def __init__(self, call: Call) -> None:
        (ours, out), (theirs, err) = _context.Pipe(False), _context.Pipe(False)
        given, content = _context.Pipe(False)
        call = replace(call, variables={**SERVERS, **call.variables})
        self._process = _context.Process(target=_child, args=(call, breaks.made, given, out, err))
        self._process.start()
        # A test that failed may have left it stopped; at the exit it would be waited for.
        weakref.finalize(self, _kill, self._process)
        for pipe in (given, out, err):
            pipe.close()
        self.pid = int(self._process.pid or 0)
        self.returncode: int | None = None
        self.stdout, self.stderr = _stream(ours), _stream(theirs)
        if call.stdin:
            threading.Thread(target=_write, args=(content, call.stdin), daemon=True).start()
        else:
            content.close()
        self._tracer = trace(self.pid, call.strace) if call.strace else None

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float = LONGEST_SECONDS) -> int:
        """Return the exit code; kill what has not ended by then."""
        if self.returncode is None:
            self._process.join(timeout)
            self.returncode = self._process.exitcode
        if self.returncode is None:
            self.kill()
            raise AssertionError(f"did not end: {self.stderr.read()}")
        return self.returncode

    def communicate(self, timeout: float = LONGEST_SECONDS) -> tuple[str, str]:
        """Wait, and return what else it has written to its streams."""
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            said = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
            return said[0].result(), said[1].result()

    def end(self) -> Ended:
        """Run to the end, which is no traceback."""
        out, err = self.communicate()
        if self._tracer is not None:
            self._tracer.wait(LONGEST_SECONDS)
        assert "Traceback" not in err, err
        return Ended(self.wait(), out, err)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _kill(process: BaseProcess) -> None:
    if process.exitcode is None:
        process.kill()


def _stream(pipe: Connection) -> TextIO:
    with pipe:
        return os.fdopen(os.dup(pipe.fileno()), errors="replace")


def _write(pipe: Connection, content: bytes) -> None:
    with pipe, suppress(BrokenPipeError), open(pipe.fileno(), "wb", closefd=False) as stream:
        stream.write(content)


def _child(call: Call, broken: str, given: Connection, out: Connection, err: Connection) -> None:
    os.chdir(call.cwd)
    os.environ.clear()
    os.environ.update(environment(**{failpoints.VARIABLE: call.failpoints, **call.variables}))
    for pipe, number in ((given, 0), (out, 1), (err, 2)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the end
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
    breaks.make(broken)
    for name, limit in call.limits.items():
        more = limit + len(os.listdir("/proc/self/fd")) - 1 if name == "RLIMIT_NOFILE" else limit  # noqa: PTH208 - names
        resource.setrlimit(getattr(resource, name), (more, more))
    sys.argv = ["batchimport", *map(str, call.arguments)]
    if call.strace:
        os.kill(os.getpid(), signal.SIGSTOP)  # until strace is attached
    main()


@dataclass(eq=False)
class TestRun:
    """How a few tests ended, by their ids.

    Attributes:
        failed: With what each says.
    """

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended: called by pytest."""
        if report.failed:
            self.failed[report.nodeid] = report.longreprtext
        elif report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call":
            self.passed.append(report.nodeid)


def run_tests(broken: str, tests: Sequence[str], folder: Path) -> TestRun:
    """Run tests with a deliberate mistake of `tests.helpers.breaks`, in a process of their own.

    They use the servers that this process has started, and have databases of their own there.
    """
    ours, theirs = _context.Pipe()
    log = folder / "log"
    known = dict(os.environ)
    process = _context.Process(target=_test, args=(broken, tests, folder, known, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise AssertionError(f"the tests did not end:\n{log.read_text()}") from None
    finally:
        process.kill()
        process.join()


def _test(
    broken: str, tests: Sequence[str], folder: Path, known: Mapping[str, str], result: Connection
) -> None:
    os.chdir(ROOT)
    os.environ.update(known)
    with (folder / "log").open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # Its commands are forked by the server that has forked this process, not by another one.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    breaks.make(broken)
    run = TestRun()
    options = ["-n", "0", "-p", "no:cacheprovider", "-m", "", f"--basetemp={folder / 'tests'}"]
    pytest.main([*options, *tests], plugins=[run])
    result.send(run)
