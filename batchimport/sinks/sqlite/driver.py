"""SQLite by ADBC: statements and rows of one connection.

The driver manager's own DB-API layer is not used: it imports pyarrow and pandas where they are
installed, which takes longer than a small import, and in the main thread it answers SIGINT itself,
through a pointer that may be freed meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import adbc_driver_sqlite
import polars as pl
from adbc_driver_manager import AdbcConnection, AdbcStatement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.sinks.sql.target import Rows


class Connection:
    """An open database; each statement commits by itself, unless a transaction has begun.

    Args:
        address: What `sqlite3_open_v2` takes: a path, or a `file:` URI.

    All methods raise the driver's `adbc_driver_manager.Error`.
    """

    def __init__(self, address: str) -> None:
        self._database = adbc_driver_sqlite.connect(address)
        try:
            self._connection = AdbcConnection(self._database)
        except BaseException:
            self._database.close()
            raise

    def run(self, statement: str, values: pl.DataFrame | None = None) -> None:
        """Run a statement, once for each row of values, whose columns are its parameters."""
        with AdbcStatement(self._connection) as prepared:
            _prepare(prepared, statement, values)
            prepared.execute_update()

    def rows(self, statement: str, values: pl.DataFrame | None = None) -> Rows:
        """Run a statement in the same way, and return the rows of all runs."""
        return self.frame(statement, values).rows()

    def frame(self, statement: str, values: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return the rows as a frame; a column without values has any type."""
        with AdbcStatement(self._connection) as prepared:
            _prepare(prepared, statement, values)
            stream, _ = prepared.execute_query()
            return pl.DataFrame(stream)

    def close(self) -> None:
        """Close the database; what is not committed is undone."""
        self._connection.close()
        self._database.close()


def _prepare(prepared: AdbcStatement, statement: str, values: pl.DataFrame | None) -> None:
    prepared.set_sql_query(statement)
    prepared.prepare()
    if values is not None:
        prepared.bind_stream(values)


def one_row(values: Sequence[Any]) -> pl.DataFrame | None:
    """Return parameters as a frame of one row; the driver takes null only with a type."""
    if not values:
        return None
    frame = pl.DataFrame([values], orient="row", infer_schema_length=None)
    return frame.with_columns(pl.col(pl.Null).cast(pl.Int64))
