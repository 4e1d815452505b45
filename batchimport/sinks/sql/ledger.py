"""The ledger of a database: which jobs there are, what is committed, and whose a job is."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import BatchImportError, UsageError
from batchimport.rules import CHANGEABLE
from batchimport.sinks.base import (
    BEGAN_EMPTY,
    FORGOTTEN,
    INDEXES,
    MADE_WITH,
    STAGED,
    Removed,
    SinkHints,
    claimed_again,
    table_of,
)
from batchimport.sinks.sql import script, staging, statements
from batchimport.sinks.sql.completion import (
    accounting,
    build_indexes,
    drop_indexes,
    end_others,
    run_script,
)
from batchimport.sinks.sql.dialect import Dialect
from batchimport.sinks.sql.statements import ADDED_COLUMNS, LEDGER_TABLES, OUTCOME_COLUMNS
from batchimport.sinks.sql.store import SqlClaim
from batchimport.sinks.sql.table import demands, find_target, new_columns_of, prepare_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl

    from batchimport.model import Chunk, Committed, Job
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.target import Target


class _UndoneError(Exception):
    """Ends a transaction of which nothing is to stay."""


PAGE = 5000
"""Rejects that are read at a time."""
_NO_END = 2**63 - 1


class SqlSink(Dialect, statements.KeepsRejects):
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
        return statements.all_committed(rows)

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

    def reject_frames(self, job_id: str, within: Chunk | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a job's rejects, or of one of its committed chunks, in order of record."""
        last = within.offset - 1 if within else -1
        end = within.end.record if within else _NO_END
        while True:
            frame = self.reject_page(
                job_id,
                f"SELECT {statements.REJECT_COLUMNS} FROM {self.tables.rejects} "
                f"WHERE job_id = ? AND record > ? AND record < ? ORDER BY record LIMIT {PAGE}",
                (job_id, last, end),
            )
            if frame.is_empty():
                return
            yield frame
            last = frame.get_column("record")[-1]

    def reject_page(self, job_id: str, query: str, values: Sequence[Any]) -> pl.DataFrame:
        """Return the rows of some rejects."""
        return statements.reject_rows(job_id, self.rows(query, values))

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

    def made_here(self, table: str) -> bool:
        """Say whether a job of the ledger has created a table; an earlier version may not have noted it."""
        is_known = self._has_ledger() and not self.missing_columns(LEDGER_TABLES[0])
        return is_known and self.made_table(table)

    def _has_ledger(self) -> bool:
        # The last one that is made: a database that commits each of them may have only the first.
        return self.exists(self.in_ledger(LEDGER_TABLES[-1]))

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
        replay: Mapping[str, Any] | None = None,
    ) -> SqlClaim:
        """Make ledger and table ready and take the job with a new epoch."""
        self._refuse_what_needs_transactions(job)
        if job.after_sql is not None:
            script.statements_of(job.after_sql, "--after-sql")  # refused before anything is changed
        surplus: int | None = 0
        with self.claiming(job, instead_of), self.transaction():
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
            namesake = statements.job_record(known[0]) if known else None
            if namesake and namesake.state != FORGOTTEN:
                record = claimed_again(namesake, record, replay)
                changeable = {name: getattr(job, name) for name in CHANGEABLE}
                record = replace(record, configuration=record.configuration | changeable)
                self._update_job(record, owner)
                surplus = self.surplus(record) if replay is not None else 0
            else:
                # Above that of a process which may still be at work on what is forgotten.
                epoch = 1 + max((old.epoch for old in instead_of), default=0)
                if namesake:
                    epoch += namesake.epoch
                    self._set_aside(namesake)
                record = self._insert_job(job, replace(record, epoch=epoch), owner, made_before)
            target = self._target(job, record)
            if target.key and job.on_conflict == "update":
                self.create_keys(record.job_id, target)
        claim = self.claim_of(record, target)
        claim.surplus = surplus or 0
        return claim

    def join(self, job: Job, record: JobRecord) -> SqlClaim:
        """Share the claim that a record describes, which was made here or in another process."""
        return self.claim_of(record, self._target(job, record))

    def _target(self, job: Job, record: JobRecord) -> Target:
        """Return the table that the job fills."""
        target = find_target(self, replace(job, table=table_of(record)), record)
        return replace(target, new_columns=new_columns_of(self, job))

    def claim_of(self, record: JobRecord, target: Target) -> SqlClaim:
        """Return the claim of a job whose table is known; a dialect may have a class of its own."""
        return SqlClaim(self, record, target, self.hints_for(target))

    def hints_for(self, target: Target) -> SinkHints:
        """Return what suits a table: with a unique key, the order of rows decides which one wins."""
        # Of the rows that are ignored, a database says only how many they are.
        hints = replace(self.hints, stores_parts=target.on_conflict != "ignore")
        if not self.is_unique(target):
            return hints
        takes_circles = any(key.is_own for key in self.foreign_keys(target.table))
        return replace(hints, writers=1, keeps_order=True, takes_circles=takes_circles)

    def is_unique(self, target: Target) -> bool:
        """Say whether rows of a table may refuse each other."""
        return bool(self.unique_keys(target.table))

    def create_ledger(self) -> None:
        """Create the ledger's tables, as a part of a transaction."""
        types = {"text": self.text, "key_text": self.key_text}
        for statement in statements.create_ledger(*self.tables, **types):
            self.run(statement)

    def _insert_job(self, job: Job, record: JobRecord, owner: str, made_before: bool) -> JobRecord:
        if job.before_sql is not None:
            with accounting(self, job.table):
                run_script(self, job.before_sql, "--before-sql")
        exists, facts = self.exists(job.table), dict[str, Any]()
        if job.atomic:
            facts[STAGED] = staging.begin(self, job, record)
            rows_before = None if job.on_conflict == "update" else 0
            is_kept = facts[STAGED]["keeps"]
        else:
            rows_before = prepare_table(self, job, record.columns)
            is_kept = exists and job.if_exists != "replace"
        if job.defer_indexes:
            facts[INDEXES] = drop_indexes(self, job.table)
        made = made_before if is_kept else bool(record.columns)
        if record.columns and not is_kept:
            facts[MADE_WITH] = demands(job, record.columns)
        failpoints.reach("after-table")
        now = statements.now()
        facts[BEGAN_EMPTY] = not (self.exists(job.table) and self.has_rows(job.table))
        if facts[BEGAN_EMPTY] and not job.atomic:
            end_others(self, job.table, record.job_id, with_rows=True)
        record = replace(
            record,
            rows_before=rows_before,
            created_at=now,
            configuration=record.configuration | facts,
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
            "owner = ?, state = ?, heartbeat_at = ? WHERE job_id = ?",
            (
                record.target_hash,
                record.fingerprint,
                record.modified,
                json.dumps(record.configuration),
                record.size,
                record.rows_before,
                record.epoch,
                owner,
                record.state,
                statements.now(),
                record.job_id,
            ),
        )

    # -- the user's own SQL --------------------------------------------------------------------

    @contextmanager
    def previewed(self, job: Job) -> Iterator[None]:
        """Show the tables as `--before-sql` will leave them; at the end nothing of it has happened."""
        self._refuse_what_needs_transactions(job)
        if job.before_sql is None:
            yield
            return
        undone = _UndoneError()
        try:
            with self.transaction():
                run_script(self, job.before_sql, "--before-sql")
                yield
                raise undone
        except _UndoneError:
            return

    def _refuse_what_needs_transactions(self, job: Job) -> None:
        options = {
            "--atomic": job.atomic,
            "--before-sql": job.before_sql is not None,
            "--after-sql": job.after_sql is not None,
            "--defer-indexes": job.defer_indexes,
        }
        for option, is_given in options.items():
            if is_given and not self.has_transactional_ddl:
                raise UsageError(
                    "is not possible in a database that commits whenever a table is changed",
                    where=option,
                    hint="leave it out, or import into another database",
                )

    def analyze_for(self, job: Job) -> None:
        """Let the database look at the job's table, if that was asked for or batchimport made it."""
        if job.analyze is None and not self.made_table(job.table):
            return
        try:
            if self.exists(job.table):
                self.analyze(job.table)
        except BatchImportError:
            if job.analyze:  # else the job is as good without it
                raise

    # -- what is forgotten ---------------------------------------------------------------------

    def forget(self, record: JobRecord, *, completely: bool) -> Removed:
        """Remove the ledger and the rejects of a completed job; the rows of its table stay."""
        if record.state == FORGOTTEN and not completely:
            return Removed()
        with self.transaction():
            self.exclude_claims()
            self._complete_ledger()
            committed = self.committed(record.job_id)
            removed = Removed(len(committed), self._count_rejects(record.job_id))
            self._disown_rows(record, committed)
            if completely:
                self._forget(record)
            else:
                self._leave_line(record.forgotten(committed))
            failpoints.reach("after-forgetting")
        return removed

    def remove_rejects(self, record: JobRecord) -> int:
        """Remove the rejects of a job; return how many they were."""
        with self.transaction():
            number = self._count_rejects(record.job_id)
            self.run(f"DELETE FROM {self.tables.rejects} WHERE job_id = ?", (record.job_id,))
        return number

    def _count_rejects(self, job_id: str) -> int:
        query = f"SELECT count(*) FROM {self.tables.rejects} WHERE job_id = ?"
        return int(self.rows(query, (job_id,))[0][0])

    def _disown_rows(self, record: JobRecord, committed: Sequence[Committed]) -> None:
        """Let other jobs on the table know that there are rows that no ledger accounts for now."""
        table, stored = str(record.configuration["table"]), sum(row.successful for row in committed)
        one_for_several = record.configuration.get("on_conflict") == "update"
        one_for_several |= any(row.updated for row in committed)
        after = "NULL" if one_for_several else f"rows_before + {stored}"
        self.run(
            f"UPDATE {self.tables.jobs} SET rows_before = {after}, made_table = coalesce(made_table, "
            "CASE WHEN rows_before IS NOT NULL THEN 1 END) "
            "WHERE lower(table_name) = lower(?) AND created_at <= ? AND rows_before IS NOT NULL",
            (table, record.created_at),
        )

    def _leave_line(self, record: JobRecord) -> None:
        """Delete chunks and rejects; of the job stays a line, and its times: they say what came later."""
        self.hold(record)
        for table in (self.tables.chunks, self.tables.rejects):
            self.run(f"DELETE FROM {table} WHERE job_id = ?", (record.job_id,))
        self.run(
            f"UPDATE {self.tables.jobs} SET state = ?, configuration = ?, schema = '{{}}', "
            "columns = '[]', owner = '', heartbeat_at = ? WHERE job_id = ?",
            (record.state, json.dumps(record.configuration), record.updated_at, record.job_id),
        )

    def _set_aside(self, record: JobRecord) -> None:
        """Give the line of a forgotten job another id, since a new job has its own."""
        self.run(
            f"UPDATE {self.tables.jobs} SET job_id = ? WHERE job_id = ?",
            (record.set_aside_id, record.job_id),
        )

    def _forget(self, record: JobRecord) -> None:
        """Delete the ledger of a job, unless it was claimed since it was looked at."""
        self.hold(record)
        for table in self.tables:
            self.run(f"DELETE FROM {table} WHERE job_id = ?", (record.job_id,))
        self.run(f"DROP TABLE IF EXISTS {self.keys_table(record.job_id)}")
        build_indexes(self, record.configuration.get(INDEXES, ()))
        if STAGED in record.configuration:
            self.run(f"DROP TABLE IF EXISTS {self.name(table_of(record))}")
