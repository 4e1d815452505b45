"""Formats and destinations that other packages bring, by entry points; see docs/adding.md."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

_waiting: list[tuple[str, dict[str, Any], type[Any]]] = []


def register(group: str, known: dict[str, Any], kind: type[Any]) -> None:
    """Add the entries of a group to a registry. What this package has itself stays.

    A package whose entry cannot be loaded must not stop an import that does not need it: it is logged.
    """
    if not _are_there():
        return
    _waiting.append((group, known, kind))
    if len(_waiting) > 1:  # an entry is being loaded, and imports this registry: it comes next
        return
    while _waiting:
        _load(*_waiting[0])
        _waiting.pop(0)


def _load(group: str, known: dict[str, Any], kind: type[Any]) -> None:
    import logging  # noqa: PLC0415 - not for `--help`
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes longer than looking for files

    for point in entry_points(group=group):
        if point.name in known:
            continue
        try:
            entry = point.load()
            if not isinstance(entry, kind):
                raise TypeError(f"{point.value} is no {kind.__name__}")  # noqa: TRY301 - one message
        except Exception as error:  # noqa: BLE001 - other people's code may raise anything
            logging.getLogger("batchimport").warning(
                "%s of %s cannot be used: %s", point.name, group, error
            )
        else:
            known[point.name] = entry


@cache
def _are_there() -> bool:
    """Say whether an installed package has an entry for this one."""
    for folder in sys.path:
        for path in Path(folder).glob("*-info/entry_points.txt"):
            try:
                if b"[batchimport." in path.read_bytes():
                    return True
            except OSError:
                continue
    return False
