"""The options of all commands: each is declared once, as a field of the group that it belongs to.

Those of the groups of `values.Run` are the options of `run`, and by that also variables of the environment,
keys of job.toml, and keywords of `import_file`.
"""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from batchimport.cli.completion import job_ids
from batchimport.cli.options.around import Around
from batchimport.cli.options.output import Output as Output  # commands take it from here
from batchimport.cli.options.output import Quiet as Quiet  # likewise
from batchimport.errors import UsageError
from batchimport.model import (
    Adaptive,
    IfExists,
    NewColumns,
    OnConflict,
    RunOptions,
    TemporalOptions,
)
from batchimport.sinks.registry import address_of, examples, scheme_of
from batchimport.state.directory import STATE_PATH, StateDirectory, nearest_state

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", re.IGNORECASE)


def absolute(address: str) -> str:
    """Return an address whose path is absolute; a path alone is a file of the kind it ends with."""
    address = address_of(address)
    known = scheme_of(address)
    name, _, path = address.partition(":///")
    if known is None or not known.is_path or not path or path.startswith("/"):
        return address
    return f"{name}:///{Path(path).absolute()}"


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


def parse_max_errors(text: str) -> dict[str, Any]:
    """Return the fields of `RunOptions` that `10` or `2%` stands for.

    Raises:
        UsageError: If it is neither a number nor a percentage.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        if percent:
            return {"max_errors": None, "max_errors_share": float(number) / 100}
        return {"max_errors": int(number), "max_errors_share": None}
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
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f"not a number or `all`: {text!r}", where="--infer-rows")


Option = typer.Option
Number = partial(typer.Option, metavar="N")
Seconds = partial(typer.Option, metavar="SECONDS")
Size = partial(typer.Option, metavar="SIZE")
Address = partial(typer.Option, metavar="URL")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files to import: paths, quoted patterns, members of archives "
        "('a.zip!/*.csv'), - for standard input.",
    ),
]
JobId = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Job id; see `batchimport jobs`.", autocompletion=job_ids),
]
MaxErrors = Annotated[
    str | None,
    Option(
        "--max-errors",
        metavar="N|N%",
        help="Stop when more records than this were rejected, over all runs of the job.",
    ),
]
MaxMemory = Annotated[
    str | None,
    Size("--max-memory", help="Memory limit. Default: 75% of the free memory."),
]
InferRows = Annotated[
    str,
    Option("--infer-rows", metavar="N|all", help="Number of records to infer a schema from."),
]
Json = Annotated[bool, Option("--json", help="Print JSON to stdout, and nothing else.")]


@dataclass(frozen=True)
class Ledger:
    """Where a job imports to, and keeps its ledger."""

    title: ClassVar = "Destination"

    to: Annotated[str | None, Address(help=f"{examples()} Default: as recorded.")] = None
    ledger_schema: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="PostgreSQL, DuckDB, MySQL: database schema of the ledger's tables.",
        ),
    ] = None

    @property
    def address(self) -> str | None:
        """The address, independent of the current directory."""
        return absolute(self.to) if self.to is not None else None


@dataclass(frozen=True)
class _Table(Ledger):
    """Which table a new job imports into, and how."""

    to: Annotated[str | None, Address(help=f"{examples()} Default: sqlite:///STEM.db")] = None
    table: Annotated[
        str | None,
        Option(metavar="NAME", help="Table to import into. Default: the stem of the source."),
    ] = None
    if_exists: Annotated[IfExists, Option(help="What a new job does with an existing table.")] = (
        "append"
    )
    on_conflict: Annotated[
        OnConflict,
        Option(
            help="What to do with a record whose key is in the table: reject it, leave it out, or "
            "update the row (needs --key).",
        ),
    ] = "error"
    key: Annotated[
        str | None,
        Option(metavar="COLUMNS", help="Comma-separated columns that form a unique key."),
    ] = None
    new_columns: Annotated[
        NewColumns | None,
        Option(
            help="What to do with keys that the table has no column for: keep them in a column "
            "_extra, add columns, or reject the record. Default: extra in a table that batchimport "
            "made, else reject.",
        ),
    ] = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the key."""
        return tuple(name.strip() for name in self.key.split(",")) if self.key else ()


