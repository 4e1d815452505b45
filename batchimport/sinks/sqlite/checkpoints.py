"""What is committed goes from SQLite's log into the database file while the next rows are inserted.

SQLite would do it within a commit, as soon as 1,000 pages are in the log, and the next chunk would wait
for it. A second connection may do it meanwhile (https://sqlite.org/wal.html#concurrency).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from adbc_driver_manager import Error as DriverError

from batchimport.sinks.sqlite.driver import Connection

LEAST_BYTES = 1024 * 1024
"""Of rows in the log: for fewer, syncing the database file costs more than is won."""


class Checkpoints:
    """The checkpoints of a database in WAL mode, each in the one thread that makes them.

    A failure is no error of the import: the rows stay in the log, and SQLite tries again in a commit
    and when the database is closed.

    Args:
        address: The database, as `driver.Connection` takes it.
    """

    def __init__(self, address: str) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._connection: Connection | None = None
        self._address = address
        self._bytes = 0
        self._running: Future[None] | None = None

    def after_commit(self, size: int) -> None:
        """Begin a checkpoint if enough was stored since the last one.

        Args:
            size: Bytes of the rows that were committed.
        """
        self._bytes += size
        if self._bytes >= LEAST_BYTES:
            self._bytes = 0
            self._running = self._pool.submit(self._checkpoint)

    def wait(self) -> None:
        """Wait for the checkpoint that is running: then the log does not grow faster than it is emptied."""
        if self._running is not None:
            self._running.result()

    def close(self) -> None:
        """Wait, and close the connection."""
        self._pool.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _checkpoint(self) -> None:
        with suppress(DriverError):
            if self._connection is None:
                self._connection = Connection(self._address)
            # PASSIVE is the only kind that waits for nobody.
            self._connection.rows("PRAGMA wal_checkpoint(PASSIVE)")
