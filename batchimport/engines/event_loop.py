"""Run a coroutine from ordinary code, even where an event loop is running already."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_Result = TypeVar("_Result")
_SIGNAL_POLL_SECONDS = 0.5


def run(
    main: Coroutine[Any, Any, _Result], interrupt: Callable[[str], None] | None = None
) -> _Result:
    """Run a coroutine to its end, and return its result.

    `asyncio.run` refuses where a loop is running, as in a notebook: the coroutine then gets a loop
    in a thread of its own, and this thread waits. If the wait is interrupted (KeyboardInterrupt),
    the coroutine is cancelled first.

    Args:
        interrupt: Called by the first KeyboardInterrupt instead, with the reason; then the coroutine
            ends by itself.
    """
    if interrupt is None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(main)
    interrupted = threading.Event()
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[_Result]]] = []

    async def cancellable() -> _Result:
        task = asyncio.create_task(main)
        started.append((asyncio.get_running_loop(), task))
        if interrupted.is_set():  # before anybody could see that it had started
            task.cancel()
        return await task

    with ThreadPoolExecutor(1, thread_name_prefix="event-loop") as pool:
        pool.submit(int).result()  # a pool that is interrupted as it starts its thread joins none
        try:
            future = pool.submit(asyncio.run, cancellable())
            if interrupt is not None:
                try:
                    return _result(future)
                except KeyboardInterrupt:
                    interrupt("interrupted by the keyboard")
            return _result(future)
        except BaseException:
            interrupted.set()
            for loop, task in started:
                with suppress(RuntimeError):  # the loop is closed: the coroutine itself has raised
                    loop.call_soon_threadsafe(task.cancel)
            raise


def _result(future: Future[_Result]) -> _Result:
    """Wait; a signal that arrives just before a wait does not end it: hence short ones."""
    while not wait([future], timeout=_SIGNAL_POLL_SECONDS).done:
        pass
    return future.result()