@dataclass(frozen=True)
class Destination(Around, _Table):
    """Where a new job imports to, and what becomes of the table."""


@dataclass(frozen=True)
class Records:
    """What is made of a record."""

    title: ClassVar = "Schema and transform"

    schema: Annotated[
        str | None,
        Option(
            metavar="FILE|MODULE:MODEL",
            help="JSON Schema (draft 2020-12) or pydantic model of a record. Default: inferred.",
        ),
    ] = None
    infer_rows: InferRows = "10000"
    transform: Annotated[
        str | None,
        Option(
            metavar="MODULE:FUNC",
            help="Python function; its annotations say which kind: f(pl.LazyFrame) -> "
            "pl.LazyFrame, or per record f(dict) -> dict | None (None: filtered), sync or async.",
        ),
    ] = None
    sql: Annotated[
        str | None, Option(metavar="QUERY", help="Polars SQL query over the table `records`.")
    ] = None


@dataclass(frozen=True)
class Selection:
    """Which job it is, and what part of it."""

    title: ClassVar = "Job"

    job_id: Annotated[str | None, Option(metavar="ID", help="Default: STEM-hash.")] = None
    limit: Annotated[int | None, Number(help="Import only the first N records.")] = None
    min_records: Annotated[
        int | None, Number(help="Refuse a source that has fewer records, before anything changes.")
    ] = None
    dry_run: Annotated[
        bool, Option("--dry-run", help="Import and report as usual, but keep nothing.")
    ] = False
    restart: Annotated[bool, Option("--restart", help="Forget the job and import it again.")] = (
        False
    )
    allow_duplicates: Annotated[
        bool, Option("--allow-duplicates", help="Append content that the table has already.")
    ] = False
    if_source_changed: Annotated[
        Literal["fail", "append"],
        Option(
            help="append: if the source only grew at its end, import the new records as part of "
            "the same job.",
        ),
    ] = "fail"


@dataclass(frozen=True)
class Sizes:
    """How many records, bytes and chunks at a time."""

    title: ClassVar = "Chunks"

    max_parallel: Annotated[int, Number(help="Maximum number of chunks in flight, 1 to 256.")] = 10
    chunk_size: Annotated[
        int | None, Number(help="Fixed number of records per chunk. Default: adaptive.")
    ] = None
    min_chunk_size: Annotated[int, Number(help="Lower bound of the adaptive size.")] = 1000
    max_chunk_size: Annotated[int, Number(help="Upper bound of the adaptive size.")] = 100_000
    chunk_bytes: Annotated[str, Size(help="Maximum size of a chunk in source bytes.")] = "32MiB"
    adaptive: Annotated[
        Adaptive,
        Option(
            help="auto: what suits the destination, less while other programs need the CPU; "
            "load: by CPU load alone; off: one size.",
        ),
    ] = "auto"
    max_memory: MaxMemory = None


@dataclass(frozen=True)
class Failures:
    """What happens when something fails."""

    title: ClassVar = "Failures"

    max_attempts: Annotated[int, Number(help="Maximum number of attempts per chunk.")] = 3
    retry_initial: Annotated[float, Seconds(help="Wait before the second attempt.")] = 1.0
    retry_max: Annotated[float, Seconds(help="Longest wait between two attempts.")] = 10.0
    retry_backoff: Annotated[
        float,
        Option(metavar="FACTOR", help="Factor by which each wait is longer than the one before."),
    ] = 2.0
    chunk_timeout: Annotated[float, Seconds(help="Longest time for one attempt.")] = 300.0
    destination_wait: Annotated[
        float, Seconds(help="How long to wait for a destination that is away or locked.")
    ] = 120.0
    max_errors: MaxErrors = None
    rejects: Annotated[
        Path | None,
        Option(metavar="PATH", help="File for the rejects. Default: in the state directory."),
    ] = None


