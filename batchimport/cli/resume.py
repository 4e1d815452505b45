"""`resume`: continue an interrupted job."""

from dataclasses import fields, replace

from batchimport.cli import options as o
from batchimport.cli.run import execute
from batchimport.model import RunOptions, TemporalOptions


def resume(
    job: o.JobId,
    *,
    ledger: o.Ledger,
    max_errors: o.MaxErrors = None,
    code: o.Code,
    output: o.Output,
    engine: o.Engine,
    state: o.State,
) -> None:
    """Continue an interrupted job with the options that it was started with."""
    from batchimport.cli.trust import (  # noqa: PLC0415 - imports drivers
        refuse_foreign_code,
        trusted_address,
    )
    from batchimport.engines.lookup import recall  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.identify import Request, job_from  # noqa: PLC0415 - imports Polars

    temporal = engine.options(detach=engine.detach)
    document = state.directory.load(job)
    if document is None:
        document = recall(job, ledger.address, temporal, ledger.ledger_schema)
        address = document["destination"]
    else:
        address = trusted_address(job, document, ledger.address)
    if engine.engine is None and document.get("temporal"):
        temporal = TemporalOptions(**{**document["temporal"], "detach": engine.detach})
    if temporal is None:  # else its workers load it, who refuse any other version
        refuse_foreign_code(job, document, {"--transform": code.transform, "--schema": code.schema})
    recorded = job_from(document["job"], str(address))
    if ledger.ledger_schema is not None:
        recorded = replace(recorded, ledger_schema=ledger.ledger_schema)
    known = {each.name for each in fields(RunOptions)}
    options = {name: value for name, value in document["options"].items() if name in known}
    if max_errors is not None:
        options |= o.parse_max_errors(max_errors)
    request = Request(
        recorded,
        RunOptions(**options),
        state.directory,
        job,
        must_exist=True,
        handle_signals=True,
        temporal=temporal,
    )
    execute(request, output)
