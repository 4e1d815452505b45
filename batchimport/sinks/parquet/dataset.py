"""What a directory and an object store have in common as destinations: a dataset of Parquet files."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING

import polars as pl

from batchimport.errors import UsageError
from batchimport.sinks.base import SinkHints
from batchimport.sinks.parquet.columns import as_stored
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from batchimport.model import ChunkResult, Job, Reject
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.parquet.columns import Schema


def hints_of(delivery: str, writers: int) -> SinkHints:
    """Return what is known of any dataset."""
    return SinkHints(
        writers=writers,
        preferred_records=122_880,
        delivery=delivery,
        rows_outlive_the_ledger=False,
    )


class Dataset(statements.KeepsRejects):
    """One table, whatever it is called, that nobody else writes to, and that has no SQL."""

    @abstractmethod
    def common_columns(self) -> Schema:
        """Return the columns of all files; none if there is no file."""

    def identity_of(self, table: str) -> str | None:
        """Return the same for all names: there is one table."""
        del table
        return ""

    def table_names(self) -> Sequence[str]:
        """Return none: there is one table, whatever it is called."""
        return ()

    def surplus(self, record: JobRecord) -> int | None:
        """Return None: rows leave the dataset with their ledger."""
        del record
        return None

    def previewed(self, job: Job) -> AbstractContextManager[None]:
        """Refuse what only databases can do, before anything is read."""
        refuse_for_files(job)
        return nullcontext()

    def analyze_for(self, job: Job) -> None:
        """Do nothing: there is no planner."""
        del job

    def columns_of(self, table: str) -> frozenset[str]:
        """Return the names of the dataset's columns, in lower case; none if there is no file."""
        del table
        return frozenset(map(str.lower, self.common_columns()))

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return no column: numbers are doubles."""
        del table
        return frozenset()

    def text_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold text."""
        del table
        schema = self.common_columns()
        return frozenset(name.lower() for name, dtype in schema.items() if dtype == pl.String)

    def made_here(self, table: str) -> bool:
        """Return that all files are of imports."""
        del table
        return True


def judge(
    request: StoreRequest, columns: Sequence[Column], schema: Schema
) -> tuple[pl.DataFrame, list[Reject], ChunkResult]:
    """Return a chunk's rows as the dataset has them, the rejects of all stages, and the result.

    Args:
        columns: Those of the job; `schema` has those of the dataset.
    """
    frame, refused = as_stored(request.frame, columns, schema)
    rejects = [*request.rejects, *(request.rejecter(*each) for each in sorted(refused.items()))]
    return frame, rejects, statements.outcome(request, rejects, len(refused))


def refuse_for_files(job: Job) -> None:
    """Refuse what needs an index or SQL.

    Raises:
        UsageError: If the job asks for it.
    """
    if job.key or job.on_conflict != "error":
        raise UsageError(
            "a Parquet dataset cannot keep keys unique",
            where="--key" if job.key else f"--on-conflict {job.on_conflict}",
            hint="leave it out, or import into a database",
        )
    given = {
        "--before-sql": job.before_sql is not None,
        "--after-sql": job.after_sql is not None,
        "--analyze": job.analyze is True,
        "--defer-indexes": job.defer_indexes,
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(
                "a Parquet dataset has no such thing", where=option, hint="import into a database"
            )


def foreign_file(where: str) -> UsageError:
    """Return the error for a file that is in the way."""
    return UsageError(
        "batchimport did not write this file, and does not remove it",
        where=where,
        hint="remove it yourself, or choose another place",
    )
