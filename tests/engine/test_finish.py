"""How a run ends in the ledger when not all of its chunks are committed."""

from __future__ import annotations

from tests.helpers.cli import Workdir
from tests.helpers.tables import query


def test_a_run_with_a_chunk_that_was_given_up_is_interrupted(workdir: Workdir) -> None:
    """Not an error of the accounts: the next run imports that chunk, and completes the job."""
    workdir.lines("u.jsonl", [{"id": number} for number in range(50)])
    run = ("run", "u.jsonl", "--chunk-size", 10, "--max-attempts", 1, "--json")
    first = workdir.call(*run, BATCHIMPORT_FAILPOINTS="before-store=error@2")
    assert first.code in {1, 3}
    assert first.summary["chunks"]["failed"] == 1
    assert first.summary["resume_command"]
    state = "SELECT state FROM _batchimport_jobs"
    assert query(workdir.path / "u.db", state) == [("interrupted",)]
    again = workdir.call(*run)
    assert (again.code, again.summary["this_run"]["processed"]) == (0, 10)
    assert query(workdir.path / "u.db", state) == [("completed",)]
