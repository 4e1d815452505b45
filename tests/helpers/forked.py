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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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
    """

    cwd: Path
    arguments: Sequence[Any]
    failpoints: str = ""
    strace: Sequence[str] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def call(cwd: Path, *arguments: Any, **faults: Any) -> Ended:
    """Run one command to its end; a negative exit code is the signal that killed it."""
    return call_all([Call(cwd, arguments, **faults)])[0]


def call_all(calls: Sequence[Call]) -> list[Ended]:
    """Run commands side by side."""
    processes = [_Started(call) for call in calls]  # all of them, before the first is waited for
    return [process.wait() for process in processes]


class _Started:
    """A process whose output is read while it runs."""

    def __init__(self, call: Call) -> None:
        (self._out, out), (self._err, err) = _context.Pipe(False), _context.Pipe(False)
        call = replace(call, variables={**SERVERS, **call.variables})
        self._process = _context.Process(target=_child, args=(call, breaks.made, out, err))
        self._process.start()
        out.close()
        err.close()
        readers = ThreadPoolExecutor(2)
        self._said = [readers.submit(_read, pipe) for pipe in (self._out, self._err)]
        readers.shutdown(wait=False)
        self._tracer = trace(int(self._process.pid or 0), call.strace) if call.strace else None

    def wait(self) -> Ended:
        self._process.join(LONGEST_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"did not end: {self._said[1].result()}")
        if self._tracer is not None:
            self._tracer.wait(LONGEST_SECONDS)
        self._process.close()
        ended = Ended(code, *(each.result() for each in self._said))
        assert "Traceback" not in ended.err, ended.err
        return ended


def _read(pipe: Connection) -> str:
    with pipe, open(pipe.fileno(), closefd=False, errors="replace") as stream:
        return stream.read()


def _child(call: Call, broken: str, out: Connection, err: Connection) -> None:
    os.chdir(call.cwd)
    os.environ.clear()
    os.environ.update(environment(**{failpoints.VARIABLE: call.failpoints, **call.variables}))
    for pipe, number in ((out, 1), (err, 2)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
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
