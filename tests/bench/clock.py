"""Run one command and write what it took; started as a script, in a process as small as can be.

    python -S -E clock.py REPORT COMMAND...

The kernel's peak memory of a child begins with that of the process that starts it, so a benchmark
that has loaded a database driver must not start the commands itself.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Write wall seconds, CPU seconds, peak bytes and exit code as JSON to REPORT."""
    report, *command = sys.argv[1:]
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    took = {
        "wall": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,  # of the child and of what it waited for
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "code": os.waitstatus_to_exitcode(status),  # of a signal: negative
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to load
        json.dump(took, file)


if __name__ == "__main__":
    main()
