"""Where records come from, by format; the content has the last word over the name."""

from __future__ import annotations

import os
import stat
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError
from batchimport.sources.codec import TextFile
from batchimport.sources.paths import STANDARD_INPUT, name_of, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.job import SourceOptions
    from batchimport.sources.base import Source
    from batchimport.sources.spool import Spool

FORMATS = {
    "jsonl": "batchimport.sources.jsonl:JsonLinesSource",
    "csv": "batchimport.sources.delimited:DelimitedSource",
    "tsv": "batchimport.sources.delimited:DelimitedSource",
}
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
_MAGIC = {
    b"\x1f\x8b": ("gzip", "gunzip -k"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dk"),
    b"BZh": ("bzip2", "bunzip2 -k"),
    b"\xfd7zXZ\x00": ("xz", "unxz -k"),
}
_LOOKS_LIKE = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def open_source(paths: Sequence[str], options: SourceOptions, spool: Spool | None = None) -> Source:
    """Open files as one sequence of records.

    Args:
        spool: What was read from standard input, if that is one of the paths.

    Raises:
        UsageError: If one cannot be read, or is not what its name or `--format` says.
    """
    if len(paths) == 1:
        return _open_file(_resolve(paths[0], spool), name_of(paths[0]), options)
    from batchimport.sources.many import ManySource  # noqa: PLC0415 - needed by few

    names = names_of(paths)
    return ManySource(names, lambda at: _open_file(_resolve(paths[at], spool), names[at], options))


def _resolve(path: str, spool: Spool | None) -> str:
    """Return the file to open: standard input is wherever its spool is now."""
    if path != STANDARD_INPUT:
        return path
    if spool is None:
        raise UsageError("standard input cannot be read here", hint="name a file")
    return str(spool.path)


def _open_file(path: str, name: str, options: SourceOptions) -> Source:
    if stat.S_ISFIFO(_mode(path)) or stat.S_ISCHR(_mode(path)):
        raise UsageError(
            "is a pipe or a device, which can be read only once",
            where=path,
            hint="pipe it into `batchimport run -`, which keeps it until the job is completed",
        )
    text = TextFile(path)
    try:
        kind = options.format or _SUFFIXES.get(Path(name).suffix.lower())
        head = text.read_at(0, 4096)
        if kind is None:
            kind = "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
        _check_content(path, kind, head)
        module, _, factory = FORMATS[kind].partition(":")
        return cast("Source", getattr(import_module(module), factory)(text, name, options))
    except BaseException:
        text.close()
        raise


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - takes any text
    except (OSError, ValueError):
        return 0


def _check_content(path: str, kind: str, head: bytes) -> None:
    for magic, (name, command) in _MAGIC.items():
        if head.startswith(magic):
            raise UsageError(
                f"is compressed with {name}", where=path, hint=f"unpack it first: {command} {path}"
            )
    for magic, name in _LOOKS_LIKE.items():
        if head.startswith(magic):
            raise UsageError(f"is {name}, not {kind}", where=path, hint="convert it to UTF-8 text")
    if kind == "jsonl":
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        first = start.partition(b"\n")[0].rstrip()
        if start.startswith(b"["):
            problem = "is one JSON array, not a JSON object a line"
        elif first == b"{":
            problem = "is pretty-printed JSON, not a JSON object a line"
        else:
            return
        raise UsageError(
            problem, where=path, hint="convert it: jq -c '.[]? // .' FILE > FILE.jsonl"
        )
