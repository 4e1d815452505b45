"""The state directory: a checkpoint per job, for `status`, `jobs` and `resume`.

A copy for quick reading; the ledger in the destination is the truth. A damaged file counts as
missing.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import FatalError, JobRunningElsewhereError
from batchimport.model import JOB_ID_PATTERN, check_job_id, hash_of
from batchimport.state.files import lock_file, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT_VERSION = 1
STATE_PATH = Path(".batchimport")
DIGEST_DIGITS = 32


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
        text = json.dumps({"digest": hash_of(body, DIGEST_DIGITS), **body}, indent=1)
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
        return document if digest == hash_of(document, DIGEST_DIGITS) else None

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
            descriptor = os.open(
                self.path / "locks" / target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if not lock_file(descriptor):
                raise JobRunningElsewhereError(
                    "another process is running this job",
                    hint="watch it with: batchimport status --watch",
                )
            yield
        finally:
            os.close(descriptor)

    def _unwritable(self, error: OSError) -> FatalError:
        return FatalError(
            f"cannot write the state directory: {error.strerror or error}",
            where=str(self.path),
            hint="choose another directory with --state-dir",
        )
