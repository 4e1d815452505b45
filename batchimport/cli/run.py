"""`run`: import files as one job, or the jobs of a job.toml."""

import errno
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchimport.cli import options as o
from batchimport.cli.command import Typed
from batchimport.cli.options.values import (
    PREFIX,
    Run,
    from_environment,
    misspelt_variables,
    run_from,
)
from batchimport.display.escape import safe
from batchimport.errors import BatchImportError, JobInterrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer

_FROM_BEST_TO_WORST = (0, 3, 4, 6, 2, 1, 7)
"""Exit codes; that of several jobs is the worst of theirs."""


def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files to import: paths, quoted patterns, members of archives "
            "('a.zip!/*.csv'), - for standard input. With a --config of "
            "several jobs: the names of those to run; none for all.",
        ),
    ] = None,
    *,
    config: Annotated[
        str | None,
        o.Option(
            metavar="FILE",
            help="job.toml, which has options by their names; see `batchimport init`.",
        ),
    ] = None,
    asked: Run,
    typed: Typed,
) -> None:
    """Import files as one job; if the same job was interrupted, continue it."""
    for name, near in () if asked.output.quiet else misspelt_variables():
        typer.echo(f"{safe(name, 100)} is no option; did you mean {near}?", err=True)
    config = config or os.environ.get(f"{PREFIX}CONFIG") or None
    if config is None:
        _run_one(sources or [], asked)
        return
    from batchimport.cli.config import choose, read_config  # noqa: PLC0415 - for this option only

    jobs, environment = read_config(config), from_environment()
    if None in jobs:
        only = jobs[None]
        _run_one(sources or only.sources, run_from(typed, environment, only.values))
        return
    chosen = {str(job.name): job for job in choose(jobs, sources or [], config)}
    options = {name: run_from(typed, environment, job.values) for name, job in chosen.items()}
    _refuse_common(options)
    _run_all({name: job.sources for name, job in chosen.items()}, options)


def _run_one(sources: list[str], asked: Run) -> None:
    from batchimport.cli.notify import Notifier  # noqa: PLC0415 - only for a run
    from batchimport.cli.request import files_read, request_for, unknown  # noqa: PLC0415 - imports Polars

    with Notifier(asked.output.on_finish, asked.output.metrics).failing(
        lambda: unknown(sources, asked)
    ):
        request = replace(request_for(sources, asked), handle_signals=True)
    execute(request, asked.output, files_read(asked))


def _run_all(sources: Mapping[str, list[str]], asked: Mapping[str, Run]) -> None:
    """Run several jobs one after the other, also after one that failed; not after an interrupt."""
    codes: list[int] = []
    for name, options in asked.items():
        if not options.output.quiet:
            typer.echo(f"[{safe(name, 100)}]", err=True)
        try:
            _run_one(sources[name], options)
        except typer.Exit as ended:
            codes.append(ended.exit_code)
        except BatchImportError as error:
            from batchimport.display.report import print_error  # noqa: PLC0415 - imports Rich

            print_error(error)
            codes.append(error.exit_code)
        if codes[-1] == JobInterrupted.exit_code:
            raise typer.Exit(JobInterrupted.exit_code)
    raise typer.Exit(max(codes, key=_FROM_BEST_TO_WORST.index))


def _refuse_common(asked: Mapping[str, Run]) -> None:
    """Refuse jobs of which one would overwrite what another one writes, or take its place."""
    values: dict[str, Any] = {
        "--job-id": [run.selection.job_id for run in asked.values()],
        "--rejects": [run.failures.rejects for run in asked.values()],
        "--summary": [run.output.summary for run in asked.values()],
        "--metrics": [run.output.metrics for run in asked.values()],
    }
    for option, given in values.items():
        known = [value for value in given if value is not None]
        if len(set(known)) < len(known):
            raise UsageError(
                "several jobs cannot have the same",
                where=option,
                hint=f"set {option[2:].replace('-', '_')} in the table of each job",
            )


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
    from batchimport.display.report import final_report  # noqa: PLC0415 - imports Rich
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
    from batchimport.cli.perform import perform  # noqa: PLC0415 - imports Polars

    outcome = perform(
        work, request, output, lambda outcome: _report(outcome, output, report), read or {}
    )
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
