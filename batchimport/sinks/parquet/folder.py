"""A directory of Parquet files that all have one schema; each appears complete, at once.

Its files are of two kinds, and a reader may read them all: parts hold rows; a job's own file holds
none. What this module does not know is what their footers mean.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
from bisect import bisect_left, insort
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from batchimport import failpoints
from batchimport.errors import BatchImportError, DestinationLockedError, FatalError, UsageError
from batchimport.state.files import (
    lock_file,
    remove_old_temporary_files,
    sync_directory,
    temporary_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.state.files import TemporaryFile

_PART = re.compile(r"part-(.+)-(\d{16})-(\d{16})\.parquet")
_JOB = re.compile(r"_job-(.+)\.parquet")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
LOCK_WAIT_SECONDS = 2.0
"""A lock is held for milliseconds; longer means that its holder was stopped, or hangs. Then the caller
waits, and says so."""
SECONDS_BETWEEN_LOOKS = 0.005
_COARSE_CLOCK = 5
"""Linux's CLOCK_REALTIME_COARSE, which stamps files; Python has no name for it."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The name of a part: the job and the positions whose records it holds."""

    job_id: str
    lo: int
    hi: int

    @property
    def name(self) -> str:
        """Name of the file; names sort as the records do."""
        return f"part-{self.job_id}-{self.lo:016}-{self.hi:016}.parquet"


