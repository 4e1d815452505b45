"""What a sink test needs: every adapter, a claimed job, and chunks to store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

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


def _look_at_files(sink: Any, columns: str, table: str) -> Rows:
    del table
    frame = pl.scan_parquet(f"{sink._folder.path}/*.parquet")
    return pl.SQLContext(t=frame).execute(f"SELECT {columns} FROM t ORDER BY 1").collect().rows()


ADAPTERS = {
    "sqlite": Adapter(lambda path, _: f"sqlite:///{path / 'users.db'}", look_by_sql),
    "duckdb": Adapter(lambda path, _: f"duckdb:///{path / 'users.duckdb'}", look_by_sql),
    "postgresql": Adapter(lambda _, server: str(server().new_database()), look_by_sql),
    "parquet": Adapter(
        lambda path, _: f"parquet:///{path / 'users'}", _look_at_files, is_sql=False
    ),
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
        folder = Path(unquote(self.address.removeprefix("parquet:///")))
        part = next(folder.glob("part-*.parquet"))
        pl.read_parquet(part).head(1).write_parquet(folder / "other.parquet")
