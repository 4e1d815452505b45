"""The nouns that every room shares: job, chunk, reject, result, progress, summary.

Standard library only and frozen, so that they are safe to pickle and to use in a workflow sandbox.
`Job` says *what* is imported and enters the configuration hash; `RunOptions` says *how*, and may
change when the job is resumed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Stage = Literal["parse", "validate", "transform", "store"]
IfExists = Literal["append", "truncate", "replace", "fail"]
OnConflict = Literal["error", "ignore", "update"]

SUMMARY_VERSION = 1
EXTRA_COLUMN = "_extra"
"""The column that keeps, as a JSON object, the keys of a record which no column was made for."""

DRY_RUN = "nothing is kept (dry run)"
"""The delivery that the summary of a dry run states."""

INDEX = "__record__"
"""Hidden column of a frame: number of the record within its chunk (UInt32)."""

JOB_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two records of a source.

    Attributes:
        position: Bytes (for Parquet: rows) before this place, over all files of the job.
        record: Records before this place, over all files of the job.
        line: 1-based number of the text line that begins here, in its own file.
    """

    position: int = 0
    record: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """The records in `[start, end)`: read, validated, transformed and stored as one unit."""

    start: Position
    end: Position

    @property
    def lo(self) -> int:
        """First position, inclusive."""
        return self.start.position

    @property
    def hi(self) -> int:
        """Last position, exclusive."""
        return self.end.position

    @property
    def offset(self) -> int:
        """Number of the first record."""
        return self.start.record

    @property
    def records(self) -> int:
        """How many records the chunk holds."""
        return self.end.record - self.start.record


