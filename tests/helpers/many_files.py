"""The property of `tests/unit/test_guess.py` over many random files: `python -m tests.helpers.many_files 0 1000000`.

Of each file the whole and one chunk of some size are read, about 100 files a second of CPU time. A file whose
outcome depends on its chunks is printed by its number, and read once more in chunks of every size by
`check(path, number)`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.unit.test_guess import check

REPORT_EVERY = 1000


def say(line: str) -> None:
    """Print a line at once: whoever runs this reads it in a log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(first: int, last: int) -> int:
    """Check files by their numbers; return how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "records.csv")
        for number in range(first, last):
            try:
                check(place, number, most=1)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others go on
                failed += 1
                say(f"file {number}: {type(error).__name__}: {error}")
            if (number + 1) % REPORT_EVERY == 0 or number + 1 == last:
                cpu = round(time.process_time())
                say(f"{number + 1 - first:,} files, {failed} failed, {cpu} s of CPU")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:3]))))
