"""How a chunk is stored in a database, and how a run ends: a claimed job, whatever the dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.model import EXTRA_COLUMN
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import Outcomes
from batchimport.sinks.sql.table import with_extra_column

if TYPE_CHECKING:
    import polars as pl

    from batchimport.model import ChunkResult
    from batchimport.sinks.base import JobRecord, SinkHints, StoreRequest
    from batchimport.sinks.sql.dialect import Dialect, Target


class SqlClaim:
    """A job that this process may store into, at one epoch.

    Attributes:
        record: The job as the ledger has it.
        hints: What suits its table.
    """

    def __init__(
        self, database: Dialect, record: JobRecord, target: Target, hints: SinkHints
    ) -> None:
        self.record, self.hints = record, hints
        self._database, self._target = database, target

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them.

        The ledger row comes first, so that of two attempts at the same chunk the second one waits
        for the first, and then finds the row.
        """
        target, seconds = self._target_of(request.frame), request.timeout_seconds
        with self._database.chunk_transaction(self.record, target, seconds) as transaction:
            transaction.fence()
            if not transaction.insert_chunk(request):
                known = transaction.overlapping(request.chunk)
                return statements.already_committed(request.chunk, known)
            failpoints.reach("after-ledger-row")
            outcomes = (
                transaction.store_rows(request.frame, request.chunk.offset)
                if request.frame.height
                else Outcomes()
            )
            failpoints.reach("after-rows")
            result = transaction.insert_rejects(request, outcomes)
            failpoints.reach("before-commit")
        return result

    def _target_of(self, frame: pl.DataFrame) -> Target:
        """Return the target of a chunk, which alone may have keys that no column was made for."""
        if EXTRA_COLUMN in frame.columns:
            return with_extra_column(self._database, self._target)
        return self._target

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the table has."""
        job_id, database = self.record.job_id, self._database
        with database.transaction():
            database.hold(self.record)
            mismatch = database.surplus(self.record)
            if mismatch:  # never "completed", not even for a moment: the process may be killed
                state = "interrupted"
            database.run(
                f"UPDATE {database.tables.jobs} SET state = ?, heartbeat_at = ?, "
                "total_items = coalesce(?, total_items) WHERE job_id = ?",
                (state, statements.now(), total_items, job_id),
            )
            if state == "completed":
                database.run(f"DROP TABLE IF EXISTS {database.keys_table(job_id)}")
        return mismatch
