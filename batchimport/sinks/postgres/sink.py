"""PostgreSQL: COPY, ledger row and rejects of a chunk in one transaction; several of them at once."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg

from batchimport.errors import FatalError
from batchimport.sinks.base import SinkOptions
from batchimport.sinks.postgres.address import parse, redact
from batchimport.sinks.postgres.dialect import (
    CATALOGUE,
    FOREIGN_KEYS,
    INDEXES,
    OWN_REFERENCE,
    REFERENCES,
    REFERRED_TO,
    TYPES,
    UNIQUE_KEYS,
    PostgresColumn,
    opening,
    translate,
)
from batchimport.sinks.postgres.rows import PostgresTransaction, run
from batchimport.sinks.sql.circles import ForeignKey
from batchimport.sinks.sql.server import LOCK_WAIT_SECONDS, ServerSink
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.target import Rows, Target

_CONNECTION = {
    "application_name": "batchimport",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Defaults, unless the address has others: a silent network is noticed within a minute."""
COMMIT_SECONDS = 30.0
"""The claim's own commit takes milliseconds."""
SECONDS_IDLE = 15
"""A process that is stopped inside a transaction keeps others from its chunk for this long."""
_SESSION = f"""
    SELECT set_config('client_encoding', 'UTF8', false), set_config('TimeZone', 'UTC', false),
           set_config('idle_in_transaction_session_timeout', '{SECONDS_IDLE}s', false),
           set_config('statement_timeout', '0', false),
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', false) END,
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false)"""
"""A role's statement timeout, which is meant for queries of users, would end a claim or the final count:
chunks have a limit of their own. A commit is on disk when it returns, a time without a zone means the same on every machine, and the
locks of a client that fell silent are released after a minute, not after two hours."""


