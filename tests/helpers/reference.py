"""What docs/reference.md has to be, by the commands, errors and schemas: `python -m tests.helpers.reference`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from typing import Any

from typer.main import get_command

from batchimport import errors
from batchimport.cli import EXAMPLES, app
from batchimport.cli.manual import ENVIRONMENT, EXIT_CODES, FILES
from batchimport.cli.options.values import settings
from tests.helpers.cli import ROOT

PAGE = ROOT / "docs" / "reference.md"
SCHEMAS = ROOT / "docs" / "schemas"
_INTRODUCTION = """# Reference

Every command, option, exit code and field. This page is written by the program itself; what the options do together is
explained in the other pages.

An option of `run` is also a variable of the environment (`BATCHIMPORT_MAX_PARALLEL`), a key of the
[job.toml](configuration.md) of `--config`, and a keyword of [`import_file`](python.md) (both `max_parallel`). A flag or
keyword comes first, then the environment, then the file. The tables name all three. Options of other commands that
`run` has, too, take the same variable.
"""
_CODES = "Why single records were rejected is said by [codes](rejects.md#codes)."
_OUTPUTS = ("summary", "progress", "jobs", "reject", "report")


def written() -> str:
    """Return the text of the page."""
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group
    lines = [_INTRODUCTION]
    for name, command in commands.items():
        lines += _command(name, command)
    lines += ["## Exit codes", "", *_table(("code", "meaning"), EXIT_CODES.items())]
    lines += ["## Errors", ""]
    lines += [
        "In Python these are raised; on the command line they decide the exit code.",
        _CODES,
        "",
    ]
    lines += _table(("error", "exit code", "meaning"), _errors(errors.BatchImportError))
    lines += ["## Environment", ""]
    lines += _table(
        ("variable", "meaning"), [(f"`{name}`", text) for name, text in ENVIRONMENT.items()]
    )
    lines += ["## Files", ""]
    lines += _table(
        ("file", "what is in it"), [(f"`{name}`", text) for name, text in FILES.items()]
    )
    for name in _OUTPUTS:
        lines += _output(name)
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    """Yield the section of a command."""
    context = command.context_class(command)
    parameters = command.get_params(context)
    usage = [each.metavar for each in parameters if each.param_type_name == "argument"]
    yield from (f"## batchimport {name}", "", str(command.help), "")
    yield from ("```", f"batchimport {' '.join([name, *usage])} [OPTION]...", "```", "")
    groups: dict[str, list[Any]] = {}
    for each in parameters:
        is_shown = each.get_help_record(context) and "--help" not in each.opts
        if each.param_type_name == "option" and is_shown:
            groups.setdefault(getattr(each, "rich_help_panel", None) or "Options", []).append(each)
    for title, options in groups.items():
        yield from (f"### {name}: {title.lower()}", "")
        rows = [(_names(each, context, name), _default(each), _meaning(each)) for each in options]
        yield from _table(("option", "default", "meaning"), rows)
    yield from ("Examples:", "", "```", *EXAMPLES[name], "```", "")


def _names(option: Any, context: Any, command: str) -> str:
    """Return the flag; of an option of `run` also the variable, and the key and keyword."""
    name = option.opts[0].removeprefix("--").replace("-", "_")
    known = settings().get(name)
    names = [option.get_help_record(context)[0]]
    if command == "run":
        names += ["BATCHIMPORT_CONFIG"] if known is None else [known.variable, name]
    return "<br>".join(map(_code, names))


def _code(text: str) -> str:
    """Return code for a cell; GitHub and the site agree on a bar in it only as HTML has it."""
    return f"<code>{html.escape(text)}</code>" if "|" in text else f"`{text}`"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    is_said = option.default not in (None, False, ()) and not callable(option.default)
    return f"`{option.default}`" if is_said else ""


def _meaning(option: Any) -> str:
    return str(option.help or "")


def _errors(kind: type[errors.BatchImportError]) -> Iterator[tuple[str, str, str]]:
    """Yield an error and those that are of its kind."""
    meaning = (kind.__doc__ or "").split("\n\n", maxsplit=1)[0]
    yield f"`{kind.__name__}`", str(kind.exit_code), " ".join(meaning.split())
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__ and each.__bases__[0] is kind:
            yield from _errors(each)


def _output(name: str) -> Iterator[str]:
    """Yield the section of a schema: its fields, and where the schema is."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    yield from (f"## {schema['title']}", "", schema["description"], "")
    yield from (f"JSON Schema: [{name}.json](schemas/{name}.json).", "")
    rows = list(_fields(schema, ""))
    yield from _table(("field", "type", "meaning"), rows) if rows else ()


def _fields(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield the fields of an object, and those inside of them."""
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield f"`{path}`", _type(field), field.get("description", "")
        inner = next((each for each in field.get("anyOf", []) if "properties" in each), field)
        yield from _fields(inner, f"{path}.")
        yield from _fields(inner.get("items", {}), f"{path}[].")


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field or "anyOf" in field:
        return "object" if "$ref" in field else "object or null"
    kind = field.get("type", "any")
    choices = ", ".join(f"`{each}`" for each in field.get("enum", []))
    return choices or (kind if isinstance(kind, str) else " or ".join(kind))


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    cells = [[str(cell).replace("|", "&#124;") for cell in line] for line in lines]
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
