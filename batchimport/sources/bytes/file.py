"""The bytes of a file: opened, looked at, read by position."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchimport.errors import SourceChangedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
DIGEST_DIGITS = 32
LINE_END = frozenset(b"\r\n")


def digest_of(data: bytes | memoryview) -> str:
    """Return the hash by which the bytes of a chunk are known again."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]


class Text(Protocol):
    """The bytes of a text, read by position.

    Attributes:
        path: Where it comes from.
        fingerprint: What tells another content apart.
        modified: A quick hint of sameness.
        notes: What was found out by looking and users should know.
    """

    path: str
    fingerprint: str
    modified: str
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return how many bytes there are in all."""
        ...

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end."""
        ...

    def blocks(self, position: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of `[position, stop)`, piece by piece."""
        ...

    def digest(self, lo: int, hi: int) -> str:
        """Return the hash of the bytes `[lo, hi)`."""
        ...

    def continues(self, fingerprint: str) -> bool:
        """Say whether whole lines were added to the text with this fingerprint, as far as shown."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class TextFile:
    """A file that is read by position, at the size it had when it was opened.

    Attributes:
        fingerprint: Size, hash of the first and of the last 64 KiB.
        modified: Time of last change and inode.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UsageError("no such file", where=path, hint="check the path") from error
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=path) from error
        if Path(path).is_dir():
            os.close(self._handle)
            raise UsageError(
                "is a directory", where=path, hint=f"name the files in it: {path}/*.jsonl"
            )
        status = os.fstat(self._handle)
        self.size = status.st_size
        self.modified = f"{status.st_mtime_ns}-{status.st_ino}"
        head, tail = (
            self.read_at(0, HEAD_BYTES),
            self.read_at(max(0, self.size - HEAD_BYTES), HEAD_BYTES),
        )
        self.fingerprint = f"{self.size}-{digest_of(head)}-{digest_of(tail)}"

    @property
    def descriptor_path(self) -> str:
        """Return a path by which others can open this very file, whatever its name is now."""
        return f"/dev/fd/{self._handle}"

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end.

        Raises:
            SourceChangedError: If the file has become shorter since it was opened.
        """
        wanted = max(0, min(count, self.size - position))
        data = os.pread(self._handle, wanted, position)
        while len(data) < wanted:
            more = os.pread(self._handle, wanted - len(data), position + len(data))
            if not more:
                raise SourceChangedError(
                    "the file became shorter while it was read", where=self.path
                )
            data += more
        return data

    def blocks(self, position: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of `[position, stop)` in blocks of 1 MiB."""
        stop = self.size if stop is None else stop
        while position < stop:
            block = self.read_at(position, min(BLOCK_BYTES, stop - position))
            yield block
            position += len(block)

    def digest(self, lo: int, hi: int) -> str:
        """Return the hash of the bytes `[lo, hi)`."""
        state = hashlib.sha256()
        for block in self.blocks(lo, hi):
            state.update(block)
        return state.hexdigest()[:DIGEST_DIGITS]

    def continues(self, fingerprint: str) -> bool:
        """Say whether whole lines were added to the file with this fingerprint, as far as shown."""
        size = int(fingerprint.partition("-")[0])
        if size >= self.size or (size and not self._is_border(size)):
            return False
        head = self.read_at(0, min(size, HEAD_BYTES))
        start = max(0, size - HEAD_BYTES)
        tail = self.read_at(start, size - start)
        return fingerprint == f"{size}-{digest_of(head)}-{digest_of(tail)}"

    def _is_border(self, position: int) -> bool:
        return not LINE_END.isdisjoint(self.read_at(position - 1, 2))

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
