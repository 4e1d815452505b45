"""When a job stops early, why it is incomplete, and the status that it ends with. Pure."""

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
"""When this many chunks fail one after the other, the destination is taken to be gone."""
SHARE_COUNTS_AFTER = 1000
"""Records that must be processed before `--max-errors N%` is applied."""
_HINT = "fix the cause, then run the same command again: it imports only what is missing"


class StopRule:
    """Hears how each chunk ended, and says whether the job must stop.

    Attributes:
        rejected: Rejected records, over all runs of the job.
        processed: Records that have an outcome, over all runs of the job.
        failures_in_a_row: Chunks given up since the last one that was committed.
        given_up: Chunks given up in this run.
        last_failure: Why the last of them was given up; empty if that is unknown.
    """

    def __init__(
        self,
        options: RunOptions,
        rejected: int,
        processed: int,
        failures_in_a_row: int = 0,
        given_up: int = 0,
        last_failure: str = "",
    ) -> None:
        self._options = options
        self.rejected, self.processed = rejected, processed
        self.failures_in_a_row = failures_in_a_row
        self.given_up, self.last_failure = given_up, last_failure

    def finished(self, result: ChunkResult) -> BatchImportError | None:
        """Count a committed chunk; return the reason to stop the job, if there is one."""
        self.failures_in_a_row = 0
        self.rejected += result.failed
        self.processed += result.chunk.records
        if self._is_hopeless():
            return TooManyRejects(
                f"none of the first {self.processed:,} records fits",
                hint="check --delimiter, --schema and --transform; --max-errors 100% goes on anyway",
            )
        if not self._exceeds_max_errors():
            return None
        return TooManyRejects(
            f"{self.rejected:,} records were rejected, more than --max-errors",
            hint="look at them with `batchimport rejects`, then resume with a higher limit",
        )

    def failed(self, error: Exception) -> BatchImportError | None:
        """Count a chunk that was given up; return the reason to stop the job, if there is one."""
        self.given_up += 1
        self.last_failure = str(error)
        if isinstance(error, BatchImportError) and not isinstance(error, ChunkError):
            return error
        self.failures_in_a_row += 1
        if self.failures_in_a_row < FAILURES_IN_A_ROW:
            return None
        return FatalError(
            f"{FAILURES_IN_A_ROW} chunks in a row failed; the last error: {error}", hint=_HINT
        )

    def incomplete(self) -> BatchImportError | None:
        """Return why a run that came to its end leaves records to import; None if it does not."""
        if not self.given_up:
            return None
        chunks = "1 chunk was" if self.given_up == 1 else f"{self.given_up:,} chunks were"
        reason = f"; the last error: {self.last_failure}" if self.last_failure else ""
        return FatalError(f"{chunks} given up{reason}", hint=_HINT)

    def _is_hopeless(self) -> bool:
        options = self._options
        if options.hopeless_after is None or self.processed < options.hopeless_after:
            return False
        is_limited = options.max_errors is not None or options.max_errors_share is not None
        return self.rejected == self.processed and not is_limited

    def _exceeds_max_errors(self) -> bool:
        most, share = self._options.max_errors, self._options.max_errors_share
        if most is not None and self.rejected > most:
            return True
        enough = self.processed >= SHARE_COUNTS_AFTER
        return share is not None and enough and self.rejected > share * self.processed


def verdict(rejected: int, error: BatchImportError | None) -> tuple[str, int]:
    """Return the status and the exit code of a run that has ended.

    Args:
        rejected: Rejected records, over all runs of the job.
        error: Why it did not end well; chunks that were given up are such a reason.
    """
    if isinstance(error, JobInterrupted):
        return "interrupted", error.exit_code
    if isinstance(error, TooManyRejects):
        return "stopped", error.exit_code
    if isinstance(error, RefusedError):
        return "refused", error.exit_code
    if error is not None:
        return "failed", error.exit_code
    return ("completed_with_rejects", 3) if rejected else ("completed", 0)
