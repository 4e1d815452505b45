"""What happened in the runs of a job, and when: a file of JSON lines beside the checkpoint.

Only the report reads it; nothing depends on it. Its size is bounded: the time between two samples grows
with the run (500 for the first minutes, some 5,000 for a week), other events are limited, and a file that
many runs have made long loses its older half.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from batchimport.errors import BatchImportError
from batchimport.policy.events import (
    ChunkFailed,
    ChunkRetried,
    JobFinished,
    JobStarted,
    WaitEnded,
    Waiting,
)
from batchimport.policy.progress import utc_now
from batchimport.state.files import open_ours, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchimport.policy.events import Event
    from batchimport.policy.progress import Tally
    from batchimport.state.directory import StateDirectory

NAME = "events.jsonl"
SECONDS_BETWEEN_SAMPLES = 0.2
SHARE_BETWEEN_SAMPLES = 1 / 500
"""In a long run, the time between two samples is this share of its time so far."""
MOST_EVENTS = 500
"""Events of a run that are written, apart from samples."""
MOST_BYTES = 2 << 20
"""A longer file loses its older half when a run begins."""
MOST_TEXT = 300


class Timeline:
    """An observer that writes samples of a run, and what went wrong in it.

    Args:
        fresh: The job begins again: what is known of earlier runs is removed.
    """

    def __init__(
        self,
        state: StateDirectory,
        tally: Tally,
        *,
        fresh: bool = False,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._state, self._tally, self._fresh, self._now = state, tally, fresh, now
        self._lock = threading.Lock()
        self._job_id: str | None = None
        self._next_sample = 0.0
        self._events = 0
        self._reason = ""
        self._waits_for = ""

    def __call__(self, event: Event) -> None:
        """Write what is worth a line, if the disk takes it."""
        with self._lock, suppress(OSError, BatchImportError):
            self._observe(event)

    def _observe(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self._begin(event)
        if self._job_id is None:
            return
        if isinstance(event, Waiting):
            self._waits_for = event.reason
        is_last = isinstance(event, JobFinished)
        if is_last or self._tally.elapsed() >= self._next_sample:
            elapsed = self._tally.elapsed()
            pause = max(SECONDS_BETWEEN_SAMPLES, elapsed * SHARE_BETWEEN_SAMPLES)
            self._next_sample = elapsed + pause
            self._write("sample", **self._sample())
        facts = self._facts(event)
        if facts is not None and (is_last or self._events < MOST_EVENTS):
            self._events += 1
            self._write(**facts)

    def _begin(self, event: JobStarted) -> None:
        path = self._state.make(event.job_id) / NAME
        with suppress(FileNotFoundError):
            if self._fresh:
                path.unlink()
            elif path.stat().st_size > MOST_BYTES:
                lines = _read(path).splitlines(keepends=True)
                write_atomically(path, lines[len(lines) // 2 :])
        self._job_id, self._fresh = event.job_id, False
        self._next_sample, self._events = 0.0, 0
        self._write("began", records=event.done.processed)

    def _sample(self) -> dict[str, Any]:
        tally, decision = self._tally, self._tally.decision
        facts: dict[str, Any] = {"records": tally.totals.processed, "in_flight": tally.in_flight}
        if decision is not None:
            facts |= {
                "chunk_size": decision.limit,
                "allowed_in_flight": decision.in_flight,
                "cpu_usage": decision.cpu_usage,
                "memory_usage": decision.memory_usage,
            }
            if decision.reason != self._reason:
                facts["reason"] = self._reason = decision.reason
        return facts

    def _facts(self, event: Event) -> dict[str, Any] | None:
        """Return what is written about an event besides samples; None if nothing is."""
        match event:
            case ChunkRetried():
                return _chunk("retried", event) | {"attempt": event.attempt}
            case ChunkFailed():
                return _chunk("given_up", event)
            case WaitEnded() if event.seconds >= SECONDS_BETWEEN_SAMPLES:
                seconds = round(event.seconds, 3)
                return {"event": "waited", "seconds": seconds, "error": self._waits_for}
            case JobFinished():
                summary = event.summary
                return {"event": "ended", "status": summary.status, "error": _cut(summary.error)}
            case _:
                return None

    def _write(self, event: str, **facts: Any) -> None:
        assert self._job_id is not None  # noqa: S101 - a mistake in this program
        line = json.dumps({"at": self._now(), "event": event, **facts}, default=str) + "\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = open_ours(self._state.folder(self._job_id) / NAME, flags)
        try:
            os.write(descriptor, line.encode(errors="replace"))
        finally:
            os.close(descriptor)


def _chunk(name: str, event: ChunkRetried | ChunkFailed) -> dict[str, Any]:
    chunk = event.chunk
    where = {"record": chunk.offset, "records": chunk.records}
    return {"event": name, **where, "error": _cut(event.error)}


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def read_timeline(state: StateDirectory, job_id: str) -> list[dict[str, Any]]:
    """Return the recorded events of a job in order of time; none if there is no such file.

    A line that was torn by a kill, or is not what this version writes, is left out.
    """
    events = []
    with suppress(OSError, BatchImportError):
        state.check(job_id)
        for line in _read(state.folder(job_id) / NAME).splitlines():
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if _is_event(event):
                    events.append(event)
    return sorted(events, key=lambda event: str(event["at"]))


def _is_event(event: object) -> bool:
    if not isinstance(event, dict):
        return False
    are_plain = not any(isinstance(value, dict | list) for value in event.values())
    return are_plain and all(isinstance(event.get(name), str) for name in ("at", "event"))


def _read(path: Path) -> bytes:
    with os.fdopen(open_ours(path, os.O_RDONLY), "rb") as file:
        return file.read(4 * MOST_BYTES)
