"""Text that must be decoded from its beginning, with the interface of a file.

What is read lately is kept, and a few decoders stay where they are, so that those who read on from
different places (who cuts, who reads, who counts) need not begin at the beginning each time.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from batchimport.errors import SourceChangedError, UsageError
from batchimport.sources.bytes import compression, encoding
from batchimport.sources.bytes.file import BLOCK_BYTES, DIGEST_DIGITS, HEAD_BYTES, TextFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from batchimport.model import SourceOptions
    from batchimport.sources.bytes.file import Text

MOST_DECODERS = 4
MOST_BLOCKS = 24
"""Blocks that are kept, over all texts of the process."""

MOST_EXPANSION = 500
EXPANSION_COUNTS_AFTER = 256 * 1024 * 1024
SAMPLES = 20


def open_text(path: str, options: SourceOptions, kind: str | None) -> Text:
    """Open a file as UTF-8 text, whatever its compression and encoding.

    Args:
        kind: The format of the records, if that is known.

    Raises:
        UsageError: If it cannot be read.
    """
    file = TextFile(path)
    try:
        return _plain(file, options, kind)
    except BaseException:
        file.close()
        raise


def _plain(file: TextFile, options: SourceOptions, kind: str | None) -> Text:
    packed = options.compression or compression.compression_of(file.read_at(0, 16)) or "none"

    def unpacked() -> Iterator[bytes]:
        pieces = file.blocks()
        return pieces if packed == "none" else compression.decompress(pieces, packed, file.path)

    samples = _samples(file) if packed == "none" else [_head(unpacked())]
    if options.encoding is not None:
        name = encoding.lookup(options.encoding, samples[0])
    else:
        first = samples[0].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        is_json = kind in ("json", "jsonl") or (kind is None and first in (b"{", b"["))
        name = encoding.detect(samples, may_be_legacy=not is_json)
    notes = [f"compression: {packed}"] if packed != "none" else []
    if name is None:
        return StreamedText(file, unpacked, notes) if notes else file
    notes.append(f"encoding: {name}")
    return StreamedText(file, lambda: encoding.transcode(unpacked(), name), notes)


def _head(pieces: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    return head[:HEAD_BYTES]


def _samples(file: TextFile) -> list[bytes]:
    """Return the head, and parts of all the rest."""
    places = range(SAMPLES if file.size > HEAD_BYTES else 1)
    return [file.read_at(file.size * at // SAMPLES, HEAD_BYTES) for at in places]


@dataclass(slots=True, eq=False)
class _Decoder:
    """A decoding under way.

    Attributes:
        at: Number of the block that comes next.
        is_busy: Some thread decodes that block.
    """

    blocks: Iterator[bytes]
    at: int = 0
    is_busy: bool = False


@dataclass(slots=True)
class _Blocks:
    """The blocks that were decoded last; thread-safe."""

    most: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    found: OrderedDict[tuple[int, int], bytes] = field(default_factory=OrderedDict)

    def get(self, key: tuple[int, int]) -> bytes | None:
        with self.lock:
            block = self.found.get(key)
            if block is not None:
                self.found.move_to_end(key)
            return block

    def put(self, key: tuple[int, int], block: bytes) -> None:
        with self.lock:
            self.found[key] = block
            while len(self.found) > self.most:
                self.found.popitem(last=False)

    def forget(self, owner: int) -> None:
        with self.lock:
            for key in [key for key in self.found if key[0] == owner]:
                del self.found[key]


_blocks = _Blocks(MOST_BLOCKS)
_owners = itertools.count()


class StreamedText:
    """A text whose bytes come out of a decoder.

    Args:
        origin: What is decoded; closed together with this one.
        decode: Begins a decoding at the beginning.
        notes: How it was written, for users.
    """

    def __init__(
        self, origin: TextFile, decode: Callable[[], Iterator[bytes]], notes: Iterable[str]
    ) -> None:
        self.path = origin.path
        self.fingerprint = origin.fingerprint
        self.modified = origin.modified
        self.notes = tuple(notes)
        self._origin, self._decode = origin, decode
        self._owner = next(_owners)
        self._turn = threading.Condition()
        self._decoders: list[_Decoder] = []

    def continues(self, fingerprint: str) -> bool:
        """Say no: what was added to a file that is decoded cannot be told."""
        del fingerprint
        return False

    @cached_property
    def size(self) -> int:
        """How many bytes there are in all: decodes the whole text once, and so checks it.

        Raises:
            FatalError: If it is damaged.
            UsageError: If it is out of all proportion.
        """
        size = 0
        for at, block in enumerate(self._cut()):
            size += len(block)
            _blocks.put((self._owner, at), block)
            if size > EXPANSION_COUNTS_AFTER and size > MOST_EXPANSION * self._origin.size:
                raise UsageError(
                    f"unpacks to more than {MOST_EXPANSION} times its size",
                    where=self.path,
                    hint="if that is as it should be, unpack it and import the result",
                )
        return size

    def _cut(self) -> Iterator[bytes]:
        """Yield what is decoded in blocks that have all the same size, but for the last one."""
        held = bytearray()
        for piece in self._decode():
            held += piece
            while len(held) >= BLOCK_BYTES:
                yield bytes(held[:BLOCK_BYTES])
                del held[:BLOCK_BYTES]
        if held:
            yield bytes(held)

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end."""
        stop = min(self.size, position + count)
        if position >= stop:
            return b""
        first, last = position // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        parts = [self._block(at) for at in range(first, last + 1)]
        parts[-1] = parts[-1][: stop - last * BLOCK_BYTES]
        parts[0] = parts[0][position - first * BLOCK_BYTES :]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, number: int) -> bytes:
        while True:
            with self._turn:
                block = _blocks.get((self._owner, number))
                if block is not None:
                    return block
                decoder = self._nearest(number)
                if decoder.is_busy:
                    self._turn.wait()
                    continue
                decoder.is_busy = True
            block = self._advance(decoder)
            if decoder.at == number + 1:
                return block

    def _advance(self, decoder: _Decoder) -> bytes:
        """Decode and keep the next block of a decoder that this thread made busy."""
        block = None
        try:
            block = next(decoder.blocks, None)
        finally:
            with self._turn:
                self._turn.notify_all()
                if block is None:
                    self._decoders.remove(decoder)
                else:
                    _blocks.put((self._owner, decoder.at), block)
                    decoder.at += 1
                    decoder.is_busy = False
        if block is None:
            raise SourceChangedError("the file changed while it was read", where=self.path)
        return block

    def _nearest(self, number: int) -> _Decoder:
        """Return the decoder that comes to a block soonest; the one used last stands last."""
        able = [decoder for decoder in self._decoders if decoder.at <= number]
        if able:
            decoder = max(able, key=lambda decoder: decoder.at)
            self._decoders.remove(decoder)
        else:
            decoder = _Decoder(self._cut())
            idle = [other for other in self._decoders if not other.is_busy]
            if idle and len(self._decoders) >= MOST_DECODERS:
                self._decoders.remove(idle[0])
        self._decoders.append(decoder)
        return decoder

    def blocks(self, position: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of `[position, stop)` in blocks of at most 1 MiB."""
        stop = self.size if stop is None else stop
        while position < stop:
            wanted = min(BLOCK_BYTES - position % BLOCK_BYTES, stop - position)
            block = self.read_at(position, wanted)
            yield block
            position += len(block)

    def digest(self, lo: int, hi: int) -> str:
        """Return the hash of the bytes `[lo, hi)`."""
        state = hashlib.sha256()
        for block in self.blocks(lo, hi):
            state.update(block)
        return state.hexdigest()[:DIGEST_DIGITS]

    def close(self) -> None:
        """Let go of what is kept, and close the file."""
        _blocks.forget(self._owner)
        self._decoders.clear()
        self._origin.close()
