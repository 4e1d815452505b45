"""Files that are complete or absent, whatever is killed, and locks that a killed process releases."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.errors import FatalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

PREFIX = ".draft-"
"""How the names of hidden temporary files begin; those of earlier versions are removed, too."""
JUST_MADE_SECONDS = 10.0
ABANDONED_SECONDS = 24 * 3600.0
"""A hidden temporary file that is older than this was left behind by a process that was killed."""


def write_atomically(path: Path, parts: Iterable[bytes], *, mode: int | None = None) -> None:
    """Replace a file so that a reader, or a crash, finds the old content or the new, never a part.

    Args:
        mode: Who may use it; None: this user alone.

    Raises:
        FatalError: If the disk does not take it.
    """
    import tempfile  # noqa: PLC0415 - not for `--help`

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe
            with path.open("wb") as stream:
                stream.writelines(parts)
            return
        prefix = f"{PREFIX}{path.name[:100]}-"
        remove_abandoned(path.parent, prefix)
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                lock_file(descriptor)  # says that somebody is at it
                stream.writelines(parts)
                stream.flush()
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(stream.fileno())
            failpoints.reach("file-written")
            Path(name).replace(path)
            failpoints.reach("file-renamed")
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise FatalError(
            f"cannot write the file: {error.strerror or error}",
            where=str(path),
            hint="make room or choose another place, then run the same command again",
        ) from error


def read_file(path: Path) -> bytes:
    """Return the content of a file that a user names, or of `<(a command)`.

    Raises:
        OSError: If it cannot be read. A device, and a named pipe, may never end.
    """
    mode = path.stat().st_mode
    is_endless = stat.S_ISCHR(mode) or (stat.S_ISFIFO(mode) and not _is_descriptor(path))
    if is_endless:
        raise OSError(errno.EINVAL, "a device or a named pipe")
    return path.read_bytes()


def _is_descriptor(path: Path) -> bool:
    """Say whether a path is that of an open file of this process."""
    return str(path).startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin"))


def private_directory(path: Path) -> None:
    """Make a folder that only this user may use; an existing one must be a folder of this user.

    Raises:
        UsageError: If it is a link, or belongs to another user: who made it could read and redirect
            what is written into it.
        OSError: If it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise _not_ours(path, "is a link")
    if status.st_uid != os.geteuid():
        raise _not_ours(path, "belongs to another user")


def open_ours(path: Path, flags: int) -> int:
    """Open a file for this user alone, and follow no link.

    Raises:
        UsageError: If it is a link, or belongs to another user.
        OSError: If it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours(path, "is a link") from error
        raise
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise _not_ours(path, "belongs to another user")
    return descriptor


def _not_ours(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{reason}, and the state of jobs is kept in nothing that another user can redirect",
        where=str(path),
        hint="remove it, or choose another directory with --state-dir",
    )


def sync_directory(path: Path) -> None:
    """Make sure that the names in a directory are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(path: Path, other: Path) -> bool:
    """Exchange two files or directories at once.

    Returns:
        False if the system or the file system cannot.

    Raises:
        OSError: If it fails for another reason.
    """
    import ctypes  # noqa: PLC0415 - rarely needed

    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(path), os.fsencode(other)
    at_current = -100
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, 2)
        else:
            failed = library.renameat2(at_current, names[0], at_current, names[1], 2)
    except AttributeError:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(path))


def lock_file(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file or directory until its descriptor is closed, or the process ends.

    The lock belongs to the descriptor, so that it also keeps out other threads of this process.

    Args:
        wait: Wait until it is free.

    Returns:
        False if it is not free.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


class OpenedFile:
    """A file that a database keeps open: is it still the one that its path names?"""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._look()

    def check(self) -> None:
        """Raise if what is written no longer reaches the path.

        Raises:
            FatalError: If the file was removed, moved or replaced.
        """
        if self._look() != self._identity:
            raise FatalError(
                "the file was removed, moved or replaced while the job ran",
                where=str(self._path),
                hint="put it back and run the same command again, or import again with --restart",
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


class TemporaryFile:
    """A file that is not yet in its directory: no other process sees it."""

    def __init__(self, folder: Path, descriptor: int, hidden: Path | None) -> None:
        self._folder, self._descriptor, self._hidden = folder, descriptor, hidden

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Open it for writing; at the end its content is on disk."""
        with open(self._descriptor, "wb", closefd=False) as stream:
            yield stream
        os.fsync(self._descriptor)

    def publish(self, name: str) -> None:
        """Put the file into the directory, at once and complete. The directory is not synced.

        Raises:
            FileExistsError: If the name is taken.
        """
        if self._hidden is not None:
            os.link(self._hidden, self._folder / name)
            return
        # A directory's descriptor makes Python call linkat(2), which follows the link in /proc.
        directory = os.open(self._folder, os.O_RDONLY)
        try:
            os.link(f"/proc/self/fd/{self._descriptor}", self._folder / name, src_dir_fd=directory)
        finally:
            os.close(directory)

    def replace(self, name: str) -> None:
        """Put the file in the place of another one. The directory is not synced.

        Of several processes that replace the same file, one at a time may do so.
        """
        hidden = self._folder / f".{name}"  # a link cannot replace a file, a rename can
        hidden.unlink(missing_ok=True)
        self.publish(hidden.name)
        hidden.replace(self._folder / name)


@contextmanager
def temporary_file(folder: Path) -> Iterator[TemporaryFile]:
    """Create a temporary file; it is gone at the end, unless it was published."""
    descriptor, hidden = _open_unseen(folder)
    try:
        yield TemporaryFile(folder, descriptor, hidden)
    finally:
        os.close(descriptor)
        if hidden is not None:
            hidden.unlink(missing_ok=True)


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove temporary files of this prefix whose writers were killed: nobody holds their locks."""
    for path in folder.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            if path.stat().st_mtime > time.time() - JUST_MADE_SECONDS:
                continue  # it may not be locked yet
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if lock_file(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def remove_old_temporary_files(folder: Path) -> None:
    """Remove hidden temporary files that were left behind."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()


def _open_unseen(folder: Path) -> tuple[int, Path | None]:
    """Open a file without a name; or a hidden one, where the file system has no such files."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with suppress(OSError, AttributeError):  # not on macOS, NFS, …
        return os.open(folder, flags | os.O_TMPFILE, 0o666), None
    hidden = folder / f"{PREFIX}{os.urandom(8).hex()}"
    return os.open(hidden, flags | os.O_CREAT | os.O_EXCL, 0o666), hidden
