"""Open files as one source: which format a file has is decided by its content first, then by its name."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError
from batchimport.object_store import is_url
from batchimport.sources.bytes.archive import Archives, is_workbook, open_bytes
from batchimport.sources.bytes.compression import (
    check_is_begun,
    check_is_unpacked,
    compression_of,
    plain_name,
)
from batchimport.sources.bytes.file import HEAD_BYTES, closed_on_error
from batchimport.sources.bytes.unpack import on_disk, open_text
from batchimport.sources.detect import check_is_meant, check_is_text, format_of_text
from batchimport.sources.paths import is_kept, name_of, names_of, split_member
from batchimport.sources.registry import FORMATS, INSIDE, spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import SourceOptions
    from batchimport.schema import RecordSchema
    from batchimport.sources.base import Batch, Form, Source
    from batchimport.sources.bytes.file import TextFile
    from batchimport.sources.bytes.spool import Spool
    from batchimport.sources.shape import ShapedSource


def open_source(
    paths: Sequence[str],
    options: SourceOptions,
    spool: Spool | None = None,
    *,
    unpack_into: Path | None = None,
) -> ShapedSource:
    """Open files as one sequence of records.

    Args:
        spool: What was read from standard input or given by a program, if that is one of the paths.
        unpack_into: The folder for compressed files and other encodings; None for the system's
            directory of temporary files.

    Raises:
        UsageError: If a file cannot be read, or is not what its name or `--format` says.
        FatalError: If an archive is damaged or cannot be unpacked.
    """
    archives = Archives(unpack_into)

    def open_file(path: str, name: str) -> Source:
        archive, member = split_member(_resolve(path, spool))
        file = archives.open(archive, member) if member else _open_alone(archive, unpack_into)
        named = options.format or _format_by_name(name_of(file.path) if member else name)
        if options.compression is None and named != "excel":
            file = archives.only_member(file, _SUFFIXES, is_named=not member and not is_kept(path))
        return _open_file(file, name, options, unpack_into)

    if len(paths) == 1:
        return _shaped(open_file(paths[0], name_of(paths[0])), options)
    from batchimport.sources.many import ManySource  # noqa: PLC0415 - most jobs have one file

    names = names_of(paths)
    return _shaped(ManySource(names, lambda at: open_file(paths[at], names[at])), options)


_SUFFIXES = [suffix for known in FORMATS.values() for suffix in known.suffixes]


def _shaped(source: Source, options: SourceOptions) -> ShapedSource:
    from batchimport.sources.shape import ShapedSource  # noqa: PLC0415 - imports Polars

    with closed_on_error(source):
        return ShapedSource(source, options)


def reread(
    form: Form, records: Sequence[bytes], too_long: frozenset[int], schema: RecordSchema
) -> Batch:
    """Parse records that were kept by themselves, as the bytes of their rejects.

    Args:
        form: How they are written, as their source described it (`Source.forms`).
        too_long: Indices of records that are longer than is allowed, or not whole.
    """
    batch: Batch = _class_of(form["format"]).reread(form, records, too_long, schema)
    return batch


def _resolve(path: str, spool: Spool | None) -> str:
    """Return the file to open: that of the spool for standard input."""
    if not is_kept(path):
        return path
    if spool is None:
        raise UsageError("standard input cannot be read here", hint="name a file")
    return str(spool.path)


def _open_alone(path: str, folder: Path | None) -> TextFile:
    """Open what is no member of an archive."""
    if not is_url(path) and (stat.S_ISFIFO(_mode(path)) or stat.S_ISCHR(_mode(path))):
        raise UsageError(
            "is a pipe or a device, which can be read only once",
            where=path,
            hint="pipe it into `batchimport run -`, which keeps it until the job is completed",
        )
    return open_bytes(path, folder)


def _open_file(
    file: TextFile, name: str, options: SourceOptions, unpack_into: Path | None
) -> Source:
    path = file.path
    with closed_on_error(file):
        if options.compression is None and compression_of(head := file.read_at(0, 64)) is None:
            check_is_begun(head, _own_name(file, name), path)
        kind = _format_of(file, name, options)
        _check_fits(name, kind, options)
    if options.records is not None:
        kind = "json"
    if kind is not None and FORMATS[kind].magic is not None:
        return _open_binary(kind, on_disk(file, unpack_into), name, options, unpack_into)
    text = open_text(file, options, kind, unpack_into)
    with closed_on_error(text):
        head = text.read_at(0, HEAD_BYTES)
        if options.compression != "none":
            check_is_unpacked(head, path)
        check_is_text(path, kind or "text", _without_controls(head, options.delimiter))
        kind = "json" if options.records else _decide(path, head, kind, options)
        _check_fits(name, kind, options)
        if options.format is None and options.delimiter is None:
            check_is_meant(path, kind, head)
        return _source_of(kind, text, name, replace(options, format=kind))


_OF_FORMATS = {
    ("json", "jsonl"): ("records", "flatten"),
    ("csv", "tsv", "copy"): ("decimal", "thousands", "comment", "ragged"),
    ("excel",): ("sheet",),
}
"""Options that only some formats have."""


def _check_fits(name: str, kind: str | None, options: SourceOptions) -> None:
    """Refuse an option that means nothing in this format."""
    for kinds, names in _OF_FORMATS.items():
        given = next((each for each in names if getattr(options, each)), None)
        if kind is not None and kind not in kinds and given is not None:
            raise UsageError(
                f"{name} is {kind}: only {', '.join(kinds)} {'have' if len(kinds) > 1 else 'has'} this option",
                where=f"--{given}",
            )


def _format_of(file: TextFile, name: str, options: SourceOptions) -> str | None:
    """Return the format that the user, the first bytes or the name says; None if none does."""
    if options.format not in (None, *FORMATS):
        names = ", ".join(map(repr, FORMATS))
        raise UsageError(f"{options.format!r} is not one of {names}", where="--format")
    if options.format is not None:
        return options.format
    return _binary_format_of(file) or _format_by_name(_own_name(file, name))


def _own_name(file: TextFile, name: str) -> str:
    """Return the name of a file, in its archive if it is a member of one."""
    return name_of(file.path) if INSIDE in file.path else name


def _open_binary(
    kind: str, file: TextFile, name: str, options: SourceOptions, folder: Path | None
) -> Source:
    if FORMATS[kind].text is None:
        return _source_of(kind, file, name, options)
    with closing(file):
        text = _load(FORMATS[kind].text)(file, options, folder)
    with closed_on_error(text):
        return _source_of(kind, text, name, options)


def _source_of(kind: str, *arguments: Any) -> Source:
    source: Source = _class_of(kind)(*arguments)
    return source


def _class_of(kind: str) -> Any:
    return _load(FORMATS[kind].source)


def _load(name: str | None) -> Any:
    module, _, attribute = str(name).partition(":")
    return getattr(import_module(module), attribute)


def _format_by_name(name: str) -> str | None:
    suffix = Path(plain_name(name)).suffix.lower()
    return next((kind for kind, known in FORMATS.items() if suffix in known.suffixes), None)


def _binary_format_of(file: TextFile) -> str | None:
    """Return the binary format whose magic bytes a file begins with; None for text."""
    head = file.read_at(0, 16)
    if is_workbook(file):
        return "excel"
    binary = {kind: known.magic for kind, known in FORMATS.items() if known.magic is not None}
    return next((kind for kind, magic in binary.items() if head.startswith(magic)), None)


def _decide(path: str, head: bytes, kind: str | None, options: SourceOptions) -> str:
    detected = format_of_text(head, kind)
    if detected == "tsv" and options.format is None and b"\t" not in head:
        detected = "csv"  # as many delimiters as there are, but no tab
    if options.format != "jsonl":
        return detected
    if detected == "json":
        raise UsageError("is JSON, but not an object a line", where=path, hint="--format json")
    return "jsonl"


def _without_controls(head: bytes, delimiter: str | None) -> bytes:
    """Return the head of a file without a delimiter that looks like binary data."""
    mark = spelled(delimiter)
    return head.replace(mark.encode(), b",") if mark else head


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - takes any string
    except (OSError, ValueError):
        return 0
