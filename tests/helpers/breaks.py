"""Deliberate mistakes: the suite must notice each of them, or it proves nothing.

`python -m tests.helpers.breaks NAME run …` is the command line with one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from batchimport import failpoints
from batchimport.cli import main
from batchimport.model import Chunk
from batchimport.policy import plan
from batchimport.sinks.postgres.sink import PostgresSink
from batchimport.sinks.sql import statements
from batchimport.sinks.sqlite.sink import SqliteSink
from batchimport.state import directory


def make(name: str) -> None:
    """Make a mistake in this process; the empty name makes none."""
    if name:
        BREAKS[name]()


def _ledger_after_the_data() -> None:
    """Commit the rows first, and the ledger row in a transaction of its own."""
    insert, store = SqliteSink._insert, SqliteSink.store
    late: list[tuple[Any, ...]] = []

    def put_off(self: SqliteSink, table: str, columns: str, rows: Sequence[Any]) -> None:
        if table == self._chunks:
            late.extend(rows)
            self._run(f"UPDATE {self._jobs} SET epoch = epoch")  # the same count of changes
        else:
            insert(self, table, columns, rows)

    def store_twice(self: SqliteSink, request: Any) -> Any:
        result = store(self, request)
        failpoints.reach("before-commit")
        row = late.pop()
        row = (*row[:7], result.successful, result.failed, *row[9:])
        insert(self, self._chunks, statements.CHUNK_COLUMNS, [row])
        return result

    SqliteSink._insert = put_off  # type: ignore[method-assign]
    SqliteSink.store = store_twice  # type: ignore[method-assign]


def _no_epoch_check() -> None:
    """Let a process commit whose job was taken by another."""
    SqliteSink._is_ours = lambda *_: True  # type: ignore[method-assign]
    PostgresSink._fence_by = lambda self, _: self._job  # type: ignore[method-assign, assign, return-value]


def _no_directory_sync() -> None:
    """Do not wait until the new name of a file is on disk."""
    directory.sync_directory = lambda _: None


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
    "no-directory-sync": _no_directory_sync,
    "interval-off-by-one": _interval_off_by_one,
}

if __name__ == "__main__":
    make(sys.argv.pop(1))
    main()
