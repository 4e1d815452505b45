"""The state directory: a checkpoint per job, for `status`, `jobs` and `resume`.

A copy for quick reading; the ledger in the destination is the truth. A damaged file counts as
missing. Nothing in it is opened through a link that another user could have made.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import FatalError, JobRunningElsewhereError, UsageError
from batchimport.model import hash_of
from batchimport.rules import JOB_ID_PATTERN, check_job_id
from batchimport.state.files import lock_file, open_ours, private_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT_VERSION = 1
STATE_PATH = Path(".batchimport")
DIGEST_DIGITS = 32
KEY_BYTES = 32
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def nearest_state(start: Path) -> Path:
    """Return the state directory in a directory, or else in the nearest one above it.

    The search ends where others may put one: above a directory of another user, or that all may write.
    """
    if STATE_PATH.exists():
        return STATE_PATH
    for parent in start.parents:
        status = parent.stat()
        if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
            break
        found = parent / STATE_PATH
        if found.is_dir() and not found.is_symlink():
            return found
    return STATE_PATH


class StateDirectory:
    """A folder for each job, a lock file for each target.

    Raises:
        UsageError: If the path is a URL.
    """

    def __init__(self, path: Path) -> None:
        if _URL.match(str(path)):
            raise UsageError(
                "is a directory of this machine, not a URL",
                where="--state-dir",
                hint="elsewhere the ledger is enough: `batchimport resume JOB --to URL`",
            )
        self.path = path

    def make(self, name: str) -> Path:
        """Make a folder in the state directory, and return it.

        Raises:
            UsageError: If it, or the directory, is a link or belongs to another user.
            OSError: If it cannot be made.
        """
        is_new = not self.path.exists()
        if is_new:
            private_directory(self.path)
        ignore = self.path / ".gitignore"
        if (is_new or self.path.name == STATE_PATH.name) and not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        private_directory(self.path / name)
        self.check(name)
        return self.path / name

    def check(self, name: str) -> None:
        """Check that a folder in it, if there is one, was made by this user.

        The directory itself may be a link, and may be root's.

        Raises:
            UsageError: If not.
        """
        if not self.path.exists():
            return
        if os.path.lexists(self.path / name):
            private_directory(self.path / name)
        owners = {self.path.lstat().st_uid, self.path.stat().st_uid}
        if not owners <= {os.geteuid(), 0}:
            raise UsageError(
                "belongs to another user",
                where=str(self.path),
                hint="choose another directory with --state-dir",
            )

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
        if body.pop("trusted", True):  # what another user wrote is not signed by being saved again
            body |= {"signature": signature(hash_of(body, DIGEST_DIGITS))}
        text = json.dumps({"digest": hash_of(body, DIGEST_DIGITS), **body}, indent=1)
        folder = self.folder(job_id)
        try:
            self.make(job_id)
        except OSError as error:
            raise self._unwritable(error) from error
        write_atomically(folder / "job.json", [text.encode()])

    def forget(self, job_id: str) -> None:
        """Remove the checkpoint of a job; the other files in its folder stay."""
        with suppress(OSError):
            (self.folder(job_id) / "job.json").unlink()

    def remove(self, job_id: str) -> None:
        """Remove all that is kept of a job; its checkpoint last, so that a kill leaves it known."""
        self.check(job_id)
        folder = self.folder(job_id)
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "job.json"):
            if not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
        with suppress(OSError):  # a folder of the user's own in it
            folder.rmdir()

    def remove_file(self, job_id: str, name: str) -> None:
        """Remove a file of a job, if it is there."""
        self.check(job_id)
        (self.folder(job_id) / name).unlink(missing_ok=True)

    def load(self, job_id: str) -> dict[str, Any] | None:
        """Return the checkpoint of a job; None if it is missing, damaged, or of another version.

        Its key `trusted` says whether this user wrote it. What another one wrote may be shown, but
        must not decide which server gets a password, or which code is run.

        Raises:
            UsageError: If it is a link, or belongs to another user.
        """
        try:
            folder = self.folder(job_id)
            self.check(job_id)
            with os.fdopen(open_ours(folder / "job.json", os.O_RDONLY), "rb") as file:
                document = json.loads(file.read())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
            return None
        digest = document.pop("digest", None)
        if digest != hash_of(document, DIGEST_DIGITS):
            return None
        signed = document.pop("signature", None)
        expected = signature(hash_of(document, DIGEST_DIGITS))
        return document | {"trusted": bool(expected) and signed == expected}

    def knows(self, sources: Sequence[str], table: str) -> bool:
        """Say whether there is a job that imports these files into a table of this name."""
        facts = (document.get("job") or {} for document in self.jobs())
        wanted = (list(sources), table)
        return any((list(job.get("sources", ())), job.get("table")) == wanted for job in facts)

    def jobs(self) -> list[dict[str, Any]]:
        """Return all checkpoints, the most recently saved first."""
        try:
            names = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        except OSError:
            return []
        names = [name for name in names if JOB_ID_PATTERN.fullmatch(name)]
        loaded = [self.load(name) for name in names if not (self.path / name).is_symlink()]
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
            descriptor = open_ours(self.make("locks") / target, os.O_RDWR | os.O_CREAT)
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


# -- signatures by which this user's own state is known again -------------------------------------
# The state directory lies beside the data, and may have come with it: from an archive, a repository, a
# shared folder. The key is in the user's home directory.


def signature(text: str) -> str:
    """Return this user's signature of a text; empty if the user has no home to keep a key in."""
    key = _key(_folder())
    return hmac.new(key, text.encode(), "sha256").hexdigest() if key else ""


def _folder() -> Path | None:
    home = os.environ.get("XDG_STATE_HOME", "")
    with suppress(RuntimeError):
        return (Path(home) if home else Path.home() / ".local" / "state") / "batchimport"
    return None


@cache
def _key(folder: Path | None) -> bytes:
    """Return the key in a folder, made on first use; empty if there can be none."""
    if folder is None:
        return b""
    with suppress(OSError, UsageError):
        private_directory(folder)
        path = folder / "key"
        if not path.exists():
            draft = folder / f".{os.urandom(8).hex()}"
            descriptor = open_ours(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):  # another process was first
                os.link(draft, path)
            draft.unlink()
        with os.fdopen(open_ours(path, os.O_RDONLY), "rb") as file:
            key = file.read(KEY_BYTES)
        return key if len(key) == KEY_BYTES else b""
    return b""