class Folder:
    """The directory."""

    def __init__(self, path: Path, known_as: Path | None = None) -> None:
        self.path, self._known_as = path, known_as or path
        self._guard = threading.Lock()
        self._index: list[Part] = []
        self._indexed_at: int | None = None

    def where(self, path: Path | None = None) -> str:
        """Return the path of the directory, or of a file of it, as the user knows it."""
        return str(self._known_as / path.name if path else self._known_as)

    # -- looking -------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """Return all Parquet files, in order of name."""
        with self.translated():
            return sorted(
                path
                for path in self.path.iterdir()
                if path.suffix == ".parquet" and not path.name.startswith(".")
            )

    def parts(self, job_id: str | None = None) -> list[Part]:
        """Return the parts that batchimport wrote, of one job or of all, in order."""
        matches = [_PART.fullmatch(path.name) for path in self.files()]
        parts = [Part(match[1], int(match[2]), int(match[3])) for match in matches if match]
        return sorted(part for part in parts if job_id in (None, part.job_id))

    def parts_in(self, job_id: str, lo: int, hi: int) -> list[Part]:
        """Return the parts of a job that share positions with an interval.

        The directory is listed again only if it was changed since, other than by `add`.
        """
        with self._guard:
            with self.translated():
                changed_at = self.path.stat().st_mtime_ns
            has_fraction = changed_at % 1_000_000_000  # else the file system may only know seconds
            if changed_at != self._indexed_at or not has_fraction:
                self._index, self._indexed_at = self.parts(), changed_at
            first = max(0, bisect_left(self._index, Part(job_id, lo, 0)) - 1)
            last = bisect_left(self._index, Part(job_id, hi, 0), first)
            found = self._index[first:last]
        return [part for part in found if part.job_id == job_id and part.hi > lo]

    def job_ids(self) -> list[str]:
        """Return the jobs that have a file."""
        matches = [_JOB.fullmatch(path.name) for path in self.files()]
        return [match[1] for match in matches if match]

    def job_path(self, job_id: str) -> Path:
        """Return the path of a job's own file."""
        return self.path / f"_job-{job_id}.parquet"

    def foreign(self) -> list[Path]:
        """Return the Parquet files that batchimport did not write."""
        return [
            path
            for path in self.files()
            if not (_PART.fullmatch(path.name) or _JOB.fullmatch(path.name))
        ]

    def footer(self, path: Path) -> dict[str, str]:
        """Return the key-value metadata of a file's footer."""
        with self.translated(path):
            return pl.read_parquet_metadata(path)

    def schema(self, path: Path) -> dict[str, pl.DataType]:
        """Return the columns of a file."""
        with self.translated(path):
            return dict(pl.read_parquet_schema(path))

    def frame(self, path: Path) -> pl.DataFrame:
        """Return the rows of a file."""
        with self.translated(path):
            return pl.read_parquet(path, glob=False, hive_partitioning=False)

    def rows(self) -> int:
        """Count the rows of all files."""
        files = self.files()
        with self.translated():
            if not files:
                return 0
            return int(pl.scan_parquet(files, glob=False).select(pl.len()).collect().item())

    # -- writing -------------------------------------------------------------------------------

    def make(self) -> None:
        """Create the directory, if it does not exist."""
        with self.translated():
            if not self.path.is_dir():
                self.path.mkdir(exist_ok=True)
                Folder(self.path.parent).sync()

    def tidy(self) -> None:
        """Remove temporary files that were left behind."""
        with self.translated():
            remove_old_temporary_files(self.path)

    @contextmanager
    def temporary(self, frame: pl.DataFrame, footer: dict[str, str]) -> Iterator[TemporaryFile]:
        """Write a file that no reader sees; it is gone at the end unless it was published."""
        with ExitStack() as stack:
            with self.translated():
                file = stack.enter_context(temporary_file(self.path))
                with file.writing() as stream:
                    frame.write_parquet(stream, metadata=footer)
            yield file

    def add(self, file: TemporaryFile, part: Part) -> None:
        """Publish a part; the lock is held.

        Raises:
            FileExistsError: If it is there.
        """
        with self._guard, self.translated():
            changed_at = self._await_new_time()
            file.publish(part.name)
            if changed_at == self._indexed_at:
                insort(self._index, part)
                self._indexed_at = self.path.stat().st_mtime_ns

    def _await_new_time(self) -> int:
        """Wait until a change gives the directory another modification time; return the present one.

        The kernel's clock for files ticks every few milliseconds. Of two changes within a tick, an
        index that was read in between would not see the second one.
        """
        changed_at = self.path.stat().st_mtime_ns
        while self._file_clock() <= changed_at < time.time_ns():
            threading.Event().wait(SECONDS_BETWEEN_LOOKS / 5)
        return changed_at

    @staticmethod
    def _file_clock() -> int:
        return time.clock_gettime_ns(_COARSE_CLOCK) if sys.platform == "linux" else time.time_ns()

    def supersede(self, file: TemporaryFile, part: Part) -> None:
        """Publish a part in the place of the one that is there; the lock is held."""
        with self.translated():
            file.replace(part.name)
        self.sync()

    def put(self, path: Path, frame: pl.DataFrame, footer: dict[str, str]) -> None:
        """Write a file, over the one that is there; the lock is held."""
        with self.temporary(frame, footer) as file, self.translated():
            file.replace(path.name)
            self.sync()

    def rename(self, name: str, other: str) -> None:
        """Give a file another name; the lock is held."""
        with self.translated():
            self._await_new_time()
            (self.path / name).rename(self.path / other)
            self.sync()

    def remove(self, *paths: Path) -> None:
        """Remove files so that a crash does not bring them back; the lock is held."""
        with self.translated():
            self._await_new_time()
            for path in paths:
                path.unlink(missing_ok=True)
                failpoints.reach("during-removal")
            self.sync()

    def sync(self) -> None:
        """Make sure that the names in the directory are on disk."""
        with self.translated():
            sync_directory(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other thread and process from changing the directory.

        Raises:
            DestinationLockedError: If the lock is not free in time.
        """
        with self.translated():
            descriptor = self._opened_and_locked()
            try:
                yield
            finally:
                os.close(descriptor)

    def _opened_and_locked(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                self._take_lock(descriptor)
                is_there = os.path.samestat(os.fstat(descriptor), self.path.stat())
            except BaseException:
                os.close(descriptor)
                raise
            if is_there:
                return descriptor
            os.close(descriptor)  # another directory has taken its place meanwhile

    def _take_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not lock_file(descriptor):
            if time.monotonic() > deadline:
                raise DestinationLockedError(
                    "another process holds the lock of the directory",
                    where=self.where(),
                    hint="end it if it was stopped, then run the same command again",
                )
            threading.Event().wait(SECONDS_BETWEEN_LOOKS)

    @contextmanager
    def translated(self, path: Path | None = None) -> Iterator[None]:
        """Raise the errors of ours that those of the system and of Polars mean."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise translate(error, self.where(path)) from error


def translate(error: Exception, where: str) -> BatchImportError:
    """Return the error of ours that an error means; Polars has the system's number in its message."""
    text = str(error).partition("\n")[0]
    number = _OS_ERROR.search(text)
    code = int(number[1]) if number else getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return FatalError("the disk is full", where=where, hint="make room, then run again")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FatalError("the directory cannot be written", where=where, hint="check its mode")
    if code in (errno.ENOTSUP, errno.ENOLCK, errno.EBADF):
        return UsageError(
            "this file system has no file locks or hard links",
            where=where,
            hint="choose a directory on a local disk",
        )
    if code is None:
        return FatalError(f"is damaged: {text}", where=where)
    return FatalError(f"cannot be read or written: {os.strerror(code)}", where=where)


class Scratch:
    """For a dry run: a temporary directory with links to the files of the real one."""

    def __init__(self, path: Path) -> None:
        self._folder = TemporaryDirectory(prefix="batchimport-", ignore_cleanup_errors=True)
        self.folder = Folder(Path(self._folder.name), path)
        if path.is_dir():
            for file in Folder(path).files():
                (self.folder.path / file.name).symlink_to(file)

    def remove(self) -> None:
        """Remove the directory."""
        self._folder.cleanup()
