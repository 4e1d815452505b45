"""What a job's recorded state may decide by itself, and what the user must say.

The state directory may have come with the data. What this user did not write is shown, but it does not
decide which server gets a password, or which code is run.
"""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from typer import Option

from batchimport.errors import UsageError
from batchimport.sinks.registry import redact, scheme_of


@dataclass(frozen=True)
class Code:
    """The code that a job runs, said again where its record may be another user's."""

    title: ClassVar = "Schema and transform"

    transform: Annotated[
        str | None,
        Option(
            metavar="MODULE:FUNC",
            help="The job's own, if this user's state does not name it. Default: as recorded.",
        ),
    ] = None
    schema: Annotated[
        str | None,
        Option(
            metavar="MODULE:MODEL",
            help="The job's own model, if this user's state does not name it. Default: as recorded.",
        ),
    ] = None


def trusted_address(job: str, document: Mapping[str, Any], given: str | None) -> str | None:
    """Return where a job imports to: as given, else as recorded; None if that is not known.

    Raises:
        UsageError: If this user did not write the record, and it names a server.
    """
    recorded = document.get("destination")
    if given is not None or not isinstance(recorded, str):
        return given
    scheme = scheme_of(recorded)
    if document.get("trusted") or (scheme is not None and scheme.is_path):
        return recorded
    raise UsageError(
        f"this user did not write the state of the job, which would connect to {redact(recorded)}",
        where=f"job {job}",
        hint=f"if that is right, say so: --to {redact(recorded)}",
    )


def refuse_foreign_code(
    job: str, document: Mapping[str, Any], given: Mapping[str, str | None]
) -> None:
    """Refuse to run code that a record names, unless this user wrote the record or names it, too.

    Args:
        given: What the user named, by option.

    Raises:
        UsageError: If so.
    """
    facts = document.get("job", {})
    recorded = {"--transform": facts.get("transform"), "--schema": facts.get("model")}
    for option, code in recorded.items():
        named = given.get(option)
        if named is not None and named != code:
            raise UsageError(
                f"the job has {code}" if code else "the job has none",
                where=f"{option} {named}",
                hint="a job is continued as it began; to change it, use `run`",
            )
        if code and named is None and not document.get("trusted"):
            raise UsageError(
                f"the record of the job, which this user did not write, would run the code {code}",
                where=f"job {job}",
                hint=f"if that is right, say so: {option} {code}",
            )
