"""The Temporal engine against a real server: the same end as a local run, whoever is killed."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from psycopg.conninfo import conninfo_to_dict

from batchimport.importer import import_file
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.model import Job, Progress, RunOptions, TemporalOptions
from batchimport.policy.events import Advanced, Event
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import ROOT, SAMPLE, Ended, Workdir
from tests.helpers.forked import Started
from tests.helpers.postgres import PostgresServer, fetch
from tests.helpers.proxy import Proxy, Weather
from tests.helpers.tables import content, query
from tests.helpers.temporal import TemporalServer, new_name, wait_until

SCHEMA = {"properties": {"id": {"type": "integer"}}, "required": ["id"]}
ON_TEMPORAL = ("--engine", "temporal")


class Site:
    """A directory, a server, a task queue, and the id of a job that no other test uses."""

    def __init__(self, workdir: Workdir, server: TemporalServer, queue: str) -> None:
        self.workdir, self.server, self.queue = workdir, server, queue
        self.job = new_name("job")
        self.options = (*ON_TEMPORAL, "--task-queue", self.queue)

    def worker(self, **more: str) -> Any:
        return self.server.worker(self.workdir, self.queue, **more)

    def call(self, *arguments: object, **more: str) -> Ended:
        return self.workdir.call(*arguments, **self.server.environment(), **more)

    def start(self, *arguments: object, **more: str) -> Started:
        return self.workdir.start(*arguments, **self.server.environment(), **more)

    def numbered(self, count: int) -> Path:
        self.workdir.write("s.json", json.dumps(SCHEMA))
        return self.workdir.lines("u.jsonl", [{"id": at} for at in range(count)])

    def run_here(
        self,
        destination: str,
        observer: Callable[[Event], None] = lambda _: None,
        *,
        heartbeat_seconds: float = 10.0,
        **facts: Any,
    ) -> Outcome:
        """Run a job from this process."""
        source = str(self.workdir.path / "u.jsonl")
        return import_file(
            Request(
                Job((source,), destination, "u", schema=SCHEMA),
                RunOptions(**{"chunk_size": 10, "retry_initial_seconds": 0.1} | facts),
                StateDirectory(self.workdir.path / "state"),
                job_id=self.job,
                temporal=TemporalOptions(
                    self.server.address,
                    task_queue=self.queue,
                    heartbeat_seconds=heartbeat_seconds,
                ),
            ),
            observer,
        )

    def run_command(self, *more: object) -> tuple[object, ...]:
        """Return the arguments that import the numbered records as this test's job."""
        return ("run", "u.jsonl", "--schema", "s.json", "--job-id", self.job, *more)

    def terminate(self) -> None:
        """End the workflow at once, as `temporal workflow terminate` does."""
        self.server.cli("workflow", "terminate", "--workflow-id", self.job)

    def progress(self) -> dict[str, Any]:
        """Return what the workflow says; nothing while there is none."""
        if not self.server.knows(self.job):
            return {"processed_items": 0, "current_stage": "", "in_flight": -1}
        return dict(self.server.ask(lambda handle: handle.query("progress"), self.job))


@contextmanager
def isolated(workdir: Workdir, server: TemporalServer, queue: str) -> Iterator[Site]:
    """Leave no workflow running, however the test ends."""
    site = Site(workdir, server, queue)
    try:
        yield site
    finally:
        if server.is_running(site.job):
            site.terminate()


@pytest.fixture
def site(workdir: Workdir, temporal: TemporalServer) -> Iterator[Site]:
    """Without a worker."""
    with isolated(workdir, temporal, new_name("queue")) as site:
        yield site


