"""A database on a server: a connection for the job, and one for each chunk that is being stored."""

from __future__ import annotations

import queue
import threading
from abc import abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from batchimport.errors import JobRunningElsewhereError
from batchimport.model import DRY_RUN
from batchimport.sinks.base import SinkHints
from batchimport.sinks.sql.ledger import SqlSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.errors import BatchImportError
    from batchimport.model import Job
    from batchimport.sinks.base import JobRecord, SinkOptions

WRITERS = 2
LOCK_WAIT_SECONDS = 5
"""The server may take this long to notice that a killed client is gone."""
CLOSE_SECONDS = 5.0


class _Connection(Protocol):
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=_Connection)


class ServerSink(SqlSink, Generic[Connection]):
    """A database that many processes use at once.

    The connection of the job holds a lock on the job's target, which the server releases when the process
    ends. A dry run has only this connection.

    Args:
        where: The address without its password.
    """

    driver_error: ClassVar[type[Exception]]

    def __init__(self, options: SinkOptions, where: str) -> None:
        self._where, self._dry_run = where, options.dry_run
        super().__init__(options.ledger_schema)
        self.hints = SinkHints(writers=WRITERS, preferred_records=20_000)
        if self._dry_run:
            self.hints = SinkHints(1, self.hints.preferred_records, DRY_RUN)
        self._lock = threading.RLock()
        self._targets: list[str] = []
        self._is_in_transaction = False
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._main = self._connect()

    # -- what each server does its own way -----------------------------------------------------

    @abstractmethod
    def _connect(self) -> Connection:
        """Open a connection.

        Raises:
            DestinationAwayError: If the server cannot be reached.
            FatalError: If it refuses.
        """

    @abstractmethod
    def _is_open(self, connection: Connection) -> bool:
        """Say whether a connection can be used, as far as is known without asking the server."""

    @abstractmethod
    def _is_alive(self, connection: Connection) -> bool:
        """Ask the server whether it still knows a connection."""

    @abstractmethod
    def _lock_targets(self, connection: Connection, targets: Sequence[str]) -> bool:
        """Lock these targets for a connection; return False if another one holds a lock."""

    @staticmethod
    @abstractmethod
    def _translate(error: Any, where: str) -> BatchImportError:
        """Return the error of ours that an error of the driver means."""

    # -- what they share -----------------------------------------------------------------------

    @contextmanager
    def claiming(self, job: Job, instead_of: Sequence[JobRecord]) -> Iterator[None]:
        """Lock the targets of a job, and of those that are forgotten for it, for this process."""
        self._targets = sorted({job.target_hash(), *(old.target_hash for old in instead_of)})
        with self._job_connection() as connection:
            self._take_locks(connection)
        yield

    def _take_locks(self, connection: Connection) -> None:
        if not self._lock_targets(connection, self._targets):
            raise JobRunningElsewhereError(
                "another process is running this job",
                where=self._where,
                hint="wait for it, or stop it",
            )

    @contextmanager
    def _job_connection(self) -> Iterator[Connection]:
        """Lend the connection of the job; outside a transaction it is renewed if it broke."""
        with self._lock, self._translated():
            # Half of a transaction must not run on another connection.
            if not (self._is_in_transaction or self._dry_run or self._is_alive(self._main)):
                self._main = self._connect()
                self._take_locks(self._main)
            yield self._main

    @contextmanager
    def _chunk_connection(self) -> Iterator[Connection]:
        """Lend a connection for a chunk.

        If it broke, the others that are idle have probably broken with it: all are closed.
        """
        if self._dry_run:
            with self._job_connection() as main:
                yield main
            return
        connection: Connection | None = None
        with suppress(queue.Empty):
            connection = self._idle.get_nowait()
        with self._translated():
            try:
                if connection is None:
                    connection = self._connect()
                yield connection
            finally:
                if connection is not None and self._is_open(connection):
                    self._idle.put(connection)
                else:
                    self._close_idle()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self.driver_error as error:
            raise self._translate(error, self._where) from error

    def _close_idle(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._close_idle()
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._main.close()
            finally:
                self._lock.release()
