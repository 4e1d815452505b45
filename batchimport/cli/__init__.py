"""The command line: one thin command a use case, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from batchimport import __version__, failpoints
from batchimport.cli import inspect_, run, schema_
from batchimport.display.report import print_error
from batchimport.errors import BatchImportError

app = typer.Typer(
    name="batchimport",
    help="Import files of millions of records into a database: every record stored exactly once, "
    "or in the rejects with the reason.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("resume")(run.resume)
app.command("status")(inspect_.status)
app.command("jobs")(inspect_.jobs)
app.command("rejects")(inspect_.rejects)
app.command("schema")(schema_.schema)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchimport {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Root of the commands; `--version` acts by its callback."""
    del version


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        app()
    except BatchImportError as error:
        print_error(error, verbose="--verbose" in sys.argv)
        _leave(error.exit_code)
    except BrokenPipeError:
        _leave(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)


def _leave(code: int) -> None:
    """Flush and leave without waiting for threads that an abandoned attempt may still hold."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    os._exit(code)