@pytest.fixture(scope="module")
def served(temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A task queue with a worker that nobody kills."""
    queue = new_name("queue")
    with temporal.worker(Workdir(tmp_path_factory.mktemp("worker")), queue):
        yield queue


@pytest.fixture
def busy(workdir: Workdir, temporal: TemporalServer, served: str) -> Iterator[Site]:
    """With a worker."""
    with isolated(workdir, temporal, served) as site:
        yield site


def ids(address: str) -> list[int]:
    return [row[0] for row in fetch(address, "SELECT id FROM u ORDER BY id")]


def test_the_same_end_as_a_local_run(busy: Site) -> None:
    """The same rows, rejects and numbers, whatever worker a chunk went to."""
    sample = (SAMPLE / "users.jsonl", "--schema", SAMPLE / "users.schema.json", "--key", "id")
    chunks = ("--chunk-size", 200, "--json")
    local = busy.call("run", *sample, *chunks, "--to", "sqlite:///local.db").summary
    with busy.worker():  # another one
        ended = busy.call(
            *("run", *sample, *chunks, "--to", "sqlite:///remote.db", *busy.options),
            *("--job-id", busy.job),
        )
    remote = ended.summary
    assert ended.code == 3
    assert f"job {busy.job}: into users" in ended.err
    paths = busy.workdir.path / "local.db", busy.workdir.path / "remote.db"
    assert content(paths[0], "users") == content(paths[1], "users")
    assert busy.workdir.rejects(local) == busy.workdir.rejects(remote)
    for name in ("total_items", "successful", "failed", "filtered", "rejects_by_code", "status"):
        assert remote[name] == local[name]
    assert (remote["engine"], remote["chunks"]["committed"]) == ("temporal", 15)
    assert list(remote) == list(local)
    rejects = busy.workdir.rejects(remote)
    busy.workdir.lines(
        "edited.jsonl", [{"record": each["record"], "raw": None} for each in rejects]
    )
    replayed = busy.call("replay", busy.job, "--from", "edited.jsonl", "--json")
    assert (replayed.code, replayed.summary["filtered"]) == (0, len(rejects))
    assert (replayed.summary["status"], replayed.summary["engine"]) == ("completed", "local")


def test_columns_and_values_are_those_of_a_local_run(busy: Site) -> None:
    """Renamed, converted and added by the workers; the starter says what was guessed."""
    lines = (f"{at};{at},5;{at % 28 + 1}.12.2023;x\n" for at in range(60))
    busy.workdir.write("d.csv", "id;wert;datum;z\n" + "".join(lines))
    options = ("--rename", "wert=value", "--columns", "datum,value,id", "--add-column", "no=record")
    run = ("run", "d.csv", *options, "--chunk-size", 10, "--json", "--table", "t")
    busy.call(*run, "--to", "sqlite:///local.db")
    ended = busy.call(*run, "--to", "sqlite:///remote.db", *busy.options, "--job-id", busy.job)
    assert ended.code == 0
    assert "column datum: dates, written %d.%m.%Y" in ended.err
    assert "  value  number     60 decimals" in ended.err
    local, remote = (
        query(busy.workdir.path / f"{name}.db", "SELECT * FROM t ORDER BY no")
        for name in ("local", "remote")
    )
    assert local == remote
    assert local[1] == ("2023-12-02", 1.5, 1, 1)


def test_records_whose_parents_come_later(busy: Site) -> None:
    """They are stored at the end of the job, and counted there; one without a parent stays a reject."""
    path = busy.workdir.path / "u.db"
    query(path, "CREATE TABLE u (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES u (id))")
    parents = [*range(1, 6), None, 7]
    busy.workdir.lines("u.jsonl", [{"id": at, "parent": own} for at, own in enumerate(parents)])
    run = ("run", "u.jsonl", "--job-id", busy.job, "--chunk-size", 2, "--json")
    ended = busy.call(*run, *busy.options)
    counts = [ended.summary[name] for name in ("successful", "failed", "inserted")]
    assert (ended.code, counts) == (3, [6, 1, 6]), ended
    assert query(path, "SELECT count(*) FROM u") == [(6,)]
    status = busy.call("status", busy.job, "--json").summary
    assert (status["successful_items"], status["failed_items"]) == (6, 1)


def test_a_worker_that_is_killed_loses_nothing(site: Site, postgres: PostgresServer) -> None:
    """Its chunks come back to another worker after the heartbeat timeout."""
    site.numbered(400)
    address = postgres.new_database()
    with (
        site.worker(),
        site.worker(BATCHIMPORT_FAILPOINTS="after-commit=kill@2") as doomed,
    ):
        outcome = site.run_here(address, heartbeat_seconds=1.0)
        assert doomed.process.wait(30) == -signal.SIGKILL
    assert outcome.exit_code == 0
    assert outcome.summary.chunks.retried > 0
    assert ids(address) == list(range(400))


def test_workers_wait_for_a_destination_that_is_away(site: Site, postgres: PostgresServer) -> None:
    """A worker says so, its chunk loses no attempt, and the job tells how long it waited."""
    site.numbered(200)
    address = postgres.new_database()
    with Proxy(postgres.socket, Weather()) as proxy, ThreadPoolExecutor(1) as pool:
        far = proxy.address(str(conninfo_to_dict(address)["dbname"]))
        with site.worker(BATCHIMPORT_FAILPOINTS="before-commit=stop@3") as worker:
            run = pool.submit(site.run_here, far, max_attempts=1)
            wait_until(worker.is_stopped)
            proxy.go_away()
            worker.go_on()
            wait_until(lambda: "waiting for PostgreSQL" in "".join(worker.lines))
            proxy.weather.is_away = False
            outcome = run.result(60)
            assert "is back" in "".join(worker.lines)
    assert outcome.exit_code == 0
    assert outcome.summary.chunks.retried == 0
    assert outcome.summary.waited_seconds > 2
    assert ids(address) == list(range(200))


def test_a_worker_that_wakes_up_is_harmless(site: Site, postgres: PostgresServer) -> None:
    """It was stopped in the middle of a chunk, which another worker did meanwhile."""
    site.numbered(200)
    address = postgres.new_database()
    with site.worker(), site.worker(BATCHIMPORT_FAILPOINTS="before-store=stop@2") as zombie:
        outcome = site.run_here(address, heartbeat_seconds=1.0)
        assert zombie.is_stopped()
        zombie.go_on()
        assert zombie.stop() == 0
        assert "Traceback" not in "".join(zombie.lines)
    assert outcome.exit_code == 0
    assert ids(address) == list(range(200))
    counted = fetch(address, "SELECT sum(records), count(*) FROM _batchimport_chunks")
    assert counted == [(200, 20)]


def test_a_long_job_continues_as_new(busy: Site, postgres: PostgresServer) -> None:
    """Its history stays short, its account goes on."""
    busy.numbered(900)
    address = postgres.new_database()
    outcome = busy.run_here(address, chunk_size=10)
    first = busy.server.history(busy.job)["events"][0]["workflowExecutionStartedEventAttributes"]
    assert first["continuedExecutionRunId"]
    assert (outcome.exit_code, outcome.summary.total_processed) == (0, 900)
    assert outcome.summary.chunks.committed == 90
    assert ids(address) == list(range(900))


@pytest.mark.slow
def test_a_history_has_room_for_many_chunks(
    workdir: Workdir, postgres: PostgresServer, tmp_path: Path
) -> None:
    """2,000 chunks with a server's default settings: far below 51,200 events and 50 MB a run."""
    server = TemporalServer(tmp_path, events=None)
    site = Site(workdir, server, new_name("queue"))
    site.numbered(20_000)
    address = postgres.new_database()
    try:
        with site.worker():
            outcome = site.run_here(address)
        history = server.history(site.job)
    finally:
        server.kill()
    assert outcome.summary.chunks.committed == 2000
    assert ids(address) == list(range(20_000))
    assert len(history["events"]) < 5000
    assert len(json.dumps(history)) < 5_000_000


@pytest.mark.slow
def test_the_server_is_killed_and_comes_back(
    workdir: Workdir, postgres: PostgresServer, tmp_path: Path
) -> None:
    """With its database file; starter and worker wait, and the job goes on."""
    server = TemporalServer(tmp_path)
    site = Site(workdir, server, new_name("queue"))
    site.numbered(600)
    address = postgres.new_database()
    half_way = threading.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Advanced) and event.totals.processed and not half_way.is_set():
            half_way.set()
            server.kill()
            server_back.start()

    server_back = threading.Thread(target=server.start)
    try:
        with site.worker():
            outcome = site.run_here(address, watch, chunk_size=5, max_parallel=2)
    finally:
        server.kill()
    assert half_way.is_set()
    assert outcome.exit_code == 0
    assert ids(address) == list(range(600))


