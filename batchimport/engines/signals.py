"""SIGINT, SIGTERM and a closed terminal: the first drains the run, the second ends the process.

Python delivers signals to the main thread only; called from another thread, these do nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from batchimport.errors import JobInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def draining_signals(interrupt: Callable[[str], None]) -> Iterator[None]:
    """Call `interrupt` on the first signal; a second one ends the process at once."""
    if not _is_main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)

    def first(number: signal.Signals) -> None:
        for other in numbers:
            loop.remove_signal_handler(other)
            signal.signal(other, _leave_at_once)
        interrupt(f"interrupted by {number.name}")

    for number in numbers:
        loop.add_signal_handler(number, first, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def held_signals() -> Iterator[list[str]]:
    """Keep the reason of a signal that comes before there is an engine; a second one ends the process.

    Yields:
        The reasons, for the engine that is about to start.
    """
    reasons: list[str] = []
    if not _is_main_thread():
        yield reasons
        return

    def hold(number: int, frame: object) -> None:
        if reasons:
            _leave_at_once(number, frame)
        reasons.append(f"interrupted by {signal.Signals(number).name}")

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reasons
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is hold:
                signal.signal(number, handler)


@contextmanager
def stopping_signals() -> Iterator[None]:
    """Let SIGINT or SIGTERM stop the reading or preparing that precedes the import."""
    if not _is_main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        raise JobInterrupted(
            f"interrupted by {signal.Signals(number).name} before anything was imported",
            hint="run the same command again",
        )

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave_at_once(number: int, _frame: object) -> None:
    with suppress(OSError):
        os.write(2, b"\nleft at once: what is committed stays; the same command continues it\n")
    os._exit(128 + number)
