"""One connection to a MySQL server, set so that the server changes no value silently."""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.connections import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from batchimport.sinks.mysql.address import Address
    from batchimport.sinks.sql.target import Rows

LOCK_WAIT_SECONDS = 5
"""For rows and for tables; then the caller waits, and says so."""
SECONDS_IDLE = 15
"""A process that is stopped inside a transaction keeps others from its chunk for this long."""
_MODE = (
    "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION"
)
_SETTINGS = (
    f"sql_mode = '{_MODE}'",
    "time_zone = '+00:00'",
    "default_storage_engine = InnoDB",
    "foreign_key_checks = 1",
    "unique_checks = 1",
    "sql_safe_updates = 0",
    "sql_notes = 0",  # else a number that is rounded counts as a warning
    "wait_timeout = 28800",
    f"lock_wait_timeout = {LOCK_WAIT_SECONDS}",
    f"innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}",
)
_OF_MARIADB = ("check_constraint_checks = 1", f"idle_transaction_timeout = {SECONDS_IDLE}")
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""A silent network is noticed within a minute."""
_PARTS = re.compile(r"`(?:[^`]|``)*`|'(?:[^'\\]|''|\\.)*'|\bschema\b(?=,| LONGTEXT| =)|[?%]")
_LOAD = (
    "LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4 "
    "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '' "
    "LINES TERMINATED BY '\\n' ({names})"
)


class _GuardedConnection(Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that gives no file to the server but the one that is being loaded.

    A server may ask for any file in answer to any statement, and the driver would send it.
    """

    offered = ""
    _is_answering = False

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._is_answering = True  # a row, too, may begin with the byte that asks for a file
        return super()._read_query_result(unbuffered)

    def _read_packet(self, *kind: Any) -> Any:
        packet = super()._read_packet(*kind)
        is_first, self._is_answering = self._is_answering, False
        is_asked = is_first and packet.is_load_local_packet()
        if is_asked and packet.get_all_data()[1:].decode(errors="replace") != self.offered:
            self._force_close()
            raise pymysql.OperationalError(2027, "the server asked for a file of this machine")
        return packet


