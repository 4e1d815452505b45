"""Where records come from, by format; the content has the last word over the name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError
from batchimport.sources.codec import TextFile
from batchimport.sources.paths import names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.job import SourceOptions
    from batchimport.sources.base import Source

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


def open_source(paths: Sequence[str], options: SourceOptions) -> Source:
    """Open files as one sequence of records.

    Raises:
        UsageError: If one cannot be read, or is not what its name or `--format` says.
    """
    if len(paths) == 1:
        return _open_file(paths[0], Path(paths[0]).name, options)
    from batchimport.sources.many import ManySource  # noqa: PLC0415 - needed by few

    names = names_of(paths)
    return ManySource(names, lambda at: _open_file(paths[at], names[at], options))


def _open_file(path: str, name: str, options: SourceOptions) -> Source:
    text = TextFile(path)
    try:
        kind = options.format or _SUFFIXES.get(Path(path).suffix.lower())
        head = text.read_at(0, 4096)
        if kind is None:
            kind = "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
        _check_content(path, kind, head)
        module, _, factory = FORMATS[kind].partition(":")
        return cast("Source", getattr(import_module(module), factory)(text, name, options))
    except BaseException:
        text.close()
        raise


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