def test_progress_is_a_plain_query(busy: Site) -> None:
    """`temporal workflow query` shows what `status --json` shows besides the job's history."""
    busy.numbered(100)
    started = busy.call(*busy.run_command("--json"), *busy.options, "--detach")
    assert (started.code, started.summary["status"]) == (0, "running")
    shown = busy.server.cli(
        *("workflow", "query", "--workflow-id", busy.job, "--type", "progress", "--output", "json")
    )
    answer = json.loads(shown)["queryResult"]
    status = json.loads(busy.call("status", busy.job, "--json").out)
    names = {each.name for each in fields(Progress)}
    assert set(answer[0] if isinstance(answer, list) else answer) == names
    assert names < set(status)
    assert busy.call("resume", busy.job, "--quiet").code == 0
    from_elsewhere = (*ON_TEMPORAL, "--state-dir", "elsewhere", "--json")
    there = json.loads(busy.call("status", busy.job, *from_elsewhere).out)
    here = json.loads(busy.call("status", busy.job, "--json").out)
    assert _facts(there, "status", "processed_items") == ("completed", 100)
    assert here["processed_items"] == 100
    listed = json.loads(busy.call("jobs", *from_elsewhere).out)
    assert [each["status"] for each in listed if each["job_id"] == busy.job] == ["completed"]


