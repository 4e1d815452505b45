"""Standard input, or records that a program gives: kept in a private file until their job is completed."""

from __future__ import annotations

import os
import select
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from batchimport.errors import FatalError, UsageError
from batchimport.policy.preparing import announce, note
from batchimport.sources.bytes.file import closed_on_error
from batchimport.state.files import lock_file, open_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.state.directory import StateDirectory

BLOCK_BYTES = 1024 * 1024


class Spool:
    """What was read from standard input, or given by a program.

    Attributes:
        path: The file that holds it; it moves when `keep` is called.
        note: What users should know about it.
    """

    def __init__(
        self,
        state: StateDirectory,
        path: Path,
        handle: int | None = None,
        what: str = "standard input",
    ) -> None:
        self.path = path
        self._state, self._handle, self._what = state, handle, what

    @classmethod
    def of_job(cls, state: StateDirectory, job_id: str) -> Self:
        """Return what an earlier run kept for a job.

        Raises:
            UsageError: If it is no longer there.
        """
        path = state.folder(job_id) / "stdin"
        if not path.is_file():
            raise UsageError(
                "what was read from standard input, or given by a program, is no longer there",
                where=f"job {job_id}",
                hint="unless the job is completed, pipe the same content into `batchimport run -`, or "
                "make the same call again",
            )
        return cls(state, path)

    @classmethod
    def of_standard_input(cls, state: StateDirectory) -> Self:
        """Read standard input to its end.

        Raises:
            UsageError: If it cannot be read.
            FatalError: If it cannot be written to disk.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed", hint="pipe something into it")
        stdin, target = sys.stdin.fileno(), state.path
        return cls._filled(state, "standard input", lambda _, handle: _copy(stdin, handle, target))

    @classmethod
    def of_records(cls, state: StateDirectory, write: Callable[[Path], None]) -> Self:
        """Write the records that a program gives.

        Raises:
            FatalError: If they cannot be written to disk.
        """

        def fill(path: Path, handle: int) -> None:
            try:
                write(path)
                os.fsync(handle)
            except OSError as error:
                raise _unwritable(error, state.path, "what was given") from error

        return cls._filled(state, "what was given", fill)

    @classmethod
    def _filled(cls, state: StateDirectory, what: str, fill: Callable[[Path, int], None]) -> Self:
        try:
            handle, path = _private_file(state.make("spool"))
        except OSError as error:
            raise _unwritable(error, state.path, what) from error
        spool = cls(state, path, handle, what)
        with closed_on_error(spool):
            fill(path, handle)
        return spool

    @property
    def note(self) -> str:
        """Say where it is kept; empty if it is not kept yet."""
        if self._handle is not None:
            return ""
        return f"{self._what} is kept in {self.path} until the job is completed"

    def keep(self, job_id: str) -> None:
        """Make it the spool of a job, which stays until `discard`."""
        path = self._state.folder(job_id) / "stdin"
        if path == self.path:
            return
        try:
            self._state.make(job_id)
            self.path.replace(path)
        except OSError as error:
            raise _unwritable(error, path.parent, self._what) from error
        self.path = path
        self.close(kept=True)

    def discard(self) -> None:
        """Remove it: the job is completed."""
        with suppress(OSError):
            self.path.unlink()

    def close(self, *, kept: bool = False) -> None:
        """Close the file, and remove it unless a job keeps it."""
        if self._handle is None:
            return
        if not kept:
            self.discard()
        os.close(self._handle)
        self._handle = None


def _private_file(folder: Path) -> tuple[int, Path]:
    """Return a new file that only this user may read, locked as long as it is in use."""
    _sweep(folder)
    while True:
        handle, name = tempfile.mkstemp(dir=folder)
        lock_file(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process removed it before it was locked


def _copy(source: int, target: int, place: Path) -> None:
    if os.isatty(source):
        note("standard input is the keyboard: end with Ctrl-D on a line of its own")
    status = os.fstat(source)
    total, done = status.st_size if stat.S_ISREG(status.st_mode) else None, 0
    while True:
        announce("reading standard input", done, total)
        try:
            block = os.read(source, BLOCK_BYTES)
        except BlockingIOError:  # another program has made the pipe non-blocking
            select.select([source], [], [])
            continue
        except OSError as error:
            raise UsageError(f"standard input cannot be read: {error.strerror}") from error
        try:
            if not block:
                os.fsync(target)
                return
            done += len(block)
            while block:
                block = block[os.write(target, block) :]
        except OSError as error:
            raise _unwritable(error, place) from error


def _unwritable(error: OSError, place: Path, what: str = "standard input") -> FatalError:
    return FatalError(
        f"{what} cannot be kept: {error.strerror or error}",
        where=str(place),
        hint="make room or choose another --state-dir",
    )


def _sweep(folder: Path) -> None:
    """Remove the files of killed processes, which nobody locks any more."""
    for path in folder.iterdir():
        with suppress(OSError, UsageError):
            handle = open_ours(path, os.O_RDWR)
            try:
                if lock_file(handle):
                    path.unlink()
            finally:
                os.close(handle)
