"""What a sink test needs: every adapter, a claimed job, and chunks to store."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore
import polars as pl

from batchimport.sinks.base import Sink
from batchimport.sinks.registry import Scheme
from batchimport.testing.sinks import (
    COLUMNS,
    SinkPlace,
    a_job,
    a_record,
    a_reject,
    a_request,
    chunk,
    look_by_sql,
    rows,
)
from tests.helpers import mariadb, web
from tests.helpers.toy_entry import TOY

__all__ = ["COLUMNS", "a_job", "a_record", "a_reject", "a_request", "chunk", "rows"]

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


def _look_by_mysql(sink: Any, columns: str, table: str) -> Rows:
    columns = re.sub(r"CAST\((\w+) AS (?:varchar|text)\)", r"CAST(\1 AS char)", columns)
    columns = re.sub(
        '"((?:[^"]|"")*)"', lambda name: sink.quote(name[1].replace('""', '"')), columns
    )
    return look_by_sql(sink, columns, table)


def _look_at_files(sink: Any, columns: str, table: str) -> Rows:
    del table
    frame = pl.scan_parquet(f"{sink._folder.path}/*.parquet")
    return pl.SQLContext(t=frame).execute(f"SELECT {columns} FROM t ORDER BY 1").collect().rows()


def _look_at_objects(sink: Any, columns: str, table: str) -> Rows:
    del table
    store, prefix = web.shared_s3().store(), sink._bucket._prefix
    frame = pl.concat(frames_below(store, prefix))
    return pl.SQLContext(t=frame).execute(f"SELECT {columns} FROM t ORDER BY 1").collect().rows()


def frames_below(store: Any, prefix: str, start: str = "") -> list[pl.DataFrame]:
    """Return what a reader sees that reads everything below a prefix."""
    found = obstore.list(store, prefix.rstrip("/")).collect()
    paths = sorted(meta["path"] for meta in found)
    assert all(path.endswith(".parquet") for path in paths), paths
    read = [path for path in paths if path.startswith(f"{prefix}{start}")]
    return [pl.read_parquet(bytes(obstore.get(store, path).bytes())) for path in read]


def _new_prefix(*_: Any) -> str:
    return f"s3://{web.shared_s3().bucket}/{uuid.uuid4().hex}/users"


ADAPTERS = {
    "sqlite": Adapter(lambda path, _: f"sqlite:///{path / 'users.db'}", look_by_sql),
    "duckdb": Adapter(lambda path, _: f"duckdb:///{path / 'users.duckdb'}", look_by_sql),
    "postgresql": Adapter(lambda _, server: str(server().new_database()), look_by_sql),
    "mysql": Adapter(lambda *_: mariadb.server().new_database(), _look_by_mysql),
    "parquet": Adapter(
        lambda path, _: f"parquet:///{path / 'users'}", _look_at_files, is_sql=False
    ),
    "s3": Adapter(_new_prefix, _look_at_objects, is_sql=False, like="parquet"),
    "toy": Adapter(
        lambda path, _: f"toy:///{path / 'users.toy'}", look_by_sql, like="sqlite", scheme=TOY
    ),
}
"""To prove a new sink: one line here. `toy` is the one that docs/adding.md makes."""
SQL = [name for name, adapter in ADAPTERS.items() if adapter.is_sql]


class Store(SinkPlace):
    """A place that sinks are opened on."""

    def __init__(self, kind: str, address: str) -> None:
        super().__init__(address)
        self.kind = kind

    @property
    def adapter(self) -> Adapter:
        return ADAPTERS[self.kind]

    @property
    def like(self) -> str:
        return self.adapter.like or self.kind

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
        if self.kind == "s3":
            store, prefix = web.shared_s3().store(), self.address.split("/", 3)[3]
            buffer = io.BytesIO()
            frames_below(store, f"{prefix}/", "part-")[0].head(1).write_parquet(buffer)
            obstore.put(store, f"{prefix}/other.parquet", buffer.getvalue())
            return
        folder = Path(unquote(self.address.removeprefix("parquet:///")))
        part = next(folder.glob("part-*.parquet"))
        pl.read_parquet(part).head(1).write_parquet(folder / "other.parquet")
