"""`init`: write a job.toml, with the schema that was inferred beside it."""

import json
import os
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from batchimport.cli import options as o
from batchimport.cli.command import Typed
from batchimport.cli.config import refuse_secret
from batchimport.cli.options.values import Run, Setting, settings
from batchimport.cli.schema import inferred_text
from batchimport.display.escape import safe
from batchimport.errors import UsageError
from batchimport.sources.paths import STANDARD_INPUT, find_sources, stem_of

_WIDTH = 100
_HEAD = """\
# Run it with: batchimport run --config {name}
# Relative paths are relative to this file. Passwords do not belong in it: set PGPASSWORD or BATCHIMPORT_TO.
# Several jobs in one file: a table [jobs.NAME] for each; what stands above them holds for all of them.

"""


def init(
    sources: o.Sources,
    *,
    path: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; it must not exist."),
    ] = Path("job.toml"),
    asked: Run,
    typed: Typed,
) -> None:
    """Write a commented job.toml, and the inferred schema beside it; other options go into the file."""
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - links stay, .. goes
    files = find_sources(sources)
    values = {"sources": [_relative(word, folder) for word in sources], **typed}
    if asked.destination.to is not None:
        refuse_secret(asked.destination.to, "--to")
    written = [path]
    schema_path = path.parent / f"{stem_of(files[0])}.schema.json"
    if "schema" not in typed:
        written.append(schema_path)
        values["schema"] = schema_path.name
    for each in written:
        if each.exists():
            raise UsageError("is there already", str(each), "remove it, or choose another -o FILE")
    values = {name: _in_file(name, value, folder) for name, value in values.items()}
    if "schema" not in typed:
        text, notes = inferred_text(files, asked.records.infer_rows, asked.reading, asked.shaping)
        for note in notes:
            typer.echo(safe(note, 200), err=True)
        _write(schema_path, text + "\n")
    _write(path, _HEAD.format(name=path.name) + _lines(values))
    typer.echo(f"wrote {safe(' and '.join(map(str, written)), 1000)}", err=True)
    typer.echo(f"next: batchimport run --config {safe(str(path), 1000)}", err=True)


def _relative(word: str, folder: Path) -> str:
    """Return a path as the file has it: relative to its folder, if it is in there."""
    if word == STANDARD_INPUT:
        return word
    whole = Path(os.path.abspath(word))  # noqa: PTH100 - links stay, .. goes
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)


def _in_file(name: str, value: Any, folder: Path) -> Any:
    """Return a value that was typed, with its paths as the file has them."""
    if name == "to":
        scheme, separator, path = o.absolute(str(value)).partition(":///")
        return f"{scheme}:///{_relative(path, folder)}" if separator else value
    if isinstance(value, Path) or (name == "schema" and Path(value).exists()):
        return _relative(str(value), folder)
    module, separator, function = str(value).rpartition(":")
    if name in ("transform", "schema") and separator and module.endswith(".py"):
        return f"{_relative(module, folder)}:{function}"
    return value


def _lines(values: dict[str, Any]) -> str:
    """Return all options: those that have a value, and the others as comments with their defaults."""
    title, lines = "", [_line("sources", values["sources"])]
    for known in settings().values():
        if known.title != title:
            title = known.title
            lines += ["", f"# -- {title} --"]
        lines += [f"# {line}" for line in wrap(known.help, _WIDTH - 2)]
        if known.name in values:
            lines.append(_line(known.name, values[known.name]))
        else:
            lines.append(f"#{_line(known.name, _default(known))}")
    return "\n".join(lines) + "\n"


def _default(known: Setting) -> Any:
    """Return the default value; where there is none, one that shows what could stand there."""
    if isinstance(known.default, bool | int | float | str | Path):
        return known.default
    if get_origin(known.kind) is Literal:
        return get_args(known.kind)[0]
    example = known.metavar or "TEXT"
    return [example] if known.is_list else 1 if known.kind in (int, float) else example


def _line(name: str, value: Any) -> str:
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError("is there already", str(path), "choose another -o FILE") from None
    except (OSError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or "its name is not valid UTF-8"
        raise UsageError(f"cannot be written: {reason}", str(path), "choose another -o") from error
