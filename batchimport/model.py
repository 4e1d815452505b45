"""The data types that all packages share: job, chunk, reject, result, progress, summary.

Standard library only and frozen, so that they are safe to pickle and to use in a workflow sandbox.
`Job` says *what* is imported and enters the configuration hash; `RunOptions` says *how*, and may
change when the job is resumed. Both check their own rules, so that the command line and Python get
the same refusals; they name options as the command line does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from batchimport import rules
from batchimport.errors import UsageError
from batchimport.rules import check_choice, check_range, pairs_of

Stage = Literal["parse", "validate", "transform", "store"]
IfExists = Literal["append", "truncate", "replace", "fail"]
OnConflict = Literal["error", "ignore", "update"]
NewColumns = Literal["extra", "add", "reject"]
Adaptive = Literal["auto", "load", "off"]
Compression = Literal["gzip", "zstd", "bz2", "xz", "none"]
Ragged = Literal["reject", "pad"]
DecimalMark = Literal[".", ","]
ThousandsMark = Literal[",", ".", "'", " ", "_", "\u00a0", "\u202f", "\u2019"]
Kind = Literal["integer", "number", "boolean", "string", "date", "date-time", "uuid", "json"]
"""What a column holds. `date`, `date-time` and `uuid` are strings of that JSON Schema format.
A property without one scalar type is `json`: its column holds JSON text."""

SUMMARY_VERSION = 1
EXTRA_COLUMN = "_extra"
"""Column that keeps, as a JSON object, the keys of a record that have no column of their own."""

DRY_RUN = "nothing is kept (dry run)"
"""What `Summary.delivery` says of a dry run."""

INDEX = "__record__"
"""Hidden column of a frame: 0-based number of the record within its chunk (UInt32)."""
ABSENT = "__absent__"
"""Prefix of the columns of a frame that say where a record lacks a key, in jobs that update rows."""


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
        """Number of records."""
        return self.end.record - self.start.record


@dataclass(frozen=True, slots=True)
class FieldError:
    """One reason why a record was rejected.

    Attributes:
        code: Short stable name, such as `minimum` or `malformed_json`.
        field: Path of the offending field, `address.zip` or `tags[2]`; empty for the whole record.
        message: What is wrong, for people to read.
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
        byte_offset: Where the record begins in that file, in bytes (for Parquet: its row).
        stage: The stage that rejected it.
        errors: Every error, not only the first.
        raw: The record's own bytes.
    """

    record: int
    source: str
    line: int | None
    byte_offset: int
    stage: Stage
    errors: tuple[FieldError, ...]
    raw: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that is a line of the rejects file."""
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
    """The outcome of a committed chunk; `chunk.records == successful + failed + filtered`.

    Attributes:
        digest: Hash of the chunk's bytes in the source.
        bisected: The destination refused the chunk as a whole; bad records were isolated.
        already_committed: An earlier attempt had committed it.
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
    """One row of the ledger: an interval whose records are in the destination.

    Attributes:
        updated: Of the successful records, those that changed or replaced a row that was there.
        ignored: Of the filtered records, those that `--on-conflict ignore` left out.
        skipped: Of the filtered records, those that a trigger, a rule or a conflict clause of the
            table left out.
        epoch: Number of the claim that stored it: of the run.
        attempt: Number of the attempt that stored it, from 1.
        committed_at: ISO 8601 in UTC.
    """

    chunk: Chunk
    successful: int
    failed: int
    filtered: int
    digest: str
    updated: int = 0
    ignored: int = 0
    skipped: int = 0
    epoch: int = 0
    attempt: int = 1
    committed_at: str = ""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read the bytes of the source, and what its fields are called; None: detect it.

    Attributes:
        header: CSV: some row has the names of the columns.
        has_header: CSV: it is the first row, whatever that looks like.
        null_string: CSV: the cell that means null, or several; None: an empty cell.
        skip_lines: CSV: lines before the header.
        max_record_bytes: A longer record is rejected.
        decimal: CSV: the character before the decimals of a number; `thousands`: between its groups.
        comment: CSV: a line that begins with it is no record.
        ragged: CSV: what becomes of a record with too few fields; None: it is rejected.
        date_formats: How dates and points in time may be written, besides ISO 8601.
        records: JSON: the keys, joined by dots, that lead to the array of records.
        sheet: Excel: the name of a sheet, or its number from 1; None: the first one that is visible.
        flatten: JSON: the keys of a nested object become keys `outer.inner` of the record.
        rename: `OLD=NEW` for each key that is called otherwise.
        columns: The keys that are kept, by their new names and in this order; empty: all.
        types: `COLUMN=TYPE` for each column whose type is not inferred.
        add_columns: `NAME=WHAT` for each column that says where a record is from.
    """

    format: str | None = None
    compression: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    header: bool = True
    null_string: str | tuple[str, ...] | None = None
    skip_lines: int | None = None
    max_record_bytes: int = 16 * 1024 * 1024
    has_header: bool = False
    decimal: str | None = None
    thousands: str | None = None
    comment: str | None = None
    ragged: Ragged | None = None
    date_formats: tuple[str, ...] = ()
    records: str | None = None
    flatten: bool = False
    sheet: str | None = None
    rename: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    add_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: If a value is out of its range.
        """
        for name in ("null_string", "date_formats", "rename", "columns", "types", "add_columns"):
            if isinstance(given := getattr(self, name), list):  # as JSON has it
                object.__setattr__(self, name, tuple(given))
        if self.ragged == "reject":  # as without the option
            object.__setattr__(self, "ragged", None)
        for option, text in (("--comment", self.comment), ("--records", self.records)):
            if text == "":
                raise UsageError("must not be empty", where=option)
        if self.comment is not None and {"\r", "\n"} & set(self.comment):
            raise UsageError("must not have a line end", where="--comment")
        if self.has_header and not self.header:
            raise UsageError("is the opposite of --no-header", where="--header")
        check_choice("--compression", self.compression, Compression)
        check_range("--skip-lines", self.skip_lines, 0)
        check_range("--max-record-bytes", self.max_record_bytes, 1)
        check_choice("--decimal", self.decimal, DecimalMark)
        check_choice("--thousands", self.thousands, ThousandsMark)
        if self.thousands is not None and self.thousands == self.decimal:
            raise UsageError("is the same as --decimal", where="--thousands")
        check_choice("--ragged", self.ragged, Ragged)
        self._check_keys()

    def _check_keys(self) -> None:
        """Check what is said about the records' keys."""
        for name, kind in pairs_of("--type", self.types).items():
            check_choice(f"--type {name}", kind, Kind, rules.TYPE_NAMES)
        rules.check_names("--rename", list(pairs_of("--rename", self.rename).values()))
        rules.check_names("--columns", self.columns)
        pairs_of("--add-column", self.add_columns)


