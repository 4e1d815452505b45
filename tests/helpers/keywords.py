"""What `batchimport/keywords.py` has to be, by the options of `run`: `python -m tests.helpers.keywords`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin

from batchimport.cli.options.values import Setting, settings

_HEAD = '''"""The keywords of the Python API, as editors and type checkers see them.

Written by `python -m tests.helpers.keywords`; a test compares them with the options of `run`.
"""

from __future__ import annotations

# fmt: off
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict


class PlaceKeywords(TypedDict, total=False):
    """Where jobs are known: in a state directory, a destination, or on a Temporal server."""

%s

class ResumeKeywords(TypedDict, total=False):
    """Options of `batchimport resume`."""

%s

class RunKeywords(TypedDict, total=False):
    """Options of `batchimport run`."""

%s'''
_PLACE = ("Engine", "State")
_RESUME = (*_PLACE, "Output")


def written() -> str:
    """Return the text of the module."""
    place = [each for each in settings().values() if _is_of(each, _PLACE) and each.name != "detach"]
    more = ("max_errors", "schema", "transform")
    resume = [each for each in settings().values() if _is_of(each, _RESUME) or each.name in more]
    return _HEAD % (_lines(place), _lines(resume), _lines(list(settings().values())))


def _is_of(known: Setting, titles: tuple[str, ...]) -> bool:
    return known.title in titles or known.name in ("to", "ledger_schema")


def _lines(known: list[Setting]) -> str:
    return "".join(f"    {each.name}: {_type(each)} | None\n" for each in known)


def _type(known: Setting) -> str:
    special = {
        "schema": "str | PathLike[str] | Mapping[str, Any] | type[Any]",
        "transform": "str | Callable[..., Any]",
        "to": "str | PathLike[str]",
    }
    if known.name in special:
        return special[known.name]
    kind: Any = known.kind
    if known.is_list:
        return "str | Sequence[str] | Mapping[str, Any]"
    if get_origin(kind) is not None:
        return f"Literal[{', '.join(map(json.dumps, get_args(kind)))}]"
    if kind is str and str(known.metavar) == "COLUMNS":
        return "str | Sequence[str]"
    if kind is str and known.metavar in ("SIZE", "N|N%", "N|all"):
        return "str | int"
    return {Path: "str | PathLike[str]"}.get(kind, kind.__name__)


if __name__ == "__main__":
    from batchimport import cli

    (Path(cli.__file__).parents[1] / "keywords.py").write_text(written(), encoding="utf-8")
