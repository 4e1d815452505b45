"""System calls of a process: killed, failed or listed by strace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

STRACE = shutil.which("strace")


@cache
def can_trace() -> bool:
    """Say whether strace is here and allowed to attach to a process."""
    if not STRACE:
        return False
    command = [STRACE, "-qqq", "-e", "trace=none", "-p"]
    with (
        subprocess.Popen(["sleep", "60"]) as sleeper,
        subprocess.Popen([*command, str(sleeper.pid)], stderr=subprocess.DEVNULL) as tracer,
    ):
        wait_for(lambda: tracer.poll() is not None or _is_traced(sleeper.pid))
        allowed = tracer.poll() is None
        sleeper.kill()
    return allowed


def injecting(inject: str) -> list[str]:
    """Return what strace must be told to kill or to fail a process.

    Args:
        inject: As in `pwrite64:signal=KILL:when=3` or `fsync:error=EIO:when=2+`. Counts are those
            of each thread.
    """
    return ["-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}"]


def trace(pid: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Attach strace to a process that has stopped itself, and let it go on; strace ends with it."""
    assert STRACE, "strace is not installed"
    wait_for(lambda: has_stopped(pid))
    process = subprocess.Popen(
        [STRACE, "-f", "-qqq", "-p", str(pid), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: _is_traced(pid))
    os.kill(pid, signal.SIGCONT)
    return process


def wait_for(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until another process has come that far."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)  # noqa: TID251 - waiting for another process


def has_stopped(pid: int) -> bool:
    """Say whether a process was stopped by a signal."""
    return _status(pid, "State").startswith(("T", "t"))


def _is_traced(pid: int) -> bool:
    return _status(pid, "TracerPid") != "0"


def _status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    return ""