@dataclass(frozen=True, slots=True)
class Job:
    """What is imported; all of it is part of the job's identity.

    Attributes:
        sources: Absolute paths of the files, in the order of their records.
        destination: Address of the sink, password included: never print it unredacted.
        schema: The user's JSON Schema; None: infer it.
        model: The pydantic model, `module:Model`, whose JSON Schema `schema` is.
        model_digest: Hash of the model's source code.
        infer_records: Number of records to infer a schema from; None: all.
        transform_digest: Hash of the transform's source code.
        key: Columns that identify a row.
        new_columns: What becomes of a record's keys that the table has no column for; None: they are
            kept in `_extra` in a table that batchimport made, else the record is rejected.
        limit: Number of records to import, from the beginning; None imports all.
        ledger_schema: Database schema of the ledger's tables; part of the address.
        before_sql: Statements that are run once, as the job begins; `after_sql` as it is completed.
        analyze: Let the database look at the table at the end; None: if batchimport made it.
        atomic: Readers see the old rows until the job is completed, then the new ones.
        defer_indexes: Indexes that are not unique are dropped, and built again at the end.
    """

    sources: tuple[str, ...]
    destination: str = field(repr=False)
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
    new_columns: NewColumns | None = None
    limit: int | None = None
    ledger_schema: str | None = None
    before_sql: str | None = None
    after_sql: str | None = None
    analyze: bool | None = None
    atomic: bool = False
    defer_indexes: bool = False

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: If options contradict each other, or a value is out of its range.
        """
        if not self.sources:
            raise UsageError("no source", where="SOURCE", hint="name a file")
        if not self.table or "\0" in self.table:
            raise UsageError("must not be empty, nor have NUL in it", where="--table")
        rules.check_texts(self)
        rules.check_names("--key", self.key)
        check_choice("--if-exists", self.if_exists, IfExists)
        check_choice("--on-conflict", self.on_conflict, OnConflict)
        check_choice("--new-columns", self.new_columns, NewColumns)
        check_range("--infer-rows", self.infer_records, 1)
        check_range("--limit", self.limit, 1)
        if self.atomic:
            rules.check_atomic(self.if_exists, defers_indexes=self.defer_indexes)
        if self.sql is not None and self.transform is not None:
            raise UsageError(
                "cannot be combined with --transform", where="--sql", hint="choose one of the two"
            )
        if self.schema is not None and self.options.types:
            raise UsageError(
                "cannot be combined with --schema, which says the types", where="--type"
            )
        if self.on_conflict == "update" and not self.key:
            raise UsageError(
                "needs a key to find the row to update",
                where="--on-conflict update",
                hint="name the columns that identify a row, such as --key id",
            )

    def configuration_hash(self) -> str:
        """Hash what must not change between the runs of a job, apart from sources and address.

        Default values are left out, so that an option added by a later version does not change
        the hash of jobs that an earlier one began.
        """
        facts = _changed(self) | {"options": _changed(self.options)}
        for name in ("sources", "destination", "ledger_schema", *rules.CHANGEABLE):
            facts.pop(name, None)
        return hash_of(facts)

    def target_hash(self) -> str:
        """Hash the pair of sources and table, by which unfinished jobs are found."""
        return hash_of([list(self.sources), self.table])


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run imports: may change when the job is resumed.

    Attributes:
        max_parallel: Maximum number of chunks in flight, 1 to 256.
        chunk_size: Fixed number of records per chunk; None: the sizer decides.
        chunk_bytes: Maximum size of a chunk in source bytes, whatever its number of records.
        max_memory_bytes: Memory limit of this process; None: 75 % of the free memory.
        retry_initial_seconds: Wait before the second attempt.
        retry_max_seconds: Longest wait between two attempts.
        retry_backoff: Factor by which each wait is longer than the one before.
        chunk_timeout_seconds: Longest time for one attempt.
        max_errors: Rejected records that are tolerated; None: any number.
        max_errors_share: The same as a share of the processed records, 0 to 1.
        rejects_path: File for the rejects; None: in the state directory.
        dry_run: Import as usual, but keep nothing.
        hopeless_after: Stop once this many records are processed and all of them were rejected,
            unless `max_errors` or its share says how many may be; None: never.
        min_records: Refuse to begin a job whose source has fewer records; None: any number.
        destination_wait_seconds: How long the job waits for a destination that is away or locked.
    """

    max_parallel: int = 10
    chunk_size: int | None = None
    min_chunk_size: int = 1_000
    max_chunk_size: int = 100_000
    chunk_bytes: int = 32 * 1024 * 1024
    adaptive: Adaptive = "auto"
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
    hopeless_after: int | None = None
    min_records: int | None = None
    destination_wait_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: If a value is out of its range.
        """
        check_choice("--adaptive", self.adaptive, Adaptive)
        check_range("--max-parallel", self.max_parallel, 1, 256)
        check_range("--chunk-size", self.chunk_size, 1)
        check_range("--min-chunk-size", self.min_chunk_size, 1)
        check_range("--max-chunk-size", self.max_chunk_size, 1)
        if not self.max_chunk_size >= self.min_chunk_size:
            raise UsageError(
                f"is smaller than --min-chunk-size, which is {self.min_chunk_size:,}",
                where="--max-chunk-size",
                hint="give both; --chunk-size N fixes the size",
            )
        check_range("--chunk-bytes", self.chunk_bytes, 1)
        check_range("--max-memory", self.max_memory_bytes, 1)
        check_range("--max-attempts", self.max_attempts, 1)
        check_range("--retry-initial", self.retry_initial_seconds, 0)
        check_range("--retry-max", self.retry_max_seconds, 0)
        check_range("--retry-backoff", self.retry_backoff, 1)
        check_range("--chunk-timeout", self.chunk_timeout_seconds, 0.001)
        check_range("--destination-wait", self.destination_wait_seconds, 0)
        check_range("--max-errors", self.max_errors, 0)
        check_range("--min-records", self.min_records, 0)
        share = self.max_errors_share
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"must be from 0% to 100%, not {share:.0%}", where="--max-errors")


@dataclass(frozen=True, slots=True)
class TemporalOptions:
    """Where the Temporal server is; None: as Temporal's own environment and profile say.

    Attributes:
        detach: Return as soon as the job is started.
        heartbeat_seconds: A worker that is silent for longer loses its chunks to others.
    """

    address: str | None = None
    namespace: str | None = None
    task_queue: str = "batchimport"
    detach: bool = False
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a job at one moment, as `status --json` prints it.

    Attributes:
        total_items: Records of the job; None until they are counted.
        progress_percentage: 0 to 100.
        eta_seconds: Estimated time to the end; None if unknown.
        in_flight: Chunks in flight.
        cpu_usage: Share of the machine, 0 to 1; `memory_usage` likewise.
        updated_at: ISO 8601 in UTC.
    """

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
        """Return the sum of these counts and a chunk's."""
        return Counts(
            self.processed + successful + failed + filtered,
            self.successful + successful,
            self.failed + failed,
            self.filtered + filtered,
        )


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Chunks of this run by outcome."""

    committed: int = 0
    retried: int = 0
    failed: int = 0
    bisected: int = 0


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Records per chunk that the sizer chose in this run; None if no chunk was cut."""

    min: int | None = None
    max: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run, as `--json` prints it (version 1).

    Attributes:
        inserted: Rows that the records became; with `updated`, the successful records.
        updated: Records that changed or replaced a row that was there.
        ignored: Records that `--on-conflict ignore` left out; they count as filtered.
        skipped_by_destination: Records that a trigger, a rule or a conflict clause of the table left
            out without an error; they count as filtered.
    """

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
    inserted: int = 0
    updated: int = 0
    ignored: int = 0
    skipped_by_destination: int = 0
    this_run: Counts = Counts()
    duration_seconds: float = 0.0
    records_per_second: float = 0.0
    bytes_read: int = 0
    peak_memory_bytes: int = 0
    chunks: ChunkCounts = ChunkCounts()
    chunk_size: ChunkSizes = ChunkSizes()
    waited_seconds: float = 0.0
    rejects_by_code: dict[str, int] = field(default_factory=dict)
    rejects_by_field: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects_file: str | None = None
    resume_command: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, its keys in the documented order."""
        return asdict(self)


def _changed(options: Job | SourceOptions) -> dict[str, Any]:
    """Return the fields that do not have their default values."""
    defaults = {each.name: each.default for each in fields(options)}
    return {name: value for name, value in asdict(options).items() if value != defaults[name]}


def hash_of(facts: object, digits: int = 16) -> str:
    """Return a short SHA-256 of JSON-compatible facts; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:digits]
