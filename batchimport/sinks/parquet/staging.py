"""`--atomic`: a directory beside the dataset, which takes its place when the job is completed.

It is hidden, and has a marker: one without it holds what a completed job has replaced, and is removed.
Exchanging two directories is one system call of Linux and macOS. Where a file system lacks it, the old
one is renamed first: a kill in between is undone when the dataset is opened again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.sinks.parquet.folder import Folder
from batchimport.state.files import exchange, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = ".batchimport-new"


class Staging:
    """The directories beside a dataset that jobs fill."""

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self._prefix = f".{self._path.name}.new-"

    def name_for(self, job_id: str) -> str:
        """Return the name of the directory that a job fills."""
        return self._prefix + hashlib.sha256(job_id.encode()).hexdigest()[:12]

    def folder_of(self, job_id: str) -> Folder | None:
        """Return the directory that a job fills; None if there is none."""
        return self.named(self.name_for(job_id))

    def named(self, name: str) -> Folder | None:
        """Return the directory of a name; None if no job fills it."""
        path = self._path.parent / name
        is_filled = name.startswith(self._prefix) and (path / MARKER).exists()
        return Folder(path) if is_filled else None

    def folders(self) -> list[Folder]:
        """Return all directories that jobs fill."""
        found = (self.named(path.name) for path in self._beside())
        return [folder for folder in found if folder is not None]

    def make(self, job_id: str) -> Folder:
        """Make an empty directory for a job; the lock of the dataset is held."""
        path = self._path.parent / self.name_for(job_id)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        path.chmod(self._path.stat().st_mode & 0o7777)
        (path / MARKER).touch()
        sync_directory(path)
        sync_directory(path.parent)
        return Folder(path)

    def publish(self, folder: Folder) -> None:
        """Put a directory in the place of the dataset; the locks of both are held."""
        if not exchange(folder.path, self._path):
            old = self._old()
            self._path.rename(old)
            folder.path.rename(self._path)
            old.rename(folder.path)
        sync_directory(self._path.parent)
        failpoints.reach("after-publishing")
        self.tidy()

    def tidy(self) -> None:
        """Remove what was replaced, but for files of others; the lock of the dataset is held."""
        (self._path / MARKER).unlink(missing_ok=True)
        for path in self._beside():
            if (path / MARKER).exists():
                continue
            for file in path.iterdir():
                if file.suffix != ".parquet" and not (self._path / file.name).exists():
                    file.rename(self._path / file.name)
            shutil.rmtree(path)

    def recover(self) -> None:
        """Undo half of an exchange that took two steps."""
        if self._old().is_dir() and not self._path.exists():
            self._old().rename(self._path)

    def remove(self, folder: Folder) -> None:
        """Remove a directory of a job that begins anew."""
        shutil.rmtree(folder.path)

    def _old(self) -> Path:
        return self._path.parent / f".{self._path.name}.old"

    def _beside(self) -> Iterator[Path]:
        for path in self._path.parent.glob(f"{_escaped(self._prefix)}*"):
            if path.is_dir() and not path.is_symlink():
                yield path


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
