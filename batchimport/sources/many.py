"""Several files as one sequence of records; `cut` ends a chunk where its file ends.

Positions are those of the files laid end to end. Files are opened on demand, and only a limited number
of them is open at a time.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

from batchimport.errors import SourceChangedError
from batchimport.model import Chunk, Position
from batchimport.sources.base import OneFile, TextSource
from batchimport.sources.bytes.file import digest_of
from batchimport.sources.joined import join, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batchimport.schema import RecordSchema
    from batchimport.sources.base import Batch, Piece, Source

OPEN_FILES = 64
PAUSED_FILES = 5_000
"""Files of which all is kept but the descriptor: 2 to 14 KB each."""
MOST_NOTES = 6


class ManySource:
    """Files one after the other.

    Args:
        open_file: Opens the file with this name and index.

    Attributes:
        reads_together: Chunks of several files are read as one: all are text of the same format.
    """

    def __init__(self, names: Sequence[str], open_file: Callable[[int], Source]) -> None:
        self._names = names
        self._files = _OpenFiles(open_file)
        self._take_facts()

    def _take_facts(self) -> None:
        """Look at each file, as it is read."""
        names = self._names
        facts = [self._files.facts(at) for at in range(len(names))]
        self.contents = tuple(content for fact in facts for content in fact.contents)
        self._ends = _ends([fact.size for fact in facts])
        formats = {fact.format for fact in facts}
        self.name = f"{names[0]} and {len(names) - 1} more"
        self.format = facts[0].format if len(formats) == 1 else "mixed"
        self.size = self._ends[-1]
        self.fingerprint = "\n".join(fact.fingerprint for fact in facts)
        self.modified = digest_of("\n".join(fact.modified for fact in facts).encode())
        self.headers: Mapping[str, Sequence[str]] = {
            name: header for fact in facts for name, header in fact.headers.items()
        }
        self.forms = tuple(form for fact in facts for form in fact.forms)
        are_texts = all(isinstance(fact, TextSource) for fact in facts)
        self.reads_together = are_texts and len(formats) == 1
        self.block_bytes = max(fact.block_bytes for fact in facts)
        schemas = [fact.declared for fact in facts if fact.declared is not None]
        self.declared = reduce(_merge_schemas, schemas) if len(schemas) == len(facts) else None
        self.notes = _merge_notes(
            [(name, fact.notes) for name, fact in zip(names, facts, strict=True)]
        )
        self.detected = {
            name: known for fact in facts for name, known in getattr(fact, "detected", {}).items()
        }

    def adopt(self, detected: Mapping[str, dict[str, Any]]) -> None:
        """Read the files as they were read when their job began."""
        self._files.close()
        self._files.detected = detected
        self._take_facts()

    def _place(self, position: int) -> tuple[int, int]:
        """Return which file holds the record at a position, and where that file begins."""
        at = min(bisect_right(self._ends, position), len(self._ends) - 1)
        return at, self._ends[at - 1] if at else 0

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the chunk of at most `limit` records of one file that begins at `start`."""
        at, base = self._place(start.position)
        local = Position(start.position - base, 0, _line(start, base))
        with self._files.use(at) as file:
            chunk = file.cut(local, limit, max_bytes)
        if chunk is None:
            return None
        end = Position(base + chunk.hi, start.record + chunk.end.record, chunk.end.line)
        return Chunk(start, end)

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Read and parse a chunk."""
        at, local = self._local(chunk)
        with self._files.use(at) as file:
            return file.read(local, schema)

    def read_together(self, chunks: Sequence[Chunk], schema: RecordSchema) -> Batch:
        """Read and parse chunks that follow each other, as one."""
        batches: list[Batch] = []
        pieces: list[Piece] = []

        def parse() -> None:
            if pieces:
                batches.append(pieces[0].source.read_pieces(tuple(pieces), schema))
                pieces.clear()

        for chunk in chunks:
            at, local = self._local(chunk)
            with self._files.use(at) as file:
                piece = file.piece(local) if isinstance(file, OneFile) else None
                if piece is None or (pieces and not piece.is_like(pieces[0])):
                    parse()
                if piece is not None:
                    pieces.append(piece)
                else:
                    batches.append(file.read(local, schema))
        parse()
        return replace(join(batches), chunk=whole_of(chunks))

    def digest(self, chunk: Chunk) -> str:
        """Return the hash of the chunk's bytes."""
        at, local = self._local(chunk)
        with self._files.use(at) as file:
            return file.digest(local)

    def head_digests(self, file: int, stops: Iterable[int]) -> dict[int, str]:
        """Return the hash of the first positions of one file, for each number of them."""
        with self._files.use(file) as source:
            return source.head_digests(0, stops)

    def _local(self, chunk: Chunk) -> tuple[int, Chunk]:
        """Return which file holds a chunk, and the chunk by its positions in that file.

        Its records keep their numbers in the job.
        """
        at, base = self._place(chunk.lo)
        start, end = chunk.start, chunk.end
        return at, Chunk(
            Position(start.position - base, start.record, _line(start, base)),
            Position(end.position - base, end.record, end.line),
        )

    def count(self) -> int:
        """Count all records, file by file."""
        records = 0
        for at in range(len(self._names)):
            with self._files.use(at) as file:
                records += file.count()
        return records

    def sample(self, records: int | None) -> Iterator[dict[str, Any]]:
        """Yield records of every file: half of them evenly, half by the files' sizes."""
        for at, end in enumerate(self._ends):
            size = end - (self._ends[at - 1] if at else 0)
            share = None
            if records is not None:
                half = records / 2
                share = max(1, round(half / len(self._ends) + half * size / max(1, self.size)))
            with self._files.use(at) as file:
                yield from file.sample(share)

    def continues(self, fingerprint: str) -> bool:
        """Say whether there are only more files than before, or records added to the last one."""
        before, now = fingerprint.split("\n"), self.fingerprint.split("\n")
        last = len(before) - 1
        if len(before) > len(now) or before[:last] != now[:last] or before == now:
            return False
        with self._files.use(last) as file:
            return now[last] == before[last] or file.continues(before[last])

    def file_at(self, position: int) -> str:
        """Return the name of the file that holds a position, and which one of them it is."""
        at, _ = self._place(position)
        return f"{self._names[at]} ({at + 1} of {len(self._names)})"

    def close(self) -> None:
        """Close all files."""
        self._files.close()


