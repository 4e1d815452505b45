"""Other programs that need the CPU: processes that count, and how much slower they get.

python -S -E hog.py FILE     counts into FILE until it is killed
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

STEPS = 10_000
ALONE_SECONDS = 0.5


class Hogs:
    """Processes that keep one processor busy each; first alone, then beside what is measured."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._processes: list[subprocess.Popen[bytes]] = []
        self._files: list[Path] = []
        self._alone = 0.0
        self._began, self._count = 0.0, 0

    def __enter__(self) -> Self:
        """Start them, and measure their speed alone."""
        if self._number:
            self._folder = tempfile.TemporaryDirectory(prefix="batchimport-hog-")
            self._files = [Path(self._folder.name) / str(each) for each in range(self._number)]
            for file in self._files:
                file.write_bytes(bytes(8))
                command = [sys.executable, "-S", "-E", __file__, str(file)]
                self._processes.append(subprocess.Popen(command))
            time.sleep(ALONE_SECONDS)  # noqa: TID251 - until they have started
            self.begin()
            time.sleep(ALONE_SECONDS)  # noqa: TID251 - a speed needs some time
            self._alone = self._speed()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
        if self._number:
            self._folder.cleanup()

    def begin(self) -> None:
        """Count from here."""
        self._began, self._count = time.monotonic(), self._counted()

    def slowed(self) -> float | None:
        """Return the share of their speed that they have lost since `begin`, 0 to 1."""
        return max(0.0, 1 - self._speed() / self._alone) if self._alone else None

    def _speed(self) -> float:
        return (self._counted() - self._count) / (time.monotonic() - self._began)

    def _counted(self) -> int:
        return sum(int(struct.unpack("Q", file.read_bytes())[0]) for file in self._files)


def count(file: Path) -> None:
    """Count for ever."""
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8) as memory:
        number = 0
        while True:
            for _ in range(STEPS):
                number += 1
            memory[:] = struct.pack("Q", number)


if __name__ == "__main__":
    count(Path(sys.argv[1]))