def test_a_job_without_a_worker_waits_for_one(site: Site) -> None:
    """It runs, and is not called failed; a watcher follows it to its end; a worker logs its chunks."""
    site.numbered(40)
    run = site.run_command("--chunk-size", 10)
    assert site.call(*run, *site.options, "--detach").code == 0
    known = json.loads(site.call("status", site.job, *ON_TEMPORAL, "--json").out)
    assert _facts(known, "status", "current_stage") == ("running", "waiting for a worker")
    assert known["next_command"] == f"batchimport status {site.job} --engine temporal --watch"
    listed = json.loads(site.call("jobs", "--json").out)
    assert [each["current_stage"] for each in listed] == ["waiting for a worker"]
    assert "no worker" in site.call("jobs").out
    elsewhere = (*ON_TEMPORAL, "--state-dir", "elsewhere")
    watcher = site.start("status", site.job, "--watch", *elsewhere)
    with site.worker() as worker:
        out, err = watcher.communicate(timeout=100)
    assert watcher.returncode == 0, err
    assert f"{site.job}  completed" in out
    assert sum("committed in" in line for line in worker.lines) == 4


def test_no_password_is_in_the_history(site: Site, postgres: PostgresServer) -> None:
    """Workers find it in their environment."""
    site.numbered(50)
    address = postgres.new_database()
    secret = address.replace("postgres:@", "postgres:canary-7431@")
    assert "canary" in secret
    with site.worker(BATCHIMPORT_TO=secret):
        ended = site.call(
            *site.run_command("--table", "u"),
            *site.options,
            BATCHIMPORT_TO=secret,
        )
    assert ended.code == 0
    assert ids(address) == list(range(50))
    assert "canary-7431" not in json.dumps(site.server.history(site.job))
    assert "canary-7431" not in ended.out + ended.err


