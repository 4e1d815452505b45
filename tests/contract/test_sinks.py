"""What every sink must keep: one suite, run over each adapter."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import FatalError, JobRunningElsewhereError, UsageError
from batchimport.job import Job
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Sink
from tests.helpers.stores import COLUMNS, a_job, a_record, a_reject, a_request, chunk, rows

Opener = Callable[[], Sink]


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("sqlite", "duckdb"):
        return f"{request.param}:///{tmp_path / 'users.db'}"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def opener(address: str) -> Iterator[Opener]:
    opened: list[Sink] = []

    def start() -> Sink:
        sink = open_sink(address)
        opened.append(sink)
        return sink

    yield start
    for sink in opened:
        sink.close()


def stored(sink: Sink) -> list[tuple[Any, ...]]:
    """Look into the table by the sink's own connection."""
    return sink._rows("SELECT id, name FROM users ORDER BY id")  # type: ignore[attr-defined]


def test_a_chunk_is_stored_with_its_ledger_row_and_rejects(opener: Opener, address: str) -> None:
    """Rows, counts and rejects come back as they were given."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    reject = a_reject(2, raw=b'{"name": "\xff\x00"}')
    result = sink.store(a_request(chunk(0, 4), rows(1, 2), [reject], filtered=1))
    assert (result.successful, result.failed, result.filtered) == (2, 1, 1)
    assert stored(sink) == [(1, "user 1"), (2, "user 2")]
    data = sink._rows("SELECT CAST(data AS text) FROM users")  # type: ignore[attr-defined]
    assert data == [('{"a": 1.10}',)] * 2
    (row,) = sink.committed("users-1")
    assert (row.chunk, row.successful, row.failed, row.filtered) == (chunk(0, 4), 2, 1, 1)
    assert list(sink.rejects("users-1")) == [reject]


def test_a_chunk_that_is_stored_twice_is_stored_once(opener: Opener, address: str) -> None:
    """A second attempt learns what the first one did."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    first = sink.store(a_request(chunk(0, 2), rows(1, 2)))
    again = sink.store(a_request(chunk(0, 2), rows(1, 2)))
    assert not first.already_committed
    assert again.already_committed
    assert again.successful == 2
    assert len(stored(sink)) == 2


@pytest.mark.parametrize("other", [(0, 3), (1, 1), (1, 5), (0, 1)])
def test_a_chunk_that_overlaps_is_refused(
    opener: Opener, address: str, other: tuple[int, int]
) -> None:
    """No record can be committed by two chunks of different borders."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 2), rows(1, 2)))
    with pytest.raises(FatalError, match="overlapping"):
        sink.store(a_request(chunk(*other), rows(7)))
    assert len(stored(sink)) == 2


def test_a_stopped_owner_that_wakes_up_cannot_commit(opener: Opener, address: str) -> None:
    """The next claim raises the epoch; the old one is fenced off."""
    old, new, job = opener(), opener(), a_job(address)
    assert old.claim(job, a_record(job), "old").epoch == 1
    if address.startswith("postgresql"):  # as if its connection had been lost
        existing(old, "DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$")
    assert new.claim(job, a_record(job), "new").epoch == 2
    with pytest.raises(JobRunningElsewhereError):
        old.store(a_request(chunk(0, 1), rows(1)))
    with pytest.raises(JobRunningElsewhereError):
        old.finish("users-1", "completed", 1)
    assert new.store(a_request(chunk(0, 1), rows(1))).successful == 1
    assert new.owner("users-1") == "new"


def test_rows_that_the_table_refuses_are_rejected_alone(opener: Opener, address: str) -> None:
    """First, middle and last of a chunk, with the database's reason; the others are stored."""
    sink, job = opener(), a_job(address, key=("id",))
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 3), rows(1, 2, 3)))
    earlier = a_reject(9)
    result = sink.store(a_request(chunk(3, 7), rows(3, 4, 4, 5, 6, 1), [earlier]))
    assert (result.successful, result.failed, result.bisected) == (3, 4, True)
    assert [row[0] for row in stored(sink)] == [1, 2, 3, 4, 5, 6]
    found = {reject.record: reject for reject in sink.rejects("users-1")}
    assert sorted(found) == [3, 5, 8, 9]
    assert {found[at].stage for at in (3, 5, 8)} == {"store"}
    assert {found[at].errors[0].code for at in (3, 5, 8)} == {"unique"}
    assert found[3].errors[0].field == "id"
    assert sink.committed("users-1")[1].failed == 4


def test_keys_without_a_column_are_kept(opener: Opener, address: str) -> None:
    """The column `_extra` is added when the first record needs it."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 1), rows(1)))
    sink.store(a_request(chunk(1, 2), [*rows(2), {"id": 3, "_extra": '{"x":1}'}]))
    extra = sink._rows("SELECT id, CAST(_extra AS text) FROM users ORDER BY id")  # type: ignore[attr-defined]
    assert [(at, text and json.loads(text)) for at, text in extra] == [
        (1, None),
        (2, None),
        (3, {"x": 1}),
    ]


def test_threads_may_store_at_once(opener: Opener, address: str) -> None:
    """Every chunk is committed once, whoever comes first."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    places = [chunk(at * 5, 5) for at in range(20)] * 2
    barrier = threading.Barrier(4)

    def work(mine: int) -> None:
        barrier.wait()
        for place in places[mine::4]:
            sink.store(a_request(place, rows(*range(place.offset, place.offset + 5))))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row[0] for row in stored(sink)] == list(range(100))
    assert sum(row.successful for row in sink.committed("users-1")) == 100


