"""A real Temporal server on a database file, and workers in processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from tests.helpers.cli import Workdir

BINARY = Path(sys.executable).with_name("temporal")
SECONDS_TO_START = 60
EVENTS = 300
"""Events after which the server suggests to continue as new: few, so that short jobs do so."""
_numbers = itertools.count(1)


class TemporalServer:
    """A development server that keeps its state in a file."""

    def __init__(self, path: Path, events: int | None = EVENTS) -> None:
        self._renewal = f"limit.historyCount.suggestContinueAsNew={events}" if events else ""
        self._database = path / "temporal.sqlite"
        self._port, self._ui_port = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, also again after `kill`."""
        self._process = subprocess.Popen(
            [
                str(BINARY),
                *("server", "start-dev", "--headless", "--ip", "127.0.0.1"),
                *("--db-filename", str(self._database), "--log-level", "error"),
                *("--port", str(self._port), "--ui-port", str(self._ui_port)),
                *(("--dynamic-config-value", self._renewal) if self._renewal else ()),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def environment(self) -> dict[str, str]:
        return {"TEMPORAL_ADDRESS": self.address}

    def ask(self, question: Callable[[WorkflowHandle[Any, Any]], Any], job_id: str) -> Any:
        """Return what a call on a workflow's handle returns."""

        async def call() -> Any:
            client = await Client.connect(self.address)
            return await question(client.get_workflow_handle(job_id))

        return asyncio.run(call())

    def knows(self, job_id: str) -> bool:
        """Say whether a workflow of this id was ever started."""
        try:
            self.ask(lambda handle: handle.describe(), job_id)
        except RPCError:
            return False
        return True

    def is_running(self, job_id: str) -> bool:
        """Say whether a workflow of this id is open."""
        if not self.knows(job_id):
            return False
        description = self.ask(lambda handle: handle.describe(), job_id)
        return bool(description.status == WorkflowExecutionStatus.RUNNING)

    def history(self, job_id: str) -> dict[str, Any]:
        """Return the history of the latest run."""
        return json.loads(self.ask(lambda handle: handle.fetch_history(), job_id).to_json())

    def cli(self, *arguments: str) -> str:
        """Return what the plain `temporal` command prints."""
        return subprocess.run(
            [str(BINARY), *arguments, "--address", self.address],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    @contextmanager
    def worker(self, workdir: Workdir, queue: str, **more: str) -> Iterator[Worker]:
        """Run a worker for a while."""
        worker = Worker(self, workdir, queue, **more)
        try:
            yield worker
        finally:
            worker.stop()

    def _answers(self) -> bool:
        async def connect() -> None:
            client = await Client.connect(self.address)
            async for _ in client.list_workflows(page_size=1):  # the namespace is made last
                break

        try:
            asyncio.run(connect())
        except (RuntimeError, RPCError):
            return False
        return True


class Worker:
    """A `batchimport worker`."""

    def __init__(self, server: TemporalServer, workdir: Workdir, queue: str, **more: str) -> None:
        arguments = ("worker", "--task-queue", queue, "--max-parallel", "4")
        # What Python itself reads acts on a process that is started anew alone.
        start = workdir.start_anew if "PYTHONPATH" in more else workdir.start
        self.process = start(*arguments, **server.environment(), **more)
        assert self.process.stderr
        assert self.process.stdout
        self.lines: list[str] = []
        self.lines.append(self.process.stderr.readline())
        assert "serving" in self.lines[0], self.lines[0] + self.process.stderr.read()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.lines.extend(self.process.stderr)

    def is_stopped(self) -> bool:
        """Say whether the kernel holds it after SIGSTOP."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        return re.sub(r".*\) ", "", status).startswith("T")

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it gently, if it still runs; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def new_name(kind: str) -> str:
    """Return a name of a task queue or a job that no other test uses."""
    return f"{kind}-{os.getpid()}-{next(_numbers)}"


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS_TO_START) -> None:
    """Wait for something that another process will do; fail if it does not."""
    never = threading.Event()
    for _ in range(int(seconds * 20)):
        if condition():
            return
        never.wait(0.05)
    raise AssertionError(f"did not happen in {seconds} s")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
