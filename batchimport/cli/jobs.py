"""`jobs`: the jobs that the state directory or a Temporal server knows."""

import json

import typer

from batchimport.cli import options as o
from batchimport.display.jobs import show_jobs


def jobs(
    *,
    json_: o.Json = False,
    engine: o.Temporal,
    state: o.State,
) -> None:
    """List all known jobs, the latest first."""
    from batchimport.engines.lookup import ask_all, known_by  # noqa: PLC0415 - imports drivers

    temporal = engine.options()
    if temporal is not None:
        known = ask_all(temporal)
    else:
        known = [known_by(document) for document in state.directory.jobs()]
    facts = [each.to_dict() for each in known]
    if json_:
        typer.echo(json.dumps(facts))
    elif facts:
        show_jobs(facts)
    else:
        place = "that namespace" if temporal else state.state_dir
        typer.echo(f"no jobs in {place}", err=True)
