"""A worker: serves the workflow and its activities until it is told to stop."""

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

from batchimport.engines.signals import draining_signals
from batchimport.engines.temporal.activities import Activities, WorkerReader
from batchimport.engines.temporal.connection import check_namespace, connect
from batchimport.engines.temporal.jobs import OpenJobs
from batchimport.engines.temporal.workflow import ImportJob
from batchimport.system import LoadReader, refuse_few_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporalio.client import Client

    from batchimport.model import TemporalOptions

GRACE_SECONDS = 30.0
IDLE_SECONDS = 30.0
"""A job that nobody asked for in this time is closed: a DuckDB file is then free for others."""
PURE_MODULES = (
    "batchimport.engines.temporal.failures",
    "batchimport.engines.temporal.fleet",
    "batchimport.engines.temporal.messages",
    "batchimport.errors",
    "batchimport.policy.events",
    "batchimport.model",
    "batchimport.policy.sizing",
    "batchimport.policy.stop_rules",
    "batchimport.policy.progress",
)
"""What the workflow imports. The sandbox must load none of them anew: a class loaded twice is two
classes, and an error would not be an instance of its own class."""


async def serve(
    options: TemporalOptions,
    max_parallel: int,
    max_memory_bytes: int | None,
    tell: Callable[[str], None],
) -> None:
    """Serve a task queue until SIGINT or SIGTERM; chunks in flight then end first.

    Args:
        max_parallel: Chunks at once, at most.
        max_memory_bytes: Above it, the job goes one chunk at a time; None for 75 % of what is free.
        tell: Called with what an operator should read.

    Raises:
        FatalError: If the server cannot be reached, or too few files may be opened.
    """
    refuse_few_files()
    activity.logger.setLevel(logging.ERROR)  # errors are told in a line, without a traceback
    client = await connect(options)
    await check_namespace(client)
    jobs = OpenJobs()
    address = client.service_client.config.target_host
    with ThreadPoolExecutor(max_parallel + 4, thread_name_prefix="chunk") as pool:
        reader = WorkerReader(LoadReader(max_memory_bytes), max_parallel)
        activities = Activities(jobs, pool, reader, address, tell)
        worker = make_worker(client, options.task_queue, activities, max_parallel)
        stopping = asyncio.Event()

        def stop(reason: str) -> None:
            tell(f"{reason}: finishing the chunks in flight; again to leave at once")
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
    tell("stopped")


def make_worker(
    client: Client, task_queue: str, activities: Activities, max_parallel: int
) -> Worker:
    """Return a worker; how much of it is used, the workflow decides from the readings it sends."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[ImportJob],
        workflow_runner=sandbox(),
        activities=activities.all(),
        max_concurrent_activities=max_parallel,
        graceful_shutdown_timeout=timedelta(seconds=GRACE_SECONDS),
        # Says which version did what; tasks go to any version, since replay tests keep them alike.
        deployment_config=WorkerDeploymentConfig(
            WorkerDeploymentVersion("batchimport", version("batchimport")),
            use_worker_versioning=False,
        ),
    )


def sandbox() -> SandboxedWorkflowRunner:
    """Return what runs the workflow: away from the clock, the disk and the network."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PURE_MODULES)
    return SandboxedWorkflowRunner(restrictions=restrictions)
