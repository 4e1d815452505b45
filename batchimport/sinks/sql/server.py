"""Connections to a server that are lent for chunks and not in use in between."""

from __future__ import annotations

import queue
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

CLOSE_SECONDS = 5.0


class _Connection(Protocol):
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=_Connection)


class Idle(Generic[Connection]):
    """The connections of a sink that are not in use.

    Args:
        connect: Opens another one.
        is_open: Whether one can still be used, as far as is known without asking the server.
    """

    def __init__(
        self, connect: Callable[[], Connection], is_open: Callable[[Connection], bool]
    ) -> None:
        self._connect, self._is_open = connect, is_open
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend one. If it broke, the others that are idle have probably broken with it: all are closed."""
        connection: Connection | None = None
        with suppress(queue.Empty):
            connection = self._idle.get_nowait()
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        finally:
            if connection is not None and self._is_open(connection):
                self._idle.put(connection)
            else:
                self._close_all()

    def close(self, main: Connection, lock: threading.RLock) -> None:
        """Close them all, and the connection of the job unless a thread is at work with it.

        Args:
            lock: Held by whoever uses the connection of the job.
        """
        self._close_all()
        if lock.acquire(timeout=CLOSE_SECONDS):
            try:
                main.close()
            finally:
                lock.release()

    def _close_all(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
