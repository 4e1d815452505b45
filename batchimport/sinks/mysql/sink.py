"""MySQL and MariaDB: rows, ledger row and rejects of a chunk in one transaction of InnoDB.

The server commits before and after each statement that defines a table. So these are kept out of
transactions: what is made is made at once, by another connection, under a name that nobody knows;
what is removed is removed after the commit. A table gets its name after the commit, too: until then
the job's row says that it is the job's table, and any process sees it so. A kill at any moment
leaves the claim done or not done, and the next claim finishes what is left.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql

from batchimport import failpoints
from batchimport.errors import (
    DataError,
    DestinationLockedError,
    FatalError,
    UsageError,
)
from batchimport.sinks.base import SinkOptions, table_of, taken_over
from batchimport.sinks.mysql.address import parse
from batchimport.sinks.mysql.dialect import (
    KEY_CHARACTERS,
    LONG_TEXT,
    TYPES,
    MysqlColumn,
    number_of,
    opening,
    place_of,
    text_of,
    translate,
    unique_indexes,
)
from batchimport.sinks.mysql.rows import MysqlTransaction
from batchimport.sinks.mysql.session import Session
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.server import LOCK_WAIT_SECONDS, ServerSink
from batchimport.sinks.sql.statements import LEDGER_TABLES
from batchimport.sinks.sql.target import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.store import SqlClaim
    from batchimport.sinks.sql.target import Rows, Target

CLAIM_WAIT_SECONDS = 30
SAME_COLUMN = 1060
"""The server sees no difference between some names, such as those with and without accents."""
NO_SUCH_TABLE = frozenset({1146, 1049})
_CHANGING = ("INSERT", "UPDATE", "DELETE")


class MysqlSink(ServerSink[Session]):
    """One database of a MySQL or MariaDB server."""

    types = TYPES
    names_have_case = False
    most_columns = 1017  # of InnoDB
    has_transactional_ddl = False
    text: ClassVar[str] = f"{LONG_TEXT} COLLATE utf8mb4_bin"
    key_text: ClassVar[str] = "VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin"

    driver_error = pymysql.MySQLError
    _translate = staticmethod(translate)

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        self._address = parse(address)
        where = self._address.without_password()
        if not self._address.database and "read_default_file" not in self._address.parameters:
            raise UsageError(
                "the address names no database",
                where=f"--to {where}",
                hint="mysql://user@host/database",
            )
        self._drafts: dict[str, str] = {}
        self._afterwards: list[str] = []
        self._has_begun = self._excludes_claims = False
        self._side: Session | None = None
        super().__init__(options, where)
        if self._dry_run:
            with self._translated():
                self._shadow_ledger()
        elif not self._main.is_durable:
            delivery = (
                f"{self.hints.delivery} unless the server's machine fails "
                "(innodb_flush_log_at_trx_commit is not 1)"
            )
            self.hints = replace(self.hints, delivery=delivery)

    def _connect(self) -> Session:
        try:
            return Session(self._address)
        except pymysql.MySQLError as error:
            raise opening(error, self._address.server, self._where) from error
        except (RuntimeError, OSError) as error:  # a file of certificates, a missing library
            raise UsageError(str(error), where=f"--to {self._where}") from error

    def _is_open(self, connection: Session) -> bool:
        return connection.is_open

    def _is_alive(self, connection: Session) -> bool:
        return connection.is_alive()

    # -- whose a job is ------------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return the jobs that the database knows, oldest first.

        The table of a job whose claim was killed after its commit is seen as the job has it.
        """
        with self._lock:
            records = super().jobs()
            running = [record for record in records if record.state == "running"]
            drafts = {
                table: draft
                for record in running
                if self._exists(draft := _draft_of(table := table_of(record), record.job_id))
            }
            if not self._is_in_transaction:
                self._drafts = drafts
            return records

    @contextmanager
    def claiming(self, job: Job, instead_of: Sequence[JobRecord]) -> Iterator[None]:
        """Lock the targets of a job, and of those that are forgotten for it, for this process."""
        with self._lock, super().claiming(job, instead_of):
            self._refuse_table(job)
            try:
                yield
            except DataError as error:  # rows that other tables refer to, say
                raise FatalError(error.message, where=job.table) from error

    def claim_of(self, record: JobRecord, target: Target) -> SqlClaim:
        """Return the claim of a job, whose table has its own name now."""
        return super().claim_of(record, replace(target, name=self.name(target.table)))

    def exclude_claims(self) -> None:
        """Let one claim at a time into the ledger, and finish what a killed one has left."""
        name = self._lock_name("claims")
        if self.rows("SELECT GET_LOCK(?, ?)", (name, CLAIM_WAIT_SECONDS)) != [(1,)]:
            raise DestinationLockedError("another process is claiming a job", where=self._where)
        self._excludes_claims = True
        self._is_in_transaction = False  # nothing has begun yet
        try:
            self.jobs()
            self._name_tables()
        finally:
            self._is_in_transaction = True

    def hold(self, job: JobRecord) -> None:
        """Make sure that a job is still at this epoch, and keep it so until the transaction ends."""
        ours = (job.job_id, job.epoch)
        found = self.rows(
            f"SELECT 1 FROM {self.tables.jobs} WHERE job_id = ? AND epoch = ? FOR UPDATE", ours
        )
        if not found:
            raise taken_over(job)
        self.run(
            f"UPDATE {self.tables.jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ?",
            (statements.now(), *ours),
        )

    def _lock_name(self, what: str) -> str:
        """Return a name for a lock of this ledger: those of the server are of no database."""
        place = f"{self.ledger_schema or self._address.database}\n{what}"
        return f"batchimport {hashlib.sha256(place.encode()).hexdigest()[:40]}"

    def _lock_targets(self, connection: Session, targets: Sequence[str]) -> bool:
        names = ((self._lock_name(target), LOCK_WAIT_SECONDS) for target in targets)
        return all(connection.run("SELECT GET_LOCK(?, ?)", name) == [(1,)] for name in names)

    # -- tables that are made and removed --------------------------------------------------------

    def create_ledger(self) -> None:
        """Create the ledger's tables, and their database."""
        if self.ledger_schema and not self.rows(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", (self.ledger_schema,)
        ):
            self.run(f"CREATE DATABASE IF NOT EXISTS {self.quote(self.ledger_schema)}")
        super().create_ledger()

    def _insert_job(self, job: Job, record: JobRecord, owner: str, made_before: bool) -> JobRecord:
        is_made = job.if_exists == "replace" or not self._exists(job.table)
        if record.columns and is_made:
            draft = _draft_of(job.table, record.job_id)
            self._define(
                f"DROP TABLE IF EXISTS {super().name(draft)}"
            )  # of a claim that was killed
            self._drafts[job.table] = draft
        return super()._insert_job(job, record, owner, made_before)

    def _forget(self, record: JobRecord) -> None:
        super()._forget(record)
        keys = self.keys_table(record.job_id)
        if self._columns_of(keys):
            # The table goes after the commit. If that is not reached, its rows must be gone.
            self.run(f"DELETE FROM {keys}")

    def create_keys(self, job_id: str, target: Target) -> None:
        """Create the table of keys after the commit, with the collations of the key."""
        del job_id
        own = {column.name: column for column in self.columns(target.table)}
        types = {name: (own[name].type_name, own[name].collation) for name in target.key}
        known = {
            column.name: (column.type_name, column.collation)
            for column in self._columns_of(target.keys)
        }
        if known and {name: known.get(name) for name in types} != types:  # of a forgotten job
            self._afterwards.append(f"DROP TABLE IF EXISTS {target.keys}")
        lines = [
            f"{self.quote(name)} {declared} {f'COLLATE {collation}' if collation else ''}"
            for name, (declared, collation) in types.items()
        ]
        self._afterwards.append(
            f"CREATE TABLE IF NOT EXISTS {target.keys} ({', '.join(lines)}, "
            f"{self.quote(RECORD)} BIGINT NOT NULL, UNIQUE ({self.column_list(target.key)}))"
        )

    def _define(self, statement: str) -> None:
        """Run a statement that makes or removes a table, outside of the transaction.

        Raises:
            FatalError: In a dry run, if it would change a table that stays.
        """
        if not self._dry_run:
            self._side = self._side or self._connect()
            try:
                self._side.run(statement)
            except pymysql.MySQLError as error:
                if number_of(error) == SAME_COLUMN and statement.startswith("CREATE"):
                    raise UsageError(
                        f"two keys would share a column: {text_of(error)}",
                        where=self._where,
                        hint="rename one of them with --rename OLD=NEW",
                    ) from error
                raise translate(error, self._where) from error
            return
        table = re.match(r"ALTER TABLE (?:`[^`]+`\.)?`_batchimport", statement)
        if statement.startswith("ALTER") and not table:
            raise FatalError(
                "the server cannot undo a new column, so there is no dry run of it",
                where=self._where,
                hint="run it without --dry-run, with a copy of the table",
            )
        with self._job_connection() as session:
            session.run(re.sub(r"^(CREATE|DROP) TABLE", r"\1 TEMPORARY TABLE", statement))

    def _close_side(self) -> None:
        if self._side is not None:
            self._side.close()
            self._side = None

    def _name_tables(self) -> None:
        """Give tables that were made their names, in place of what has them."""
        for table, draft in list(self._drafts.items()):
            if not self._dry_run and self._exists(draft):
                failpoints.reach("before-renaming")
                self._define(f"DROP TABLE IF EXISTS {super().name(table)}")
                failpoints.reach("before-renaming")
                self._define(f"RENAME TABLE {super().name(draft)} TO {super().name(table)}")
            if not self._dry_run:
                del self._drafts[table]

    def _shadow_ledger(self) -> None:
        """Let a dry run have a ledger of its own, which the server removes with the connection."""
        self._main.run("SET SESSION autocommit = 0")
        if self._main.is_mariadb:  # it is one transaction, however long it waits for chunks
            self._main.run("SET SESSION idle_transaction_timeout = 0")
        for table in LEDGER_TABLES:
            real = self.name(super().in_ledger(table))
            with suppress(pymysql.ProgrammingError):
                shadow = self.name(self.in_ledger(table))
                self._main.run(f"CREATE TEMPORARY TABLE {shadow} LIKE {real}")
                self._main.run(f"INSERT INTO {shadow} SELECT * FROM {real}")

    def in_ledger(self, table: str) -> str:
        """Return the name of a table of the ledger, with its database."""
        name = table.replace("_batchimport_", "_batchimport_dry_") if self._dry_run else table
        return super().in_ledger(name)

    def _refuse_table(self, job: Job) -> None:
        """Refuse a table that transactions have no effect on.

        Raises:
            UsageError: If it is one.
        """
        table = self.name(job.table)
        found = self.rows(
            "SELECT engine FROM information_schema.tables "
            "WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?",
            place_of(self._drafts.get(job.table, job.table)),
        )
        if found and not found[0][0]:
            raise UsageError("is a view", where=job.table, hint="name the table that it shows")
        if job.if_exists == "replace":
            self._refuse_referred(job)
        elif found and found[0][0].lower() != "innodb":
            raise UsageError(
                f"the table's engine is {found[0][0]}, which knows no transactions",
                where=job.table,
                hint=f"ALTER TABLE {table} ENGINE=InnoDB; or choose another --table",
            )

    def _refuse_referred(self, job: Job) -> None:
        """Refuse to replace a table that others refer to: it could not be removed.

        Raises:
            UsageError: If it is one.
        """
        others = self.rows(
            "SELECT DISTINCT table_name FROM information_schema.key_column_usage "
            "WHERE referenced_table_schema = coalesce(?, DATABASE()) AND referenced_table_name = ?",
            place_of(job.table),
        )
        if others:
            names = ", ".join(name for (name,) in others)
            raise UsageError(
                f"the table cannot be replaced: foreign keys of {names} refer to it",
                where=job.table,
                hint="--if-exists truncate keeps the table",
            )

    # -- the catalogue -------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """Return an identifier in backticks, with those inside doubled."""
        statements.quote(name)  # refuses NUL
        return f"`{name.replace('`', '``')}`"

    def name(self, table: str) -> str:
        """Return a table's name as SQL: that of the draft, while it has not its own."""
        return super().name(self._drafts.get(table, table))

    def column_type(self, column: Column, *, is_key: bool) -> str:
        """Return a type with a length for strings of a key, in which different texts differ."""
        if not is_key or column.kind not in ("string", "json"):
            return super().column_type(column, is_key=is_key)
        # The collations named bin of old pad with spaces: "a" would be "a ".
        collation = "utf8mb4_nopad_bin" if self._main.is_mariadb else "utf8mb4_0900_bin"
        return f"VARCHAR({KEY_CHARACTERS}) CHARACTER SET utf8mb4 COLLATE {collation}"

    def exists(self, table: str) -> bool:
        """Say whether a table exists."""
        return self._exists(self._drafts.get(table, table))

    def _exists(self, table: str) -> bool:
        return self._shown(f"SHOW COLUMNS FROM {super().name(table)}") is not None

    def _shown(self, statement: str) -> Rows | None:
        """Return what the server shows of a table; None if there is no such table."""
        with self._job_connection() as session:
            try:
                return session.run(statement)
            except pymysql.MySQLError as error:
                if number_of(error) in NO_SUCH_TABLE:
                    return None
                raise

    def identity_of(self, table: str) -> str | None:
        """Return the name with its database; None if there is no such table."""
        if not self.exists(table):
            return None
        database, name = place_of(table)
        fallen = "IF(@@lower_case_table_names = 0, ?, lower(?))"
        return str(
            self.rows(
                f"SELECT concat(coalesce(?, DATABASE()), '.', {fallen})", (database, name, name)
            )[0][0]
        )

    def table_names(self) -> list[str]:
        """Return the names of the tables, to suggest one: with the database, unless it is this one."""
        rows = self.rows(
            "SELECT IF(table_schema = DATABASE(), table_name, concat(table_schema, '.', table_name)) "
            "FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema NOT IN "
            "('mysql', 'sys', 'performance_schema', 'information_schema') LIMIT 10000"
        )
        return [str(name) for (name,) in rows]

    def analyze(self, table: str) -> None:
        """Let the server count the keys of a table."""
        if not self._dry_run:  # it commits
            self.rows(f"ANALYZE TABLE {self.name(table)}")

    def columns(self, table: str) -> list[MysqlColumn]:
        """Return the columns of a table in its order; none if it does not exist."""
        return self._columns_of(self.name(table))

    def _columns_of(self, name: str) -> list[MysqlColumn]:
        """Return the columns of a table by its name as SQL."""
        shown = self._shown(f"SHOW FULL COLUMNS FROM {name}")
        if not shown:
            return []
        created = self.rows(f"SHOW CREATE TABLE {name}")[0][1].lower()
        return [
            MysqlColumn.of(row, f"json_valid({self.quote(row[0]).lower()})" in created)
            for row in shown
        ]

    def unique_keys(self, table: str) -> list[frozenset[str]]:
        """Return each set of columns that a unique index of the table is on, as a whole."""
        indexes = self._unique_indexes(table)
        return [frozenset(index) for index in indexes if all(index.values())]

    def is_unique(self, target: Target) -> bool:
        """Say whether rows of a table may refuse each other; those that the server numbers do not."""
        written = set(target.table_names)
        numbered = {
            own.name
            for own in self.columns(target.table)
            if own.is_numbered and own.name not in written
        }
        return any(numbered.isdisjoint(index) for index in self._unique_indexes(target.table))

    def _unique_indexes(self, table: str) -> list[dict[str, bool]]:
        shown = self._shown(f"SHOW INDEX FROM {self.name(table)}")
        return list(unique_indexes(shown or []).values())

    # -- statements ----------------------------------------------------------------------------

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement by the connection of the job, and return its rows."""
        with self._job_connection() as session:
            is_change = statement.startswith(_CHANGING) or statement.endswith("FOR UPDATE")
            if self._is_in_transaction and is_change and not self._has_begun:
                # Not before: what is only read would be locked against the making of tables.
                session.run("SAVEPOINT claim" if self._dry_run else "BEGIN")
                self._has_begun = True
            return session.run(statement, values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement; one that makes a table at once, one that removes it after the commit."""
        verb = statement.partition(" ")[0]
        if verb == "DROP" and self._is_in_transaction:
            self._afterwards.append(statement)
        elif verb in ("CREATE", "ALTER", "DROP"):
            self._define(statement)
            if not self._is_in_transaction:
                self._close_side()
        else:
            self.rows(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what `rows` and `run` do in it, or nothing of it."""
        with self._lock:
            drafts = dict(self._drafts)
            self._is_in_transaction, self._has_begun, self._afterwards = True, False, []
            try:
                yield
                self._end("RELEASE SAVEPOINT claim" if self._dry_run else "COMMIT")
                for statement in self._afterwards:
                    self._define(statement)
                self._name_tables()
            except BaseException:
                self._undo(drafts)
                raise
            finally:
                self._is_in_transaction = False
                self._close_side()
                if self._excludes_claims:
                    self._excludes_claims = False
                    with suppress(pymysql.MySQLError):  # it is released with the connection
                        self._main.run("SELECT RELEASE_LOCK(?)", (self._lock_name("claims"),))

    def _end(self, statement: str) -> None:
        """End the transaction, if it has begun."""
        if self._has_begun:
            with self._job_connection() as session:
                session.run(statement)
        self._is_in_transaction = self._has_begun = False

    def _undo(self, drafts: dict[str, str]) -> None:
        """Roll back, and remove the tables that were made; after the commit they are the job's."""
        made, self._drafts = self._drafts, drafts
        if not self._is_in_transaction:
            return
        with suppress(pymysql.MySQLError):
            if self._has_begun:
                self._main.run("ROLLBACK TO SAVEPOINT claim" if self._dry_run else "ROLLBACK")
        self._is_in_transaction = False
        for table in {*made.values()} - {*drafts.values()}:
            with suppress(Exception):  # the first error is the one to tell
                self._define(f"DROP TABLE IF EXISTS {super().name(table)}")

    @contextmanager
    def chunk_transaction(
        self, job: JobRecord, target: Target, seconds: float | None
    ) -> Iterator[MysqlTransaction]:
        """Begin a transaction for one chunk, on a connection of its own."""
        with self._chunk_connection() as session:
            session.limit_statements(seconds)
            with session.savepoint("chunk") if self._dry_run else session.transaction():
                yield MysqlTransaction(self, session, job, target)


def _draft_of(table: str, job_id: str) -> str:
    """Return the name that a job's table has until the claim is committed, in the same database."""
    database, name = place_of(table)
    digest = hashlib.sha256(f"{job_id}\n{name}".encode()).hexdigest()[:16]
    draft = f"_batchimport_new_{digest}"
    return f"{database}.{draft}" if database else draft
