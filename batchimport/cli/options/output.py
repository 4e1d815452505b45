"""The options of what is printed, written and told about a run."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from typer import Option

Quiet = Annotated[bool, Option("--quiet", help="Print errors only.")]


@dataclass(frozen=True)
class Output:
    """What is printed and written about a run."""

    title: ClassVar = "Output"

    json_: Annotated[bool, Option("--json", help="Print the summary as JSON, alone on stdout.")] = (
        False
    )
    summary: Annotated[
        Path | None,
        Option(metavar="PATH", help="Write the summary as JSON to this file as well."),
    ] = None
    progress: Annotated[
        Literal["auto", "rich", "plain", "json", "none"],
        Option(help="Progress display on stderr; auto: rich on a terminal, plain elsewhere."),
    ] = "auto"
    exit_zero_on_rejects: Annotated[
        bool, Option("--exit-zero-on-rejects", help="Exit with 0 if there are only rejects.")
    ] = False
    log_file: Annotated[
        Path | None,
        Option(metavar="PATH", help="Append a line for each event to this file."),
    ] = None
    on_finish: Annotated[
        str | None,
        Option(
            metavar="CMD",
            help="Shell command to run at the end, whatever that is; gets the summary on stdin.",
        ),
    ] = None
    metrics: Annotated[
        Path | None,
        Option(metavar="PATH", help="Keep metrics in this file, in Prometheus' textfile format."),
    ] = None
    quiet: Quiet = False
    verbose: Annotated[
        bool,
        Option("--verbose", help="Print the cause of an error, and why chunks have their size."),
    ] = False
