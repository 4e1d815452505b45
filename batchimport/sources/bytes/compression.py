"""Decompress in bounded memory; the format is recognised by its magic bytes.

Not by the file objects of `lzma` and `bz2`: those ignore garbage after the last member, and `LZMAFile`
has no limit of memory.
"""

from __future__ import annotations

import bz2
import lzma
import re
import sys
import zlib
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from batchimport.errors import FatalError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PIECE_BYTES = 1024 * 1024
MAX_MEMORY_BYTES = 256 * 1024 * 1024
"""Limit for a decoder, since an archive can ask for gigabytes."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
_SKIPPABLE = b"\x2a\x4d\x18"
"""After a byte from 0x50 to 0x5f: a frame of zstd without data, by which pzstd begins a file."""
_SUFFIXES = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
}
_ARCHIVES = {
    ".tgz": "gzip",
    ".tbz2": "bz2",
    ".txz": "xz",
    ".tzst": "zstd",
    ".tar": "tar",
    ".zip": "zip",
}
_ARCHIVE_MAGIC = {b"PK\x03\x04": "zip"}
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


class _Decoder(Protocol):
    """Decodes one member of an archive."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecoder:
    """One member of a gzip file, with the interface of the other decoders."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output = self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)
        self.needs_input = not self._decoder.unconsumed_tail and len(output) < max_length
        return output


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _GzipDecoder,
    "zstd": lambda: zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: MAX_MEMORY_BYTES.bit_length() - 1}
    ),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=MAX_MEMORY_BYTES),
}


def compression_of(head: bytes) -> str | None:
    """Return the compression of a file that begins with these bytes; None if there is none."""
    if head[1:4] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def check_is_unpacked(head: bytes, path: str) -> None:
    """Check that what came out of an archive, or was decompressed, is not packed once more.

    Raises:
        FatalError: If it is.
    """
    packed = _MAGIC | _ARCHIVE_MAGIC
    inner = next((kind for magic, kind in packed.items() if head.startswith(magic)), None)
    if inner is not None and _CONTROL.search(head):
        hint = "unpack the outer one first"
        raise FatalError(f"is packed twice: in it is {inner} data", where=path, hint=hint)


def check_is_begun(head: bytes, name: str, path: str) -> None:
    """Check that a file is not what is left of an archive, cut within its first bytes.

    Called unless `--compression` says what it is. A text with the name of an archive is a text.

    Args:
        head: Its first bytes; all of them if there are few.

    Raises:
        FatalError: If it is.
    """
    suffix = PurePath(name).suffix.lower()
    kind = (_SUFFIXES | _ARCHIVES).get(suffix)
    magic = {known: each for each, known in (_MAGIC | _ARCHIVE_MAGIC).items()}
    has_controls = _CONTROL.search(head) is not None
    if kind is None:
        kind = next((known for known in magic if magic[known].startswith(head)), None)
        if not head or kind is None or (head.isascii() and not has_controls):
            return
    elif not head:
        hint = "get the file again; if it is meant to be empty: --compression none"
        raise FatalError(f"is empty, so it is no {kind} file", where=path, hint=hint)
    if magic.get(kind, b"").startswith(head):
        raise _damaged(f"the {kind} data ends too soon", path, 0)
    if has_controls and not head.startswith(magic.get(kind, b"\0")):
        hint = "get the file again; if it is text: --compression none"
        raise FatalError(f"is not {kind}, as its name says, and not text", where=path, hint=hint)


def plain_name(name: str) -> str:
    """Return the name of a file without the suffix of its compression."""
    path = PurePath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else name


def decompress(pieces: Iterable[bytes], kind: str, path: str) -> Iterator[bytes]:
    """Yield the decompressed bytes of an archive of one or more members, in pieces of at most 1 MiB.

    Raises:
        FatalError: If the archive is damaged or ends too soon.
    """
    decoder, size, members, is_inside = _DECODERS[kind](), 0, 0, False
    start = 0  # of the member
    try:
        for given in pieces:
            piece = given
            while piece or not decoder.needs_input:
                if members and not is_inside:
                    piece = piece.lstrip(b"\0")  # padding after a member
                    if not piece:
                        break
                output = decoder.decompress(piece, PIECE_BYTES)
                piece, is_inside = b"", True
                size += len(output)
                if output:
                    yield output
                if decoder.eof:
                    piece, is_inside, members = decoder.unused_data, False, members + 1
                    start = size
                    decoder = _DECODERS[kind]()
    except _ERRORS as error:
        if members and size == start:
            raise _damaged(f"something else follows the {kind} data", path, size) from error
        raise _damaged(f"the {kind} data is damaged: {error}", path, size) from error
    if is_inside or not members:
        raise _damaged(f"the {kind} data ends too soon", path, size)


def _damaged(message: str, path: str, size: int) -> FatalError:
    return FatalError(
        f"{message}, after {size:,} bytes of text",
        where=path,
        hint="get the file again; nothing of it was imported",
    )
