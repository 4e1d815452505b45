"""The options, once each, with the words that users see; and their values as our nouns."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from batchimport.errors import UsageError
from batchimport.model import SourceOptions, TemporalOptions

STATE_DIR = Path(".batchimport")
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", re.IGNORECASE)


class IfExists(StrEnum):
    """What to do with a table that exists when a new job begins."""

    append = "append"
    truncate = "truncate"
    replace = "replace"  # type: ignore[assignment]  # hides str.replace, which is not needed here
    fail = "fail"


class OnConflict(StrEnum):
    """What to do with a record whose key is in the table."""

    error = "error"
    ignore = "ignore"
    update = "update"


class IfSourceChanged(StrEnum):
    """What to do with a source that is not what it was when its job began."""

    fail = "fail"
    append = "append"


class Adaptive(StrEnum):
    """Who chooses the chunk size."""

    auto = "auto"
    load = "load"
    off = "off"


class Format(StrEnum):
    """What the source is."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    json = "json"
    parquet = "parquet"


class Compression(StrEnum):
    """How the source is compressed."""

    gzip = "gzip"
    zstd = "zstd"
    bz2 = "bz2"
    xz = "xz"
    none = "none"


class Engine(StrEnum):
    """Who runs the chunks."""

    local = "local"
    temporal = "temporal"


class ProgressMode(StrEnum):
    """How progress is shown, always on stderr."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    json = "json"
    none = "none"


def parse_size(text: str, option: str) -> int:
    """Return the bytes of `32MiB`, `500MB`, `4096`.

    Raises:
        UsageError: If it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size < 1:
        raise UsageError(f"not a size: {text!r}", where=option, hint="such as 32MiB, 500MB or 4096")
    return size


