"""The state directory: a checkpoint per job, for `status`, `jobs` and `resume`.

A copy for quick reading; the ledger in the destination is the truth. A damaged file counts as
missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import FatalError, JobRunningElsewhereError
from batchimport.model import JOB_ID_PATTERN, check_job_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT_VERSION = 1
STATE_PATH = Path(".batchimport")


def write_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file so that a reader, or a crash, finds the old content or the new, never a part.

    Raises:
        FatalError: If the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe
            with path.open("wb") as stream:
                stream.writelines(parts)
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.writelines(parts)
                stream.flush()
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


def sync_directory(path: Path) -> None:
    """Make sure that the names in a directory are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


class StateDirectory:
    """A folder for each job, a lock file for each target."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job.

        Raises:
            UsageError: If the job id is not valid.
        """
        check_job_id(job_id)
        return self.path / job_id

    def save(self, job_id: str, document: dict[str, Any]) -> None:
        """Write the checkpoint of a job."""
        body = json.loads(json.dumps({"format_version": FORMAT_VERSION, **document}, default=str))
        text = json.dumps({"digest": _digest(body), **body}, indent=1)
        write_atomically(self.folder(job_id) / "job.json", [text.encode()])

    def load(self, job_id: str) -> dict[str, Any] | None:
        """Return the checkpoint of a job; None if it is missing, damaged, or of another version."""
        try:
            document = json.loads((self.folder(job_id) / "job.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
            return None
        digest = document.pop("digest", None)
        return document if digest == _digest(document) else None

    def jobs(self) -> list[dict[str, Any]]:
        """Return all checkpoints, the most recently saved first."""
        try:
            names = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        except OSError:
            return []
        loaded = [self.load(name) for name in names if JOB_ID_PATTERN.fullmatch(name)]
        known = [document for document in loaded if document is not None]
        return sorted(known, key=lambda document: str(document.get("saved_at")), reverse=True)

    @contextmanager
    def lock(self, target: str) -> Iterator[None]:
        """Hold the lock of a target; the kernel releases it when the process ends.

        Raises:
            JobRunningElsewhereError: If another process holds it.
            FatalError: If the state directory cannot be written.
        """
        try:
            (self.path / "locks").mkdir(parents=True, exist_ok=True)
            handle = os.open(
                self.path / "locks" / target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise FatalError(
                f"cannot write the state directory: {error.strerror or error}",
                where=str(self.path),
                hint="choose another directory with --state-dir",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise JobRunningElsewhereError(
                "another process is running this job",
                hint="watch it with: batchimport status --watch",
            ) from error
        try:
            yield
        finally:
            os.close(handle)
