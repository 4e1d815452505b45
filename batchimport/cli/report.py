"""`report`: a job as one HTML file, to send to somebody or to keep."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchimport.cli import options as o
from batchimport.display.escape import safe
from batchimport.display.units import data_size
from batchimport.errors import BatchImportError
from batchimport.state.files import write_atomically

if TYPE_CHECKING:
    from batchimport.jobs.known import Known
    from batchimport.jobs.report import LedgerFacts

STANDARD_OUTPUT = "-"


def report(
    job: o.JobId,
    *,
    output: Annotated[
        str | None,
        o.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write it, - for stdout. Default: JOB.html; with --json, stdout.",
        ),
    ] = None,
    json_: Annotated[
        bool, o.Option("--json", help="Write the same as data, instead of HTML.")
    ] = False,
    ledger: o.Ledger,
    state: o.State,
) -> None:
    """Write a report of a job, running or ended, as one HTML file that needs nothing else."""
    from batchimport.display.page import page  # noqa: PLC0415 - imports the charts

    known, facts, notes = _look(job, ledger, state)
    told = _told(job, state, known, facts, notes)
    for note in notes:
        typer.echo(safe(note, 400), err=True)
    text = json.dumps(told, indent=1, default=str) + "\n" if json_ else page(told)
    target = output or (STANDARD_OUTPUT if json_ else f"{job}.html")
    if target == STANDARD_OUTPUT:
        sys.stdout.buffer.write(text.encode(errors="replace"))
        return
    _write(Path(target), text, known, facts)


def data_of(job: str, ledger: o.Ledger, state: o.State) -> dict[str, Any]:
    """Return what is reported of a job, as `--json` prints it.

    Raises:
        UnknownJobError: If it is not known.
    """
    known, facts, notes = _look(job, ledger, state)
    return _told(job, state, known, facts, notes)


def _told(
    job: str,
    state: o.State,
    known: "Known",
    facts: "LedgerFacts | None",
    notes: list[str],
) -> dict[str, Any]:
    from batchimport.jobs.report import report_of  # noqa: PLC0415 - imports Polars
    from batchimport.jobs.timeline import read_timeline  # noqa: PLC0415 - imports Polars

    facts_of_state = state.directory.load(job)
    return report_of(known, facts, read_timeline(state.directory, job), facts_of_state, notes)


def _look(
    job: str, ledger: o.Ledger, state: o.State
) -> "tuple[Known, LedgerFacts | None, list[str]]":
    """Return what state directory and destination know, and what cannot be known just now."""
    from batchimport.cli.recorded import ledger_of  # noqa: PLC0415 - imports drivers
    from batchimport.engines import lookup  # noqa: PLC0415 - imports drivers

    address, schema, document = ledger_of(job, ledger, state)
    if not document:
        return lookup.known_at(job, address, schema), lookup.ledger_facts(job, address, schema), []
    known = lookup.known_by(document)
    try:
        return known, lookup.ledger_facts(job, address, schema), []
    except BatchImportError as error:
        if ledger.address is not None:
            raise
        missing = "its rejects, columns and times are not in this report"
        return known, None, [f"the destination could not be read: {error}; {missing}"]


def _write(path: Path, text: str, known: "Known", facts: "LedgerFacts | None") -> None:
    from batchimport.jobs.identify import job_from  # noqa: PLC0415 - imports Polars
    from batchimport.jobs.outputs import refuse_overwriting  # noqa: PLC0415 - imports Polars

    if facts is not None:
        imported = job_from(facts.record.configuration, known.destination)
        refuse_overwriting(imported, {"--output": path})
    body = text.encode(errors="replace")
    write_atomically(path, [body])
    typer.echo(f"report: {safe(path, 400)} ({data_size(len(body))})", err=True)
