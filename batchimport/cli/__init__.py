"""The command line: a thin command per use case, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from batchimport import __version__, failpoints
from batchimport.cli.command import GroupedCommand, as_command
from batchimport.display.escape import safe
from batchimport.errors import (
    BatchImportError,
    FatalError,
    did_you_mean,
    from_system,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEANT = {
    **dict.fromkeys(("import", "load", "ingest", "insert", "start"), "run"),
    **dict.fromkeys(("list", "ls", "history"), "jobs"),
    **dict.fromkeys(("continue", "restart"), "resume"),
    **dict.fromkeys(("errors", "failed", "rejected"), "rejects"),
    **dict.fromkeys(("retry", "redo", "reprocess", "repair"), "replay"),
    **dict.fromkeys(("progress", "watch", "show"), "status"),
    **dict.fromkeys(("delete", "remove", "rm"), "forget"),
    **dict.fromkeys(("clean", "cleanup", "purge", "gc"), "prune"),
    **dict.fromkeys(("html", "explain"), "report"),
    "infer": "schema",
}
"""Commands of other tools, and what they are called here."""


@contextmanager
def safe_errors() -> Iterator[None]:
    """Escape what was typed in the message of an error of the parser."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):
            lines = str(getattr(error, "message", "")).split("\n")
            error.message = "\n".join(safe(line.replace("\t", "  "), 1000) for line in lines)  # type: ignore[attr-defined]  # of the parser
        raise


class _Built(Mapping[str, TyperCommand]):
    """The commands by name; each is imported and built when it is asked for, since `run` needs but one."""

    def __getitem__(self, name: str) -> TyperCommand:
        return _build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(EXAMPLES)

    def __len__(self) -> int:
        return len(EXAMPLES)


class Commands(TyperGroup):
    """The commands; one that does not exist is answered with the one that was probably meant.

    What was typed does not act on the terminal that shows an error.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands = _Built()  # type: ignore[assignment]  # nobody adds one

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the options before the command."""
        with safe_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse the command's own options, and run it."""
        with safe_errors():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names; end with the usage if there is none."""
        word, known = args[0], self.list_commands(ctx)
        if word in known or word.startswith("-"):
            return super().resolve_command(ctx, args)
        near = did_you_mean(word, [*known, *_MEANT])
        near = _MEANT.get(near or "", near)
        if "." in word or "/" in word:
            hint = f"To import a file: batchimport run {word}"
        elif near:
            hint = f"Did you mean {near}?"
        else:
            hint = f"Commands: {', '.join(known)}"
        return ctx.fail(f"No such command '{safe(word)}'. {hint}")


EXAMPLES = {
    "run": (
        "batchimport run users.jsonl",
        "batchimport run 'logs/*.csv.gz' --to postgresql://db/shop --table logs --key id",
        "curl -fsSL URL | batchimport run - --table users --schema users.schema.json",
        "batchimport run --config nightly.toml",
    ),
    "resume": (
        "batchimport resume users-1a2b3c4d",
        "batchimport resume users-1a2b3c4d --max-errors 5%",
        "batchimport resume users-1a2b3c4d --to postgresql://db/shop",
    ),
    "status": (
        "batchimport status",
        "batchimport status users-1a2b3c4d --watch",
        "batchimport status users-1a2b3c4d --to postgresql://db/shop --json",
    ),
    "jobs": (
        "batchimport jobs",
        "batchimport jobs --json | jq -r '.[] | select(.status == \"failed\") | .job_id'",
        "batchimport jobs --engine temporal",
    ),
    "rejects": (
        "batchimport rejects users-1a2b3c4d",
        "batchimport rejects users-1a2b3c4d --summary",
        "batchimport rejects users-1a2b3c4d --field age --raw > rejected.jsonl",
    ),
    "replay": (
        "batchimport replay users-1a2b3c4d --schema users.schema.json",
        "batchimport replay users-1a2b3c4d --from edited.jsonl --where field=age",
        "batchimport replay users-1a2b3c4d --sql 'SELECT *, lower(email) AS email FROM records'",
    ),
    "report": (
        "batchimport report users-1a2b3c4d",
        "batchimport report users-1a2b3c4d -o last-night.html --to postgresql://db/shop",
        "batchimport report users-1a2b3c4d --json | jq .accounts",
    ),
    "schema": (
        "batchimport schema users.jsonl > users.schema.json",
        "batchimport schema 'logs/*.csv' --delimiter ';'",
        "batchimport schema users.jsonl --infer-rows all",
    ),
    "init": (
        "batchimport init users.jsonl",
        "batchimport init users.csv --to postgresql://db/shop --key id -o users.toml",
        "batchimport run --config job.toml",
    ),
    "forget": (
        "batchimport forget users-1a2b3c4d",
        "batchimport forget users-1a2b3c4d --completely",
        "batchimport forget users-1a2b3c4d --to postgresql://db/shop",
    ),
    "prune": (
        "batchimport prune --older-than 30d",
        "batchimport prune --older-than 2w --rejects-only",
        "batchimport prune --older-than 90d --to postgresql://db/shop --dry-run",
    ),
    "worker": (
        "batchimport worker",
        "batchimport worker --temporal-address temporal:7233 --max-parallel 4",
        "batchimport worker --task-queue nightly --max-memory 2GB",
    ),
}
"""The commands in the order of the help, and what the help of each ends with."""

YOUNG_OBJECTS = 50_000
"""New objects after which Python looks for garbage: with its 700, that takes 5 % of a run with rejects."""

app = typer.Typer(
    cls=Commands,
    name="batchimport",
    help="Import files of millions of records into a database: every record stored exactly once, "
    "or in the rejects with the reason.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def _build(name: str) -> TyperCommand:
    """Return a command; `prune` is in the module of `forget`, the others are in one of their name.

    Raises:
        KeyError: If there is none of this name.
    """
    examples = "\n".join(f"  {line}" for line in EXAMPLES[name])
    module = import_module(f"batchimport.cli.{'forget' if name == 'prune' else name}")
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    decorate = one.command(name, cls=GroupedCommand, epilog=f"\b\nExamples:\n{examples}")
    decorate(as_command(getattr(module, name)))
    return cast("TyperCommand", get_command(one))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchimport {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Root of the commands."""
    del version  # acts by its callback


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    _stand_in_for_closed_streams()
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        app()
    except BatchImportError as error:
        _print_error(error)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except OSError as error:  # mostly of standard output: a full disk
        _print_system_error(error)
        _leave(FatalError.exit_code)
    except SystemExit as ended:
        _leave(ended.code if isinstance(ended.code, int) else 0)


def _leave(code: int) -> None:
    """Flush and exit without waiting for the threads of abandoned attempts."""
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


def _print_error(error: BatchImportError) -> None:
    from batchimport.display.report import print_error  # noqa: PLC0415 - imports Rich

    print_error(error)


def _print_system_error(error: OSError) -> None:
    with suppress(OSError):  # standard error may be what is broken
        _print_error(from_system(error))


def _stand_in_for_closed_streams() -> None:
    """Reopen streams that were closed at the start (`>&-`), or the database would get their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
