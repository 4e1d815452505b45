"""Deliberate mistakes: the suite must notice each of them, or it proves nothing.

`python -m tests.helpers.breaks NAME run …` is the command line with one of them.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from batchimport import failpoints
from batchimport.cli import main
from batchimport.model import Chunk
from batchimport.policy import plan
from batchimport.sinks.postgres.rows import PostgresTransaction
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import ChunkTransaction, Dialect
from batchimport.sinks.sql.store import SqlClaim


def make(name: str) -> None:
    """Make a mistake in this process; the empty name makes none."""
    if name:
        BREAKS[name]()


def _ledger_after_the_data() -> None:
    """Commit the rows first, and the ledger row in a transaction of its own."""
    store = SqlClaim.store

    def store_twice(self: SqlClaim, request: Any) -> Any:
        result = store(self, request)
        failpoints.reach("before-commit")
        values = statements.chunk_values(self.record.job_id, request, result, self.record.epoch)
        self._database.run(
            f"INSERT INTO {self._database.tables.chunks} ({statements.CHUNK_COLUMNS}) "
            f"VALUES ({statements.marks(values)})",
            values,
        )
        return result

    ChunkTransaction.insert_chunk = lambda *_: True  # type: ignore[method-assign]
    SqlClaim.store = store_twice  # type: ignore[method-assign]


def _no_epoch_check() -> None:
    """Let a process commit whose job was taken by another."""
    Dialect.hold = lambda *_: None  # type: ignore[method-assign]
    PostgresTransaction.fence = lambda _: None  # type: ignore[method-assign]


def _no_sync(is_kind: Callable[[int], bool]) -> None:
    """Do not wait until files of a kind, by their mode, are on disk."""
    sync = os.fsync

    def lazy(descriptor: int) -> None:
        if not is_kind(os.fstat(descriptor).st_mode):
            sync(descriptor)

    os.fsync = lazy  # type: ignore[assignment]


def _interval_off_by_one() -> None:
    """Begin a byte after the end of what is committed."""
    find_gaps = plan.find_gaps

    def late(size: int, committed: Iterable[Chunk]) -> Any:
        gaps = find_gaps(size, committed)
        return [(replace(at, position=at.position + bool(at.record)), end) for at, end in gaps]

    plan.find_gaps = late


BREAKS: dict[str, Callable[[], None]] = {
    "ledger-after-the-data": _ledger_after_the_data,
    "no-epoch-check": _no_epoch_check,
    "no-directory-sync": lambda: _no_sync(stat.S_ISDIR),
    "no-file-sync": lambda: _no_sync(stat.S_ISREG),
    "interval-off-by-one": _interval_off_by_one,
}

if __name__ == "__main__":
    make(sys.argv.pop(1))
    main()
