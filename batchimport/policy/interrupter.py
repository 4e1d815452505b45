"""Ask a run to end in good order, from another thread than the one that runs it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchimport.errors import JobInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Interrupter:
    """Passes the wish on to the engine, as soon as there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._stop: Callable[[str], None] | None = None

    def interrupt(self, reason: str) -> None:
        """Let the chunks in flight end, and start no more; may be called from any thread."""
        with self._lock:
            self._reason, stop = reason, self._stop
        if stop is not None:
            stop(reason)

    def check(self) -> None:
        """Do nothing, unless the run is to end.

        Raises:
            JobInterrupted: If so.
        """
        if self._reason is not None:
            raise JobInterrupted(f"{self._reason} before anything was imported")

    @contextmanager
    def connected(self, stop: Callable[[str], None]) -> Iterator[None]:
        """Pass the wish on to this function meanwhile, which any thread may call."""
        with self._lock:
            self._stop, reason = stop, self._reason
        if reason is not None:
            stop(reason)
        try:
            yield
        finally:
            with self._lock:
                self._stop = None
