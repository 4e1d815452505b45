"""`jobs`: the jobs that the state directory or a Temporal server knows."""

import json

import typer

from batchimport.cli import options as o
from batchimport.display import report


def jobs(
    *,
    json_: o.Json = False,
    engine: o.Temporal,
    state: o.State,
) -> None:
    """List all known jobs, the latest first."""
    from batchimport.engines.lookup import all_progress, progress  # noqa: PLC0415 - imports drivers

    temporal = engine.options()
    if temporal is not None:
        known = all_progress(temporal)
    else:
        known = [progress(document) for document in state.directory.jobs()]
    if json_:
        typer.echo(json.dumps(known))
    elif known:
        report.show_jobs(known)
    else:
        place = "that namespace" if temporal else state.state_dir
        typer.echo(f"no jobs in {place}", err=True)
