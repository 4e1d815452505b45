"""The ledger of a database: which jobs there are, what is committed, and whose a job is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.sinks.base import BEGAN_EMPTY, SinkHints, claimed_again
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.dialect import Dialect
from batchimport.sinks.sql.statements import ADDED_COLUMNS, LEDGER_TABLES, OUTCOME_COLUMNS
from batchimport.sinks.sql.store import SqlClaim
from batchimport.sinks.sql.table import find_target, prepare_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchimport.model import Committed, Job, Reject
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Target

PAGE = 5000
"""Rejects that are read at a time."""


class SqlSink(Dialect):
    """A destination that speaks SQL: the base class of each, which brings its dialect.

    Attributes:
        hints: What is known before a table is.
    """

    hints: SinkHints

    # -- what is known -------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that the destination knows, oldest first."""
        if not self._has_ledger():
            return []
        rows = self.rows(
            f"SELECT {statements.JOB_COLUMNS} FROM {self.tables.jobs} ORDER BY created_at, job_id"
        )
        return [statements.job_record(row) for row in rows]

    def owner(self, job_id: str) -> str | None:
        """Return who claimed the job last; None if there is no such job."""
        if not self._has_ledger():
            return None
        rows = self.rows(f"SELECT owner FROM {self.tables.jobs} WHERE job_id = ?", (job_id,))
        return str(rows[0][0]) if rows else None

    def committed(self, job_id: str) -> list[Committed]:
        """Return the ledger of a job, in order of position."""
        rows = self.rows(
            f"SELECT {statements.CHUNK_COLUMNS}, {self._outcome_columns()} "
            f"FROM {self.tables.chunks} WHERE job_id = ? ORDER BY lo",
            (job_id,),
        )
        return [statements.committed(row) for row in rows]

    def first_chunks(self) -> dict[str, Committed]:
        """Return the chunk at position 0 of each job that has one, by the job's id."""
        rows = self.rows(
            f"SELECT {statements.CHUNK_COLUMNS} FROM {self.tables.chunks} WHERE lo = 0"
        )
        return {row[0]: statements.committed(row) for row in rows}

    def is_committed(self, job_id: str, position: int) -> bool:
        """Say whether the ledger has a chunk that begins at this position."""
        return bool(
            self.rows(
                f"SELECT 1 FROM {self.tables.chunks} WHERE job_id = ? AND lo = ?",
                (job_id, position),
            )
        )

    def rejects(self, job_id: str) -> Iterator[Reject]:
        """Yield the rejects of a job in order of record."""
        last = -1
        while rows := self.rows(
            f"SELECT {statements.REJECT_COLUMNS} FROM {self.tables.rejects} "
            f"WHERE job_id = ? AND record > ? ORDER BY record LIMIT {PAGE}",
            (job_id, last),
        ):
            yield from map(statements.reject, rows)
            last = rows[-1][1]

    def columns_of(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns, in lower case; none if it does not exist."""
        return frozenset(own.name.lower() for own in self.columns(table))

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold numbers exactly as they are written."""
        exact = (own for own in self.columns(table) if own.is_exact or own.family == "text")
        return frozenset(own.name.lower() for own in exact)

    def text_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold text."""
        return frozenset(own.name.lower() for own in self.columns(table) if own.family == "text")

    def _has_ledger(self) -> bool:
        return self.exists(self.in_ledger(LEDGER_TABLES[0]))

    def _outcome_columns(self) -> str:
        """Return the SQL of a chunk's outcomes: nulls where the ledger is of an earlier version."""
        missing = self.missing_columns(LEDGER_TABLES[1])
        return ", ".join(f"NULL AS {name}" if name in missing else name for name in OUTCOME_COLUMNS)

    def _complete_ledger(self) -> None:
        """Add the columns that a ledger of an earlier version lacks."""
        for table in ADDED_COLUMNS:
            for name in self.missing_columns(table):
                place = self.name(self.in_ledger(table))
                self.run(f"ALTER TABLE {place} {self.adding} {name} BIGINT")

    # -- whose a job is ------------------------------------------------------------------------

    def claim(
        self,
        job: Job,
        record: JobRecord,
        owner: str,
        instead_of: Sequence[JobRecord] = (),
        check: Callable[[], None] = lambda: None,
    ) -> SqlClaim:
        """Make ledger and table ready and take the job with a new epoch."""
        with self.transaction():
            self.exclude_claims()
            check()
            if not self._has_ledger():
                self.create_ledger()
            self._complete_ledger()
            made_before = self.made_table(job.table)
            for old in instead_of:
                self._forget(old)
                failpoints.reach("after-forgetting")
            known = self.rows(
                f"SELECT {statements.JOB_COLUMNS} FROM {self.tables.jobs} WHERE job_id = ?",
                (record.job_id,),
            )
            if known:
                record = claimed_again(statements.job_record(known[0]), record)
                self._update_job(record, owner)
            else:
                # Above that of a process which may still be at work on what is forgotten.
                epoch = 1 + max((old.epoch for old in instead_of), default=0)
                record = self._insert_job(job, replace(record, epoch=epoch), owner, made_before)
            target = find_target(self, job, record)
            if target.key and job.on_conflict == "update":
                self.create_keys(record.job_id, target)
        return self.claim_of(record, target)

    def join(self, job: Job, record: JobRecord) -> SqlClaim:
        """Share the claim that a record describes, which was made here or in another process."""
        return self.claim_of(record, find_target(self, job, record))

    def claim_of(self, record: JobRecord, target: Target) -> SqlClaim:
        """Return the claim of a job whose table is known; a dialect may have a class of its own."""
        return SqlClaim(self, record, target, self.hints_for(target))

    def hints_for(self, target: Target) -> SinkHints:
        """Return what suits a table: with a unique key, the order of rows decides which one wins."""
        if not self.is_unique(target):
            return self.hints
        return replace(self.hints, writers=1, keeps_order=True)

    def is_unique(self, target: Target) -> bool:
        """Say whether rows of a table may refuse each other."""
        return bool(self.unique_keys(target.table))

    def create_ledger(self) -> None:
        """Create the ledger's tables, as a part of a transaction."""
        types = {"text": self.text, "key_text": self.key_text}
        for statement in statements.create_ledger(*self.tables, **types):
            self.run(statement)

    def _insert_job(self, job: Job, record: JobRecord, owner: str, made_before: bool) -> JobRecord:
        exists = self.exists(job.table)
        rows_before = prepare_table(self, job, record.columns)
        made = made_before if exists and job.if_exists != "replace" else bool(record.columns)
        failpoints.reach("after-table")
        now = statements.now()
        empty = not (self.exists(job.table) and self.has_rows(job.table))
        record = replace(
            record,
            rows_before=rows_before,
            created_at=now,
            configuration={**record.configuration, BEGAN_EMPTY: empty},
        )
        values = statements.job_values(record, job.table, owner, now)
        self.run(
            f"INSERT INTO {self.tables.jobs} ({statements.JOB_COLUMNS}) "
            f"VALUES ({statements.marks(values)})",
            values,
        )
        self.run(
            f"UPDATE {self.tables.jobs} SET made_table = ? WHERE job_id = ?",
            (int(made), record.job_id),
        )
        return record

    def _update_job(self, record: JobRecord, owner: str) -> None:
        self.run(
            f"UPDATE {self.tables.jobs} SET target_hash = ?, source_fingerprint = ?, "
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
                statements.now(),
                record.job_id,
            ),
        )

    def _forget(self, record: JobRecord) -> None:
        """Delete the ledger of a job, unless it was claimed since it was looked at."""
        self.hold(record)
        for table in self.tables:
            self.run(f"DELETE FROM {table} WHERE job_id = ?", (record.job_id,))
        self.run(f"DROP TABLE IF EXISTS {self.keys_table(record.job_id)}")
