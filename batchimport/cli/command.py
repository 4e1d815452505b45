"""Commands out of functions: what Typer needs to know of them, and how their help is laid out.

A command takes groups of options (`options`); Typer is shown the fields of each as options of the
command, and the help lists them under the group's title. Every command has `--verbose`.
"""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
import inspect
import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from batchimport.cli.options.values import (
    Run,
    check_not_empty,
    from_environment,
    meant,
    run_from,
    settings,
)
from batchimport.errors import BatchImportError, without_panics

Typed = Mapping[str, Any]
"""A parameter of this type takes the options of `run` that were typed, by their names."""
_VERBOSE = Annotated[bool, typer.Option("--verbose", help="Print the cause of an error, too.")]
_PARTS = get_type_hints(Run)


def as_command(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer whose options are the fields of the groups that it takes.

    What is not typed may come from the environment. Errors carry their cause as a note if `--verbose`
    is given.
    """
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = [context]
    typed_name = ""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if parameter.annotation is Typed:
            typed_name = name
        elif is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            parts = _PARTS.values() if parameter.annotation is Run else (groups[name],)
            options += [option for part in parts for option in _options_of(part)]
        else:
            options.append(_option(name, parameter.annotation, parameter.default))

    if not any(each.name == "verbose" for each in options):
        options.append(_option("verbose", _VERBOSE, default=False))
    names = set(inspect.signature(command).parameters) - {typed_name}

    def grouped(context: typer.Context, **values: Any) -> None:
        verbose = values["verbose"]
        typed = {name for name in values if _is_typed(context, name)}
        try:
            with without_panics():
                for name, group in groups.items():
                    values[name] = _build(group, {each: values[each] for each in typed})
                if typed_name:
                    values[typed_name] = _by_name({each: values[each] for each in typed})
                command(**{name: values[name] for name in {*names, typed_name} - {""}})
        except BatchImportError as error:
            if verbose and error.__cause__ is not None:
                error.add_note(f"cause: {error.__cause__!r}")
            raise

    grouped.__name__, grouped.__doc__ = command.__name__, command.__doc__
    # What `inspect.signature` returns, by which Typer finds the options.
    grouped.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # unknown to mypy
    return grouped


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `run` among some values, which have the names of fields."""
    return {each.name: values[each.field] for each in settings().values() if each.field in values}


def _build(group: Any, typed: Mapping[str, Any]) -> Any:
    """Return a group of what was typed, or else is in the environment."""
    if group is Run:
        return run_from(_by_name(typed), from_environment())
    known = {each.name for each in fields(group)}
    values = {name: value for name, value in typed.items() if name in known}
    if any(issubclass(part, group) for part in _PARTS.values()):
        for name, value in from_environment(group).items():
            values.setdefault(settings()[name].field, value)
    return group(**values)


@cache  # several commands have the same groups
def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    options = []
    for each in fields(group):
        kind, option = get_args(hints[each.name])
        option = copy(option)
        option.rich_help_panel = group.title
        options.append(_option(each.name, Annotated[kind, option], each.default))
    return options


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _in_plain_words(text: str) -> str:
    """Return why a value is not taken, and which one was probably meant."""
    text = text.removeprefix("Value error, ").rstrip(".")
    text = re.sub(r"Input should be a valid (\w+).*", r"not a valid \1", text)
    given, *known = re.findall(r"'([^']*)'", text) or [""]
    near = meant(given, known)
    return f"{text}. Did you mean {near}?" if near else text


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under the titles of their groups."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; say in plain words which value is not taken.

        Raises:
            BadParameter: If the value of an option is not one that it takes.
            UsageError: If one is empty.
        """
        typed = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = _in_plain_words(error.message)
            raise
        # As it was typed: for Typer an empty path is the current directory.
        values, _, _ = self.make_parser(ctx).parse_args([] if ctx.resilient_parsing else typed)
        for each in self.params:
            given = values.get(str(each.name)) if each.param_type_name == "option" else None
            for text in given if isinstance(given, list) else [given]:
                if text == "":
                    check_not_empty(str(each.name).rstrip("_"), text, each.opts[0])
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group, after the command's own options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            panel = getattr(parameter, "rich_help_panel", None)
            if line is not None and parameter.param_type_name == "argument":
                panel, line = "Arguments", (str(parameter.metavar), line[1])
            if line is not None:
                sections.setdefault(panel or "Options", []).append(line)
        for title, lines in sections.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)
