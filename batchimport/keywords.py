"""The keywords of the Python API, as editors and type checkers see them.

Written by `python -m tests.helpers.keywords`; a test compares them with the options of `run`.
"""

from __future__ import annotations

# fmt: off
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict


class PlaceKeywords(TypedDict, total=False):
    """Where jobs are known: in a state directory, a destination, or on a Temporal server."""

    to: str | PathLike[str] | None
    ledger_schema: str | None
    temporal_address: str | None
    temporal_namespace: str | None
    task_queue: str | None
    engine: Literal["local", "temporal"] | None
    state_dir: str | PathLike[str] | None


class ResumeKeywords(TypedDict, total=False):
    """Options of `batchimport resume`."""

    to: str | PathLike[str] | None
    ledger_schema: str | None
    schema: str | PathLike[str] | Mapping[str, Any] | type[Any] | None
    transform: str | Callable[..., Any] | None
    max_errors: str | int | None
    json: bool | None
    summary: str | PathLike[str] | None
    progress: Literal["auto", "rich", "plain", "json", "none"] | None
    exit_zero_on_rejects: bool | None
    log_file: str | PathLike[str] | None
    on_finish: str | None
    metrics: str | PathLike[str] | None
    quiet: bool | None
    verbose: bool | None
    temporal_address: str | None
    temporal_namespace: str | None
    task_queue: str | None
    engine: Literal["local", "temporal"] | None
    detach: bool | None
    state_dir: str | PathLike[str] | None


class RunKeywords(TypedDict, total=False):
    """Options of `batchimport run`."""

    to: str | PathLike[str] | None
    ledger_schema: str | None
    table: str | None
    if_exists: Literal["append", "truncate", "replace", "fail"] | None
    on_conflict: Literal["error", "ignore", "update"] | None
    key: str | Sequence[str] | None
    new_columns: Literal["extra", "add", "reject"] | None
    atomic: bool | None
    before_sql: str | None
    after_sql: str | None
    analyze: bool | None
    defer_indexes: bool | None
    format: str | None
    compression: Literal["gzip", "zstd", "bz2", "xz", "none"] | None
    encoding: str | None
    delimiter: str | None
    quote: str | None
    header: bool | None
    no_header: bool | None
    null_string: str | Sequence[str] | Mapping[str, Any] | None
    skip_lines: int | None
    decimal: Literal[".", ","] | None
    thousands: Literal[",", ".", "'", " ", "_", "\u00a0", "\u202f", "\u2019"] | None
    date_format: str | Sequence[str] | Mapping[str, Any] | None
    comment: str | None
    ragged: Literal["reject", "pad"] | None
    sheet: str | None
    records: str | None
    max_record_bytes: str | int | None
    rename: str | Sequence[str] | Mapping[str, Any] | None
    columns: str | Sequence[str] | None
    type: str | Sequence[str] | Mapping[str, Any] | None
    flatten: bool | None
    add_column: str | Sequence[str] | Mapping[str, Any] | None
    schema: str | PathLike[str] | Mapping[str, Any] | type[Any] | None
    infer_rows: str | int | None
    transform: str | Callable[..., Any] | None
    sql: str | None
    job_id: str | None
    limit: int | None
    min_records: int | None
    dry_run: bool | None
    restart: bool | None
    allow_duplicates: bool | None
    if_source_changed: Literal["fail", "append"] | None
    max_parallel: int | None
    chunk_size: int | None
    min_chunk_size: int | None
    max_chunk_size: int | None
    chunk_bytes: str | int | None
    adaptive: Literal["auto", "load", "off"] | None
    max_memory: str | int | None
    max_attempts: int | None
    retry_initial: float | None
    retry_max: float | None
    retry_backoff: float | None
    chunk_timeout: float | None
    destination_wait: float | None
    max_errors: str | int | None
    rejects: str | PathLike[str] | None
    json: bool | None
    summary: str | PathLike[str] | None
    progress: Literal["auto", "rich", "plain", "json", "none"] | None
    exit_zero_on_rejects: bool | None
    log_file: str | PathLike[str] | None
    on_finish: str | None
    metrics: str | PathLike[str] | None
    quiet: bool | None
    verbose: bool | None
    temporal_address: str | None
    temporal_namespace: str | None
    task_queue: str | None
    engine: Literal["local", "temporal"] | None
    detach: bool | None
    state_dir: str | PathLike[str] | None
