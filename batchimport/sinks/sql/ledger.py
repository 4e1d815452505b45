"""The ledger of a sink that speaks SQL: read and changed by statements that every dialect knows."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from batchimport import failpoints
from batchimport.errors import UsageError
from batchimport.model import INDEX
from batchimport.sinks.base import go_on, taken_over
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.statements import LEDGER_TABLES, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from batchimport.model import Committed, Job, OnConflict, Reject
    from batchimport.schema import Column, Kind
    from batchimport.sinks.base import JobRecord

PAGE = 5000
RECORD = INDEX
"""In a table of keys: number of the record that wrote the key last. No column has this name."""


class Ledger(ABC):
    """What SQL sinks share; each of them runs the statements, whose parameters are `?`.

    Args:
        schema: Where the ledger's tables are, if not where unqualified names are.
    """

    types: ClassVar[Mapping[Kind, str]]
    """The SQL type of each kind of column in a table that is made."""

    names_have_case: ClassVar[bool] = True
    """Two columns may differ in case alone."""

    emptying: ClassVar[str] = "DELETE FROM"
    """What empties a table, as part of a transaction."""

    def __init__(self, schema: str | None = None) -> None:
        self._job: JobRecord | None = None
        self._table = ""
        self._on_conflict: OnConflict = "error"
        self._names: dict[str, str] = {}
        self._key: list[str] = []
        self._ledger_schema = schema
        self._first_table = self._in_ledger(LEDGER_TABLES[0])
        names = map(self._in_ledger, LEDGER_TABLES)
        self._jobs, self._chunks, self._rejects = map(self._name, names)

    # -- what each dialect does its own way ----------------------------------------------------

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
    def _match(self, table: str, columns: Sequence[Column]) -> dict[str, str]:
        """Return an existing table's own name of each column.

        Raises:
            UsageError: If the table cannot take the columns.
        """

    @abstractmethod
    def _unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return the sets of columns that are unique together in a table."""

    @abstractmethod
    def _is_ours(self, job_id: str, epoch: int) -> bool:
        """Say whether the epoch is the job's, and keep it so until the transaction ends."""

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns that hold numbers exactly as they are written: none, unless said."""
        del table
        return frozenset()

    # -- the job -------------------------------------------------------------------------------

    def jobs(self, target_hash: str | None = None) -> list[JobRecord]:
        """Return the jobs that the destination knows, oldest first."""
        if not self._exists(self._first_table):
            return []
        where, values = ("WHERE target_hash = ?", (target_hash,)) if target_hash else ("", ())
        rows = self._rows(
            f"SELECT {statements.JOB_COLUMNS} FROM {self._jobs} {where} ORDER BY created_at, job_id",
            values,
        )
        return [statements.job_record(row) for row in rows]

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        rows = self._rows(
            f"SELECT {statements.CHUNK_COLUMNS} FROM {self._chunks} WHERE job_id = ? ORDER BY lo",
            (job_id,),
        )
        return [statements.committed(row) for row in rows]

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        found = self._rows(
            f"SELECT 1 FROM {self._chunks} WHERE job_id = ? AND lo = ?", (job_id, position)
        )
        return bool(found)

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """Yield the rejects of a job in order of record."""
        last = -1
        while rows := self._rows(
            f"SELECT {statements.REJECT_COLUMNS} FROM {self._rejects} WHERE job_id = ? AND record > ? "
            f"ORDER BY record LIMIT {PAGE}",
            (job_id, last),
        ):
            yield from map(statements.reject, rows)
            last = rows[-1][1]

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last."""
        if not self._exists(self._first_table):
            return None
        rows = self._rows(f"SELECT owner FROM {self._jobs} WHERE job_id = ?", (job_id,))
        return str(rows[0][0]) if rows else None

    def claim(
        self, job: Job, record: JobRecord, owner: str, instead_of: Sequence[JobRecord] = ()
    ) -> JobRecord:
        """Make ledger and table ready and take the job with a new epoch."""
        now = statements.now()
        with self._transaction():
            if not self._exists(self._first_table):
                self._create_ledger()
            for each in instead_of:
                self._forget(each)
                failpoints.reach("after-forgetting")
            known = self._rows(
                f"SELECT {statements.JOB_COLUMNS} FROM {self._jobs} WHERE job_id = ?",
                (record.job_id,),
            )
            if known:
                record = go_on(statements.job_record(known[0]), record)
                self._run(
                    f"UPDATE {self._jobs} SET target_hash = ?, source_fingerprint = ?, "
                    "source_modified = ?, configuration = ?, size = ?, rows_before = ?, epoch = ?, "
                    "owner = ?, state = 'running', heartbeat_at = ? WHERE job_id = ?",
                    (
                        record.target_hash,
                        record.fingerprint,
                        record.modified,
                        json.dumps(record.configuration),
                        record.size,
                        record.rows_before,
                        record.epoch,
                        owner,
                        now,
                        record.job_id,
                    ),
                )
            else:
                rows = self._make_table(job, record.columns)
                failpoints.reach("after-table")
                # Higher than that of a process which may still be at work on what is forgotten.
                epoch = 1 + max((each.epoch for each in instead_of), default=0)
                record = replace(record, epoch=epoch, rows_before=rows, created_at=now)
                values = statements.job_values(record, job.table, owner, now)
                marks = ", ".join("?" * len(values))
                self._run(
                    f"INSERT INTO {self._jobs} ({statements.JOB_COLUMNS}) VALUES ({marks})", values
                )
            self.join(job, record)
            if self._key and job.on_conflict == "update":
                self._create_keys(record.job_id)
        return record

    def _create_ledger(self) -> None:
        for statement in statements.create_ledger(self._jobs, self._chunks, self._rejects):
            self._run(statement)

    def _make_table(self, job: Job, columns: Sequence[Column]) -> int | None:
        """Make the table, or make it ready; return its rows, if all others will be the job's."""
        if not columns:  # an empty source
            return None
        same = "" if self.names_have_case else statements.clash([column.name for column in columns])
        if same:
            raise UsageError(
                f"the destination holds these keys to be one column: {same}",
                where=job.table,
                hint="rename one of them with --transform or --sql",
            )
        exists, name = self._exists(job.table), self._name(job.table)
        if exists and job.if_exists == "fail":
            raise UsageError(
                "the table exists", where=job.table, hint="--if-exists append, truncate or replace"
            )
        if exists and job.if_exists == "replace":
            self._run(f"DROP TABLE {name}")
        if exists and job.if_exists != "replace":
            self._match(job.table, columns)
            if job.if_exists == "truncate":
                self._run(f"{self.emptying} {name}")
        else:
            self._create_table(job, columns)
        if job.key:
            self._check_key(job, columns)
        counts = (not exists or job.if_exists != "append") and job.on_conflict != "update"
        return self._count(job.table) if counts else None

    def _create_table(self, job: Job, columns: Sequence[Column]) -> None:
        lines = [f"{quote(column.name)} {self.types[column.kind]}" for column in columns]
        if job.key and set(job.key) <= {column.name for column in columns}:
            lines.append(f"UNIQUE ({column_list(job.key)})")
        self._run(f"CREATE TABLE {self._name(job.table)} ({', '.join(lines)})")

    def _check_key(self, job: Job, columns: Sequence[Column]) -> None:
        unknown = [key for key in job.key if key not in {each.name for each in columns}]
        if unknown:
            raise UsageError(f"no such column: {', '.join(unknown)}", where="--key")
        names = self._match(job.table, columns)
        key = [names[name] for name in job.key]
        if frozenset(key) not in self._unique_keys(job.table):
            raise UsageError(
                f"the table has no unique index on {', '.join(key)}, so they are no key",
                where=job.table,
                hint=f"CREATE UNIQUE INDEX … ON {self._name(job.table)} ({column_list(key)})",
            )

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record, which `claim` returned here or elsewhere."""
        self._job, self._table, self._on_conflict = record, job.table, job.on_conflict
        if record.columns:
            self._names = self._match(job.table, record.columns)
            self._key = [self._names[name] for name in job.key]

    # -- upserts -------------------------------------------------------------------------------

    def _keys_table(self, job_id: str) -> str:
        """Name the table that knows which record wrote each key of the job last.

        With it the last record in source order wins, in whatever order chunks are committed.
        """
        return self._in_ledger(
            f"_batchimport_keys_{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"
        )

    def _create_keys(self, job_id: str) -> None:
        keys, names = self._keys_table(job_id), column_list(self._key)
        self._run(
            f"CREATE TABLE IF NOT EXISTS {self._name(keys)} AS "
            f"SELECT {names}, CAST(0 AS BIGINT) AS {quote(RECORD)} "
            f"FROM {self._name(self._table)} WHERE 1 = 0"
        )
        index = quote(keys.rpartition(".")[2] + "_key")
        self._run(f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {self._name(keys)} ({names})")

    def _drop_keys(self, job_id: str) -> None:
        self._run(f"DROP TABLE IF EXISTS {self._name(self._keys_table(job_id))}")

    def _in_ledger(self, table: str) -> str:
        return f"{self._ledger_schema}.{table}" if self._ledger_schema else table

    # -- the end -------------------------------------------------------------------------------

    def _forget(self, record: JobRecord) -> None:
        """Delete the ledger of a job, if it still is as it was found."""
        if not self._is_ours(record.job_id, record.epoch):
            raise taken_over(record)
        for table in (self._chunks, self._rejects, self._jobs):
            self._run(f"DELETE FROM {table} WHERE job_id = ?", (record.job_id,))
        self._drop_keys(record.job_id)

    def finish(self, job_id: str, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the table has."""
        with self._transaction():
            self._fence()
            surplus = self._surplus()
            if surplus:  # killed here, it must not have been called completed
                state = "interrupted"
            self._run(
                f"UPDATE {self._jobs} SET state = ?, heartbeat_at = ?, "
                "total_items = coalesce(?, total_items) WHERE job_id = ?",
                (state, statements.now(), total_items, job_id),
            )
            if state == "completed":
                self._drop_keys(job_id)
            return surplus

    def _surplus(self) -> int | None:
        """Compare the table with the ledgers, where all rows since it was made are theirs."""
        if self._job is None or self._job.rows_before is None:
            return None
        surplus, upserts = self._rows(
            f"SELECT (SELECT count(*) FROM {self._name(self._table)}) - sum(c.successful), "
            f"sum(CASE WHEN j.configuration LIKE ? THEN 1 ELSE 0 END) "
            f"FROM {self._chunks} c JOIN {self._jobs} j USING (job_id) "
            "WHERE lower(j.table_name) = lower(?) AND j.created_at >= ?",
            ('%"on_conflict": "update"%', self._table, self._job.created_at),
        )[0]
        if upserts:  # of another job: a row that is written twice is one
            return None
        stored = self._count(self._table) if surplus is None else int(surplus)
        return stored - self._job.rows_before

    def _count(self, table: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {self._name(table)}")[0][0])

    def _fence(self) -> JobRecord:
        """Make sure that the job is still ours, until the transaction ends."""
        assert self._job is not None, "claim comes first"  # noqa: S101 - a mistake in this program
        if not self._is_ours(self._job.job_id, self._job.epoch):
            raise taken_over(self._job)
        return self._job


def column_list(names: Sequence[str]) -> str:
    """Return names as SQL, parted by commas."""
    return ", ".join(map(quote, names))