def test_content_that_the_table_has_is_refused(site: Site) -> None:
    """By the starter, before a workflow begins; by the worker, where only that one looks."""
    site.numbered(20)
    assert site.call("run", "u.jsonl", "--schema", "s.json").code == 0
    refused = site.call(*site.run_command(), *site.options)
    assert (refused.code, "is in the table already" in refused.err) == (6, True), refused
    with site.worker():
        refused = site.call(*site.run_command("--restart"), *site.options)
    assert (refused.code, "is in the table already" in refused.err) == (6, True), refused
    assert "worker on" in refused.err


def test_begun_here_and_finished_there(site: Site) -> None:
    """And the other way round: both engines continue from the ledger."""
    site.numbered(300)
    run = site.run_command("--chunk-size", 10, "--json")
    killed = site.call(*run, BATCHIMPORT_FAILPOINTS="after-commit=kill@5")
    assert killed.code == -signal.SIGKILL
    with site.worker(BATCHIMPORT_FAILPOINTS="after-commit=kill@5") as worker:
        process = site.start(*run, *site.options)
        worker.process.wait(60)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 5
        assert json.loads(out)["resume_command"] == f"batchimport resume {site.job}"
    refused = site.call(*run)
    assert refused.code == 6
    assert "another program is running this job" in refused.err
    assert site.call("replay", site.job, "--to", "sqlite:///u.db").code == 6
    site.terminate()
    resumed = site.call(*run)
    assert (resumed.code, resumed.summary["this_run"]["processed"]) == (0, 200)
    assert query(site.workdir.path / "u.db", "SELECT count(*), sum(id) FROM u") == [
        (300, sum(range(300)))
    ]


def test_what_was_added_is_imported_there(busy: Site) -> None:
    """By the job that imported the rest here."""
    path = busy.numbered(30)
    run = busy.run_command("--json")
    assert busy.call(*run).code == 0
    with path.open("a") as stream:
        stream.write('{"id": 30}\n')
    grown = busy.call(*run, *busy.options, "--if-source-changed", "append").summary
    assert (grown["status"], grown["this_run"]["processed"]) == ("completed", 1)
    assert query(busy.workdir.path / "u.db", "SELECT count(*), max(id) FROM u") == [(31, 30)]


def test_a_job_that_runs_here_is_refused_there(site: Site) -> None:
    """Before anything is sent to the server."""
    site.numbered(100)
    run = site.run_command("--chunk-size", 10)
    here = site.start(*run, BATCHIMPORT_FAILPOINTS="before-store=stop@3")
    try:
        wait_until(lambda: _is_stopped(here.pid))
        there = site.call(*run, *site.options)
    finally:
        here.kill()
        here.communicate()
    assert there.code == 6


def test_pause_and_resume_are_signals(busy: Site) -> None:
    """No chunk is started between them."""
    busy.numbered(2000)
    busy.call(*busy.run_command("--chunk-size", 5), *busy.options, "--detach")
    signal_ = ("workflow", "signal", "--workflow-id", busy.job, "--name")
    busy.server.cli(*signal_, "pause")
    wait_until(lambda: _facts(busy.progress(), "current_stage", "in_flight") == ("paused", 0))
    paused = busy.progress()
    assert paused["processed_items"] < 2000
    busy.server.cli(*signal_, "resume")
    wait_until(lambda: busy.progress()["processed_items"] > paused["processed_items"])


def test_a_cancelled_job_drains(busy: Site) -> None:
    """What is in flight is committed, and the rest is left for the next run."""
    busy.numbered(2000)
    process = busy.start(*busy.run_command("--chunk-size", 5, "--json"), *busy.options)
    wait_until(lambda: busy.progress()["processed_items"] > 0)
    busy.server.cli("workflow", "cancel", "--workflow-id", busy.job)
    out, _ = process.communicate(timeout=60)
    summary = json.loads(out)
    assert (process.returncode, summary["status"]) == (5, "interrupted")
    assert 0 < summary["total_processed"] < 2000
    assert busy.call(*busy.run_command("--chunk-size", 1000), "--engine", "local").code == 0
    assert query(busy.workdir.path / "u.db", "SELECT count(*) FROM u") == [(2000,)]


