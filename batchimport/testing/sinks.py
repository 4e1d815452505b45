"""What any sink must guarantee: a check for each promise, which raises AssertionError if it is broken.

A check takes an empty place. With pytest:

    @pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
    def test_the_contract(check, tmp_path):
        place = SinkPlace(f"mine:///{tmp_path}/users.mine")
        check(place)
        place.close()
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from batchimport.errors import FatalError, JobRunningElsewhereError
from batchimport.jobs.identify import without_address
from batchimport.model import Chunk, FieldError, Job, Position, Reject
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Claim, JobRecord, Sink, StoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def look_by_sql(sink: Any, columns: str, table: str) -> list[tuple[Any, ...]]:
    """Return rows of a table, ordered by the first of the columns."""
    found: list[tuple[Any, ...]] = sink.rows(f"SELECT {columns} FROM {sink.name(table)} ORDER BY 1")
    return found


class SinkPlace:
    """A place that sinks are opened on.

    Args:
        address: Of an empty place.
        look: Returns the rows of a table by a list of columns, ordered by the first.
        lose_locks: Lets the server release a sink's locks, as if its connection had been lost.
    """

    def __init__(
        self,
        address: str,
        look: Callable[[Sink, str, str], list[tuple[Any, ...]]] = look_by_sql,
        lose_locks: Callable[[Sink], None] = lambda _: None,
    ) -> None:
        self.address, self._look, self.lose_locks = address, look, lose_locks
        self.opened: list[Sink] = []

    def open(self) -> Sink:
        """Open a sink, as another process would."""
        self.opened.append(open_sink(self.address))
        return self.opened[-1]

    def claimed(
        self, job: Job | None = None, job_id: str = "users-1", **facts: Any
    ) -> tuple[Sink, Claim]:
        """Open a sink and claim a job."""
        sink, job = self.open(), job or self.job()
        return sink, sink.claim(job, a_record(job, job_id, **facts), "me")

    def job(self, **facts: Any) -> Job:
        """Return a job that imports to this place."""
        return a_job(self.address, **facts)

    def rows(self, columns: str = "id, name", table: str = "users") -> list[tuple[Any, ...]]:
        """Look into the table by the sink that was opened last."""
        return self._look(self.opened[-1], columns, table)

    def close(self) -> None:
        """Close all sinks, as if their processes ended."""
        while self.opened:
            self.opened.pop().close()


@contextmanager
def refuses(error: type[Exception]) -> Iterator[None]:
    """Check that an error is raised."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


COLUMNS = (Column("id", "integer"), Column("name", "string"), Column("data", "json"))


def a_job(address: str, **facts: Any) -> Job:
    """Return a job that imports users."""
    return Job(
        **{"sources": ("/data/users.jsonl",), "destination": address, "table": "users"} | facts
    )


def a_record(job: Job, job_id: str = "users-1", **facts: Any) -> JobRecord:
    """Return the record of a job that has a thousand positions."""
    given: dict[str, Any] = {
        "job_id": job_id,
        "target_hash": job.target_hash(),
        "fingerprint": "10-a-b",
        "modified": "1-2",
        "configuration_hash": job.configuration_hash(),
        "schema": {"type": "object"},
        "columns": COLUMNS,
        "size": 1000,
        "configuration": json.loads(json.dumps(without_address(job))),
    }
    return JobRecord(**given | facts)


def chunk(first: int, records: int) -> Chunk:
    """Return a chunk whose records take ten positions and one line each."""
    last = first + records
    return Chunk(Position(first * 10, first, first + 1), Position(last * 10, last, last + 1))


def a_request(
    place: Chunk,
    rows: list[dict[str, Any]],
    rejects: list[Reject] | None = None,
    filtered: int = 0,
    columns: Sequence[Column] = COLUMNS,
) -> StoreRequest:
    """Return the request to store a chunk."""
    types = {column.name: column.dtype for column in columns}
    if any("_extra" in row for row in rows):
        types["_extra"] = pl.String()
    frame = pl.DataFrame(rows, schema=types)

    def rejecter(at: int, errors: Any) -> Reject:
        return a_reject(place.offset + at, "store", *errors)

    return StoreRequest(place, frame, rejects or [], filtered, "digest", 1, rejecter)


def a_reject(
    record: int, stage: Any = "validate", *errors: FieldError, raw: bytes = b"{}"
) -> Reject:
    """Return a reject."""
    reasons = errors or (FieldError("minimum", "age", "too small", -1),)
    return Reject(record, "users.jsonl", record + 1, record * 10, stage, reasons, raw)


