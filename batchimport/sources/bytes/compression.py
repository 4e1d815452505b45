"""Decompress in bounded memory; the format is recognised by its magic bytes.

Not by the file objects of `lzma` and `bz2`: those ignore garbage after the last member, and `LZMAFile`
has no limit of memory.
"""

from __future__ import annotations

import bz2
import lzma
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
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
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
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


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
                    decoder = _DECODERS[kind]()
    except _ERRORS as error:
        raise _damaged(f"the {kind} data is damaged: {error}", path, size) from error
    if is_inside:
        raise _damaged(f"the {kind} data ends too soon", path, size)


def _damaged(message: str, path: str, size: int) -> FatalError:
    return FatalError(
        f"{message}, after {size:,} bytes of text",
        where=path,
        hint="get the file again; nothing of it was imported",
    )
