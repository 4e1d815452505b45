"""Files that a run writes beside the table: none of them may be one that it reads, or another one."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.paths import STANDARD_INPUT, is_kept, split_member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchimport.model import Job

_DATABASE_FILES = ("", "-wal", "-shm", "-journal", ".wal")


def refuse_overwriting(
    job: Job, outputs: Mapping[str, str | Path | None], read: Mapping[str, str | Path | None] = {}
) -> None:
    """Check that no file to be written is a source, the destination, another output, or a directory.

    Files are compared, not names: a link is what it leads to.

    Args:
        outputs: Files to be written, by the option that names them.
        read: Other files that are read, by the option that names them.

    Raises:
        UsageError: If one is.
    """
    taken = {_identity(path): what for path, what in _inputs(job, read)}
    if STANDARD_INPUT in job.sources:
        with suppress(OSError, ValueError, AttributeError):
            taken[_of_status(os.fstat(sys.stdin.fileno()))] = "standard input"
    scheme, _, folder = job.destination.partition(":///")
    for option, path in outputs.items():
        if path is not None and os.path.isdir(path):  # noqa: PTH112 - takes any path
            raise UsageError("is a directory", where=f"{option} {path}", hint="name a file in it")
        if path is None or not _is_plain(path):
            continue
        key = _identity(path)
        if key in taken:
            raise UsageError(
                f"would overwrite {taken[key]}",
                where=f"{option} {path}",
                hint="name another file",
            )
        if scheme == "parquet" and Path(os.path.realpath(path)).parent == Path(
            os.path.realpath(folder)
        ):
            raise UsageError(
                "would become a file of the dataset",
                where=f"{option} {path}",
                hint="name a file in another directory",
            )
        taken[key] = f"the file of {option}"


def _inputs(job: Job, read: Mapping[str, str | Path | None]) -> list[tuple[str | Path, str]]:
    files: list[tuple[str | Path, str]] = [
        (split_member(path)[0], "the source") for path in job.sources if not is_kept(path)
    ]
    scheme, _, path = job.destination.partition(":///")
    if scheme in ("sqlite", "duckdb"):
        files += [(path + ending, "the destination") for ending in _DATABASE_FILES]
    return files + [(path, f"the file of {option}") for option, path in read.items() if path]


def _is_plain(path: str | Path) -> bool:
    """Say whether a path is that of a file, or of none yet; not /dev/stdout or a pipe."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - takes any path
    except (OSError, ValueError):
        return True


def _identity(path: str | Path) -> object:
    try:
        return _of_status(os.stat(path))  # noqa: PTH116 - takes any path
    except (OSError, ValueError):
        return os.path.realpath(path)


def _of_status(status: os.stat_result) -> object:
    return status.st_dev, status.st_ino