def run_options(sizes: Sizes, failures: Failures, *, dry_run: bool) -> RunOptions:
    """Return the options of a run.

    Raises:
        UsageError: If one is not valid.
    """
    tolerated = parse_max_errors(failures.max_errors) if failures.max_errors else {}
    memory = parse_size(sizes.max_memory, "--max-memory") if sizes.max_memory else None
    return RunOptions(
        max_parallel=sizes.max_parallel,
        chunk_size=sizes.chunk_size,
        min_chunk_size=sizes.min_chunk_size,
        max_chunk_size=sizes.max_chunk_size,
        chunk_bytes=parse_size(sizes.chunk_bytes, "--chunk-bytes"),
        adaptive=sizes.adaptive,
        max_memory_bytes=memory,
        max_attempts=failures.max_attempts,
        retry_initial_seconds=failures.retry_initial,
        retry_max_seconds=failures.retry_max,
        retry_backoff=failures.retry_backoff,
        chunk_timeout_seconds=failures.chunk_timeout,
        destination_wait_seconds=failures.destination_wait,
        rejects_path=str(failures.rejects) if failures.rejects else None,
        dry_run=dry_run,
        **tolerated,
    )


@dataclass(frozen=True)
class State:
    """Where jobs are remembered."""

    title: ClassVar = "State"

    state_dir: Annotated[
        Path,
        Option(metavar="DIRECTORY", help="Directory in which jobs are remembered."),
    ] = STATE_PATH

    @property
    def own(self) -> StateDirectory:
        """The state directory of a new job: in the current directory, unless it was named."""
        return StateDirectory(self.state_dir)

    @property
    def directory(self) -> StateDirectory:
        """The state directory of known jobs: also found from a directory below, as git does."""
        is_named = self.state_dir != STATE_PATH
        return self.own if is_named else StateDirectory(nearest_state(Path.cwd()))


@dataclass(frozen=True)
class Server:
    """Where the Temporal server is."""

    title: ClassVar = "Engine"

    temporal_address: Annotated[
        str | None,
        Option(metavar="HOST:PORT", help="Default: TEMPORAL_ADDRESS, else localhost:7233."),
    ] = None
    temporal_namespace: Annotated[
        str | None, Option(metavar="NAME", help="Default: TEMPORAL_NAMESPACE, else default.")
    ] = None
    task_queue: Annotated[
        str, Option(metavar="NAME", help="Task queue that starter and workers share.")
    ] = TemporalOptions().task_queue


@dataclass(frozen=True)
class Temporal(Server):
    """Who runs the chunks."""

    engine: Annotated[
        Literal["local", "temporal"] | None,
        Option(help="local (the default): this process; temporal: workers of a Temporal server."),
    ] = None

    @property
    def is_remote(self) -> bool:
        """Whether workers run the chunks."""
        return self.engine == "temporal"

    def options(self, *, detach: bool = False) -> TemporalOptions | None:
        """Return where the Temporal engine is; None if it was not asked for.

        Raises:
            UsageError: If one of its options was given without it.
        """
        if self.is_remote:
            return TemporalOptions(
                self.temporal_address, self.temporal_namespace, self.task_queue, detach
            )
        given = {
            "--temporal-address": self.temporal_address,
            "--temporal-namespace": self.temporal_namespace,
            "--task-queue": self.task_queue != TemporalOptions().task_queue,
            "--detach": detach,
        }
        for name, value in given.items():
            if value:
                raise UsageError("is an option of --engine temporal", where=name)
        return None


@dataclass(frozen=True)
class Engine(Temporal):
    """Who runs the chunks, and whether this process waits for them."""

    detach: Annotated[
        bool, Option("--detach", help="With --engine temporal: start the job and exit.")
    ] = False
