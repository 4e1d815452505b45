"""`worker`: serve chunks of Temporal jobs until told to stop."""

from __future__ import annotations

import asyncio
import os

import typer

from batchimport.cli import options as o
from batchimport.display.escape import safe
from batchimport.model import TemporalOptions


def worker(
    *,
    task_queue: o.TaskQueue = o.TASK_QUEUE,
    max_parallel: o.WorkerParallel = None,
    max_memory: o.MaxMemory = None,
    temporal_address: o.TemporalAddress = None,
    temporal_namespace: o.TemporalNamespace = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Serve chunks of Temporal jobs, on as many hosts as you like; SIGTERM ends it gently."""
    del verbose  # read by `main`
    from batchimport.engines.temporal.worker import serve  # noqa: PLC0415 - an extra

    def tell(text: str) -> None:
        if not quiet:
            typer.echo(safe(text, 400), err=True)

    asyncio.run(
        serve(
            TemporalOptions(temporal_address, temporal_namespace, task_queue),
            max_parallel or (os.cpu_count() or 1) + 2,
            o.parse_size(max_memory, "--max-memory") if max_memory else None,
            tell,
        )
    )
