"""`resume`: continue an interrupted job."""

from dataclasses import replace

from batchimport.cli import options as o
from batchimport.cli.run import execute
from batchimport.cli.trust import Code


def resume(
    job: o.JobId,
    *,
    ledger: o.Ledger,
    max_errors: o.MaxErrors = None,
    code: Code,
    output: o.Output,
    engine: o.Engine,
    state: o.State,
) -> None:
    """Continue an interrupted job with the options that it was started with."""
    from batchimport.cli.recorded import continued  # noqa: PLC0415 - imports Polars

    request = continued(job, ledger, engine, state, code=code, max_errors=max_errors)
    execute(replace(request, handle_signals=True), output)
