"""Processes of the command line by the hundred: forked from one that has imported everything.

A fork is the same process as one that was started, for a tenth of the price. It is made before
Polars has any thread of its own.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchimport import failpoints, importer
from batchimport.cli import main, run
from batchimport.display import plain, report
from batchimport.sinks import duckdb, parquet, postgres, sqlite
from batchimport.sources import delimited, jsonl
from tests.helpers import breaks
from tests.helpers.cli import Ended, environment
from tests.helpers.tracing import trace

PRELOADED = (
    importer,
    run,
    plain,
    report,
    sqlite,
    duckdb,
    parquet,
    postgres,
    delimited,
    jsonl,
    pytest,
)
LONGEST_SECONDS = 60

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Call:
    """A command to run in a directory, and what befalls it.

    Attributes:
        failpoints: As in `BATCHIMPORT_FAILPOINTS`.
        broken: A deliberate mistake of `tests.helpers.breaks` to make.
        inject: What strace does to system calls, as in `pwrite64:signal=KILL:when=3`.
    """

    cwd: Path
    arguments: Sequence[Any]
    failpoints: str = ""
    broken: str = ""
    inject: str = ""


def call(cwd: Path, *arguments: Any, **befalls: str) -> Ended:
    """Run one command to its end; its code is negative if a signal killed it."""
    return call_all([Call(cwd, arguments, **befalls)])[0]


def call_all(calls: Sequence[Call]) -> list[Ended]:
    """Run commands side by side."""
    started = []
    for number, each in enumerate(calls):
        out, err = (each.cwd / f".{name}-{number}" for name in ("out", "err"))
        process = _context.Process(target=_child, args=(each, out, err))
        process.start()
        tracer = trace(process.pid, each.inject) if each.inject else None
        started.append((process, tracer, out, err))
    return [_ended(*each) for each in started]


def _ended(process: Any, tracer: subprocess.Popen[bytes] | None, out: Path, err: Path) -> Ended:
    process.join(LONGEST_SECONDS)
    if tracer is not None:
        tracer.wait(LONGEST_SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        raise AssertionError(f"did not end: {err.read_text(errors='replace')}")
    process.close()
    ended = Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))
    assert "Traceback" not in ended.err, ended.err
    return ended


def _child(call: Call, out: Path, err: Path) -> None:
    os.chdir(call.cwd)
    os.environ.clear()
    os.environ.update(environment(**{failpoints.VARIABLE: call.failpoints}))
    for path, number in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
    breaks.make(call.broken)
    sys.argv = ["batchimport", *map(str, call.arguments)]
    if call.inject:
        os.kill(os.getpid(), signal.SIGSTOP)  # until strace is there
    main()
