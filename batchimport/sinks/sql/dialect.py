"""What a dialect of SQL brings: statements, a catalogue, and a way to store a chunk's rows.

A new SQL destination is a subclass of `SqlSink`, which is a `Dialect`, and one of
`ChunkTransaction`. docs/adding.md lists what the SQL of the base classes needs, and what a dialect
overrides where its database differs.

Statements have `?` for each parameter, whatever the driver wants.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from batchimport.errors import UsageError
from batchimport.sinks.base import STAGED, StoreSeparatelyError, table_of, taken_over
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.statements import ADDED_COLUMNS, LEDGER_TABLES, OUTCOME_COLUMNS, quote
from batchimport.sinks.sql.target import (
    RECORD,
    LedgerTables,
    Outcomes,
    Rows,
    TableColumn,
    Target,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from batchimport.model import (
        Chunk,
        ChunkResult,
        Committed,
        Job,
        Reject,
    )
    from batchimport.schema import Column, Kind
    from batchimport.sinks.base import JobRecord, StoreRequest
    from batchimport.sinks.sql.circles import ForeignKey


class Dialect(ABC):
    """A database, and all that is peculiar to its SQL. It may be used by several threads.

    Args:
        ledger_schema: Schema of the ledger's tables; None for the default schema.
    """

    types: ClassVar[Mapping[Kind, str]]
    """The SQL type of each kind of column in a table that is created."""

    has_schemas: ClassVar[bool] = True
    """A dot in a table's name separates it from its schema."""

    has_transactional_ddl: ClassVar[bool] = True
    """What creates, changes and drops tables is a part of a transaction."""

    names_have_case: ClassVar[bool] = True
    """Two columns may differ in case alone."""

    longest_name: ClassVar[int | None] = None
    """How many bytes of a name the database keeps; the rest is cut off. None: all of them."""

    most_columns: ClassVar[int | None] = None
    """How many columns a table may have that is made here. None: there is no limit."""

    emptying: ClassVar[str] = "DELETE FROM"
    """What empties a table as a part of a transaction, followed by the table's name."""

    text: ClassVar[str] = "TEXT"
    """The type of the ledger's strings; some are as long as a record may be."""

    key_text: ClassVar[str] = "TEXT"
    """The type of the ledger's strings in a primary key: job ids, of at most 128 characters."""

    adding: ClassVar[str] = "ADD COLUMN"
    """What adds a column, in ALTER TABLE; it must not fail if another process has added it."""

    def __init__(self, ledger_schema: str | None) -> None:
        self.ledger_schema = ledger_schema
        self.tables = LedgerTables(*(self.name(self.in_ledger(table)) for table in LEDGER_TABLES))

    # -- what each dialect does its own way ----------------------------------------------------

    @abstractmethod
    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement and return its rows; driver errors become those of `errors`.

        In a `transaction` of this thread it is a part of that.

        Raises:
            DataError: If the database refuses a value.
            TransientError: If another attempt may succeed.
            FatalError: If no attempt can.
        """

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that returns no rows."""
        self.rows(statement, values)

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end what `rows` and `run` do in it; nothing of it if an error leaves it."""

    @abstractmethod
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> AbstractContextManager[ChunkTransaction]:
        """Begin a transaction for one chunk; commit it at the end, or undo it after an error.

        Args:
            seconds: How long a statement may take, if the database can limit that.
        """

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Say whether a table exists."""

    def identity_of(self, table: str) -> str | None:
        """Return what all names of one table have in common; None if there is no such table."""
        identity = table if self.names_have_case else table.lower()
        return identity if self.exists(table) else None

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables, to suggest one; none if the dialect does not say."""
        return ()

    @abstractmethod
    def columns(self, table: str) -> Sequence[TableColumn]:
        """Return the columns of a table in its order; none if it does not exist."""

    @abstractmethod
    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on."""

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        """Return the foreign keys of a table; none where rows cannot be stored before what they refer to."""
        del table
        return []

    def create_like(self, table: str, other: str) -> None:
        """Create an empty table with the columns, constraints and unique indexes of another one.

        Raises:
            UsageError: If this database cannot.
        """
        raise UsageError(
            "is not possible in this database", where="--atomic", hint=f"{table}, {other}"
        )

    def rename_table(self, table: str, other: str) -> None:
        """Give a table another name in the same schema."""
        name = self.quote(other.rpartition(".")[2] if self.has_schemas else other)
        self.run(f"ALTER TABLE {self.name(table)} RENAME TO {name}")

    def keys_referred_to(self, table: str) -> list[tuple[str, ...]]:
        """Return the columns of a table that foreign keys of other tables refer to."""
        del table
        return []

    def deferrable_indexes(self, table: str) -> list[tuple[str, str]]:
        """Return name and definition, as SQL, of the indexes that no row can be refused by.

        Raises:
            UsageError: If this database cannot build them again.
        """
        raise UsageError("is not possible in this database", where="--defer-indexes", hint=table)

    def analyze(self, table: str) -> None:
        """Let the database look at a table, so that it plans queries well."""
        self.run(f"ANALYZE {self.name(table)}")

    def quote(self, name: str) -> str:
        """Return an identifier as SQL, whatever characters it has."""
        return quote(name)

    def shortened(self, name: str) -> str:
        """Return what the database keeps of a name."""
        return name.encode()[: self.longest_name].decode(errors="ignore")

    def folded(self, name: str) -> str:
        """Return what all names that the database takes for one have in common."""
        name = self.shortened(name)
        return name if self.names_have_case else name.lower()

    def column_type(self, column: Column, *, is_key: bool) -> str:
        """Return the SQL type of a column of a table that is created.

        Args:
            is_key: The column is a part of `--key`, the primary key.
        """
        del is_key
        return self.types[column.kind]

    def name(self, table: str) -> str:
        """Return a table's name as SQL; a dot separates it from its schema."""
        schema, dot, name = table.partition(".")
        parts = (schema, name) if dot and schema and name else (table,)
        return ".".join(map(self.quote, parts))

    def create_keys(self, job_id: str, target: Target) -> None:
        """Create the table that knows which record of the job wrote each key last.

        With it the last record in source order wins, in whatever order chunks are committed. Its
        columns must compare as those of the unique index do.
        """
        names = self.column_list(target.key)
        self.run(
            f"CREATE TABLE IF NOT EXISTS {target.keys} AS SELECT {names}, "
            f"CAST(0 AS BIGINT) AS {self.quote(RECORD)} FROM {target.name} WHERE 1 = 0"
        )
        index = self.quote(_keys_of(job_id) + "_key")
        self.run(f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {target.keys} ({names})")

    # -- what they share -----------------------------------------------------------------------

    def claiming(self, job: Job, instead_of: Sequence[JobRecord]) -> AbstractContextManager[None]:
        """Keep other processes from a job while it is claimed, and from then on, if it is locked."""
        del job, instead_of
        return nullcontext()

    def exclude_claims(self) -> None:
        """Keep other claims out until this transaction ends, where its beginning does not."""
        return

    def column_list(self, names: Sequence[str]) -> str:
        """Return quoted names, separated by commas."""
        return ", ".join(map(self.quote, names))

    def in_ledger(self, table: str) -> str:
        """Return the name of a table of the ledger, with its schema."""
        return f"{self.ledger_schema}.{table}" if self.ledger_schema else table

    def keys_table(self, job_id: str) -> str:
        """Return the name, as SQL, of the table of keys of a job."""
        return self.name(self.in_ledger(_keys_of(job_id)))

    def has_rows(self, table: str) -> bool:
        """Say whether a table that exists has a row."""
        return bool(self.rows(f"SELECT 1 FROM {self.name(table)} LIMIT 1"))

    def count(self, table: str) -> int:
        """Return the number of a table's rows."""
        return int(self.rows(f"SELECT count(*) FROM {self.name(table)}")[0][0])

    def made_table(self, table: str) -> bool:
        """Say whether a job of the ledger has created a table."""
        return bool(
            self.rows(
                f"SELECT 1 FROM {self.tables.jobs} WHERE lower(table_name) = lower(?) AND "
                "(made_table = 1 OR made_table IS NULL AND rows_before IS NOT NULL) LIMIT 1",
                (table,),
            )
        )

    def missing_columns(self, table: str) -> list[str]:
        """Return the columns that a ledger's table lacks since an earlier version created it."""
        known = {own.name for own in self.columns(self.in_ledger(table))}
        return [name for name in ADDED_COLUMNS[table] if name not in known]

    def surplus(self, record: JobRecord) -> int | None:
        """Return how many rows more a job's table has than the ledgers account for.

        It is known where all rows since the table was created or looked at are of imports; else
        None.
        """
        if record.rows_before is None:
            return None
        if STAGED in record.configuration:  # nobody else knows that table
            return self.count(table_of(record)) - int(
                self.rows(
                    f"SELECT coalesce(sum(successful), 0) FROM {self.tables.chunks} WHERE job_id = ?",
                    (record.job_id,),
                )[0][0]
            )
        table = str(record.configuration["table"])
        updated = "0" if "updated" in self.missing_columns(LEDGER_TABLES[1]) else "c.updated"
        additional, replacing = self.rows(
            f"SELECT (SELECT count(*) FROM {self.name(table)}) - sum(c.successful), "
            f"sum(CASE WHEN j.configuration LIKE ? THEN 1 ELSE {updated} END) "
            f"FROM {self.tables.chunks} c JOIN {self.tables.jobs} j USING (job_id) "
            "WHERE lower(j.table_name) = lower(?) AND j.created_at >= ?",
            ('%"on_conflict": "update"%', table, record.created_at),
        )[0]
        if replacing:  # one row may stand for several records
            return None
        rows = self.count(table) if additional is None else int(additional)
        return rows - record.rows_before

    def record_of(self, job_id: str) -> JobRecord:
        """Return the record of a job that exists."""
        query = f"SELECT {statements.JOB_COLUMNS} FROM {self.tables.jobs} WHERE job_id = ?"
        return statements.job_record(self.rows(query, (job_id,))[0])

    def hold(self, job: JobRecord) -> None:
        """Make sure that a job is still at this epoch, and keep it so until the transaction ends.

        Raises:
            JobRunningElsewhereError: If another process has claimed it since.
        """
        if not self.rows(  # the write locks the row
            f"UPDATE {self.tables.jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? "
            "RETURNING 1",
            (statements.now(), job.job_id, job.epoch),
        ):
            raise taken_over(job)


class ChunkTransaction(ABC):
    """One transaction that stores one chunk: its ledger row, its rows, its rejects.

    Attributes:
        tables: The ledger's.
    """

    locking: ClassVar[str] = ""
    """What a query ends with that locks its rows, where transactions of one job run side by side."""

    def __init__(self, database: Dialect, job: JobRecord, target: Target) -> None:
        self.database, self.job, self.target = database, job, target
        self.tables = database.tables

    # -- what each dialect does its own way ----------------------------------------------------

    @abstractmethod
    def store_rows(self, frame: pl.DataFrame, offset: int) -> Outcomes:
        """Store all rows that the table takes.

        Args:
            frame: At least one row, with the columns of `target.frame_names`.
            offset: Number of the chunk's first record. With `--on-conflict update` a later record's
                value stays: see `numbers`.
        """

    @abstractmethod
    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Insert a frame into a table of the ledger that has the same columns."""

    def insert_together(self, frame: pl.DataFrame) -> bool:
        """Insert rows that refer to one another, by the table's names; say whether it took them all.

        Only where `Dialect.foreign_keys` returns some.
        """
        raise NotImplementedError

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement in this transaction and return its rows."""
        return self.database.rows(statement, values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement in this transaction that returns no rows."""
        self.database.run(statement, values)

    # -- what they share, unless transactions run side by side ----------------------------------

    def fence(self) -> None:
        """Make sure that no other process has claimed the job, nor can before the commit.

        Raises:
            JobRunningElsewhereError: If one has.
        """
        self.database.hold(self.job)

    @staticmethod
    def numbers(frame: pl.DataFrame, offset: int) -> pl.Series:
        """Return the number of the record that each row counts as, in a column `RECORD`."""
        if RECORD in frame.columns:
            return frame.get_column(RECORD)
        return pl.Series(RECORD, range(offset, offset + frame.height), dtype=pl.Int64)

    def begin(self, request: StoreRequest) -> bool:
        """Change the ledger first, so that of two attempts the second one finds what the first did.

        Returns:
            False if another attempt was there before: then nothing is changed.
        """
        if request.replayed:
            return self.take_rejects(request)
        first, *rest = (
            statements.chunk_values(self.job.job_id, request, result, self.job.epoch)
            for result in statements.outcomes_of_parts(request, request.rejects)
        )
        if not self.insert_chunk(request.chunk, first):
            return False
        if rest:
            self.insert(self.tables.chunks, statements.chunks_frame(rest))
        return True

    def insert_chunk(self, chunk: Chunk, values: tuple[Any, ...]) -> bool:
        """Insert the ledger row of a chunk, or of its first part.

        Returns:
            False if the ledger has a row that overlaps with the chunk: then nothing is inserted.
        """
        if self.overlapping(chunk):
            return False
        self.run(
            f"INSERT INTO {self.tables.chunks} ({statements.CHUNK_COLUMNS}) "
            f"VALUES ({statements.marks(values)})",
            values,
        )
        return True

    # -- what they share -----------------------------------------------------------------------

    def take_rejects(self, request: StoreRequest) -> bool:
        """Delete the rejects that are replayed.

        Returns:
            False if some of them are not there: then nothing is deleted.
        """
        numbers = list(map(str, request.replayed))
        pieces = [f"({', '.join(numbers[at : at + 1000])})" for at in range(0, len(numbers), 1000)]
        mine = f"FROM {self.tables.rejects} WHERE job_id = ? AND record IN"
        key = (self.job.job_id,)
        there = (self.rows(f"SELECT record {mine} {each}{self.locking}", key) for each in pieces)
        if sum(map(len, there)) != len(request.replayed):
            return False
        for piece in pieces:
            self.run(f"DELETE {mine} {piece}", key)
        return True

    def parameter(self, value: Any) -> Any:
        """Return a value of a frame as one that is compared with a column."""
        return value

    def overlapping(self, chunk: Chunk) -> list[Committed]:
        """Return the ledger rows that share positions with a chunk."""
        columns = f"{statements.CHUNK_COLUMNS}, {', '.join(OUTCOME_COLUMNS)}"
        query = statements.overlapping(self.tables.chunks, self.job.job_id, chunk, columns)
        rows = self.rows(*query)
        return statements.all_committed(rows)

    def insert_rejects(self, request: StoreRequest, outcomes: Outcomes) -> ChunkResult:
        """Insert the rejects of all stages, and correct the counts of the ledger row."""
        refused, left_out = outcomes.refused, outcomes.ignored + outcomes.skipped
        rejects = [*request.rejects, *(request.rejecter(*each) for each in refused.items())]
        if rejects:
            self.insert(self.tables.rejects, statements.rejects_frame(self.job.job_id, rejects))
        result = statements.outcome(request, rejects, len(refused), left_out)
        if request.replayed:
            self._move_counts(request, result, outcomes)
        elif refused or any(outcomes.counts):
            self._correct_counts(request, rejects, result, outcomes)
        return result

    def _correct_counts(
        self,
        request: StoreRequest,
        rejects: Sequence[Reject],
        result: ChunkResult,
        outcomes: Outcomes,
    ) -> None:
        """Correct the counts of a ledger row, or of the rows of all parts.

        Raises:
            StoreSeparatelyError: If it is not known which part the rows belong to that were left out.
        """
        corrected = [(result, outcomes.counts)]
        if request.parts:
            if outcomes.ignored or outcomes.skipped:
                raise StoreSeparatelyError
            left, corrected = outcomes.updated, []
            for part in statements.outcomes_of_parts(request, rejects, outcomes.refused):
                updated = min(left, part.successful)  # only their sum is known
                left -= updated
                corrected.append((part, (updated, 0, 0)))
        for each, counts in corrected:
            self.run(
                f"UPDATE {self.tables.chunks} SET successful = ?, failed = ?, filtered = ?, "
                "updated = ?, ignored = ?, skipped = ? WHERE job_id = ? AND lo = ?",
                (*each.counts, *counts, self.job.job_id, each.chunk.lo),
            )

    def _move_counts(self, request: StoreRequest, result: ChunkResult, outcomes: Outcomes) -> None:
        """Count the replayed records of a chunk by their new outcomes."""
        changes = {
            "successful": result.successful,
            "failed": result.failed - len(request.replayed),
            "filtered": result.filtered,
            **dict(zip(OUTCOME_COLUMNS, outcomes.counts, strict=True)),
        }
        settings = ", ".join(f"{name} = coalesce({name}, 0) + ?" for name in changes)
        self.run(
            f"UPDATE {self.tables.chunks} SET {settings} WHERE job_id = ? AND lo = ?",
            (*changes.values(), self.job.job_id, request.chunk.lo),
        )


def _keys_of(job_id: str) -> str:
    return f"_batchimport_keys_{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"
