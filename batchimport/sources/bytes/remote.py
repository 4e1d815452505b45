"""The bytes of an object in a store or on a web server, read by position, as those of a file are."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from batchimport.object_store import RemoteObject, file_name
from batchimport.policy.preparing import metered
from batchimport.sources.bytes.file import DIGEST_DIGITS, TextFile, closed_on_error, digest_of
from batchimport.sources.bytes.unpack import UnpackedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK_BYTES = 2 * 1024 * 1024
KEPT_BLOCKS = 40
"""Of all files together. A job reads at three places: where chunks are cut, read and counted."""
BLOCKS_AHEAD = 6
THREADS = 8


def open_remote(url: str, folder: Path | None) -> TextFile:
    """Open an object; one that cannot be read in parts is kept in a temporary file.

    Raises:
        UsageError: If it cannot be read.
    """
    remote = RemoteObject(url)
    if remote.has_ranges and remote.version is not None:
        return RemoteFile(remote)
    return DownloadedFile(remote, folder)


class RemoteFile(TextFile):
    """An object that is read in blocks, some of them ahead.

    The fingerprint also has its version: the provider's word that nothing changed.
    """

    is_on_disk = False

    def __init__(self, remote: RemoteObject) -> None:
        self.path, self.size = remote.location.url, remote.size
        self._remote, self._id = remote, next(_IDS)
        version = str(remote.version)
        self.modified = f"{self.size}-{version}"
        with closed_on_error(self):
            self.content = self._fingerprint()
            self.begin = self._after_byte_order_mark()
        self.fingerprint = f"{self.content}-{digest_of(version.encode())}"

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end.

        Raises:
            SourceChangedError: If it is no longer the object that was opened.
        """
        stop = min(position + count, self.size)
        if stop <= position:
            return b""
        first, last = position // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        parts = []
        for index in range(first, last + 1):
            base = index * BLOCK_BYTES
            block = _BLOCKS.get(self._id, index, self._fetch, self._last_block)
            whole = position <= base and stop >= base + len(block)
            parts.append(block if whole else block[max(0, position - base) : stop - base])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def _last_block(self) -> int:
        return (self.size - 1) // BLOCK_BYTES

    def _fetch(self, index: int) -> bytes:
        base = index * BLOCK_BYTES
        return self._remote.read(base, min(base + BLOCK_BYTES, self.size))

    def continues(self, fingerprint: str) -> bool:
        """Say whether whole lines were added to the object with this fingerprint."""
        return super().continues("-".join(fingerprint.split("-")[:3]))

    def close(self) -> None:
        """End all waits and forget its blocks."""
        self._remote.close()
        _BLOCKS.forget(self._id)


class DownloadedFile(UnpackedFile):
    """An object of a server that gives no parts of it, or names no version: read as a whole, once."""

    def __init__(self, remote: RemoteObject, folder: Path | None) -> None:
        url = remote.location.url
        pieces = metered(remote.pieces(), f"fetching {file_name(url)}", remote.size or None)
        super().__init__(_Unknown(url), pieces, (), folder)
        self.fingerprint = self.content
        state = hashlib.sha256()
        for block in self.blocks():
            state.update(block)
        self.modified = state.hexdigest()[:DIGEST_DIGITS]


@dataclass(frozen=True, slots=True)
class _Unknown:
    """What is known of an object before it was read."""

    path: str
    fingerprint: str = ""
    modified: str = ""
    size: int = 1 << 62


_IDS = count()


class _Blocks:
    """Blocks of all remote files: a limited number is kept, the least recently used one goes first.

    Threads that ask for one block share one request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()
        self._wanted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0

    def get(self, file: int, index: int, fetch: Callable[[int], bytes], last: int) -> bytes:
        """Return a block; ask for those after it if the file is being read on."""
        with self._lock:
            is_read_on = (file, index - 1) in self._blocks
            wanted = self._ask(file, index, fetch)
            for later in (
                range(index + 1, min(index + BLOCKS_AHEAD, last) + 1) if is_read_on else ()
            ):
                self._ask(file, later, fetch)
            self._blocks.move_to_end((file, index))
            while len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return wanted.result()

    def _ask(self, file: int, index: int, fetch: Callable[[int], bytes]) -> Future[bytes]:
        known = self._blocks.get((file, index))
        if known is not None and not (known.done() and known.exception()):
            return known
        future: Future[bytes] = Future()

        def work() -> None:
            try:
                future.set_result(fetch(index))
            except BaseException as error:  # noqa: BLE001 - raised where the block is used
                future.set_exception(error)

        self._blocks[file, index] = future
        self._wanted.put(work)
        if self._threads < THREADS:  # daemons: the end of the program does not wait for a network
            self._threads += 1
            threading.Thread(target=self._serve, name="fetch", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            self._wanted.get()()

    def forget(self, file: int) -> None:
        with self._lock:
            for key in [key for key in self._blocks if key[0] == file]:
                del self._blocks[key]


_BLOCKS = _Blocks()
