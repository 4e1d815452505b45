"""Many machines without a shared disk: source and destination are object stores, or a server."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import obstore
import pytest

from batchimport.importer import import_file
from batchimport.jobs.identify import Request
from batchimport.model import Job, RunOptions, TemporalOptions
from batchimport.policy.events import Advanced, Event
from batchimport.state.directory import StateDirectory
from tests.engine.test_temporal import SCHEMA, ids
from tests.helpers.cli import Workdir
from tests.helpers.destinations import ObjectStore
from tests.helpers.postgres import PostgresServer
from tests.helpers.stores import ADAPTERS
from tests.helpers.temporal import TemporalServer, new_name
from tests.helpers.web import shared_s3

RECORDS = 300
KILLS = ("after-commit=kill@2", "before-commit=kill@3")


@pytest.mark.slow
def test_workers_that_share_no_disk(tmp_path: Path, postgres: PostgresServer) -> None:
    """Four in directories of their own, two of them killed, and the server as well: all is there once."""
    s3, queue, server = shared_s3(), new_name("queue"), TemporalServer(tmp_path)
    lines = "".join(json.dumps({"id": at}) + "\n" for at in range(RECORDS))
    obstore.put(s3.store(), f"{queue}/u.jsonl", lines.encode())
    source = f"s3://{s3.bucket}/{queue}/u.jsonl"
    restart = threading.Thread(target=server.start)

    def watch(event: Event) -> None:
        if isinstance(event, Advanced) and event.totals.processed and not restart.ident:
            server.kill()
            restart.start()

    def workdir(name: str) -> Workdir:
        (tmp_path / name).mkdir(exist_ok=True)
        return Workdir(tmp_path / name)

    def run(destination: str) -> None:
        with ExitStack() as stack:
            doomed = [
                stack.enter_context(
                    server.worker(workdir(kill), queue, BATCHIMPORT_FAILPOINTS=kill)
                )
                for kill in KILLS
            ]
            outcome = import_file(
                Request(
                    Job((source,), destination, "u", schema=SCHEMA),
                    RunOptions(chunk_size=10, retry_initial_seconds=0.1),
                    StateDirectory(tmp_path / "state"),
                    job_id=new_name("job"),
                    temporal=TemporalOptions(
                        server.address, task_queue=queue, heartbeat_seconds=1.0
                    ),
                ),
                watch,
            )
            assert outcome.exit_code == 0
            assert [each.process.wait(30) for each in doomed] == [-signal.SIGKILL] * 2

    try:
        with server.worker(workdir("a"), queue), server.worker(workdir("b"), queue):
            address = ADAPTERS["s3"].new_address(tmp_path, lambda: postgres)
            run(address)
            assert restart.ident, "the server was killed"
            place = ObjectStore(address)
            assert sorted(row[0] for row in place.rows("u")) == list(range(RECORDS))
            assert place.accounts() == (RECORDS, 0)
            address = postgres.new_database()
            run(address)
            assert ids(address) == list(range(RECORDS))
    finally:
        server.kill()