@dataclass(frozen=True, slots=True)
class FieldError:
    """One reason why a record was rejected.

    Attributes:
        code: Short stable name, such as `minimum` or `malformed_json`.
        field: Path of the offending field, `address.zip` or `tags[2]`; empty for the whole record.
        message: What is wrong, for a person.
        value: The offending value, JSON-compatible.
    """

    code: str
    field: str
    message: str
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "code": self.code,
            "field": self.field,
            "message": self.message,
            "value": self.value,
        }


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be stored, with every reason and its original bytes.

    Attributes:
        record: 0-based number of the record in the job.
        source: Name of the file.
        line: 1-based line in that file, or None where lines mean nothing.
        byte_offset: Where the record begins in that file (for Parquet: its row).
        stage: The stage that refused it.
        errors: Every error found, not only the first.
        raw: The record as it stands in the source.
    """

    record: int
    source: str
    line: int | None
    byte_offset: int
    stage: Stage
    errors: tuple[FieldError, ...]
    raw: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the line of the rejects file as a dict."""
        body: dict[str, Any] = {
            "record": self.record,
            "source": self.source,
            "line": self.line,
            "byte_offset": self.byte_offset,
            "stage": self.stage,
            "errors": [error.to_dict() for error in self.errors],
        }
        try:
            body["raw"] = self.raw.decode()
        except UnicodeDecodeError:
            body["raw_base64"] = base64.b64encode(self.raw).decode()
        return body


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk that is committed.

    `records == successful + failed + filtered` always holds.
    """

    chunk: Chunk
    successful: int
    failed: int
    filtered: int
    digest: str = ""
    bisected: bool = False
    already_committed: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """Successful, failed and filtered records."""
        return self.successful, self.failed, self.filtered


@dataclass(frozen=True, slots=True)
class Committed:
    """One row of the ledger: an interval whose records are in the destination."""

    chunk: Chunk
    successful: int
    failed: int
    filtered: int
    digest: str


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How the bytes of the source are to be understood; None means: found out by looking."""

    format: str | None = None
    compression: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    header: bool = True
    null_string: str | None = None
    skip_lines: int | None = None
    max_record_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """What is imported: all of it enters the job's identity.

    Attributes:
        sources: Absolute paths of the files, in the order of their records.
        destination: Address of the sink, credentials included; never print it as it stands.
        schema: The user's JSON Schema document, or None when it is inferred.
        model: The pydantic model, `module:Model`, that `schema` is the JSON Schema of.
        model_digest: Hash of the model's own source code.
        transform_digest: Hash of the transform's own source code.
        ledger_schema: Schema of the destination in which the ledger is; a part of its address.
    """

    sources: tuple[str, ...]
    destination: str
    table: str
    options: SourceOptions = SourceOptions()
    schema: dict[str, Any] | None = None
    model: str | None = None
    model_digest: str | None = None
    infer_records: int | None = 10_000
    transform: str | None = None
    transform_digest: str | None = None
    sql: str | None = None
    if_exists: IfExists = "append"
    on_conflict: OnConflict = "error"
    key: tuple[str, ...] = ()
    limit: int | None = None
    ledger_schema: str | None = None

    def configuration_hash(self) -> str:
        """Hash all that must not change between the runs of one job, sources and address apart.

        What has its default value is left out: an option that a later version brings must not
        refuse the jobs that an earlier one began.
        """
        facts = _unlike(asdict(self), asdict(Job((), "", "")))
        facts["options"] = _unlike(asdict(self.options), asdict(SourceOptions()))
        for name in ("sources", "destination", "ledger_schema"):
            facts.pop(name, None)
        return hash_of(facts)

    def target_hash(self) -> str:
        """Hash "this path into this table": two jobs with the same target follow each other."""
        return hash_of([list(self.sources), self.table])


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes about it: free to change when the job is resumed.

    Attributes:
        chunk_size: Fixed records per chunk; None lets the sizer decide.
        chunk_bytes: A chunk is cut at this many source bytes, whatever its limit.
        max_memory_bytes: Guard of the memory of this process; None for 75 % of what is free.
        max_errors: A count, or a share when `max_errors_share` is set.
    """

    max_parallel: int = 10
    chunk_size: int | None = None
    min_chunk_size: int = 1_000
    max_chunk_size: int = 100_000
    chunk_bytes: int = 32 * 1024 * 1024
    adaptive: Literal["auto", "load", "off"] = "auto"
    max_memory_bytes: int | None = None
    max_attempts: int = 3
    retry_initial_seconds: float = 1.0
    retry_max_seconds: float = 10.0
    retry_backoff: float = 2.0
    chunk_timeout_seconds: float = 300.0
    max_errors: int | None = None
    max_errors_share: float | None = None
    rejects_path: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class TemporalOptions:
    """Where the Temporal engine is found; None: what its own environment and profile say.

    Attributes:
        detach: Return as soon as the job is started.
        heartbeat_seconds: A worker that is silent for longer has lost its chunks.
    """

    address: str | None = None
    namespace: str | None = None
    task_queue: str = "batchimport"
    detach: bool = False
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a running job, as `status --json` prints it."""

    job_id: str
    status: str
    total_items: int | None = None
    processed_items: int = 0
    successful_items: int = 0
    failed_items: int = 0
    current_stage: str = "planning"
    progress_percentage: float = 0.0
    records_per_second: float = 0.0
    eta_seconds: float | None = None
    chunk_size: int | None = None
    in_flight: int = 0
    cpu_usage: float | None = None
    memory_usage: float | None = None
    updated_at: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Records by outcome."""

    processed: int = 0
    successful: int = 0
    failed: int = 0
    filtered: int = 0

    def plus(self, successful: int, failed: int, filtered: int) -> Counts:
        """Return these counts with a chunk's added."""
        return Counts(
            self.processed + successful + failed + filtered,
            self.successful + successful,
            self.failed + failed,
            self.filtered + filtered,
        )


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Chunks of this run by what became of them."""

    committed: int = 0
    retried: int = 0
    failed: int = 0
    bisected: int = 0


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Limits that the sizer chose in this run; None when no chunk was cut."""

    min: int | None = None
    max: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run, as `--json` prints it (version 1)."""

    job_id: str
    status: str
    sources: tuple[str, ...]
    destination: str
    table: str
    version: int = SUMMARY_VERSION
    engine: str = "local"
    delivery: str = "exactly-once"
    resumed: bool = False
    total_items: int | None = None
    total_processed: int = 0
    successful: int = 0
    failed: int = 0
    filtered: int = 0
    this_run: Counts = Counts()
    duration_seconds: float = 0.0
    records_per_second: float = 0.0
    bytes_read: int = 0
    peak_memory_bytes: int = 0
    chunks: ChunkCounts = ChunkCounts()
    chunk_size: ChunkSizes = ChunkSizes()
    rejects_by_code: dict[str, int] = field(default_factory=dict)
    rejects_file: str | None = None
    resume_command: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, fields in the documented order."""
        return asdict(self)


def _unlike(facts: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value != others[name]}


def hash_of(facts: object, digits: int = 16) -> str:
    """Return a short SHA-256 of JSON-compatible facts; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:digits]
