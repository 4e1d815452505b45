"""`worker`: import chunks of Temporal jobs until it is stopped."""

import os
from typing import Annotated

import typer

from batchimport.cli import options as o
from batchimport.display.escape import safe
from batchimport.model import RunOptions, TemporalOptions


def worker(
    *,
    server: o.Server,
    max_parallel: Annotated[
        int | None,
        o.Number(
            help="Maximum number of chunks at a time in this process, 1 to 256. Default: the "
            "number of processors, plus 2.",
        ),
    ] = None,
    max_memory: o.MaxMemory = None,
    quiet: o.Quiet = False,
) -> None:
    """Import chunks of Temporal jobs, on any number of hosts; SIGTERM ends it gently."""
    import asyncio  # noqa: PLC0415 - for this command alone

    from batchimport.engines.temporal.worker import serve  # noqa: PLC0415 - an extra

    slots = RunOptions(max_parallel=max_parallel or (os.cpu_count() or 1) + 2).max_parallel
    place = TemporalOptions(server.temporal_address, server.temporal_namespace, server.task_queue)

    def tell(text: str) -> None:
        if not quiet:
            typer.echo(safe(text, 400), err=True)

    memory = o.parse_size(max_memory, "--max-memory") if max_memory else None
    asyncio.run(serve(place, slots, memory, tell))
