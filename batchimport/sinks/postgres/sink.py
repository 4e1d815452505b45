"""PostgreSQL: COPY, ledger row and rejects of a chunk in one transaction; several of them at once."""

from __future__ import annotations

import hashlib
import queue
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from batchimport import failpoints
from batchimport.errors import JobRunningElsewhereError
from batchimport.model import DRY_RUN, EXTRA_COLUMN
from batchimport.policy.retry import until_it_works
from batchimport.sinks import redact
from batchimport.sinks.base import SinkHints, SinkOptions, taken_over
from batchimport.sinks.postgres.copy import Target, Writer, run
from batchimport.sinks.postgres.dialect import (
    CATALOGUE,
    TYPES,
    UNIQUE_KEYS,
    TableColumn,
    match_columns,
    opening,
    translate,
)
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.ledger import Ledger
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import ChunkResult, Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord, StoreRequest

WRITERS = 2
LOCK_WAIT_SECONDS = 5
"""So long may the server need to notice that a killed client is gone."""
RECONNECT_SECONDS = 30.0
_CONNECTION = {
    "application_name": "batchimport",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Where the address says nothing else: a network that is silent is noticed within a minute."""
SECONDS_IDLE = 15
"""So long may a process that was stopped inside of a transaction keep others from its chunk."""
_SESSION = f"""
    SELECT set_config('client_encoding', 'UTF8', false), set_config('TimeZone', 'UTC', false),
           set_config('idle_in_transaction_session_timeout', '{SECONDS_IDLE}s', false),
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', false) END,
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false)"""
"""A commit is on disk, a time without a zone means the same on every machine, and a client that fell
silent holds its locks for a minute, not for two hours."""


class PostgresSink(Ledger):
    """One database; a connection for the job, and one for each chunk that is being stored."""

    types = TYPES
    emptying = "TRUNCATE"

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        super().__init__(options.ledger_schema)
        self.hints = SinkHints(writers=WRITERS, preferred_records=20_000)
        self._address, self._where = address, redact(address)
        self._columns: dict[str, TableColumn] = {}
        self._lock = threading.RLock()
        self._lock_keys: list[int] = []
        self._idle: queue.SimpleQueue[psycopg.Connection] = queue.SimpleQueue()
        self._dry_run = options.dry_run
        if self._dry_run:
            self.hints = SinkHints(1, self.hints.preferred_records, DRY_RUN)
        try:
            self._main = self._connect()
            if self._dry_run:
                self._main.execute("BEGIN")
        except psycopg.Error as error:
            raise opening(error, self._where) from error

    def _connect(self) -> psycopg.Connection:
        given = conninfo_to_dict(self._address)
        defaults: dict[str, Any] = {
            name: value for name, value in _CONNECTION.items() if name not in given
        }
        connection = psycopg.connect(self._address, autocommit=True, **defaults)
        connection.execute(_SESSION)
        return connection

    # -- the job ------------------------------------------------------------------------------

    def claim(
        self, job: Job, record: JobRecord, owner: str, instead_of: Sequence[JobRecord] = ()
    ) -> JobRecord:
        """Make ledger and table ready and take the job with a new epoch."""
        targets = {job.target_hash(), *(each.target_hash for each in instead_of)}
        self._lock_keys = sorted(map(_lock_key, targets))
        with self._lock, self._translated():
            self._take_locks(self._main)
        return super().claim(job, record, owner, instead_of)

    def _take_locks(self, connection: psycopg.Connection) -> None:
        """Take the targets for this process; the server lets go of them when the connection ends."""
        run(connection, f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
        try:
            for key in self._lock_keys:
                run(connection, "SELECT pg_advisory_lock(?)", (key,))
        except psycopg.errors.LockNotAvailable as error:
            raise JobRunningElsewhereError(
                "another process is running this job",
                where=self._where,
                hint="wait for it, or stop it",
            ) from error
        run(connection, "SET lock_timeout = 0")

    def _create_ledger(self) -> None:
        if self._ledger_schema and not self._rows(
            "SELECT 1 FROM pg_namespace WHERE nspname = ?", (self._ledger_schema,)
        ):
            self._run(f"CREATE SCHEMA {quote(self._ledger_schema)}")
        super()._create_ledger()

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record; takes no lock, for others may join, too."""
        super().join(job, record)
        if record.columns:
            self._columns = self._match_columns(job.table, record.columns)
            if self._rows(
                "SELECT 1 FROM pg_index WHERE indrelid = to_regclass(?) "
                "AND (indisunique OR indisexclusion)",
                (self._name(job.table),),
            ):  # then the order in which rows are stored decides which one is refused
                self.hints = replace(self.hints, writers=1)

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold numbers as they are written."""
        return frozenset(each.name.lower() for each in self._catalogue(table) if each.is_exact)

    def _match(self, table: str, columns: Sequence[Column]) -> dict[str, str]:
        matched = self._match_columns(table, columns)
        return {name: column.name for name, column in matched.items()}

    def _match_columns(self, table: str, columns: Sequence[Column]) -> dict[str, TableColumn]:
        return match_columns(table, self._catalogue(table), columns)

    def _catalogue(self, table: str) -> list[TableColumn]:
        return [TableColumn(*row) for row in self._rows(CATALOGUE, (self._name(table),))]

    def _unique_keys(self, table: str) -> list[frozenset[str]]:
        keys: dict[int, set[str]] = {}
        for index, column in self._rows(UNIQUE_KEYS, (self._name(table),)):
            keys.setdefault(index, set()).add(column)
        return list(map(frozenset, keys.values()))

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        if EXTRA_COLUMN in request.frame.columns:
            self._ensure_extra_column()
        with self._connection() as connection:
            try:
                with connection.transaction():
                    return self._store(Writer(connection), request)
            except _AlreadyCommittedError:
                return statements.already_committed(request.chunk, self._known(request))

    def _store(self, writer: Writer, request: StoreRequest) -> ChunkResult:
        if request.timeout_seconds is not None:
            writer.rows(
                f"SET LOCAL statement_timeout = {max(1, request.timeout_seconds * 1000):.0f}"
            )
        job = self._fence_by(writer)
        # Constraints that are deferred to the commit could not be laid at a record's door.
        writer.rows("SET CONSTRAINTS ALL IMMEDIATE")
        values = statements.chunk_values(
            job.job_id, request, statements.outcome(request, request.rejects), job.epoch
        )
        marks = ", ".join("?" * len(values))
        # Waits for another attempt that is in doubt, and then learns the truth.
        ours = writer.rows(
            f"INSERT INTO {self._chunks} ({statements.CHUNK_COLUMNS}) SELECT {marks} WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self._chunks} WHERE job_id = ? AND lo < ? AND hi > ?) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            (*values, job.job_id, request.chunk.hi, request.chunk.lo),
        )
        if not ours:
            raise _AlreadyCommittedError
        target = self._target(job.job_id, request.frame)
        failpoints.reach("after-ledger-row")
        refused, ignored = writer.store(target, request.frame, request.chunk.offset)
        failpoints.reach("after-rows")
        rejects = [*request.rejects, *(request.rejecter(at, [why]) for at, why in refused)]
        if rejects:
            rows = [statements.reject_values(job.job_id, reject) for reject in rejects]
            names = statements.REJECT_COLUMNS.split(", ")
            frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
            writer.copy(self._rejects, statements.REJECT_COLUMNS, frame)
        result = statements.outcome(request, rejects, len(refused), ignored)
        if refused or ignored:
            writer.rows(
                f"UPDATE {self._chunks} SET successful = ?, failed = ?, filtered = ? "
                "WHERE job_id = ? AND lo = ?",
                (*result.counts, job.job_id, request.chunk.lo),
            )
        failpoints.reach("before-commit")
        return result

    def _target(self, job_id: str, frame: pl.DataFrame) -> Target:
        columns = dict(self._columns)
        if EXTRA_COLUMN in frame.columns:
            columns[EXTRA_COLUMN] = _EXTRA
        keys = self._name(self._keys_table(job_id))
        return Target(self._name(self._table), columns, self._on_conflict, self._key, keys)

    def _ensure_extra_column(self) -> None:
        """Add the column by the connection of the job: it must not wait for a chunk's rows."""
        with self._lock:
            if EXTRA_COLUMN not in {each.name for each in self._catalogue(self._table)}:
                self._run(
                    f"ALTER TABLE {self._name(self._table)} ADD COLUMN IF NOT EXISTS "
                    f"{quote(EXTRA_COLUMN)} jsonb"
                )

    def _known(self, request: StoreRequest) -> list[Any]:
        chunk, job_id = request.chunk, self._job.job_id if self._job else ""
        return [
            row
            for row in self.committed(job_id)
            if row.chunk.lo < chunk.hi and row.chunk.hi > chunk.lo
        ]

    def _fence_by(self, writer: Writer) -> JobRecord:
        """Share-lock the job's row, so that no other process can take the job before the commit."""
        job = self._job
        assert job is not None, "claim comes first"  # noqa: S101 - a mistake in this program
        if not writer.rows(
            f"SELECT 1 FROM {self._jobs} WHERE job_id = ? AND epoch = ? FOR SHARE",
            (job.job_id, job.epoch),
        ):
            raise taken_over(job)
        return job

    # -- connections --------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection]:
        """Lend a connection for a chunk; one that broke is not lent again."""
        if self._dry_run:
            with self._job_connection() as main:
                yield main
            return
        connection: psycopg.Connection | None = None
        with suppress(queue.Empty):
            connection = self._idle.get_nowait()
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except psycopg.Error as error:
            raise translate(error, self._where) from error
        finally:
            if connection is not None and not connection.closed:
                self._idle.put(connection)

    @contextmanager
    def _job_connection(self) -> Iterator[psycopg.Connection]:
        """Lend the connection of the job; outside of a transaction it is mended if it broke."""
        with self._lock, self._translated():
            if self._main.info.transaction_status != TransactionStatus.INTRANS:
                self._revive()
            yield self._main

    def _revive(self) -> None:
        try:
            self._main.execute("SELECT 1")
        except psycopg.OperationalError:
            self._main = until_it_works(self._connect, psycopg.OperationalError, RECONNECT_SECONDS)
            if self._lock_keys:
                self._take_locks(self._main)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._job_connection() as connection, connection.transaction():
            yield

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        self._rows(statement, values)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._job_connection() as connection:
            return run(connection, statement, values)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise translate(error, self._where) from error

    def _is_ours(self, job_id: str, epoch: int) -> bool:
        return bool(
            self._rows(
                f"UPDATE {self._jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? "
                "RETURNING 1",
                (statements.now(), job_id, epoch),
            )
        )

    def _exists(self, table: str) -> bool:
        return self._rows("SELECT to_regclass(?) IS NOT NULL", (self._name(table),))[0][0] is True

    def _name(self, table: str) -> str:
        """Return a table's name as SQL; a dot parts it from its schema."""
        schema, dot, name = table.partition(".")
        return f"{quote(schema)}.{quote(name)}" if dot and schema and name else quote(table)

    def close(self) -> None:
        """Close all connections that are not in use."""
        while not self._idle.empty():
            self._idle.get().close()
        self._main.close()


_EXTRA = TableColumn(EXTRA_COLUMN, "jsonb", "jsonb", "U", is_filled=True, is_generated=False)


def _lock_key(target_hash: str) -> int:
    digest = hashlib.sha256(f"batchimport {target_hash}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class _AlreadyCommittedError(Exception):
    """The ledger has the chunk: roll back, nothing is to be done."""
