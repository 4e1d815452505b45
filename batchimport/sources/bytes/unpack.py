"""Open any file as UTF-8 text that can be read by position, whatever its compression and encoding.

Compressed files and other encodings can only be decoded from the beginning, while cutting, reading and
counting each need their own place in the text. So such a file is decoded once, when it is opened, into
a temporary file without a name; it vanishes with the process, however that ends. Decoding it once also
checks all of it before anything is imported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchimport.errors import FatalError, UsageError
from batchimport.policy.preparing import metered
from batchimport.sources.bytes import compression, encoding
from batchimport.sources.bytes.file import HEAD_BYTES, TextFile, closed_on_error
from batchimport.state.files import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchimport.model import SourceOptions

MAX_EXPANSION = 500
EXPANSION_COUNTS_AFTER = 256 * 1024 * 1024
SAMPLES = 20


def open_text(
    file: TextFile, options: SourceOptions, kind: str | None, folder: Path | None = None
) -> TextFile:
    """Return a file as UTF-8 text.

    Args:
        file: Its bytes; closed here unless it is returned.
        kind: The format of the records, if that is known.
        folder: Where to unpack; None for the system's directory of temporary files.

    Raises:
        UsageError: If it unpacks to more than 500 times its size.
        FatalError: If the archive is damaged, or there is no room for the unpacked text.
    """
    with closed_on_error(file):
        text = _plain(file, options, kind, folder)
    if text is not file:
        file.close()
    return text


def on_disk(file: TextFile, folder: Path | None) -> TextFile:
    """Return a file that other libraries can open by `descriptor_path`.

    Args:
        file: Closed here unless it is returned.
    """
    if file.is_on_disk:
        return file
    with closing(file):
        pieces = metered(file.blocks(), f"fetching {Path(file.path).name}", file.size)
        return UnpackedFile(file, pieces, (), folder)


def _plain(
    file: TextFile, options: SourceOptions, kind: str | None, folder: Path | None
) -> TextFile:
    packed = options.compression or compression.compression_of(file.read_at(0, 16)) or "none"

    def unpacked() -> Iterator[bytes]:
        verb = "decoding" if packed == "none" else "unpacking"
        pieces = metered(file.blocks(), f"{verb} {Path(file.path).name}", file.size)
        return pieces if packed == "none" else compression.decompress(pieces, packed, file.path)

    samples = _samples(file) if packed == "none" else [_head(unpacked())]
    if options.encoding is not None:
        name = encoding.lookup(options.encoding, samples[0])
        encoding.check_given(name, samples, options.encoding, file.path)
    else:
        first = samples[0].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        is_json = kind in ("json", "jsonl") or (kind is None and first in (b"{", b"["))
        name = encoding.detect(samples, may_be_legacy=not is_json, where=file.path)
    notes = [f"compression: {packed}"] if packed != "none" else []
    pieces = unpacked()
    if name is not None:
        is_doubtful = options.encoding is not None and encoding.is_utf8_too(name, samples)
        doubt = " (the text is valid UTF-8, too)" if is_doubtful else ""
        notes.append(f"encoding: {name}{doubt}")
        pieces = encoding.transcode(pieces, name)
    return UnpackedFile(file, pieces, notes, folder) if notes else file


def _head(pieces: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    return head[:HEAD_BYTES]


def _samples(file: TextFile) -> list[bytes]:
    """Return the head of the file, and parts from all over the rest."""
    places = range(SAMPLES if file.size > HEAD_BYTES else 1)
    return [file.read_at(file.size * place // SAMPLES, HEAD_BYTES) for place in places]


class _Origin(Protocol):
    """What a text was decoded from: a file, or what is known of it."""

    @property
    def path(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def modified(self) -> str: ...

    @property
    def size(self) -> int: ...


def check_room(size: int, path: str, folder: Path | None) -> None:
    """Check that there is room to unpack something whose size is known before.

    Raises:
        FatalError: If there is none.
    """
    with suppress(OSError):  # the folder is not there yet, or cannot be: said when it is made
        place = next(each for each in (folder, *folder.parents) if each.exists()) if folder else ""
        free = shutil.disk_usage(place or tempfile.gettempdir()).free
        if size > free:
            reason = OSError(f"{size:,} bytes are needed, {free:,} are free")
            raise _no_room(reason, path, folder)


def bounded(pieces: Iterable[bytes], origin: _Origin) -> Iterator[bytes]:
    """Yield the pieces of what is unpacked, as long as there are not far too many of them.

    Raises:
        UsageError: If it unpacks to more than 500 times its size.
    """
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        check_expansion(size, origin)


def check_expansion(size: int, origin: _Origin) -> None:
    """Check that what is unpacked is not far larger than what it is unpacked from.

    Raises:
        UsageError: If it is more than 500 times its size.
    """
    if size > EXPANSION_COUNTS_AFTER and size > MAX_EXPANSION * origin.size:
        raise UsageError(
            f"unpacks to more than {MAX_EXPANSION} times its size",
            where=origin.path,
            hint="if that is correct, unpack it and import the result",
        )


class UnpackedFile(TextFile):
    """A text that was decoded into a temporary file.

    Positions and `size` are those of the decoded text; path, fingerprint and time of last change are
    those of the file that it came from.
    """

    def __init__(
        self, origin: _Origin, pieces: Iterable[bytes], notes: Iterable[str], folder: Path | None
    ) -> None:
        self.path, self.notes = origin.path, tuple(notes)
        self.fingerprint, self.modified = origin.fingerprint, origin.modified
        try:
            if folder is not None:
                private_directory(folder)
            with tempfile.TemporaryFile(dir=folder) as file:
                self._handle = os.dup(file.fileno())
        except OSError as error:
            raise _no_room(error, self.path, folder) from error
        with closed_on_error(self):
            self.size = self._write(bounded(pieces, origin), folder)
            self.content = self._fingerprint()
            self.begin = self._after_byte_order_mark()

    def _write(self, pieces: Iterable[bytes], folder: Path | None) -> int:
        size = 0
        for piece in pieces:
            left = memoryview(piece)
            while left:
                try:
                    left = left[os.write(self._handle, left) :]
                except OSError as error:
                    raise _no_room(error, self.path, folder) from error
            size += len(piece)
        return size

    def continues(self, fingerprint: str) -> bool:
        """Say no: whether a file only grew cannot be seen from its compressed or encoded bytes."""
        del fingerprint
        return False


def _no_room(error: OSError, path: str, folder: Path | None) -> FatalError:
    return FatalError(
        f"cannot be unpacked into {folder or tempfile.gettempdir()}: {error.strerror or error}",
        where=path,
        hint="make room or choose another --state-dir" if folder else "make room or set TMPDIR",
    )
