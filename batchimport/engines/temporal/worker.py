"""A worker: serves the workflow and its activities until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from batchimport.display.telemetry import open_telemetry
from batchimport.engines.signals import draining_signals
from batchimport.engines.temporal.activities import Activities, WorkerReader
from batchimport.engines.temporal.connection import check_namespace, connect
from batchimport.engines.temporal.open_jobs import OpenJobs
from batchimport.engines.temporal.workflow import ImportJob
from batchimport.system import LoadReader, refuse_few_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporalio.client import Client

    from batchimport.model import TemporalOptions

GRACE_SECONDS = 30.0
IDLE_SECONDS = 30.0
"""A job that is idle for longer is closed, so that other programs can open a DuckDB file."""
PURE_MODULES = (
    "batchimport.engines.temporal.messages",
    "batchimport.errors",
    "batchimport.policy.events",
    "batchimport.model",
    "batchimport.policy.sizing",
    "batchimport.policy.stop_rules",
    "batchimport.policy.progress",
)
"""What the workflow imports. The sandbox must not load them a second time: a class that is loaded
twice is two classes, and an error would not be an instance of its own class."""


async def serve(
    options: TemporalOptions,
    max_parallel: int,
    max_memory_bytes: int | None,
    tell: Callable[[str], None],
) -> None:
    """Serve a task queue until SIGINT or SIGTERM, then finish the chunks in flight.

    Args:
        max_parallel: Maximum number of chunks at once.
        max_memory_bytes: Above this, a job runs one chunk at a time; None for 75 % of free memory.
        tell: Called with each line that an operator should read.

    Raises:
        FatalError: If the server cannot be reached, or too few files may be opened.
    """
    refuse_few_files()
    activity.logger.setLevel(logging.ERROR)  # an error is one line by `tell`, without traceback
    client = await connect(options)
    await check_namespace(client)
    jobs = OpenJobs(tell=tell, max_memory_bytes=max_memory_bytes)
    address = client.service_client.config.target_host
    with ThreadPoolExecutor(max_parallel + 4, thread_name_prefix="chunk") as pool:
        reader = WorkerReader(LoadReader(max_memory_bytes), max_parallel)
        telemetry = open_telemetry(tell)
        activities = Activities(jobs, pool, reader, address, tell, telemetry)
        worker = make_worker(client, options.task_queue, activities, max_parallel)
        stopping = asyncio.Event()

        def stop(reason: str) -> None:
            tell(f"{reason}: finishing the chunks in flight; signal again to leave at once")
            jobs.stop_waiting()
            stopping.set()

        with draining_signals(stop):
            async with worker:
                tell(
                    f"serving task queue {options.task_queue} of namespace {client.namespace} at "
                    f"{address}, {max_parallel} chunks at once"
                )
                while not stopping.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), IDLE_SECONDS)
                    await asyncio.to_thread(jobs.close, IDLE_SECONDS)
        jobs.close()
    if telemetry is not None:
        await asyncio.to_thread(telemetry.close)
    tell("stopped")


def make_worker(
    client: Client, task_queue: str, activities: Activities, max_parallel: int
) -> Worker:
    """Return a worker; the workflow decides from its readings how many chunks it is given."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[ImportJob],
        workflow_runner=sandbox(),
        activities=activities.all(),
        max_concurrent_activities=max_parallel,
        graceful_shutdown_timeout=timedelta(seconds=GRACE_SECONDS),
        # Shows in the history which version did what. Tasks go to workers of any version: replay
        # tests make sure that each follows the histories of earlier ones.
        deployment_config=WorkerDeploymentConfig(
            WorkerDeploymentVersion("batchimport", version("batchimport")),
            use_worker_versioning=False,
        ),
    )


def sandbox() -> SandboxedWorkflowRunner:
    """Return a runner that keeps the workflow from the clock, the disk and the network."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PURE_MODULES)
    return SandboxedWorkflowRunner(restrictions=restrictions)