def _line(at: Position, base: int) -> int:
    """Return the line at a position; 1 where a file begins, whatever the file before ended with."""
    return at.line if at.position > base else 1


def _ends(sizes: Sequence[int]) -> list[int]:
    ends, position = [], 0
    for size in sizes:
        position += size
        ends.append(position)
    return ends


def _merge_notes(notes_of: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Return the notes of all files, only once if they are the same, and at most six."""
    if len({notes for _, notes in notes_of}) == 1:
        return notes_of[0][1]
    lines = [f"{name}: {note}" for name, notes in notes_of for note in notes]
    if len(lines) > MOST_NOTES:
        lines[MOST_NOTES - 1 :] = [f"… and {len(lines) - MOST_NOTES + 1} more such notes"]
    return tuple(lines)


def _merge_schemas(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of records of either schema: columns by name, any type where they differ."""
    rules = dict(one["properties"])
    for name, rule in other["properties"].items():
        known = rules.setdefault(name, rule)
        if known != rule:
            types = {each.get("type", [""])[0] for each in (known, rule)}
            is_number = types == {"integer", "number"}
            rules[name] = {"type": ["number", "null"]} if is_number else {}
    return {**one, "properties": rules}


@dataclass(slots=True)
class _Open:
    source: Source
    users: int = 0


class _OpenFiles:
    """Files by index: opened on demand; the least recently used one is closed first.

    Most can be paused: their descriptor is closed, but what was found out about them is kept.
    """

    def __init__(self, open_file: Callable[[int], Source]) -> None:
        self._open_file = open_file
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._paused: dict[int, OneFile] = {}
        self._known: dict[int, tuple[str, str]] = {}
        self.detected: Mapping[str, dict[str, Any]] = {}

    def facts(self, at: int) -> Source:
        """Return a file whose attributes may be read; it may be closed."""
        with self.use(at) as source:
            return source

    @contextmanager
    def use(self, at: int) -> Iterator[Source]:
        """Keep a file open for the time of its use.

        Raises:
            SourceChangedError: If it is not what it was when it was first opened.
        """
        with self._lock:
            entry = self._open.pop(at, None) or _Open(self._resumed(at) or self._reopen(at))
            self._open[at] = entry
            entry.users += 1
            if len(self._open) > OPEN_FILES:
                self._close_idle()
        try:
            yield entry.source
        finally:
            with self._lock:
                entry.users -= 1

    def _resumed(self, at: int) -> Source | None:
        source = self._paused.pop(at, None)
        return cast("Source", source) if source is not None and source.resume() else None

    def _reopen(self, at: int) -> Source:
        source = self._open_file(at)
        facts = (source.fingerprint, source.modified)
        if self._known.setdefault(at, facts) != facts:
            source.close()
            raise SourceChangedError(
                "the file changed while the job ran",
                where=source.name,
                hint="finish the job with the old file, or start over with --restart",
            )
        if self.detected and hasattr(source, "adopt"):
            source.adopt(self.detected)
        return source

    def _close_idle(self) -> None:
        idle = [at for at, entry in self._open.items() if not entry.users]
        for at in idle[: len(self._open) - OPEN_FILES]:
            source = self._open.pop(at).source
            if not isinstance(source, OneFile) or not source.pause():
                source.close()
            elif len(self._paused) < PAUSED_FILES:
                self._paused[at] = source

    def close(self) -> None:
        with self._lock:
            for entry in self._open.values():
                entry.source.close()
            self._open.clear()
            self._paused.clear()
