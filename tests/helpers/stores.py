"""What a sink test needs: a claimed sink, and chunks to store in it."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchimport.job import Chunk, FieldError, Job, Mark, Reject
from batchimport.schema import Column
from batchimport.sinks.base import JobRecord, StoreRequest

COLUMNS = (Column("id", "integer"), Column("name", "string"), Column("data", "json"))


def a_job(address: str, **facts: Any) -> Job:
    return Job(
        **{"sources": ("/data/users.jsonl",), "destination": address, "table": "users"} | facts
    )


def a_record(job: Job, job_id: str = "users-1", **facts: Any) -> JobRecord:
    given: dict[str, Any] = {
        "job_id": job_id,
        "target_hash": job.target_hash(),
        "fingerprint": "10-a-b",
        "modified": "1-2",
        "configuration_hash": job.configuration_hash(),
        "schema": {"type": "object"},
        "columns": COLUMNS,
        "size": 1000,
    }
    return JobRecord(**given | facts)


def chunk(first: int, records: int) -> Chunk:
    """Every record takes ten positions and one line."""
    last = first + records
    return Chunk(Mark(first * 10, first, first + 1), Mark(last * 10, last, last + 1))


def a_request(
    place: Chunk, rows: list[dict[str, Any]], rejects: list[Reject] | None = None, filtered: int = 0
) -> StoreRequest:
    types = {column.name: column.dtype for column in COLUMNS}
    if any("_extra" in row for row in rows):
        types["_extra"] = pl.String()
    frame = pl.DataFrame(rows, schema=types)

    def rejecter(at: int, errors: Any) -> Reject:
        return a_reject(place.offset + at, "store", *errors)

    return StoreRequest(place, frame, rejects or [], filtered, "digest", 1, rejecter)


def a_reject(
    record: int, stage: Any = "validate", *errors: FieldError, raw: bytes = b"{}"
) -> Reject:
    reasons = errors or (FieldError("minimum", "age", "too small", -1),)
    return Reject(record, "users.jsonl", record + 1, record * 10, stage, reasons, raw)


def rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": at, "name": f"user {at}", "data": '{"a": 1.10}'} for at in ids]
