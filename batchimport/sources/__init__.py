"""Where records come from, by format; the content has the last word over the name."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError
from batchimport.sources.bytes.compression import plain_name
from batchimport.sources.bytes.file import HEAD_BYTES
from batchimport.sources.bytes.streamed import open_text
from batchimport.sources.detect import check_is_text, format_of_text
from batchimport.sources.paths import STANDARD_INPUT, name_of, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import SourceOptions
    from batchimport.sources.base import Source
    from batchimport.sources.bytes.spool import Spool

FORMATS = {
    "jsonl": "batchimport.sources.jsonl.source:JsonLinesSource",
    "csv": "batchimport.sources.csv.source:DelimitedSource",
    "tsv": "batchimport.sources.csv.source:DelimitedSource",
    "json": "batchimport.sources.json.source:JsonValuesSource",
}
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
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
    if options.format not in (None, *FORMATS, "parquet"):
        names = ", ".join(map(repr, (*FORMATS, "parquet")))
        raise UsageError(f"{options.format!r} is not one of {names}", where="--format")
    kind = options.format or _SUFFIXES.get(Path(plain_name(name)).suffix.lower())
    if kind == "parquet" or (options.format is None and _starts_like_parquet(path)):
        from batchimport.sources.parquet.source import ParquetSource  # noqa: PLC0415 - needed by few

        return ParquetSource(path, name)
    text = open_text(path, options, kind)
    try:
        head = text.read_at(0, HEAD_BYTES)
        check_is_text(path, kind or "text", head)
        kind = _decide(path, head, kind, options)
        module, _, factory = FORMATS[kind].partition(":")
        known = replace(options, format=kind)
        return cast("Source", getattr(import_module(module), factory)(text, name, known))
    except BaseException:
        text.close()
        raise


def _starts_like_parquet(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PAR1"
    except (OSError, ValueError):
        return False


def _decide(path: str, head: bytes, kind: str | None, options: SourceOptions) -> str:
    found = format_of_text(head, kind)
    if options.format != "jsonl":
        return found
    if found == "json":
        raise UsageError("is JSON, but not an object a line", where=path, hint="--format json")
    return "jsonl"


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - takes any text
    except (OSError, ValueError):
        return 0
