"""SIGINT, SIGTERM and a hung-up terminal: the first drains, the second ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchimport.errors import JobInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def draining_signals(interrupt: Callable[[str], None]) -> Iterator[None]:
    """Let the first signal drain; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)

    def first(number: signal.Signals) -> None:
        for each in numbers:
            loop.remove_signal_handler(each)
            signal.signal(each, _leave_at_once)
        interrupt(f"interrupted by {number.name}")

    for each in numbers:
        loop.add_signal_handler(each, first, each)
    try:
        yield
    finally:
        for each in numbers:
            loop.remove_signal_handler(each)


@contextmanager
def stopping_signals() -> Iterator[None]:
    """Let SIGINT or SIGTERM end what is read or prepared, before anything is imported."""

    def stop(number: int, _frame: object) -> None:
        raise JobInterrupted(
            f"interrupted by {signal.Signals(number).name} before anything was imported",
            hint="run the same command again",
        )

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _leave_at_once(number: int, _frame: object) -> None:
    os._exit(128 + number)