def parse_max_errors(text: str) -> tuple[int | None, float | None]:
    """Return the count of `10`, or the share of `2%`.

    Raises:
        UsageError: If it is neither.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        if percent:
            return None, float(number) / 100
        return int(number), None
    except ValueError:
        raise UsageError(
            f"not a number or a percentage: {text!r}",
            where="--max-errors",
            hint="such as 100 or 2%",
        ) from None


def parse_infer_records(text: str) -> int | None:
    """Return the number, or None for `all`.

    Raises:
        UsageError: If it is neither.
    """
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"not a number or `all`: {text!r}", where="--infer-rows")


Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="The files to import: paths, quoted patterns."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id; see `batchimport jobs`.")]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        envvar="BATCHIMPORT_TO",
        metavar="URL",
        help="Destination: sqlite:///path, duckdb:///path, parquet:///directory. Three slashes: relative, four: absolute. "
        "Default: sqlite:///STEM.db",
    ),
]
Table = Annotated[str | None, typer.Option(help="Table to fill. Default: the source's stem.")]
Schema = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|MODULE:MODEL",
        help="JSON Schema (draft 2020-12) of one record, or a pydantic model. Default: inferred.",
    ),
]
Transform = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNC",
        help="A function, by its annotation: f(pl.LazyFrame) -> pl.LazyFrame, or per record "
        "f(dict) -> dict | None (None filters), sync or async.",
    ),
]
Sql = Annotated[str | None, typer.Option(metavar="QUERY", help="Polars SQL over `records`.")]
IfExistsOption = Annotated[
    IfExists, typer.Option("--if-exists", help="What to do with an existing table in a new job.")
]
OnConflictOption = Annotated[
    OnConflict,
    typer.Option(
        "--on-conflict",
        help="What to do with a record whose key is in the table: reject it, leave it out, or "
        "update the row (needs --key).",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="COLS", help="Columns that are unique together, parted by commas."),
]
LedgerSchema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="PostgreSQL, DuckDB: schema of the ledger's tables."),
]
MaxParallel = Annotated[int, typer.Option(min=1, max=256, help="Chunks in flight, at most.")]
ChunkSize = Annotated[
    int | None, typer.Option(min=1, help="Fixed records per chunk. Default: adaptive.")
]
MinChunkSize = Annotated[int, typer.Option(min=1, help="Lower bound of the adaptive size.")]
MaxChunkSize = Annotated[int, typer.Option(min=1, help="Upper bound of the adaptive size.")]
ChunkBytes = Annotated[
    str, typer.Option(metavar="SIZE", help="A chunk is cut at this many source bytes.")
]
AdaptiveOption = Annotated[
    Adaptive,
    typer.Option(
        "--adaptive",
        help="auto: what suits the destination, less when others need the machine; "
        "load: by CPU load alone; off: one size.",
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory guard. Default: 75% of what is free.")
]
MaxAttempts = Annotated[int, typer.Option(min=1, help="Attempts per chunk.")]
RetryInitial = Annotated[float, typer.Option(min=0, help="Seconds before the second attempt.")]
RetryMax = Annotated[float, typer.Option(min=0, help="Seconds between attempts, at most.")]
RetryBackoff = Annotated[float, typer.Option(min=1, help="Each wait is this many times the last.")]
ChunkTimeout = Annotated[float, typer.Option(min=0.001, help="Seconds one attempt may take.")]
MaxErrors = Annotated[
    str | None,
    typer.Option(metavar="N|N%", help="Stop when more records than this were rejected."),
]
Rejects = Annotated[
    Path | None, typer.Option(help="Where to write the rejects. Default: in the state directory.")
]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="What the source is. Default: by its name.")
]
CompressionOption = Annotated[
    Compression | None,
    typer.Option("--compression", help="How the source is compressed. Default: by its content."),
]
Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="utf-8, utf-16, latin-1, windows-1252, … Default: detected."),
]
Delimiter = Annotated[str | None, typer.Option(help="CSV: one character. Default: detected.")]
Quote = Annotated[
    str | None, typer.Option(help="CSV: one character, or nothing. Default: detected.")
]
NoHeader = Annotated[bool, typer.Option("--no-header", help="CSV: the first row is a record.")]
NullString = Annotated[
    str | None, typer.Option(help="CSV: the cell that means null. Default: an empty cell.")
]
SkipLines = Annotated[
    int | None, typer.Option(min=0, help="CSV: lines to skip before the header. Default: detected.")
]
MaxRecordBytes = Annotated[
    str, typer.Option(metavar="SIZE", help="A longer record is rejected, not fatal.")
]
InferRows = Annotated[
    str, typer.Option(metavar="N|all", help="Records looked at to infer a schema.")
]
JobIdOption = Annotated[str | None, typer.Option("--job-id", help="Default: STEM-hash.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget the job's ledger, begin again.")]
AllowDuplicates = Annotated[
    bool, typer.Option("--allow-duplicates", help="Let --restart append the same rows again.")
]
IfSourceChangedOption = Annotated[
    IfSourceChanged,
    typer.Option(
        "--if-source-changed",
        help="append: if it only grew at its end, import the new tail as part of the same job.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N records.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Do all as usual, report the same, keep nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, alone on stdout.")]
SummaryPath = Annotated[Path | None, typer.Option("--summary", help="Write the summary there too.")]
Progress = Annotated[
    ProgressMode,
    typer.Option("--progress", help="How to show progress; auto: rich on a terminal, else plain."),
]
StateDir = Annotated[
    Path, typer.Option(envvar="BATCHIMPORT_STATE_DIR", help="Where jobs are remembered.")
]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero-on-rejects", help="Leave with 0 when only rejects are left.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print causes of errors.")]


def source_options(  # noqa: PLR0913 - one parameter an option
    *,
    format: Format | None,  # noqa: A002 - the option's name
    compression: Compression | None,
    encoding: str | None,
    delimiter: str | None,
    quote: str | None,
    no_header: bool,
    null_string: str | None,
    skip_lines: int | None,
    max_record_bytes: str,
) -> SourceOptions:
    """Return what the options say about how the sources are to be understood.

    Raises:
        UsageError: If a size is none.
    """
    return SourceOptions(
        format=format.value if format else None,
        compression=compression.value if compression else None,
        encoding=encoding,
        delimiter=delimiter,
        quote=quote,
        header=not no_header,
        null_string=null_string,
        skip_lines=skip_lines,
        max_record_bytes=parse_size(max_record_bytes, "--max-record-bytes"),
    )


EngineOption = Annotated[
    Engine | None,
    typer.Option(
        "--engine", help="local: this process; temporal: the workers of a Temporal server."
    ),
]
TemporalAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Default: TEMPORAL_ADDRESS, else localhost:7233."),
]
TemporalNamespace = Annotated[
    str | None, typer.Option(metavar="NAME", help="Default: TEMPORAL_NAMESPACE, else default.")
]
TaskQueue = Annotated[
    str, typer.Option(metavar="NAME", help="What starter and workers must have in common.")
]
TASK_QUEUE = "batchimport"
WorkerParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        min=1,
        max=256,
        help="Chunks at once in this process, at most. Default: its processors and two.",
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="With --engine temporal: start the job and leave.")
]


def temporal_options(
    engine: Engine | None,
    address: str | None,
    namespace: str | None,
    task_queue: str = TASK_QUEUE,
    *,
    detach: bool = False,
) -> TemporalOptions | None:
    """Return where the Temporal engine is; None if it was not asked for.

    Raises:
        UsageError: If one of its options was given without it.
    """
    if engine is Engine.temporal:
        return TemporalOptions(address, namespace, task_queue, detach)
    given = {
        "--temporal-address": address,
        "--temporal-namespace": namespace,
        "--task-queue": task_queue != TASK_QUEUE,
        "--detach": detach,
    }
    for name, value in given.items():
        if value:
            raise UsageError("is an option of --engine temporal", where=name)
    return None


LogFile = Annotated[
    Path | None, typer.Option(help="Append what happens to this file, a line an event.")
]
