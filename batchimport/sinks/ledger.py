"""The ledger of a sink that speaks SQL: read and changed by statements that every dialect knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import JobRunningElsewhereError
from batchimport.sinks import sql
from batchimport.sinks.sql import CHUNKS, JOBS, REJECTS, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from batchimport.job import Committed, Job, Reject
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord

PAGE = 5000


class Ledger(ABC):
    """What SQL sinks share; each of them runs the statements, whose parameters are `?`."""

    def __init__(self) -> None:
        self._job: JobRecord | None = None
        self._table = ""

    @abstractmethod
    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""

    @abstractmethod
    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """Commit what is run inside, or nothing of it."""

    @abstractmethod
    def _exists(self, table: str) -> bool:
        """Say whether a table is there."""

    @abstractmethod
    def _name(self, table: str) -> str:
        """Return a table's name as SQL."""

    @abstractmethod
    def _make_table(self, job: Job, columns: Sequence[Column]) -> bool:
        """Make or check the table; return whether all of its rows will be the job's."""

    def jobs(self, target_hash: str | None = None) -> list[JobRecord]:
        """Return the jobs that the destination knows, oldest first."""
        if not self._exists(JOBS):
            return []
        where, values = ("WHERE target_hash = ?", (target_hash,)) if target_hash else ("", ())
        rows = self._rows(
            f"SELECT {sql.JOB_COLUMNS} FROM {JOBS} {where} ORDER BY created_at, job_id", values
        )
        return [sql.job_record(row) for row in rows]

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        rows = self._rows(
            f"SELECT {sql.CHUNK_COLUMNS} FROM {CHUNKS} WHERE job_id = ? ORDER BY lo", (job_id,)
        )
        return [sql.committed(row) for row in rows]

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """Yield the rejects of a job in order of record."""
        last = -1
        while rows := self._rows(
            f"SELECT {sql.REJECT_COLUMNS} FROM {REJECTS} WHERE job_id = ? AND record > ? "
            f"ORDER BY record LIMIT {PAGE}",
            (job_id, last),
        ):
            yield from map(sql.reject, rows)
            last = rows[-1][1]

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last."""
        if not self._exists(JOBS):
            return None
        rows = self._rows(f"SELECT owner FROM {JOBS} WHERE job_id = ?", (job_id,))
        return str(rows[0][0]) if rows else None

    def claim(self, job: Job, record: JobRecord, owner: str) -> JobRecord:
        """Make ledger and table ready and take the job with a new epoch."""
        now = sql.now()
        with self._transaction():
            if not self._exists(JOBS):
                for statement in sql.CREATE_LEDGER:
                    self._run(statement)
            known = self._rows(
                f"SELECT {sql.JOB_COLUMNS} FROM {JOBS} WHERE job_id = ?", (record.job_id,)
            )
            if known:
                record = sql.job_record(known[0])
                record = replace(record, state="running", epoch=record.epoch + 1)
                self._run(
                    f"UPDATE {JOBS} SET epoch = ?, owner = ?, state = 'running', heartbeat_at = ? "
                    "WHERE job_id = ?",
                    (record.epoch, owner, now, record.job_id),
                )
            else:
                is_ours = self._make_table(job, record.columns)
                failpoints.reach("after-table")
                rows = self._count(job.table) if is_ours else None
                record = replace(record, epoch=1, rows_before=rows, created_at=now)
                values = sql.job_values(record, job.table, owner, now)
                marks = ", ".join("?" * len(values))
                self._run(f"INSERT INTO {JOBS} ({sql.JOB_COLUMNS}) VALUES ({marks})", values)
        self.join(job, record)
        return record

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record, which `claim` returned here or elsewhere."""
        self._job, self._table = record, job.table

    def abandon(self, job_id: str) -> None:
        """Forget the ledger of a job, so that it can begin again."""
        with self._transaction():
            for table in (CHUNKS, REJECTS, JOBS):
                self._run(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))

    def finish(self, job_id: str, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the table has."""
        with self._transaction():
            self._fence()
            self._run(
                f"UPDATE {JOBS} SET state = ?, heartbeat_at = ?, "
                "total_items = coalesce(?, total_items) WHERE job_id = ?",
                (state, sql.now(), total_items, job_id),
            )
            return self._surplus()

    def _surplus(self) -> int | None:
        """Compare the table with the ledgers, where the table was made by this job."""
        if self._job is None or self._job.rows_before is None:
            return None
        stored = self._rows(
            f"SELECT coalesce(sum(c.successful), 0) FROM {CHUNKS} c JOIN {JOBS} j USING (job_id) "
            "WHERE lower(j.table_name) = lower(?) AND j.created_at >= ?",
            (self._table, self._job.created_at),
        )
        return self._count(self._table) - self._job.rows_before - int(stored[0][0])

    def _count(self, table: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {self._name(table)}")[0][0])

    def _fence(self) -> JobRecord:
        """Make sure that the job is still ours, until the transaction ends."""
        assert self._job is not None, "claim comes first"  # noqa: S101 - a mistake in this program
        if not self._is_ours(self._job.job_id, self._job.epoch):
            raise JobRunningElsewhereError(
                "another process has taken over this job",
                where=f"job {self._job.job_id}",
                hint="watch it with: batchimport status --watch",
            )
        return self._job

    @abstractmethod
    def _is_ours(self, job_id: str, epoch: int) -> bool:
        """Say whether the epoch is the job's, and keep it so until the transaction ends."""


def column_list(names: Sequence[str]) -> str:
    """Return names as SQL, parted by commas."""
    return ", ".join(map(quote, names))
