"""Calls from a program whose event loop is running, such as a notebook."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import pytest

from batchimport.engines import event_loop
from batchimport.importer import import_file
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.model import Job
from batchimport.state.directory import StateDirectory
from tests.helpers.tables import query


@pytest.mark.parametrize("handle_signals", [False, True])
def test_a_file_is_imported_where_a_loop_is_running(tmp_path: Path, handle_signals: bool) -> None:
    """To its end, whether or not signals are to be handled; nothing is left to resume."""
    source = tmp_path / "u.jsonl"
    source.write_text("".join(f'{{"id": {number}}}\n' for number in range(100)))
    request = Request(
        Job((str(source),), f"sqlite:///{tmp_path / 'u.db'}", "u"),
        state=StateDirectory(tmp_path / "state"),
        handle_signals=handle_signals,
    )

    async def notebook() -> list[Outcome]:
        return [import_file(request), import_file(request)]

    first, second = asyncio.run(notebook())
    assert (first.summary.status, first.error) == ("completed", None)
    assert second.summary.status == "already_completed"
    assert query(tmp_path / "u.db", "SELECT count(*), sum(id) FROM u") == [(100, 4950)]


def test_a_result_or_an_error_comes_back_from_the_other_thread() -> None:
    """As `asyncio.run` gives it where no loop is running."""

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return 10 // number

    async def notebook(number: int) -> int:
        return event_loop.run(work(number))

    assert event_loop.run(work(2)) == asyncio.run(notebook(2)) == 5
    with pytest.raises(ZeroDivisionError):
        asyncio.run(notebook(0))


def test_a_keyboard_interrupt_cancels_the_work() -> None:
    """Else the cell of a notebook could not be stopped before the import ends."""
    ends: list[str] = []

    async def work() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def notebook() -> None:
        event_loop.run(work())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()  # `asyncio.run` has a SIGINT handler of its own
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    assert ends == ["cancelled"]
