"""What a sink test needs: every adapter, a claimed job, and chunks to store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from batchimport.jobs.identify import without_address
from batchimport.model import Chunk, FieldError, Job, Position, Reject
from batchimport.schema import Column
from batchimport.sinks import open_sink
from batchimport.sinks.base import Claim, JobRecord, Sink, StoreRequest
from batchimport.sinks.registry import Scheme
from tests.helpers import mariadb
from tests.helpers.toy_sink import TOY

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Adapter:
    """A sink under test.

    Attributes:
        new_address: Address of an empty place, given a directory and the way to a server.
        look: Rows of a table by a list of columns, ordered by the first.
        is_sql: It has constraints, runs statements, and keeps the rows of a job that is abandoned.
        like: The destination whose types of values it has; its own if empty.
        scheme: Its entry for the registry, if it is not there.
    """

    new_address: Callable[[Path, Callable[[], Any]], str]
    look: Callable[[Sink, str, str], Rows]
    is_sql: bool = True
    like: str = ""
    scheme: Scheme | None = None


def _look_by_sql(sink: Any, columns: str, table: str) -> Rows:
    rows: Rows = sink.rows(f"SELECT {columns} FROM {sink.name(table)} ORDER BY 1")
    return rows


def _look_by_mysql(sink: Any, columns: str, table: str) -> Rows:
    columns = re.sub(r"CAST\((\w+) AS (?:varchar|text)\)", r"CAST(\1 AS char)", columns)
    columns = re.sub(
        '"((?:[^"]|"")*)"', lambda name: sink.quote(name[1].replace('""', '"')), columns
    )
    rows: Rows = sink.rows(f"SELECT {columns} FROM {sink.name(table)} ORDER BY 1")
    return rows


def _look_at_files(sink: Any, columns: str, table: str) -> Rows:
    del table
    frame = pl.scan_parquet(f"{sink._folder.path}/*.parquet")
    return pl.SQLContext(t=frame).execute(f"SELECT {columns} FROM t ORDER BY 1").collect().rows()


ADAPTERS = {
    "sqlite": Adapter(lambda path, _: f"sqlite:///{path / 'users.db'}", _look_by_sql),
    "duckdb": Adapter(lambda path, _: f"duckdb:///{path / 'users.duckdb'}", _look_by_sql),
    "postgresql": Adapter(lambda _, server: str(server().new_database()), _look_by_sql),
    "mysql": Adapter(lambda *_: mariadb.server().new_database(), _look_by_mysql),
    "parquet": Adapter(
        lambda path, _: f"parquet:///{path / 'users'}", _look_at_files, is_sql=False
    ),
    "toy": Adapter(
        lambda path, _: f"toy:///{path / 'users.toy'}", _look_by_sql, like="sqlite", scheme=TOY
    ),
}
"""To prove a new sink: one line here. `toy` is the one that docs/adding.md makes."""
SQL = [name for name, adapter in ADAPTERS.items() if adapter.is_sql]


@dataclass
class Store:
    """A place that sinks are opened on."""

    kind: str
    address: str
    opened: list[Sink] = field(default_factory=list)

    @property
    def adapter(self) -> Adapter:
        return ADAPTERS[self.kind]

    @property
    def like(self) -> str:
        return self.adapter.like or self.kind

    def open(self) -> Sink:
        self.opened.append(open_sink(self.address))
        return self.opened[-1]

    def claimed(
        self, job: Job | None = None, job_id: str = "users-1", **facts: Any
    ) -> tuple[Sink, Claim]:
        """Open a sink and claim a job."""
        sink, job = self.open(), job or self.job()
        return sink, sink.claim(job, a_record(job, job_id, **facts), "me")

    def job(self, **facts: Any) -> Job:
        return a_job(self.address, **facts)

    def rows(self, columns: str = "id, name", table: str = "users") -> Rows:
        """Look into the table by the sink that was opened last."""
        return self.adapter.look(self.opened[-1], columns, table)

    def run(self, statement: str) -> None:
        """Run a statement, as another program would."""
        sink: Any = self.opened[-1] if self.opened else self.open()
        sink.run(statement)

    def intrude(self) -> None:
        """Add a row that no ledger knows."""
        if self.adapter.is_sql:
            self.run("INSERT INTO users (id) VALUES (99)")
            return
        folder = Path(unquote(self.address.removeprefix("parquet:///")))
        part = next(folder.glob("part-*.parquet"))
        pl.read_parquet(part).head(1).write_parquet(folder / "other.parquet")

    def close(self) -> None:
        """Close all sinks, as if their processes ended."""
        while self.opened:
            self.opened.pop().close()


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
        "configuration": json.loads(json.dumps(without_address(job))),
    }
    return JobRecord(**given | facts)


def chunk(first: int, records: int) -> Chunk:
    """Every record takes ten positions and one line."""
    last = first + records
    return Chunk(Position(first * 10, first, first + 1), Position(last * 10, last, last + 1))


def a_request(
    place: Chunk,
    rows: list[dict[str, Any]],
    rejects: list[Reject] | None = None,
    filtered: int = 0,
    columns: Sequence[Column] = COLUMNS,
) -> StoreRequest:
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
    reasons = errors or (FieldError("minimum", "age", "too small", -1),)
    return Reject(record, "users.jsonl", record + 1, record * 10, stage, reasons, raw)


def rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": at, "name": f"user {at}", "data": '{"a": 1.10}'} for at in ids]
