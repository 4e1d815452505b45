"""A directory of Parquet files that all have one schema: complete files only, each put in at once.

Its files are of two kinds, and readers may take them all: parts hold rows; a job's own file holds
none. What else is to be known stands in their footers. Nothing here knows what that is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from batchimport import failpoints
from batchimport.errors import BatchImportError, FatalError, JobRunningElsewhereError, UsageError
from batchimport.state.directory import sync_directory
from batchimport.state.files import draft_in, remove_old_drafts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.state.files import Draft

_PART = re.compile(r"part-(.+)-(\d{16})-(\d{16})\.parquet")
_JOB = re.compile(r"_job-(.+)\.parquet")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
LOCK_WAIT_SECONDS = 10.0
"""A lock is held for milliseconds; longer means that its holder was stopped, or is far away."""
SECONDS_BETWEEN_LOOKS = 0.005


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The name of a part, which says whose records it holds, and which."""

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

    def where(self, path: Path | None = None) -> str:
        """Return the directory, or a file of it, as the user knows it."""
        return str(self._known_as / path.name if path else self._known_as)

    # -- looking -------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """Return all Parquet files, in order of name."""
        with self.translated():
            return sorted(
                each
                for each in self.path.iterdir()
                if each.suffix == ".parquet" and not each.name.startswith(".")
            )

    def parts(self, job_id: str | None = None) -> list[Part]:
        """Return the parts that batchimport wrote, of one job or of all, in order."""
        found = [_PART.fullmatch(each.name) for each in self.files()]
        parts = [Part(match[1], int(match[2]), int(match[3])) for match in found if match]
        return sorted(part for part in parts if job_id in (None, part.job_id))

    def job_ids(self) -> list[str]:
        """Return the jobs that have a file."""
        found = [_JOB.fullmatch(each.name) for each in self.files()]
        return [match[1] for match in found if match]

    def job_path(self, job_id: str) -> Path:
        """Return the place of a job's own file."""
        return self.path / f"_job-{job_id}.parquet"

    def foreign(self) -> list[Path]:
        """Return the Parquet files that batchimport did not write."""
        return [
            each
            for each in self.files()
            if not (_PART.fullmatch(each.name) or _JOB.fullmatch(each.name))
        ]

    def footer(self, path: Path) -> dict[str, str]:
        """Return what stands in a file's footer."""
        with self.translated(path):
            return pl.read_parquet_metadata(path)

    def schema(self, path: Path) -> dict[str, pl.DataType]:
        """Return the columns of a file."""
        with self.translated(path):
            return dict(pl.read_parquet_schema(path))

    def rows(self) -> int:
        """Count the rows of all files."""
        files = self.files()
        with self.translated():
            found = pl.scan_parquet(files, glob=False).select(pl.len()).collect() if files else None
            return int(found.item()) if found is not None else 0

    # -- writing -------------------------------------------------------------------------------

    def make(self) -> None:
        """Make the directory, if it is not there."""
        with self.translated():
            if not self.path.is_dir():
                self.path.mkdir(exist_ok=True)
                Folder(self.path.parent).sync()

    def tidy(self) -> None:
        """Remove drafts that were left behind."""
        with self.translated():
            remove_old_drafts(self.path)

    @contextmanager
    def drafted(self, frame: pl.DataFrame, footer: dict[str, str]) -> Iterator[Draft]:
        """Write a file that no one sees; it is gone at the end unless it was published."""
        with ExitStack() as stack:
            with self.translated():
                draft = stack.enter_context(draft_in(self.path))
                with draft.writing() as file:
                    frame.write_parquet(file, metadata=footer)
            yield draft

    def put(self, path: Path, frame: pl.DataFrame, footer: dict[str, str]) -> None:
        """Write a file, over the one that is there; the lock is held."""
        complete = path.with_name(f".{path.name}")
        with self.drafted(frame, footer) as draft, self.translated():
            complete.unlink(missing_ok=True)
            draft.publish(complete.name)
            complete.replace(path)
            self.sync()

    def remove(self, *paths: Path) -> None:
        """Remove files for good; the lock is held."""
        with self.translated():
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
            JobRunningElsewhereError: If the lock is not free in time.
        """
        with self.translated():
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                self._take_lock(descriptor)
                yield
            finally:
                os.close(descriptor)

    def _take_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise JobRunningElsewhereError(
                        "another process holds the lock of the directory",
                        where=self.where(),
                        hint="end it if it was stopped, then run the same command again",
                    ) from None
                threading.Event().wait(SECONDS_BETWEEN_LOOKS)
            else:
                return

    @contextmanager
    def translated(self, path: Path | None = None) -> Iterator[None]:
        """Say what the system's errors mean for the runner."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise translate(error, self.where(path)) from error


def translate(error: Exception, where: str) -> BatchImportError:
    """Say what an error means for the runner; Polars names the system's number in its text."""
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
    """A directory that shows another one's files, for a dry run: what is done to it is not kept."""

    def __init__(self, path: Path) -> None:
        self._folder = TemporaryDirectory(prefix="batchimport-", ignore_cleanup_errors=True)
        self.folder = Folder(Path(self._folder.name), path)
        if path.is_dir():
            for each in Folder(path).files():
                (self.folder.path / each.name).symlink_to(each)

    def remove(self) -> None:
        """Remove the directory."""
        self._folder.cleanup()
