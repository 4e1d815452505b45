"""The command line: one thin command a use case, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from batchimport import __version__, failpoints
from batchimport.cli import run, schema, status, worker
from batchimport.display.report import print_error
from batchimport.errors import BatchImportError, FatalError, from_system, without_panics

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
app.command("status")(status.status)
app.command("jobs")(status.jobs)
app.command("rejects")(status.rejects)
app.command("schema")(schema.schema)
app.command("worker")(worker.worker)


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
    _stand_in_for_closed_streams()
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        with without_panics():
            app()
    except BatchImportError as error:
        print_error(error, verbose="--verbose" in sys.argv)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except OSError as error:  # of standard output, most often: a disk that is full
        _print_system_error(error)
        _leave(FatalError.exit_code)
    except SystemExit as ended:
        _leave(ended.code if isinstance(ended.code, int) else 0)


def _leave(code: int) -> None:
    """Flush and leave without waiting for threads that an abandoned attempt may still hold."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        _print_system_error(error)
        code = code or FatalError.exit_code
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _print_system_error(error: OSError) -> None:
    with suppress(OSError):  # standard error may be what is broken
        print_error(from_system(error), verbose="--verbose" in sys.argv)


def _stand_in_for_closed_streams() -> None:
    """Open what was closed before the start (`>&-`), or the database would get its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
