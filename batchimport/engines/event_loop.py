"""Run a coroutine from ordinary code, even where an event loop is running already."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end, and return its result.

    `asyncio.run` refuses where a loop is running, as in a notebook: the coroutine then gets a loop
    in a thread of its own, and this thread waits. If the wait is interrupted (KeyboardInterrupt),
    the coroutine is cancelled first.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def announced() -> _Result:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        started.set_result((asyncio.get_running_loop(), task))
        return await main

    with ThreadPoolExecutor(1, thread_name_prefix="event-loop") as pool:
        running = pool.submit(asyncio.run, announced())
        try:
            return running.result()
        except BaseException:
            if not running.done():
                loop, task = started.result()
                loop.call_soon_threadsafe(task.cancel)
            raise