class PostgresSink(ServerSink[psycopg.Connection]):
    """One database of a PostgreSQL server."""

    types = TYPES
    longest_name = 63
    most_columns = 1600
    emptying = "TRUNCATE"
    adding = "ADD COLUMN IF NOT EXISTS"

    driver_error = psycopg.Error
    _translate = staticmethod(translate)

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        self._address = address
        super().__init__(options, redact(address))
        if self._dry_run:
            with self._translated():
                self._main.execute("BEGIN")

    def _connect(self) -> psycopg.Connection:
        given = parse(self._address)
        try:
            defaults: dict[str, Any] = {
                name: value for name, value in _CONNECTION.items() if name not in given
            }
            connection = psycopg.connect(self._address, autocommit=True, **defaults)
            connection.execute(_SESSION)
        except psycopg.Error as error:
            raise opening(error, self._address, self._where) from error
        return connection

    def _is_open(self, connection: psycopg.Connection) -> bool:
        return not connection.closed

    def _is_alive(self, connection: psycopg.Connection) -> bool:
        try:
            connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    # -- whose a job is -----------------------------------------------------------------------

    def exclude_claims(self) -> None:
        """Let one claim at a time into the database, also while its ledger is not there yet."""
        self.rows("SELECT pg_advisory_xact_lock(?)", (_CLAIMS,))
        # A session remembers which tables are not there, and asks what others have made meanwhile only
        # when it opens a table: else the next `to_regclass` would not find their ledger.
        self.rows("SELECT 1 FROM pg_class LIMIT 1")

    def _lock_targets(self, connection: psycopg.Connection, targets: Sequence[str]) -> bool:
        run(connection, f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
        try:
            for target in targets:
                run(connection, "SELECT pg_advisory_lock(?)", (_lock_key(target),))
        except psycopg.errors.LockNotAvailable:
            return False
        run(connection, "RESET lock_timeout")  # to what the address, the role or the database set
        return True

    def create_ledger(self) -> None:
        """Create the ledger's tables, and their schema."""
        if self.ledger_schema and not self.rows(
            "SELECT 1 FROM pg_namespace WHERE nspname = ?", (self.ledger_schema,)
        ):  # IF NOT EXISTS would ask for the right to create one, even if it exists
            self.run(f"CREATE SCHEMA {quote(self.ledger_schema)}")
        super().create_ledger()

    def is_unique(self, target: Target) -> bool:
        """Say whether rows of a table may refuse each other, also by an index on expressions."""
        return bool(
            self.rows(
                "SELECT 1 FROM pg_index WHERE indrelid = to_regclass(?) "
                "AND (indisunique OR indisexclusion)",
                (target.name,),
            )
        )

    # -- the catalogue ------------------------------------------------------------------------

    def exists(self, table: str) -> bool:
        """Say whether a table exists."""
        return self.rows("SELECT to_regclass(?) IS NOT NULL", (self.name(table),))[0][0] is True

    def identity_of(self, table: str) -> str | None:
        """Return the table's number in the catalogue; None if there is no such table."""
        number = self.rows("SELECT to_regclass(?)::oid::bigint", (self.name(table),))[0][0]
        return None if number is None else str(number)

    def table_names(self) -> list[str]:
        """Return the names of the tables, to suggest one: with the schema, unless it is searched."""
        rows = self.rows(
            "SELECT CASE WHEN pg_table_is_visible(oid) THEN relname ELSE "
            "relnamespace::regnamespace || '.' || relname END FROM pg_class WHERE relkind IN ('r', 'p') "
            "AND relnamespace::regnamespace::text NOT LIKE 'pg\\_%' LIMIT 10000"
        )
        return [str(name) for (name,) in rows]

    def columns(self, table: str) -> list[PostgresColumn]:
        """Return the columns of a table in its order."""
        return [PostgresColumn(*row) for row in self.rows(CATALOGUE, (self.name(table),))]

    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on."""
        keys: dict[int, set[str]] = {}
        for index, column in self.rows(UNIQUE_KEYS, (self.name(table),)):
            keys.setdefault(index, set()).add(column)
        return list(map(frozenset, keys.values()))

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        """Return the foreign keys of a table."""
        return [
            ForeignKey(tuple(names), parent, tuple(parent_names), is_own)
            for parent, is_own, names, parent_names in self.rows(REFERENCES, (self.name(table),))
        ]

    def create_like(self, table: str, other: str) -> None:
        """Create an empty table with the columns, constraints and indexes of another one."""
        name = self.name(other)
        self.run(f"CREATE TABLE {name} (LIKE {self.name(table)} INCLUDING ALL)")
        for definition, is_own in self.rows(FOREIGN_KEYS, (self.name(table),)):
            if is_own:  # within the new rows
                definition = OWN_REFERENCE.sub(lambda _: f"REFERENCES {name}(", definition, count=1)  # noqa: PLW2901
            self.run(f"ALTER TABLE {name} ADD {definition}")

    def keys_referred_to(self, table: str) -> list[tuple[str, ...]]:
        """Return the columns of a table that foreign keys of other tables refer to."""
        return [tuple(names) for (names,) in self.rows(REFERRED_TO, (self.name(table),))]

    def deferrable_indexes(self, table: str) -> list[tuple[str, str]]:
        """Return name and definition, as SQL, of the indexes that no row can be refused by."""
        return [(name, sql) for name, sql in self.rows(INDEXES, (self.name(table),))]

    # -- statements ---------------------------------------------------------------------------

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement by the connection of the job, and return its rows."""
        with self._job_connection() as connection:
            return run(connection, statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what `rows` and `run` do in it, or nothing of it."""
        with (
            self._job_connection() as connection,
            _CommitLimit(connection, self._where) as limit,
            connection.transaction(),
        ):
            outer, self._is_in_transaction = self._is_in_transaction, True
            try:
                yield
            finally:
                self._is_in_transaction = outer
            limit.start()

    @contextmanager
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> Iterator[PostgresTransaction]:
        """Begin a transaction for one chunk, on a connection of its own."""
        with self._chunk_connection() as connection, connection.transaction():
            if seconds is not None:
                milliseconds = max(1, seconds * 1000)
                run(connection, f"SET LOCAL statement_timeout = {milliseconds:.0f}")
            # A constraint that is checked at the commit would not say which row breaks it.
            run(connection, "SET CONSTRAINTS ALL IMMEDIATE")
            yield PostgresTransaction(self, connection, job, target)


_CLAIMS = 0x6261746368696D70
"""Key of the lock that one claim at a time holds in a database: "batchimp"."""


class _CommitLimit:
    """Ends a COMMIT that waits for a synchronous standby which is gone: no timeout of the server does.

    The server then commits without the standby, and says so in a warning only.
    """

    def __init__(self, connection: psycopg.Connection, where: str) -> None:
        self._connection, self._where = connection, where
        self._timer = threading.Timer(COMMIT_SECONDS, self._cancel)
        self._timer.daemon = True
        self._was_cancelled = False

    def start(self) -> None:
        """Begin to count: the next statement is the COMMIT."""
        self._timer.start()

    def _cancel(self) -> None:
        self._was_cancelled = True
        self._connection.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._was_cancelled and kind is None:
            raise FatalError(
                f"no synchronous standby has confirmed a commit within {COMMIT_SECONDS:g} s",
                where=self._where,
                hint="bring the standby back, or change synchronous_standby_names; then run the same "
                "command again",
            )


def _lock_key(target_hash: str) -> int:
    digest = hashlib.sha256(f"batchimport {target_hash}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