def test_a_job_is_known_again(opener: Opener, address: str) -> None:
    """Another process finds the job's record as it was written."""
    job = a_job(address)
    record = opener().claim(job, a_record(job), "me")
    (found,) = opener().jobs(job.target_hash())
    assert (found.job_id, found.columns, found.schema) == ("users-1", COLUMNS, record.schema)
    assert opener().jobs("another") == []


def test_an_abandoned_job_leaves_no_ledger(opener: Opener, address: str) -> None:
    """Its rows stay, its chunks and rejects are forgotten."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    sink.abandon("users-1")
    assert sink.jobs() == []
    assert sink.committed("users-1") == []
    assert list(sink.rejects("users-1")) == []
    assert len(stored(sink)) == 1


def test_rows_that_nobody_accounts_for_are_noticed(opener: Opener, address: str) -> None:
    """In a table that the job made, another program's rows make a surplus."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 2), rows(1, 2)))
    assert sink.finish("users-1", "completed", 2) == 0
    sink._run("INSERT INTO users (id) VALUES (99)")  # type: ignore[attr-defined]
    assert sink.finish("users-1", "completed", 2) == 1


def existing(sink: Sink, statement: str) -> None:
    sink._run(statement)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("CREATE TABLE users (id INTEGER, name TEXT)", "no column data"),
        ("CREATE TABLE users (id INTEGER, name TEXT, data INTEGER)", "column data"),
        (
            "CREATE TABLE users (id INTEGER, name TEXT, data TEXT, must TEXT NOT NULL)",
            "may not be null",
        ),
    ],
)
def test_a_table_that_cannot_take_the_columns_is_refused(
    opener: Opener, address: str, table: str, message: str
) -> None:
    """Before the first chunk, by the name of the column."""
    sink, job = opener(), a_job(address)
    existing(sink, table)
    with pytest.raises(UsageError, match=message):
        sink.claim(job, a_record(job), "me")


@pytest.mark.parametrize(("mode", "left"), [("append", 3), ("truncate", 2), ("replace", 2)])
def test_an_existing_table_is_treated_as_asked(
    opener: Opener, address: str, mode: Any, left: int
) -> None:
    """`--if-exists` decides what becomes of the rows that are there."""
    sink, job = opener(), a_job(address, if_exists=mode)
    existing(sink, "CREATE TABLE users (id INTEGER, name TEXT, data TEXT)")
    existing(sink, "INSERT INTO users VALUES (50, 'before', NULL)")
    sink.claim(job, a_record(job), "me")
    sink.store(a_request(chunk(0, 2), rows(1, 2)))
    assert len(stored(sink)) == left
    with pytest.raises(UsageError, match="exists"):
        sink.claim(a_job(address, if_exists="fail"), a_record(job, "users-2"), "me")


def test_constraints_of_an_existing_table_reject_records(opener: Opener, address: str) -> None:
    """NOT NULL, CHECK and foreign keys name their code; triggers do not confuse the count."""
    sink, job = opener(), a_job(address)
    existing(sink, "CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    existing(sink, "INSERT INTO parents VALUES (1), (2), (3)")
    existing(
        sink,
        "CREATE TABLE users (id INTEGER REFERENCES parents, name TEXT NOT NULL "
        "CHECK (name <> 'bad'), data TEXT)",
    )
    existing(sink, "CREATE TABLE log (id INTEGER)")
    if address.startswith("sqlite"):
        existing(
            sink,
            "CREATE TRIGGER t AFTER INSERT ON users BEGIN INSERT INTO log VALUES (new.id); END",
        )
    sink.claim(job, a_record(job), "me")
    given = [{"id": 1, "name": "a"}, {"id": 2}, {"id": 2, "name": "bad"}, {"id": 9, "name": "b"}]
    result = sink.store(a_request(chunk(0, 5), [*given, {"id": 3, "name": "c"}]))
    assert (result.successful, result.failed) == (2, 3)
    found = [(reject.record, reject.errors[0].code) for reject in sink.rejects("users-1")]
    assert found == [(1, "not_null"), (2, "check"), (3, "foreign_key")]


@pytest.mark.parametrize("name", ['quo"te', "sélect", "a b; DROP TABLE users", "order", "💥"])
def test_any_name_is_a_name(opener: Opener, address: str, name: str) -> None:
    """Tables and columns are quoted."""
    sink = opener()
    job: Job = a_job(address, table=name)
    record = a_record(job, columns=(Column(name, "integer"),))
    sink.claim(job, record, "me")
    frame = a_request(chunk(0, 1), rows(1)).frame.select("id").rename({"id": name})
    request = a_request(chunk(0, 1), [])
    assert sink.store(type(request)(**{**_facts(request), "frame": frame})).successful == 1


def _facts(request: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_a_later_format_is_not_touched(opener: Opener, address: str) -> None:
    """A ledger that a later version wrote stops this one."""
    sink, job = opener(), a_job(address)
    sink.claim(job, a_record(job), "me")
    existing(sink, "UPDATE _batchimport_jobs SET format_version = 99")
    with pytest.raises(FatalError, match="format 99"):
        sink.jobs()
    assert stored(sink) == []
