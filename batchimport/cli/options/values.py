"""Options by their names, for whoever does not type them as flags: the environment, job.toml, Python.

All three give values of their own types, which become those of the options here, with the same errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from batchimport.cli import options as o  # noqa: TC001 - read while the program runs
from batchimport.cli.options.reading import Reading, Shaping  # noqa: TC001 - likewise
from batchimport.errors import UsageError, did_you_mean, hint_for

PREFIX = "BATCHIMPORT_"
_OTHERS = (f"{PREFIX}TO_", f"{PREFIX}CONFIG", f"{PREFIX}FAILPOINTS")
"""Variables that mean something else."""
MAY_BE_EMPTY = frozenset({"quote", "null_string", "field"})
"""Options of which an empty text means something: no quotes, an empty cell, no field."""
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_SYNONYMS = {"upsert": "update", "merge": "update", "skip": "ignore", "overwrite": "replace"}
"""Words of other tools for values of our options."""


@dataclass(frozen=True)
class Run:
    """All that an import may be asked for, in groups."""

    destination: o.Destination
    reading: Reading
    shaping: Shaping
    records: o.Records
    selection: o.Selection
    sizes: o.Sizes
    failures: o.Failures
    output: o.Output
    engine: o.Engine
    state: o.State


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of `run`.

    Attributes:
        name: As a keyword and in job.toml: that of its flag, with underscores.
        field: Its field in the group `group` of `Run`.
        kind: Type of its values, None left out.
        title: What its group is called.
    """

    name: str
    group: str
    field: str
    kind: Any
    default: Any
    help: str
    metavar: str | None
    title: str

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return PREFIX + self.name.upper()

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return get_origin(self.kind) is list


@cache
def settings() -> dict[str, Setting]:
    """Return all options of `run` by their names."""
    found = {}
    for part, group in get_type_hints(Run).items():
        hints = get_type_hints(group, include_extras=True)
        for each in fields(group):
            annotation, option = get_args(hints[each.name])
            kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
            is_union = NoneType in get_args(annotation)
            declared = (
                option.default,
                *(option.param_decls or ()),
            )  # the first is where Typer has it
            flags = [str(flag) for flag in declared if str(flag).startswith("--")]
            # `--analyze/--no-analyze` says yes and no.
            flag = flags[0].partition("/")[0] if flags else each.name
            name = flag.removeprefix("--").replace("-", "_")
            found[name] = Setting(
                name,
                part,
                each.name,
                kinds[0] if is_union else annotation,
                each.default,
                option.help or "",
                option.metavar,
                group.title,
            )
    return found


def find(name: str, where: str) -> Setting:
    """Return the option of a name, which may be written with dashes.

    Raises:
        UsageError: If there is no such option; it says which one was probably meant.
    """
    known = settings()
    found = known.get(name.replace("-", "_"))
    if found is not None:
        return found
    hint = hint_for(name.replace("-", "_"), known, "`batchimport run --help` lists all options")
    raise UsageError(f"there is no option {name}", where, hint)


def from_environment(group: type[Any] | None = None) -> dict[str, Any]:
    """Return the options that variables of the environment set; an empty one counts as not set.

    Args:
        group: Only the options of this group.

    Raises:
        UsageError: If a value is not one that its option takes.
    """
    wanted = {each.name for each in fields(group)} if group else None
    return {
        known.name: _from_text(known, text)
        for known in settings().values()
        if wanted is None or known.field in wanted
        if (text := os.environ.get(known.variable))
    }


def misspelt_variables() -> list[tuple[str, str]]:
    """Return variables of the environment that set no option, with those that were probably meant."""
    known = [each.variable for each in settings().values()]
    others = [name for name in os.environ if name.startswith(PREFIX) and name not in known]
    near = [(name, did_you_mean(name, known)) for name in others if not name.startswith(_OTHERS)]
    return [(name, other) for name, other in near if other is not None]


def run_from(*layers: Mapping[str, Any]) -> Run:
    """Return what an import is asked for.

    Args:
        layers: Values of options by name; the first that has an option decides it.
    """
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values |= layer
    parts: dict[str, dict[str, Any]] = {part: {} for part in get_type_hints(Run)}
    for name, value in values.items():
        known = settings()[name]
        parts[known.group][known.field] = value
    groups = get_type_hints(Run)
    return Run(**{part: groups[part](**chosen) for part, chosen in parts.items()})


def convert(known: Setting, value: Any, where: str) -> Any:
    """Return a value of Python or TOML as one of the option's type.

    A list stands for an option that is given several times, or for names with commas between; a mapping
    for a list of `key=value`.

    Raises:
        UsageError: If it is none.
    """
    if isinstance(value, Mapping):
        value = [f"{key}={_text(item, where)}" for key, item in value.items()]
    is_many = isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike)
    if known.is_list:
        items = [_text(item, where) for item in (value if is_many else [value])]
        return [check_not_empty(known.name, item, where) for item in items]
    if is_many and known.kind is str:
        return _joined([_text(item, where) for item in value], where) if value else known.default
    if known.kind in (bool, int, float):
        return _number(known.kind, value, where)
    text = check_not_empty(known.name, _text(value, where), where)
    if get_origin(known.kind) is Literal:
        _check_choice(known, text, where)
    return Path(text) if known.kind is Path else text


def check_not_empty(name: str, text: str, where: str) -> str:
    """Return the value of an option: no text stands for "not given", which is to leave the option out.

    Raises:
        UsageError: If it is empty, and that means nothing.
    """
    if not text and name not in MAY_BE_EMPTY:
        raise UsageError("must not be empty", where, hint="name a value, or leave it out")
    return text


def _number(kind: type, value: Any, where: str) -> Any:
    is_right = type(value) is kind or (kind is float and type(value) is int)
    if not is_right:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"must be {wanted}, not {value!r}", where)
    return kind(value)


def _text(value: Any, where: str) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if type(value) in (int, float):
        return str(value)
    raise UsageError(f"must be text, not {value!r:.100}", where)


def _joined(items: list[str], where: str) -> str:
    for item in items:
        if "," in item:
            raise UsageError(f"a name with a comma in it cannot be given: {item!r}", where)
    return ",".join(items)


def _check_choice(known: Setting, text: str, where: str) -> None:
    choices = get_args(known.kind)
    if text not in choices:
        near = meant(text, choices)
        raise UsageError(
            f"{text!r} is not one of {', '.join(map(repr, choices))}",
            where,
            hint=f"did you mean {near}?" if near else None,
        )


def meant(text: str, choices: Iterable[str]) -> str | None:
    """Return the value that was probably meant by one that an option does not take."""
    known = list(choices)
    near = _SYNONYMS.get(text)
    return near if near in known else did_you_mean(text, known)


def _from_text(known: Setting, text: str) -> Any:
    """Return the value of a variable of the environment."""
    where, word = known.variable, text.strip().lower()
    if known.kind is bool:
        if word not in _TRUE | _FALSE:
            raise UsageError(f"must be true or false, not {text!r}", where)
        return word in _TRUE
    if known.kind in (int, float):
        try:
            return known.kind(text)
        except ValueError:
            wanted = "a whole number" if known.kind is int else "a number"
            raise UsageError(f"must be {wanted}, not {text!r}", where) from None
    return convert(known, _items(text, where) if known.is_list else text, where)


def _items(text: str, where: str) -> list[str]:
    """Return the values of an option that may be repeated: comma-separated, or a JSON array."""
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        items = json.loads(text)
    except ValueError as error:
        raise UsageError(f"is not a JSON array: {error}", where) from error
    return list(items)