def rows(*ids: int) -> list[dict[str, Any]]:
    """Return a row for each id."""
    return [{"id": at, "name": f"user {at}", "data": '{"a": 1.10}'} for at in ids]


# -- the checks


def a_chunk_that_is_stored_twice_is_stored_once(place: SinkPlace) -> None:
    """A second attempt learns what the first one did."""
    sink, claim = place.claimed()
    first = claim.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    again = claim.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    assert not first.already_committed
    assert again.already_committed
    assert (again.successful, again.failed) == (1, 1)
    assert len(place.rows()) == 1
    assert len(list(sink.rejects("users-1"))) == 1


def a_chunk_that_overlaps_is_refused(place: SinkPlace) -> None:
    """No record can be committed by two chunks of different borders."""
    _, claim = place.claimed()
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    for other in ((0, 3), (1, 1), (1, 5), (0, 1)):
        with refuses(FatalError):
            claim.store(a_request(chunk(*other), rows(7)))
    assert len(place.rows()) == 2


def a_chunk_is_known_by_where_it_begins(place: SinkPlace) -> None:
    """In its own job; so a worker knows when its turn has come, whoever stored the chunk before."""
    sink, claim = place.claimed()
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    claim.store(a_request(chunk(5, 2), [], [a_reject(5)], filtered=1))
    assert [at for at in range(80) if sink.is_committed("users-1", at)] == [0, 50]
    assert not sink.is_committed("users-2", 0)
    assert place.open().is_committed("users-1", 50)


def chunks_are_committed_in_any_order(place: SinkPlace) -> None:
    """The ledger is in order of position, and the rejects in order of record."""
    sink, claim = place.claimed()
    for first in (20, 0, 10):
        rejects = [a_reject(first + 3), a_reject(first + 1)]
        claim.store(a_request(chunk(first, 10), rows(first), rejects))
    assert [row.chunk.offset for row in sink.committed("users-1")] == [0, 10, 20]
    assert [reject.record for reject in sink.rejects("users-1")] == [1, 3, 11, 13, 21, 23]


def a_chunk_without_rows_is_committed(place: SinkPlace) -> None:
    """All of its records were refused, filtered out, or blank lines."""
    sink, claim = place.claimed()
    claim.store(a_request(chunk(0, 2), [], [a_reject(0)], filtered=1))
    claim.store(a_request(chunk(2, 0), []))
    assert place.rows() == []
    assert next((row.failed, row.filtered) for row in sink.committed("users-1")) == (1, 1)
    assert claim.finish("completed", 2) == 0


def threads_may_store_at_once(place: SinkPlace) -> None:
    """Every chunk is committed once, whoever comes first."""
    sink, claim = place.claimed()
    chunks = [chunk(at * 5, 5) for at in range(20)] * 2
    barrier = threading.Barrier(4)

    def work(mine: int) -> None:
        barrier.wait()
        for each in chunks[mine::4]:
            claim.store(a_request(each, rows(*range(each.offset, each.offset + 5))))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row[0] for row in place.rows()] == list(range(100))
    assert sum(row.successful for row in sink.committed("users-1")) == 100


def a_stopped_owner_that_wakes_up_cannot_commit(place: SinkPlace) -> None:
    """The next claim raises the epoch; the old one is fenced off."""
    sink, job = place.open(), place.job()
    old = sink.claim(job, a_record(job), "old")
    assert old.record.epoch == 1
    place.lose_locks(sink)
    other = place.open()
    new = other.claim(job, a_record(job), "new")
    assert new.record.epoch == 2
    with refuses(JobRunningElsewhereError):
        old.store(a_request(chunk(0, 1), rows(1)))
    with refuses(JobRunningElsewhereError):
        old.finish("completed", 1)
    assert new.store(a_request(chunk(0, 1), rows(1))).successful == 1
    assert other.owner("users-1") == "new"
    assert other.owner("nobody's") is None


def others_may_join_a_job_until_it_is_claimed_again(place: SinkPlace) -> None:
    """At the epoch of the record, in any number; the next claim fences them all."""
    job = place.job()
    first = place.open()
    claim = first.claim(job, a_record(job), "me")
    worker = place.open().join(job, claim.record)
    claim.store(a_request(chunk(0, 1), rows(1)))
    worker.store(a_request(chunk(1, 1), [*rows(2), {"id": 3, "_extra": "{}"}]))
    assert [row[0] for row in place.rows()] == [1, 2, 3]
    assert first.claim(job, claim.record, "me").record.epoch == 2
    with refuses(JobRunningElsewhereError):
        worker.store(a_request(chunk(5, 1), rows(9)))


