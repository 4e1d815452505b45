"""The time for a chunk does not grow with the ledger: it is looked up, not read through."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.sinks import open_sink
from batchimport.sinks.parquet.folder import Folder, Part
from batchimport.sinks.sql import statements
from tests.helpers.postgres import PostgresServer
from tests.helpers.stores import a_job, a_record, a_request, chunk, rows

MANY = 20_000
_COLUMNS = (
    "job_id, lo, hi, first_record, records, first_line, next_line, successful, failed, filtered"
)
_COLUMNS += ", digest, epoch, attempt, committed_at"
_VALUES = "'users-1', n * 10, n * 10 + 10, n, 1, n, n + 1, 1, 0, 0, '', 1, 1, ''"


def _query(sink: Any, at: int = MANY) -> tuple[str, tuple[Any, ...]]:
    return statements.overlapping(sink.tables.chunks, "users-1", chunk(at, 5))


def test_sqlite_finds_what_overlaps_by_the_primary_key(tmp_path: Path) -> None:
    """Both ends of the range are looked up: no step of the plan scans."""
    address = f"sqlite:///{tmp_path}/users.db"
    sink: Any = open_sink(address)
    sink.claim(a_job(address), a_record(a_job(address)), "me")
    query, values = _query(sink)
    plan = [row[3] for row in sink.rows(f"EXPLAIN QUERY PLAN {query}", values)]
    sink.close()
    steps = [step for step in plan if "_batchimport_chunks" in step]
    assert len(steps) == 2
    assert all(step.startswith("SEARCH") for step in steps)
    assert "(job_id=? AND lo>? AND lo<?)" in steps[0]


def test_postgresql_reads_few_pages_of_a_long_ledger(postgres: PostgresServer) -> None:
    """The look-up for the chunk behind twenty thousand touches a handful of pages."""
    address = postgres.new_database()
    sink: Any = open_sink(address)
    sink.claim(a_job(address), a_record(a_job(address)), "me")
    sink.run(
        f"INSERT INTO {sink.tables.chunks} ({_COLUMNS}) "
        f"SELECT {_VALUES} FROM generate_series(0, {MANY - 1}) n"
    )
    query, values = _query(sink)
    plan = sink.rows(f"EXPLAIN (ANALYZE, BUFFERS) {query}", values)
    sink.close()
    pages = [int(found) for found in re.findall(r"hit=(\d+)", "\n".join(row[0] for row in plan))]
    assert max(pages) < 100  # a scan of the ledger reads over 300, planning about 20


def test_a_directory_of_parts_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing fifty chunks lists the directory once; a change by another program, once more."""
    address = f"parquet:///{tmp_path}/users"
    sink = open_sink(address)
    claim = sink.claim(a_job(address), a_record(a_job(address)), "me")
    listings, parts = [], Folder.parts
    monkeypatch.setattr(
        Folder, "parts", lambda *given: listings.append(1) or parts(*given)
    )  # counts, and lists as before
    for at in range(50):
        claim.store(a_request(chunk(at, 1), rows(at)))
    assert len(listings) == 1
    folder = tmp_path / "users"
    stored = folder / Part("users-1", 0, 10).name
    shutil.copyfile(stored, folder / "copy.parquet")
    claim.store(a_request(chunk(50, 1), rows(50)))
    assert len(listings) == 2


def test_a_part_of_another_process_is_seen(tmp_path: Path) -> None:
    """Two sinks that store in turn, faster than file times tick, see each other's parts."""
    address = f"parquet:///{tmp_path}/users"
    first, second = open_sink(address), open_sink(address)
    job = a_job(address)
    claim = first.claim(job, a_record(job), "me")
    claims = [claim, second.join(job, claim.record)]
    for at in range(60):
        one, other = claims if at % 2 else reversed(claims)
        assert not one.store(a_request(chunk(at, 1), rows(at))).already_committed
        assert other.store(a_request(chunk(at, 1), rows(at))).already_committed


@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12),
    st.integers(0, 60),
    st.integers(1, 20),
)
def test_the_parts_in_an_interval(pieces: list[tuple[int, bool]], lo: int, length: int) -> None:
    """The index finds the parts that a look at all of them finds, of that job alone."""
    import tempfile  # noqa: PLC0415 - hypothesis allows no fixture of a directory

    with tempfile.TemporaryDirectory() as path:
        folder, at, kept = Folder(Path(path)), 0, []
        for size, is_stored in pieces:
            for job_id in ("users", "users-1", "v") if is_stored else ():
                part = Part(job_id, at, at + size)
                (folder.path / part.name).touch()
                kept.append(part)
            at += size
        expected = [
            part
            for part in kept
            if part.job_id == "users-1" and part.lo < lo + length and part.hi > lo
        ]
        assert folder.parts_in("users-1", lo, lo + length) == expected


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12), st.integers(0, 60))
def test_the_ledger_rows_in_an_interval(pieces: list[tuple[int, bool]], first: int) -> None:
    """The look-up by key finds the rows that a scan of the ledger finds, of that job alone."""
    import sqlite3  # noqa: PLC0415 - SQLite of Python, in memory

    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE chunks (job_id, lo, hi, PRIMARY KEY (job_id, lo))")
        at = 0
        for size, is_stored in pieces:
            for job_id in ("users", "users-1", "v") if is_stored else ():
                database.execute(
                    "INSERT INTO chunks VALUES (?, ?, ?)",
                    (job_id, at * 10, (at + size) * 10),
                )
            at += size
        wanted = chunk(first, 5)
        query, values = statements.overlapping("chunks", "users-1", wanted, "lo, hi")
        scan = "SELECT lo, hi FROM chunks WHERE job_id = 'users-1' AND lo < ? AND hi > ?"
        found = database.execute(query, values).fetchall()
        assert sorted(found) == sorted(database.execute(scan, (wanted.hi, wanted.lo)).fetchall())
    database.close()
