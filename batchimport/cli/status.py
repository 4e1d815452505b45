"""`status`: how far a job is."""

import json
import threading
from dataclasses import asdict
from typing import Annotated, Any

import typer

from batchimport.cli import options as o
from batchimport.display import report
from batchimport.errors import UsageError

SECONDS_BETWEEN_LOOKS = 1.0


def status(
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Job id. Default: the latest job.")
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the job ends.")] = False,
    json_: o.Json = False,
    ledger: o.Ledger,
    engine: o.Temporal,
    state: o.State,
) -> None:
    """Show how far a job is: from any terminal, while it runs and afterwards."""
    while True:
        progress = _progress(job, ledger, engine, state)
        if json_:
            typer.echo(json.dumps(progress))
        else:
            report.show_progress(progress)
        if not watch or progress["status"] != "running":
            return
        threading.Event().wait(SECONDS_BETWEEN_LOOKS)


def _progress(
    job: str | None, ledger: o.Ledger, engine: o.Temporal, state: o.State
) -> dict[str, Any]:
    """Return the progress by whoever knows it: the server, the state directory, or the ledger."""
    from batchimport.engines import lookup  # noqa: PLC0415 - imports drivers

    temporal = engine.options()
    if temporal is not None and job is not None:
        return lookup.ask_progress(temporal, job)
    directory = state.directory
    document = directory.load(job) if job else next(iter(directory.jobs()), None)
    if document is not None:
        return lookup.progress(document)
    if ledger.address is not None:
        return asdict(lookup.recorded_progress(job, ledger.address, ledger.ledger_schema))
    raise UsageError(
        "no such job",
        where=f"job {job}" if job else str(directory.path),
        hint="see `batchimport jobs`; without its state directory, add --to and the destination",
    )