class Session:
    """A connection, used by one thread at a time.

    Attributes:
        affected: Rows that the last statement inserted, changed or deleted.
        is_mariadb: MariaDB, not MySQL.
        numbers_rows: The server tells which row of a statement it refused.
        takes_files: `LOAD DATA LOCAL INFILE` is allowed there and possible here.
        packet_bytes: How long a statement may be.
        is_durable: A commit is on disk when it returns.
    """

    def __init__(self, address: Address) -> None:
        given = {name: address.parameters.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")}
        given["ssl_verify_identity"] = address.parameters.get("ssl_verify_identity")
        options: dict[str, Any] = {name: value for name, value in given.items() if value}
        if "read_default_file" in address.parameters:
            options["read_default_file"] = address.parameters["read_default_file"]
        if address.socket:
            options["unix_socket"] = address.socket
        password = address.password or os.environ.get("MYSQL_PWD", "")
        self._connection = _GuardedConnection(
            user=address.user or None,
            password=password,
            host=address.host or None,
            port=address.port or 0,
            database=address.database,
            charset="utf8mb4",
            autocommit=True,
            local_infile=True,
            connect_timeout=int(address.parameters.get("connect_timeout", "10")),
            **options,
        )
        try:
            self._set_up()
        except pymysql.MySQLError:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        """Ask the server what it can, and set the session."""
        self.affected = self.warnings = 0
        version, allowed, self.packet_bytes, flush = self.run(
            "SELECT version(), @@local_infile, @@max_allowed_packet, "
            "@@innodb_flush_log_at_trx_commit"
        )[0]
        self.is_mariadb = "MariaDB" in version
        self.is_durable = flush == 1
        found = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", version)
        numbers = (int(found[1]), int(found[2])) if found else (0, 0)
        self.numbers_rows = self.is_mariadb and numbers >= (10, 7)
        self.takes_files = bool(allowed) and hasattr(os, "memfd_create")
        settings = [*_SETTINGS, *(_OF_MARIADB if self.is_mariadb else ())]
        self.run(f"SET SESSION {', SESSION '.join(settings)}")
        self.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self._keep_alive()
        self._limit = 0.0

    def _keep_alive(self) -> None:
        wire = self._connection._sock  # noqa: SLF001 - the driver has no way to set them
        if wire.family != socket.AF_UNIX:
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def run(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run a statement whose parameters are `?`; return its rows, if it has any."""
        return self.execute(_as_query(statement, marks=bool(values)), tuple(values) or None)

    def execute(self, query: str, values: tuple[Any, ...] | None = None) -> Rows:
        """Run a statement as the driver takes it; return its rows, if it has any."""
        with self._connection.cursor() as cursor:
            self.affected = cursor.execute(query, values)
            self.warnings = cursor.warning_count
            return list(cursor.fetchall()) if cursor.description else []

    def load(self, table: str, names: str, frame: pl.DataFrame) -> bool:
        """Load a frame from memory; say whether the table took every row as it is.

        With LOCAL the server turns errors into warnings, leaves rows out and changes values: where
        there is any, the caller undoes it.
        """
        file = os.memfd_create("batchimport")
        try:
            path = f"/proc/self/fd/{file}"
            frame.write_csv(
                path, include_header=False, quote_style="non_numeric", null_value="NULL"
            )
            self._connection.offered = path
            self.run(_LOAD.format(path=path, table=table, names=names))
        finally:
            self._connection.offered = ""
            os.close(file)
        return self.affected == frame.height and not self.warnings

    def refused_row(self) -> int | None:
        """Return which row of the last statement was refused, from 0; None if it is not known."""
        if not self.numbers_rows:
            return None
        self.run("GET DIAGNOSTICS CONDITION 1 @batchimport_row = ROW_NUMBER")
        number = self.run("SELECT @batchimport_row")[0][0]
        return int(number) - 1 if number else None

    def limit_statements(self, seconds: float | None) -> None:
        """Let no statement take longer, where the server can limit that (MariaDB)."""
        limit = seconds or 0.0
        if self.is_mariadb and limit != self._limit:
            self.run(f"SET SESSION max_statement_time = {limit:.3f}")
            self._limit = limit

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end what is run in it, or nothing of it."""
        with self._ending("BEGIN", "COMMIT", "ROLLBACK"):
            yield

    @contextmanager
    def savepoint(self, name: str) -> Iterator[None]:
        """Undo what is run in it if an error leaves it."""
        name = f"batchimport_{name}"
        undo = f"ROLLBACK TO SAVEPOINT {name}"
        with self._ending(f"SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}", undo):
            yield

    @contextmanager
    def _ending(self, begin: str, end: str, undo: str) -> Iterator[None]:
        self.run(begin)
        try:
            yield
            self.run(end)
        except BaseException as error:
            if isinstance(error, Exception):
                with suppress(pymysql.MySQLError):  # it may be lost, and the server has undone it
                    self.run(undo)
            else:  # in the middle of a statement, maybe: what comes next is not its answer
                self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Say whether it is not known to be lost."""
        return bool(self._connection.open)

    def is_alive(self) -> bool:
        """Ask the server whether it is still there."""
        try:
            self._connection.ping(reconnect=False)
        except pymysql.MySQLError:
            return False
        return True

    def close(self) -> None:
        """Close the connection; what is not committed is undone."""
        with suppress(pymysql.MySQLError):
            if self.is_open:
                self._connection.close()


def _as_query(statement: str, *, marks: bool) -> str:
    """Return a statement as the driver takes it: `%s` for each `?`, and reserved words quoted."""

    def written(match: re.Match[str]) -> str:
        part = match[0]
        if part == "schema":  # a column of the ledger
            return "`schema`"
        if not marks:
            return part
        return "%s" if part == "?" else part.replace("%", "%%")

    return _PARTS.sub(written, statement)
