"""Which files the arguments on the command line name."""

from __future__ import annotations

import glob
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from batchimport.errors import UsageError
from batchimport.object_store import STORES, WEB, file_name, find, is_url, parse
from batchimport.sources.registry import FORMATS, INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


STANDARD_INPUT = "-"
RECORDS = "<records>"
"""Stands for records that a program gave."""
_KEPT = {STANDARD_INPUT: "stdin", RECORDS: "records"}
"""What is no file of the user, but kept in one until its job is completed; and what it is called."""
_TYPES = {
    *(
        ".txt",
        ".log",
        ".dat",
        ".data",
        ".jsonlines",
        ".jl",
        ".psv",
        ".gz",
        ".gzip",
        ".zst",
    ),
    *(".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tzst"),
    *(".zstd", ".bz2", ".xz", *(suffix for known in FORMATS.values() for suffix in known.suffixes)),
}
"""Suffixes that say how a file is written, not which one it is."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def find_sources(words: Iterable[str]) -> tuple[str, ...]:
    """Return the absolute paths, or URLs, of the files that arguments name, each file once, in order.

    An argument that is the name of an existing file is not a pattern. The files of a pattern are sorted
    by name.

    What comes after `!/` names members of an archive.

    Raises:
        UsageError: If a pattern matches no file, or no member.
    """
    files: dict[str, str] = {}
    for path in (path for word in words for path in _files_of(word)):
        files.setdefault(_identity(path), path)
    return tuple(files.values())


def _identity(path: str) -> str:
    if path == STANDARD_INPUT or is_url(path):
        return path
    file, member = split_member(path)
    real = os.path.realpath(file)  # unlike `resolve`, it takes links that lead to themselves
    return f"{real}{INSIDE if member else ''}{member}"


def split_member(path: str) -> tuple[str, str]:
    """Return the path of an archive and the name of a member in it; "" if it is a file by itself."""
    if INSIDE not in path or os.path.exists(path):  # noqa: PTH110 - takes any string
        return path, ""
    parts = path.split(INSIDE)
    ways = [(INSIDE.join(parts[:at]), INSIDE.join(parts[at:])) for at in range(1, len(parts))]
    is_there = (way for way in ways if os.path.exists(way[0]))  # noqa: PTH110 - takes any string
    return next(is_there, ways[0])


def _files_of(word: str) -> Iterator[str]:
    if not word:
        raise UsageError("an empty name", where="SOURCE", hint="name a file")
    if "\0" in word:
        raise UsageError("no file has NUL in its name", where=word, hint="check the path")
    if word == STANDARD_INPUT:
        yield word
        return
    archive, inside = split_member(word)
    if INSIDE in word and archive != word:
        for path in _files_of(archive):
            yield from _members_of(path, inside)
        return
    if _URL.match(word) and not os.path.exists(word):  # noqa: PTH110 - takes any string
        yield from _objects_of(word)
        return
    if not glob.has_magic(word) or os.path.exists(word):  # noqa: PTH110 - takes any string
        yield str(Path(word).absolute())
        return
    matched = glob.iglob(word, recursive=True)  # noqa: PTH207 - also takes absolute patterns
    matches = sorted(path for path in matched if not Path(path).is_dir())
    if not matches:
        raise UsageError("no file matches", where=word, hint="check the path and the pattern")
    yield from (str(Path(path).absolute()) for path in matches)


def _members_of(archive: str, inside: str) -> Iterator[str]:
    """Yield the paths of the members that a name or a pattern means; a name is looked up on use."""
    from batchimport.sources.bytes.archive import members_of  # noqa: PLC0415 - not for `--help`

    names = [inside]
    if glob.has_magic(inside) or not inside or inside.endswith("/"):
        names = members_of(archive, inside)
    yield from (f"{archive}{INSIDE}{name}" for name in names)


def _objects_of(word: str) -> tuple[str, ...]:
    """Return the URLs that a URL names: itself, or what matches its pattern or lies below its prefix."""
    if not is_url(word):
        url = urlsplit(word)
        shown = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
        is_file = url.scheme.lower() == "file"
        raise UsageError(
            "is a URL" if is_file else "URLs of this kind are not read",
            where=shown,
            hint=f"name the path: {unquote(url.path)}"
            if is_file
            else f"{', '.join(f'{each}://' for each in (*STORES, *WEB))} are; or pipe it: "
            f"curl -fsSL {shlex.quote(shown)} | batchimport run - "
            f"--table {shlex.quote(stem_of(url.path))}",
        )
    location = parse(word)
    if location.scheme in WEB:
        if "*" in urlsplit(word).path:
            raise UsageError(
                "a web server does not list its files", where=word, hint="name each of them"
            )
        return (location.url,)
    if not glob.has_magic(location.key) and location.key and not location.key.endswith("/"):
        return (location.url,)
    found = tuple(find(location.url))
    if not found:
        raise UsageError("no object matches", where=word, hint="check the bucket and the pattern")
    return found


def stem_of(*paths: str) -> str:
    """Return the default name of a job and its table: the first file's name without its format.

    `sales.2023.csv.gz` is `sales_2023`: a dot would name a schema. Several files that differ in what
    comes after the first dot are called by what comes before it.
    """
    stems, short = {_stem_of(path) for path in paths}, {short_stem_of(path) for path in paths}
    return short_stem_of(paths[0]) if len(stems) > len(short) == 1 else _stem_of(paths[0])


def short_stem_of(path: str) -> str:
    """Return what comes before the first dot of a file's name: earlier versions called it by that."""
    return name_of(path).partition(".")[0] or "records"


def _stem_of(path: str) -> str:
    parts = [part for part in name_of(path).split(".") if part]
    while len(parts) > 1 and f".{parts[-1].lower()}" in _TYPES:
        parts.pop()
    return "_".join(parts) or "records"


def name_of(path: str) -> str:
    """Return what users call a single file."""
    path = path.rpartition(INSIDE)[2]
    return _KEPT.get(path) or _readable(file_name(path) if is_url(path) else Path(path).name)


def is_kept(path: str) -> bool:
    """Say whether it is standard input or records that a program gave."""
    return path in _KEPT


def _readable(name: str) -> str:
    """Return a name as text; bytes that are not UTF-8, which no database takes, are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def names_of(paths: Sequence[str]) -> list[str]:
    """Return what users call the files: their names, or relative paths if some names are equal."""
    names = [name_of(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    files = [path for path in paths if not is_kept(path)]
    common = os.path.commonprefix(files).rfind("/") + 1  # noqa: RUF071 - commonpath mixes no URLs
    return [
        name if is_kept(path) else _readable(path[common:] or path)
        for name, path in zip(names, paths, strict=True)
    ]
