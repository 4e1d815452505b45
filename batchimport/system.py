"""The machine and this process: load, memory, open files, identity. The only user of psutil."""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from batchimport.errors import FatalError
from batchimport.policy.sizing import LoadReading

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_SHARE = 0.75
SECONDS_BETWEEN_READINGS = 0.5
FILES_NEEDED = 40
"""File descriptors that must be free at the start: twice the peak of a job with one connection."""


class LoadReader:
    """Reads CPU and memory, at most twice a second: shorter intervals give noise."""

    def __init__(
        self, max_memory_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process = psutil.Process()
        self._clock = clock
        self._limit = memory_limit(max_memory_bytes)
        self._cpus = (
            len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        )
        psutil.cpu_percent()
        self._process.cpu_percent()
        self._taken_at = clock()
        self._last = self._read(0.0, 0.0)

    def read(self) -> LoadReading:
        """Return the latest reading."""
        now = self._clock()
        if now - self._taken_at >= SECONDS_BETWEEN_READINGS:
            self._taken_at = now
            own = self._process.cpu_percent() / (psutil.cpu_count() or 1)
            self._last = self._read(psutil.cpu_percent() / 100, own / 100)
        return self._last

    def _read(self, cpu: float, own_cpu: float) -> LoadReading:
        return LoadReading(
            cpu=cpu,
            own_cpu=own_cpu,
            memory=psutil.virtual_memory().percent / 100,
            process_bytes=self._process.memory_info().rss,
            limit_bytes=self._limit,
            cpus=self._cpus,
        )


def memory_limit(max_memory_bytes: int | None) -> int:
    """Return how much memory this process may use: as much as was said, or 75 % of what is free."""
    return max_memory_bytes or int(MEMORY_SHARE * available_memory_bytes())


def available_memory_bytes() -> int:
    """Return the free memory: of the machine, or less in a container (cgroup v2)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return free
    return max(0, min(free, limit - used))


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process.

    Linux: `getrusage` would count the memory of the process that started this one, too.
    """
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def refuse_few_files() -> None:
    """Refuse to start where file descriptors might run out: Polars panics without them.

    Raises:
        FatalError: If fewer than `FILES_NEEDED` files can be opened.
    """
    opened: list[int] = []
    try:
        while len(opened) < FILES_NEEDED:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise FatalError(
            f"only {len(opened)} more files may be opened, and {FILES_NEEDED} are needed",
            hint="raise the limit with `ulimit -n 1024`, then run the same command again",
        ) from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def lock_holders(*paths: Path) -> list[str]:
    """Return the other processes that have a lock on one of these files, as far as Linux tells."""
    places = set()
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
            places.add(place)
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    except OSError:  # not Linux
        return []
    held = [words for words in locks if len(words) == 8 and words[5] in places]
    writers = [words for words in held if words[3] == "WRITE"] or held
    pids = {int(words[4]) for words in writers} - {os.getpid(), -1}
    return [_described(pid) for pid in sorted(pids) if pid]


def _described(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def owner_id() -> str:
    """Return a unique name of this process: host, boot time, pid and start time."""
    process = psutil.Process()
    return (
        f"{os.uname().nodename}|{psutil.boot_time():.0f}|{process.pid}|{process.create_time():.2f}"
    )


def owner_is_gone(owner: str) -> bool | None:
    """Return whether the owner's process has ended.

    None if that is unknown: it runs on another host, or this is no owner's name.
    """
    try:
        host, boot, pid, started = owner.rsplit("|", 3)
        if host != os.uname().nodename:
            return None
        if abs(float(boot) - psutil.boot_time()) > 60:
            return True
        return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) > 1)
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OverflowError):
        return None
