"""When a job stops early, and how its end is called."""

from __future__ import annotations

import pytest

from batchimport.errors import (
    AccountsError,
    BatchImportError,
    DataError,
    FatalError,
    JobInterrupted,
    SourceChangedError,
    TooManyRejects,
    TransientError,
)
from batchimport.model import Chunk, ChunkResult, Position, RunOptions
from batchimport.policy.stop_rules import StopRule, verdict


def committed(records: int, failed: int = 0) -> ChunkResult:
    chunk = Chunk(Position(), Position(records, records))
    return ChunkResult(chunk, records - failed, failed, 0)


def test_a_count_of_rejects_may_be_reached_not_passed() -> None:
    """`--max-errors 10`, over all runs of the job."""
    rule = StopRule(RunOptions(max_errors=10), rejected=4, processed=100)
    assert rule.finished(committed(20, failed=6)) is None
    reason = rule.finished(committed(20, failed=1))
    assert isinstance(reason, TooManyRejects)
    assert "11 records" in reason.message


def test_a_share_of_rejects_counts_after_a_thousand_records() -> None:
    """`--max-errors 10%`: a bad head of the file stops nothing."""
    rule = StopRule(RunOptions(max_errors_share=0.1), rejected=0, processed=0)
    assert rule.finished(committed(999, failed=999)) is None
    assert isinstance(rule.finished(committed(1)), TooManyRejects)
    edge = StopRule(RunOptions(max_errors_share=0.1), rejected=0, processed=0)
    assert edge.finished(committed(1000, failed=100)) is None
    assert isinstance(edge.finished(committed(1, failed=1)), TooManyRejects)


@pytest.mark.parametrize("error", [TransientError("lost"), DataError("bad"), RuntimeError("odd")])
def test_three_failures_in_a_row_stop_the_job(error: Exception) -> None:
    """A committed chunk in between starts the count again; what was given up stays given up."""
    rule = StopRule(RunOptions(), 0, 0)
    assert [rule.failed(error), rule.failed(error), rule.finished(committed(1))] == [None] * 3
    assert [rule.failed(error), rule.failed(error)] == [None] * 2
    reason = rule.failed(error)
    assert isinstance(reason, FatalError)
    assert str(error) in reason.message
    assert rule.given_up == 5


def test_failures_before_a_workflow_was_renewed_count() -> None:
    """Its second run goes on where the first one was."""
    assert isinstance(
        StopRule(RunOptions(), 0, 0, failures_in_a_row=2).failed(DataError("bad")), FatalError
    )


def test_an_error_that_is_no_matter_of_one_chunk_stops_at_once() -> None:
    """A full disk, or a job that was taken over."""
    error = FatalError("the disk is full")
    assert StopRule(RunOptions(), 0, 0).failed(error) is error


def test_chunks_that_were_given_up_are_the_reason_that_a_run_is_incomplete() -> None:
    """How many, the last error, and what to do; also where a renewed workflow lost the error."""
    rule = StopRule(RunOptions(), 0, 0)
    assert rule.incomplete() is None
    rule.failed(TransientError("the connection is lost"))
    rule.finished(committed(1))
    reason = rule.incomplete()
    assert isinstance(reason, FatalError)
    assert reason.message == "1 chunk was given up; the last error: the connection is lost"
    assert "only what is missing" in str(reason.hint)
    renewed = StopRule(RunOptions(), 0, 0, given_up=1200).incomplete()
    assert str(renewed) == "1,200 chunks were given up"


@pytest.mark.parametrize(
    ("rejected", "error", "expected"),
    [
        (0, None, ("completed", 0)),
        (1, None, ("completed_with_rejects", 3)),
        (1, FatalError("1 chunk was given up"), ("failed", 1)),
        (0, AccountsError("one is missing"), ("failed", 7)),
        (9, TooManyRejects("9"), ("stopped", 4)),
        (9, JobInterrupted("SIGINT"), ("interrupted", 5)),
        (0, SourceChangedError("changed"), ("refused", 6)),
    ],
)
def test_the_end_has_a_status_and_an_exit_code(
    rejected: int, error: BatchImportError | None, expected: tuple[str, int]
) -> None:
    """3 is for rejects alone."""
    assert verdict(rejected, error) == expected
