"""`run`: import files as one job."""

import errno
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from batchimport.cli import options as o
from batchimport.cli.reading import Reading, Shaping
from batchimport.display import open_display
from batchimport.display.log import log_to
from batchimport.display.report import final_report
from batchimport.errors import JobInterrupted
from batchimport.model import Job, SourceOptions
from batchimport.sources.paths import find_sources, stem_of
from batchimport.state.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer


def run(  # noqa: PLR0913 - one parameter per group of options
    sources: o.Sources,
    *,
    destination: o.Destination,
    reading: Reading,
    shaping: Shaping,
    records: o.Records,
    selection: o.Selection,
    sizes: o.Sizes,
    failures: o.Failures,
    output: o.Output,
    engine: o.Engine,
    state: o.State,
) -> None:
    """Import files as one job; if the same job was interrupted, continue it."""
    from batchimport.jobs.identify import Request  # noqa: PLC0415 - imports Polars

    options = replace(
        o.run_options(sizes, failures, dry_run=selection.dry_run), min_records=selection.min_records
    )
    request = Request(
        _job(find_sources(sources), destination, records, reading.options(shaping), selection),
        options,
        state.directory,
        selection.job_id,
        selection.restart,
        selection.allow_duplicates,
        append=selection.if_source_changed == "append",
        handle_signals=True,
        temporal=engine.options(detach=engine.detach),
    )
    code = (records.transform or "").rpartition(":")[0]
    execute(request, output, {"--schema": records.schema, "--transform": code or None})


def _job(
    paths: tuple[str, ...],
    destination: o.Destination,
    records: o.Records,
    options: SourceOptions,
    selection: o.Selection,
) -> Job:
    """Return the job; the user's own code is loaded only if its rules allow it."""
    from batchimport.pipeline.transform import transform_digest  # noqa: PLC0415 - imports Polars
    from batchimport.schema.load import find_schema  # noqa: PLC0415 - imports Polars

    stem = stem_of(paths[0])
    job = Job(
        sources=paths,
        destination=destination.address or o.absolute(f"sqlite:///{stem}.db"),
        table=destination.table or stem,
        options=options,
        infer_records=o.parse_infer_records(records.infer_rows),
        transform=records.transform,
        sql=records.sql,
        if_exists=destination.if_exists,
        on_conflict=destination.on_conflict,
        key=destination.columns,
        new_columns=destination.new_columns,
        limit=selection.limit,
        ledger_schema=destination.ledger_schema,
    )
    if records.schema is not None:
        document, model = find_schema(records.schema)
        job = replace(job, schema=document)
        if model is not None:
            job = replace(job, model=records.schema, model_digest=model.digest)
    if records.transform is not None:
        job = replace(job, transform_digest=transform_digest(records.transform))
    return job


def execute(
    request: "Request", output: o.Output, read: Mapping[str, str | None] | None = None
) -> None:
    """Import, report the outcome, and leave with its exit code.

    Args:
        read: Files that are read besides the sources, by the option that names them.

    Raises:
        BatchImportError: The error that ended the import, for `main` to print.
        typer.Exit: Otherwise.
    """
    from batchimport.importer import import_file  # noqa: PLC0415 - imports Polars

    leave_with(lambda observer: import_file(request, observer), request, output, final_report, read)


def leave_with(
    work: "Callable[[Observer], Outcome]",
    request: "Request",
    output: o.Output,
    report: "Callable[..., None]",
    read: Mapping[str, str | None] | None = None,
) -> None:
    """Do work on a job, report its outcome, and leave with its exit code.

    Args:
        report: Prints the outcome for people.
        read: Files that are read besides the sources, by the option that names them.

    Raises:
        BatchImportError: The error that ended the work, for `main` to print.
        typer.Exit: Otherwise.
    """
    from batchimport.jobs.outputs import refuse_overwriting  # noqa: PLC0415 - imports Polars

    outputs = {
        "--rejects": request.options.rejects_path,
        "--summary": output.summary,
        "--log-file": output.log_file,
    }
    refuse_overwriting(request.job, outputs, read or {})
    progress = "none" if output.quiet else output.progress
    display = open_display(progress, verbose=output.verbose)
    with log_to(output.log_file), display:
        outcome = work(display)
    try:
        if output.summary is not None:  # before standard output, which may be a closed pipe
            body = json.dumps(outcome.summary.to_dict(), indent=1) + "\n"
            write_atomically(output.summary, [body.encode()])
    finally:
        _report(outcome, output, report)
    resumable = isinstance(outcome.error, JobInterrupted) and outcome.summary.resume_command
    if outcome.error is not None and not resumable:
        raise outcome.error
    only_rejects = outcome.exit_code == 3
    raise typer.Exit(0 if only_rejects and output.exit_zero_on_rejects else outcome.exit_code)


def _report(outcome: "Outcome", output: o.Output, report: "Callable[..., None]") -> None:
    try:
        if output.json_:
            typer.echo(json.dumps(outcome.summary.to_dict()))
        elif not output.quiet and (outcome.summary.resume_command or outcome.error is None):
            report(outcome.summary, outcome.examples, outcome.ended_at)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        # Nobody reads on (a closed pipe, a lost terminal); the exit code tells how it ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