def a_job_is_known_again(place: SinkPlace) -> None:
    """Another process finds the job's record as it was written, and its ledger."""
    job = place.job()
    sink = place.open()
    claim = sink.claim(job, a_record(job), "me")
    claim.store(a_request(chunk(0, 2), rows(1, 2)))
    claim.finish("interrupted", 7)
    place.close()
    again = place.open()
    (known,) = again.jobs()
    ended: dict[str, Any] = {
        "state": "interrupted",
        "total_items": 7,
        "updated_at": known.updated_at,
    }
    assert known == replace(claim.record, **ended)
    assert known.updated_at >= known.created_at
    assert [row.chunk for row in again.committed("users-1")] == [chunk(0, 2)]
    resumed = again.claim(job, a_record(job, columns=()), "me")
    record = resumed.record
    assert (record.epoch, record.columns, record.state) == (2, COLUMNS, "running")
    assert resumed.store(a_request(chunk(0, 2), rows(1, 2))).already_committed
    assert resumed.store(a_request(chunk(2, 1), rows(3))).successful == 1
    assert len(place.rows()) == 3


def two_jobs_share_a_table(place: SinkPlace) -> None:
    """Each with its own ledger and rejects; the accounts of both are right."""
    sink, first = place.claimed(job_id="one")
    first.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    _, second = place.claimed(place.job(sources=("/data/more.jsonl",)), job_id="one-2")
    second.store(a_request(chunk(0, 2), rows(2), [a_reject(0)]))
    first.store(a_request(chunk(2, 1), rows(3)))
    assert [row[0] for row in place.rows()] == [1, 2, 3]
    assert [record.job_id for record in sink.jobs()] == ["one", "one-2"]
    assert [row.chunk for row in sink.committed("one")] == [chunk(0, 2), chunk(2, 1)]
    assert [reject.record for reject in sink.rejects("one-2")] == [0]
    assert first.finish("completed", 3) == 0
    assert second.finish("completed", 2) in (0, None)


def a_job_that_begins_again_leaves_no_ledger(place: SinkPlace) -> None:
    """Chunks and rejects are forgotten; in SQL its rows stay, where files are the ledger they go."""
    (sink, claim), job = place.claimed(), place.job()
    claim.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    _, other = place.claimed(place.job(sources=("/data/more.jsonl",)), job_id="users-1-0")
    other.store(a_request(chunk(0, 1), rows(2)))
    old = sink.jobs()[0]
    sink.claim(job, a_record(job), "me", [old])
    assert sink.committed("users-1") == []
    assert list(sink.rejects("users-1")) == []
    assert len(place.rows()) == (2 if sink.hints.rows_outlive_the_ledger else 1)
    assert len(sink.committed("users-1-0")) == 1


def a_job_that_began_again_is_closed_to_its_old_owner(place: SinkPlace) -> None:
    """Under the same name, too: what it has not stored yet, it must not store."""
    (sink, claim), job = place.claimed(), place.job()
    claim.store(a_request(chunk(0, 2), rows(1)))
    again = sink.claim(job, a_record(job), "me", sink.jobs())
    old = replace(again.record, epoch=1, created_at="2026-01-01T00:00:00.000+00:00")
    with refuses(JobRunningElsewhereError):
        sink.join(job, old).store(a_request(chunk(2, 1), rows(3)))


def a_job_that_was_claimed_since_it_was_found_is_not_forgotten(place: SinkPlace) -> None:
    """Of two processes that begin it again one gives way."""
    (sink, _), job = place.claimed(), place.job()
    found = sink.jobs()
    sink.claim(job, a_record(job), "other", found).store(a_request(chunk(0, 2), rows(1)))
    with refuses(JobRunningElsewhereError):
        sink.claim(job, a_record(job), "me", found)
    assert len(sink.committed("users-1")) == 1


SINK_CHECKS: tuple[Callable[[SinkPlace], None], ...] = (
    a_chunk_that_is_stored_twice_is_stored_once,
    a_chunk_that_overlaps_is_refused,
    a_chunk_is_known_by_where_it_begins,
    chunks_are_committed_in_any_order,
    a_chunk_without_rows_is_committed,
    threads_may_store_at_once,
    a_stopped_owner_that_wakes_up_cannot_commit,
    others_may_join_a_job_until_it_is_claimed_again,
    a_job_is_known_again,
    two_jobs_share_a_table,
    a_job_that_begins_again_leaves_no_ledger,
    a_job_that_began_again_is_closed_to_its_old_owner,
    a_job_that_was_claimed_since_it_was_found_is_not_forgotten,
)
"""All checks."""
