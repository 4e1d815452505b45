"""The bytes of a file, read by position."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchimport.errors import SourceChangedError, UsageError, hint_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
DIGEST_DIGITS = 32
LINE_END = frozenset(b"\r\n")
BOM = b"\xef\xbb\xbf"


def _meant(path: Path) -> str:
    """Return what to do about a file that is not there."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which is not there"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    try:
        return hint_for(path.name, [each.name for each in path.parent.iterdir()], "check the path")
    except OSError:
        return "check the path"


def _open(path: str) -> tuple[int, int, str]:
    """Return the descriptor of a file, its size, and its time of last change with its inode."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError("no such file", where=path, hint=_meant(Path(path))) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=path) from error
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        os.close(handle)
        hint = f"name the files in it: {path.rstrip('/')}/*.jsonl"
        raise UsageError("is a directory", where=path, hint=hint)
    if not status.st_size and os.pread(handle, 1, 0):
        os.close(handle)
        raise UsageError(
            "has a size of 0, and content, like files in /proc",
            where=path,
            hint="pipe it into `batchimport run -`, which keeps it until the job is completed",
        )
    return handle, status.st_size, f"{status.st_mtime_ns}-{status.st_ino}"


class _Closeable(Protocol):
    def close(self) -> None: ...


@contextmanager
def closed_on_error(opened: _Closeable) -> Iterator[None]:
    """Close what was opened if an error follows."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


def digest_of(data: bytes | memoryview) -> str:
    """Return the hash that identifies the bytes of a chunk: 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]


def head_digests(blocks: Iterable[bytes], stops: Iterable[int]) -> dict[int, str]:
    """Return the hash of the first bytes of a text, for each number of them, in one pass."""
    state, at, digests = hashlib.sha256(), 0, dict[int, str]()
    wanted = sorted(set(stops), reverse=True)
    for block in chain((b"",), blocks):
        view, done = memoryview(block), 0
        while wanted and wanted[-1] <= at + len(view):
            stop = wanted.pop()
            state.update(view[done : stop - at])
            done = stop - at
            digests[stop] = state.hexdigest()[:DIGEST_DIGITS]
        state.update(view[done:])
        at += len(view)
    return digests


class TextFile:
    """A file that is read by position, up to the size that it had when it was opened.

    Safe to read from several threads.

    Attributes:
        size: In bytes.
        begin: Where the text begins: after the byte order mark, if there is one.
        fingerprint: Size, and hashes of the first and the last 64 KiB.
        content: The fingerprint of the text itself, whatever it was unpacked from.
        modified: Time of last change and inode.
        notes: What was detected and users should know, such as the compression.
        is_on_disk: It has a descriptor, which other libraries can read.
        can_pause: It can be closed for a while.
    """

    notes: tuple[str, ...] = ()
    is_on_disk = True
    can_pause = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.can_pause = True
        self._handle, self.size, self.modified = _open(path)
        self.fingerprint = self.content = self._fingerprint()
        self.begin = self._after_byte_order_mark()

    def pause(self) -> None:
        """Close the file until `resume`, so that many of them can be known at the same time."""
        os.close(self._handle)

    def resume(self) -> bool:
        """Open the file again; say whether it is what it was, by size, time of last change and inode.

        If not, it stays closed.
        """
        handle, *facts = _open(self.path)
        if facts != [self.size, self.modified]:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def _fingerprint(self) -> str:
        head = digest_of(self.read_at(0, HEAD_BYTES))
        tail = head
        if self.size > HEAD_BYTES:
            tail = digest_of(self.read_at(self.size - HEAD_BYTES, HEAD_BYTES))
        return f"{self.size}-{head}-{tail}"

    def _after_byte_order_mark(self) -> int:
        return len(BOM) if self.read_at(0, len(BOM)) == BOM else 0

    @property
    def descriptor_path(self) -> str:
        """Return a path that opens this very file, even if it was renamed or replaced since."""
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

    def head_digests(self, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the bytes `[0, stop)` for each stop, in one pass."""
        wanted = list(stops)
        return head_digests(self.blocks(0, max(wanted, default=0)), wanted)

    def continues(self, fingerprint: str) -> bool:
        """Say whether whole lines were added to the file with this fingerprint.

        Judged by size, head and tail; what lies between them must be hashed to be sure.
        """
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
