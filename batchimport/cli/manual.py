"""The manual page, made from the commands: `hatch_build.py` puts it into the wheel.

`python -m batchimport.cli.manual` prints it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from batchimport import __version__
from batchimport.cli import EXAMPLES, app

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXIT_CODES = {
    0: "Every record is stored, or was filtered or left out as asked.",
    1: "A fatal error, or chunks that were given up; the same command continues the job.",
    2: "The command cannot be carried out as given.",
    3: "Finished, with rejects.",
    4: "Stopped by --max-errors.",
    5: "Interrupted, can be continued; a second signal ends it at once with 130 or 143.",
    6: "Refused: the table has this content already or has lost it, the source or the "
    "configuration changed, or another process runs the job.",
    7: "The accounts do not balance.",
}
ENVIRONMENT = {
    "BATCHIMPORT_OPTION": "Value of an option of run, such as BATCHIMPORT_MAX_PARALLEL, BATCHIMPORT_TO "
    "or BATCHIMPORT_STATE_DIR.",
    "PGPASSWORD": "Password of PostgreSQL, as are .pgpass and the other variables of libpq.",
    "TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE": "Where the Temporal server is.",
    "NO_COLOR": "If set, nothing is coloured.",
}
FILES = {
    ".batchimport/JOB/job.json": "What is known of a job: a copy of what the destination knows.",
    ".batchimport/JOB/rejects.jsonl": "The rejected records, unless --rejects says otherwise.",
    ".batchimport/JOB/events.jsonl": "What happened when, for `batchimport report`.",
}


def manual() -> str:
    """Return the page as roff source, for man(1)."""
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group
    lines = [
        f'.TH BATCHIMPORT 1 "" "batchimport {__version__}" "User Commands"',
        ".SH NAME",
        rf"batchimport \- {_text('import files of millions of records into a database')}",
        ".SH SYNOPSIS",
        *(line for name, command in commands.items() for line in _synopsis(name, command)),
        ".SH DESCRIPTION",
        _text(str(app.info.help)),
        *(line for name, command in commands.items() for line in _command(name, command)),
        ".SH EXIT STATUS",
        *_items((str(code), words) for code, words in EXIT_CODES.items()),
        ".SH ENVIRONMENT",
        *_items(ENVIRONMENT.items()),
        ".SH FILES",
        *_items(FILES.items()),
        ".SH EXAMPLES",
    ]
    for name in commands:
        lines += [".PP", ".nf", *map(_text, EXAMPLES[name]), ".fi"]
    return "\n".join(lines) + "\n"


def _synopsis(name: str, command: Any) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    words = [
        (each.metavar if each.required else f"[{each.metavar}]") + ("..." if each.nargs < 0 else "")
        for each in arguments
    ]
    return [rf"\fBbatchimport {_text(name)}\fR {_text(' '.join([*words, '[OPTION]...']))}", ".br"]


def _command(name: str, command: Any) -> Iterator[str]:
    yield f".SH {_text(name.upper())}"
    yield _text(str(command.help))
    titles: dict[str, list[tuple[str, str]]] = {}
    context = command.context_class(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.param_type_name != "argument":
            title = getattr(parameter, "rich_help_panel", None) or "Options"
            titles.setdefault(title, []).append(record)
    for title, records in titles.items():
        yield f".SS {_text(title)}"
        yield from _items(records)


def _items(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, words in items:
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(words))


def _text(text: str) -> str:
    """Escape what roff would take for a command, and write dashes that can be copied."""
    line = " ".join(text.replace("\\", r"\e").replace("-", r"\-").split())
    line = "".join(each if each.isascii() else rf"\[u{ord(each):04X}]" for each in line)
    return rf"\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    sys.stdout.write(manual())
