"""Which files the words on the command line mean."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from batchimport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


STANDARD_INPUT = "-"


def find_sources(words: Iterable[str]) -> tuple[str, ...]:
    """Return the absolute paths that paths and patterns mean, each file once, in order.

    What is there under its very name is no pattern; the files of a pattern are sorted by name.

    Raises:
        UsageError: If a pattern finds no file.
    """
    found: dict[str, str] = {}
    for path in (path for word in words for path in _files_of(word)):
        found.setdefault(path if path == STANDARD_INPUT else str(Path(path).resolve()), path)
    return tuple(found.values())


def _files_of(word: str) -> Iterator[str]:
    if not word:
        raise UsageError("an empty name", where="SOURCE", hint="name a file")
    if word == STANDARD_INPUT:
        yield word
        return
    if not glob.has_magic(word) or os.path.exists(word):  # noqa: PTH110 - takes any text
        yield str(Path(word).absolute())
        return
    found = glob.iglob(word, recursive=True)  # noqa: PTH207 - takes absolute patterns, too
    matches = sorted(path for path in found if not Path(path).is_dir())
    if not matches:
        raise UsageError("no file matches", where=word, hint="check the path and the pattern")
    yield from (str(Path(path).absolute()) for path in matches)


def stem_of(path: str) -> str:
    """Return the name by which a job and its table are called: the file's, without suffixes."""
    return name_of(path).partition(".")[0] or "records"


def name_of(path: str) -> str:
    """Return what users call a single file."""
    return "stdin" if path == STANDARD_INPUT else Path(path).name


def names_of(paths: Sequence[str]) -> list[str]:
    """Return what users call the files: their names, with folders where those alone are the same."""
    names = [name_of(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    files = [Path(path) for path in paths if path != STANDARD_INPUT]
    common = files[0].parent
    while not all(path.is_relative_to(common) for path in files):
        common = common.parent
    return [
        name if path == STANDARD_INPUT else str(Path(path).relative_to(common))
        for name, path in zip(names, paths, strict=True)
    ]
