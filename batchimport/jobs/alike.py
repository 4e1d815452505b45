"""Which files of a source begin like files of earlier jobs: by the hashes of their first chunks.

The work grows with the files of both, not with their product: a table may have got thousands of files a day.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport.sources.bytes.file import digest_of, head_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchimport.model import Committed
    from batchimport.sinks.base import JobRecord
    from batchimport.sources.base import Content, Source

FIRST_BYTES = 1024
"""A file on disk is hashed further only if it begins with the same bytes as a new one."""


@dataclass(frozen=True, slots=True)
class EarlierFile:
    """One file of an earlier job, by its place in that job.

    Attributes:
        base: Position of the job where the file begins.
        head: The chunk that begins the file; None if it is not committed.
    """

    record: JobRecord
    index: int
    base: int
    content: Content
    head: Committed | None

    @property
    def head_size(self) -> int:
        """How far the first chunk reaches into the file; 0 if it is not committed."""
        return self.head.chunk.hi - self.base if self.head is not None else 0

    @property
    def path(self) -> str | None:
        """Where the file was, if that is known."""
        paths = self.record.configuration.get("sources", ())
        return str(paths[self.index]) if self.index < len(paths) else None


def alike(source: Source, files: Sequence[EarlierFile]) -> Iterator[tuple[int, int]]:
    """Yield each pair of a file of the source and an earlier one that begin alike, by their indices.

    Either the first chunk of the earlier file begins the new one, or the new one is shorter and begins
    that chunk.
    """
    heads: dict[tuple[int, str], list[int]] = defaultdict(list)
    for at, file in enumerate(files):
        if file.head is not None:
            heads[file.head_size, file.head.digest].append(at)
    head_sizes = sorted({size for size, _ in heads})
    longest = head_sizes[-1] if head_sizes and source.format != "parquet" else 0
    sizes = [content.size for content in source.contents]
    first = min([FIRST_BYTES, *(size for size in sizes if 0 < size < longest)])
    shorter = _Beginnings(first)
    for index, size in enumerate(sizes if heads else ()):
        stops = head_sizes[: bisect_right(head_sizes, size)]
        more = [first, size] if 0 < size < longest else []
        digests = source.head_digests(index, [*stops, *more]) if size else {}
        for stop, digest in digests.items():
            yield from ((index, at) for at in heads.get((stop, digest), ()))
        if more:
            shorter.add(index, size, digests)
    yield from shorter.pairs(files)


class _Beginnings:
    """New files that are shorter than the first chunk of some earlier one: do they begin it?

    The ledger cannot tell. The earlier file can, while it is where it was, as it was, and plain.

    Args:
        first: Number of bytes that tell whether it is worth it to read on.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._firsts: set[str] = set()
        self._indices: dict[tuple[int, str], list[int]] = defaultdict(list)

    def add(self, index: int, size: int, digests: Mapping[int, str]) -> None:
        """Add a file by its size and the hashes of its first bytes and of all of it."""
        self._firsts.add(digests[self._first])
        self._indices[size, digests[size]].append(index)

    def pairs(self, files: Sequence[EarlierFile]) -> Iterator[tuple[int, int]]:
        """Yield which of the files begins which earlier one."""
        sizes = sorted({size for size, _ in self._indices})
        for at, file in enumerate(files if sizes else ()):
            stops = sizes[: bisect_left(sizes, file.head_size)]
            for known in self._read(file, stops).items() if stops else ():
                yield from ((index, at) for index in self._indices.get(known, ()))

    def _read(self, file: EarlierFile, stops: Sequence[int]) -> dict[int, str]:
        """Return the hashes of the first bytes of an earlier file; none if it is not what it was."""
        if file.head is None or file.path is None:
            return {}
        try:
            with Path(file.path).open("rb") as earlier:
                data = earlier.read(self._first)
                if digest_of(data) not in self._firsts:
                    return {}
                data += earlier.read(file.head_size - self._first)
        except (OSError, ValueError):
            return {}
        return head_digests([data], stops) if digest_of(data) == file.head.digest else {}