def test_too_many_rejects_stop_the_workflow(busy: Site, postgres: PostgresServer) -> None:
    """The same rule and the same exit code as for a local run."""
    busy.workdir.lines("u.jsonl", [{"id": "x"}] * 200)
    outcome = busy.run_here(postgres.new_database(), max_errors=25)
    assert (outcome.exit_code, outcome.summary.status) == (4, "stopped")
    assert 25 < outcome.summary.failed < 200
    assert outcome.examples


def test_hosts_with_one_processor_store_chunks_in_order(site: Site) -> None:
    """A destination that one writer fills best: each chunk waits for the one before it."""
    site.numbered(50)
    site.workdir.write("sitecustomize.py", "import os\nos.cpu_count = lambda: 1\n")
    one_processor = {"PYTHONPATH": f"{site.workdir.path}:{ROOT}"}
    with site.worker(**one_processor), site.worker(**one_processor):
        ended = site.call(
            *site.run_command("--to", "parquet:///out", "--chunk-size", 10, "--json"),
            *site.options,
            **one_processor,
        )
    assert (ended.code, ended.summary["successful"]) == (0, 50), ended.err
    assert ended.summary["chunks"] == {"committed": 5, "retried": 0, "failed": 0, "bisected": 0}
    stored = pl.read_parquet(site.workdir.path / "out").get_column("id")
    assert stored.sort().to_list() == list(range(50))


def test_chunks_that_were_given_up_fail_the_workflow(site: Site) -> None:
    """Exit 1 with the last error, as in a local run; the next run imports what is missing."""
    site.numbered(60)
    run = ("run", "u.jsonl", "--schema", "s.json", "--chunk-size", 10, "--job-id", "g-1", "--json")
    with site.worker(BATCHIMPORT_FAILPOINTS="before-store=error@2"):
        ended = site.call(*run, *site.options, "--max-attempts", 1, "--exit-zero-on-rejects")
    assert (ended.code, ended.summary["status"]) == (1, "failed")
    assert ended.summary["error"].startswith("1 chunk was given up; the last error: ")
    assert "failpoint before-store" in ended.summary["error"]
    assert ended.summary["error"] in ended.err
    assert site.call(*run).summary["this_run"]["processed"] == 10


def test_a_worker_without_the_source_says_so(site: Site) -> None:
    """The job fails with the name of the host; the workflow is shown as failed."""
    path = site.numbered(10)
    process = site.start(*site.run_command(), *site.options)
    wait_until(lambda: site.server.knows(site.job))
    path.rename(site.workdir.path / "elsewhere.jsonl")
    with site.worker():
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: worker on " in err
    assert "u.jsonl: no such file" in err
    assert "FAILED" in site.server.cli("workflow", "describe", "--workflow-id", site.job).upper()


def test_without_a_worker_the_starter_says_what_to_do(site: Site) -> None:
    """And may leave: the job waits."""
    site.numbered(10)
    process = site.start(*site.run_command(), *site.options)
    line = process.stderr.readline()
    assert f"start one with `batchimport worker --task-queue {site.queue}`" in line
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "the job goes on" in err
    assert site.server.is_running(site.job)


def test_a_namespace_that_is_not_there_is_one_line(site: Site) -> None:
    """Said before a worker begins to serve."""
    ended = site.call("worker", "--temporal-namespace", "nowhere")
    assert ended.code == 1
    assert "Namespace nowhere is not found" in ended.err
    assert len(ended.err.splitlines()) == 2


def test_a_server_that_is_not_there_is_one_line(workdir: Workdir) -> None:
    """For the starter and for the worker."""
    workdir.lines("u.jsonl", [{"id": 1}])
    for command in (("run", "u.jsonl", *ON_TEMPORAL), ("worker",)):
        ended = workdir.call(*command, "--temporal-address", "127.0.0.1:1")
        assert ended.code == 1
        assert "127.0.0.1:1: the Temporal server cannot be reached" in ended.err
        assert "hint: " in ended.err


def _facts(progress: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(progress[name] for name in names)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "T"
