"""Record the histories that `tests/engine/test_temporal_replay.py` replays.

    mkdir /srv/data && python -m tests.helpers.record_histories /srv/data tests/fixtures/temporal

The first directory shows in the recordings, so it should be one that says nothing of this machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.cli import Workdir
from tests.helpers.temporal import TemporalServer, wait_until

QUEUE = "batchimport"
SCHEMA = {"properties": {"id": {"type": "integer"}}, "required": ["id"]}
FAILS_ONCE = {"BATCHIMPORT_FAILPOINTS": "before-store=error@2"}


class Recorder:
    """Runs jobs on a server that soon continues as new, and keeps what it remembers."""

    def __init__(self, server: TemporalServer, workdir: Workdir, target: Path) -> None:
        self._server, self._workdir, self._target = server, workdir, target

    def source(self, records: list[dict[str, Any]]) -> None:
        self._workdir.write("s.json", json.dumps(SCHEMA))
        self._workdir.lines("users.jsonl", records)

    def start(self, name: str, *options: str) -> Any:
        return self._workdir.start(
            *("run", "users.jsonl", "--schema", "s.json", "--job-id", name),
            *("--to", f"sqlite:///{name}.db", "--engine", "temporal", "--retry-initial", "0.1"),
            *options,
            **self._server.environment(),
        )

    def run(self, name: str, *options: str) -> None:
        self.start(name, *options).communicate()
        self.save(name)

    def cancel(self, name: str, *options: str) -> None:
        process = self.start(name, *options)
        wait_until(lambda: self._processed(name) > 0)
        self._server.cli("workflow", "signal", "--workflow-id", name, "--name", "pause")
        self._server.cli("workflow", "cancel", "--workflow-id", name)
        process.communicate()
        self.save(name)

    def save(self, job_id: str, name: str = "", *selection: str) -> None:
        text = self._server.cli(
            "workflow", "show", "--workflow-id", job_id, "--output", "json", *selection
        )
        history = _without_traces(json.loads(text))
        body = json.dumps(history, separators=(",", ":")) + "\n"
        (self._target / f"{name or job_id}.json").write_text(body, encoding="utf-8")

    def save_first_run(self, job_id: str, name: str) -> None:
        begin = self._server.history(job_id)["events"][0]["workflowExecutionStartedEventAttributes"]
        self.save(job_id, name, "--run-id", begin["firstExecutionRunId"])

    def _processed(self, job_id: str) -> int:
        if not self._server.knows(job_id):
            return 0
        progress = self._server.ask(lambda handle: handle.query("progress"), job_id)
        return int(progress["processed_items"])


def _without_traces(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "" if key == "stackTrace" else _without_traces(each) for key, each in value.items()
        }
    return [_without_traces(each) for each in value] if isinstance(value, list) else value


def record(workdir: Workdir, target: Path) -> None:
    """Record one history of each way that a job can go."""
    with tempfile.TemporaryDirectory() as state:
        server = TemporalServer(Path(state), events=60)
        recorder = Recorder(server, workdir, target)
        try:
            with server.worker(workdir, QUEUE):
                recorder.source([{"id": at if at % 9 else "bad"} for at in range(200)])
                recorder.run("whole", "--min-chunk-size", "20", "--max-chunk-size", "40")
                recorder.run("renewed", "--chunk-size", "10")
                recorder.save_first_run("renewed", "renewing")
                recorder.source([{"id": at} for at in range(500)])
                recorder.cancel("cancelled", "--chunk-size", "10", "--max-parallel", "2")
            recorder.source([{"id": at} for at in range(60)])
            with server.worker(workdir, QUEUE, **FAILS_ONCE):
                recorder.run("failed", "--chunk-size", "10", "--max-attempts", "1")
            with server.worker(workdir, QUEUE, **FAILS_ONCE):
                recorder.run("retried", "--chunk-size", "10", "--adaptive", "load")
        finally:
            server.kill()


if __name__ == "__main__":
    record(Workdir(Path(sys.argv[1])), Path(sys.argv[2]))
