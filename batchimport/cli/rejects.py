"""`rejects`: the records that a job rejected."""

import json
import sys
from typing import Annotated

import typer

from batchimport.cli import options as o
from batchimport.display import report
from batchimport.errors import UsageError


def rejects(
    job: o.JobId,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the original records to stdout.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per record.")] = False,
    ledger: o.Ledger,
    state: o.State,
) -> None:
    """Show the rejected records, and the reasons."""
    from batchimport.cli.trust import trusted_address  # noqa: PLC0415 - imports drivers
    from batchimport.sinks import open_sink  # noqa: PLC0415 - imports drivers
    from batchimport.sinks.base import SinkOptions  # noqa: PLC0415 - imports drivers

    document = state.directory.load(job) or {}
    address = trusted_address(job, document, ledger.address)
    if address is None:
        raise UsageError(
            "no such job",
            where=f"job {job}",
            hint="see `batchimport jobs`; without its state directory, add --to and the destination",
        )
    schema = ledger.ledger_schema or document.get("job", {}).get("ledger_schema")
    sink = open_sink(address, SinkOptions(create=False, ledger_schema=schema))
    try:
        if sink.owner(job) is None:
            raise UsageError(
                "no such job there", where=f"job {job}", hint="check --to and --ledger-schema"
            )
        records = sink.rejects(job)
        if raw:
            for reject in records:
                sys.stdout.buffer.write(reject.raw + b"\n")
        elif json_:
            for reject in records:
                typer.echo(json.dumps(reject.to_dict()))
        else:
            report.show_rejects(records)
    finally:
        sink.close()
