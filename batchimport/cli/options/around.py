"""The options of what is done around the rows: before them, after them, and with all of them at once."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from batchimport.errors import UsageError


@dataclass(frozen=True)
class Around:
    """What is done around the rows of a job."""

    title: ClassVar = "Destination"

    atomic: Annotated[
        bool,
        Option(
            "--atomic",
            help="With --if-exists truncate, replace or fail: readers see the old rows until the job "
            "is completed, then all the new ones.",
        ),
    ] = False
    before_sql: Annotated[
        str | None,
        Option(metavar="SQL|@FILE", help="Statements to run once, when the job begins."),
    ] = None
    after_sql: Annotated[
        str | None,
        Option(
            metavar="SQL|@FILE", help="Statements to run once, together with the job's completion."
        ),
    ] = None
    analyze: Annotated[
        bool | None,
        Option(
            "--analyze/--no-analyze",
            help="Let the database analyze the table at the end. Default: if batchimport made it.",
        ),
    ] = None

    defer_indexes: Annotated[
        bool,
        Option(
            "--defer-indexes",
            help="PostgreSQL, SQLite: drop the table's indexes that are not unique when the job begins, "
            "and build them again when it is completed.",
        ),
    ] = False


def parse_script(text: str | None, option: str) -> str | None:
    """Return SQL, or what is in the file that `@path` names.

    Raises:
        UsageError: If that cannot be read.
    """
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise UsageError(f"cannot be read: {reason}", where=f"{option} {text}") from error
