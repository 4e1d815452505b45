"""When a job stops early, and what its end is called. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.errors import (
    BatchImportError,
    ChunkError,
    FatalError,
    JobInterrupted,
    RefusedError,
    TooManyRejects,
)

if TYPE_CHECKING:
    from batchimport.model import ChunkResult, RunOptions

FAILURES_IN_A_ROW = 3
"""So many chunks failing one after the other mean that the destination is gone."""
SHARE_COUNTS_AFTER = 1000


class StopRule:
    """Hears how each chunk ended, and says whether the job must stop.

    Attributes:
        rejected: Records that were rejected, over all runs of the job.
        processed: Records that have an outcome, over all runs of the job.
    """

    def __init__(
        self, options: RunOptions, rejected: int, processed: int, failures_in_a_row: int = 0
    ) -> None:
        self._options = options
        self.rejected, self.processed = rejected, processed
        self.failures_in_a_row = failures_in_a_row

    def finished(self, result: ChunkResult) -> BatchImportError | None:
        """Count a chunk that is committed; return why the job must stop, if so."""
        self.failures_in_a_row = 0
        self.rejected += result.failed
        self.processed += result.chunk.records
        if not self._is_used_up():
            return None
        return TooManyRejects(
            f"{self.rejected:,} records were rejected, more than --max-errors",
            hint="look at them with `batchimport rejects`, then resume with a higher limit",
        )

    def failed(self, error: Exception) -> BatchImportError | None:
        """Count a chunk that was given up; return why the job must stop, if so."""
        if isinstance(error, BatchImportError) and not isinstance(error, ChunkError):
            return error
        self.failures_in_a_row += 1
        if self.failures_in_a_row < FAILURES_IN_A_ROW:
            return None
        return FatalError(
            f"{FAILURES_IN_A_ROW} chunks in a row failed, the last with: {error}",
            hint="mend the cause, then run the same command again",
        )

    def _is_used_up(self) -> bool:
        most, share = self._options.max_errors, self._options.max_errors_share
        if most is not None and self.rejected > most:
            return True
        enough = self.processed >= SHARE_COUNTS_AFTER
        return share is not None and enough and self.rejected > share * self.processed


def verdict(rejected: int, failed_chunks: int, error: BatchImportError | None) -> tuple[str, int]:
    """Return the status and the exit code of a run that has ended."""
    if isinstance(error, JobInterrupted):
        return "interrupted", error.exit_code
    if isinstance(error, TooManyRejects):
        return "stopped", error.exit_code
    if isinstance(error, RefusedError):
        return "refused", error.exit_code
    if error is not None:
        return "failed", error.exit_code
    if failed_chunks:
        return "failed", 3
    return ("completed_with_rejects", 3) if rejected else ("completed", 0)
