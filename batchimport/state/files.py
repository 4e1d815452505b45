"""Files that appear under their names at once and as a whole, or not at all, and never over others."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

DRAFT_SECONDS = 24 * 3600.0
"""A draft that has a name, and is older than this, was left behind by a process that was killed."""


class Draft:
    """A file that is not yet in the directory; no other process knows of it."""

    def __init__(self, folder: Path, descriptor: int, hidden: Path | None) -> None:
        self._folder, self._descriptor, self._hidden = folder, descriptor, hidden

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Open it; what was written is on disk at the end."""
        with open(self._descriptor, "wb", closefd=False) as file:
            yield file
        os.fsync(self._descriptor)

    def publish(self, name: str) -> None:
        """Put the file into the directory, at once and as a whole.

        Raises:
            FileExistsError: If its name is taken.
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


@contextmanager
def draft_in(folder: Path) -> Iterator[Draft]:
    """Make a draft; it is gone at the end, unless it was published."""
    descriptor, hidden = _open_unseen(folder)
    try:
        yield Draft(folder, descriptor, hidden)
    finally:
        os.close(descriptor)
        if hidden is not None:
            hidden.unlink(missing_ok=True)


def remove_old_drafts(folder: Path) -> None:
    """Remove drafts that were left behind."""
    for draft in folder.glob(".draft-*"):
        with suppress(FileNotFoundError):
            if draft.stat().st_mtime < time.time() - DRAFT_SECONDS:
                draft.unlink()


def _open_unseen(folder: Path) -> tuple[int, Path | None]:
    """Open a file without a name; or a hidden one, where the file system knows no such thing."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with suppress(OSError, AttributeError):  # not on macOS, NFS, …
        return os.open(folder, flags | os.O_TMPFILE, 0o666), None
    hidden = folder / f".draft-{secrets.token_hex(8)}"
    return os.open(hidden, flags | os.O_CREAT | os.O_EXCL, 0o666), hidden
