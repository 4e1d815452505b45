"""`jobs`: the jobs that the state directory or a Temporal server knows."""

import json

import typer

from batchimport.cli import options as o


def jobs(
    *,
    json_: o.Json = False,
    engine: o.Temporal,
    state: o.State,
) -> None:
    """List all known jobs, the latest first."""
    from batchimport.cli.recorded import Place, look_at_all  # noqa: PLC0415 - imports drivers

    known = look_at_all(Place(o.Ledger(), engine, state))
    facts = [each.to_dict() for each in known]
    if json_:
        typer.echo(json.dumps(facts))
    elif facts:
        from batchimport.display.jobs import show_jobs  # noqa: PLC0415 - imports Rich

        show_jobs(facts)
    else:
        place = "that namespace" if engine.is_remote else state.state_dir
        typer.echo(f"no jobs in {place}", err=True)
