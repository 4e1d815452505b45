"""Signatures by which this user's own state is known again.

The state directory lies beside the data, and may have come with it: from an archive, a repository, a
shared folder. The key is in the user's home directory.
"""

from __future__ import annotations

import hmac
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from batchimport.errors import UsageError
from batchimport.state.files import open_ours, private_directory

KEY_BYTES = 32


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
