"""`run` and `resume`: options into a request, an outcome into words and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from batchimport.cli import options as o
from batchimport.display import open_display
from batchimport.display.log import open_log
from batchimport.display.report import final_report, print_error
from batchimport.errors import JobInterrupted, UsageError
from batchimport.model import JOB_ID_PATTERN, Job, RunOptions, TemporalOptions
from batchimport.policy.events import JobFinished
from batchimport.sources.paths import find_sources, stem_of
from batchimport.state.directory import StateDirectory, write_atomically

if TYPE_CHECKING:
    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Event


FILES = ("sqlite", "duckdb", "parquet")
"""Destinations whose address is a path."""


def run(  # noqa: PLR0913 - one parameter an option
    sources: o.Sources,
    *,
    to: o.To = None,
    table: o.Table = None,
    schema: o.Schema = None,
    transform: o.Transform = None,
    sql: o.Sql = None,
    if_exists: o.IfExistsOption = o.IfExists.append,
    on_conflict: o.OnConflictOption = o.OnConflict.error,
    key: o.Key = None,
    ledger_schema: o.LedgerSchema = None,
    max_parallel: o.MaxParallel = 10,
    chunk_size: o.ChunkSize = None,
    min_chunk_size: o.MinChunkSize = 1000,
    max_chunk_size: o.MaxChunkSize = 100_000,
    chunk_bytes: o.ChunkBytes = "32MiB",
    adaptive: o.AdaptiveOption = o.Adaptive.auto,
    max_memory: o.MaxMemory = None,
    max_attempts: o.MaxAttempts = 3,
    retry_initial: o.RetryInitial = 1.0,
    retry_max: o.RetryMax = 10.0,
    retry_backoff: o.RetryBackoff = 2.0,
    chunk_timeout: o.ChunkTimeout = 300.0,
    max_errors: o.MaxErrors = None,
    rejects: o.Rejects = None,
    format: o.FormatOption = None,  # noqa: A002 - the option's name
    compression: o.CompressionOption = None,
    encoding: o.Encoding = None,
    delimiter: o.Delimiter = None,
    quote: o.Quote = None,
    no_header: o.NoHeader = False,
    null_string: o.NullString = None,
    skip_lines: o.SkipLines = None,
    max_record_bytes: o.MaxRecordBytes = "16MiB",
    infer_rows: o.InferRows = "10000",
    job_id: o.JobIdOption = None,
    restart: o.Restart = False,
    allow_duplicates: o.AllowDuplicates = False,
    if_source_changed: o.IfSourceChangedOption = o.IfSourceChanged.fail,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    json_: o.Json = False,
    summary: o.SummaryPath = None,
    progress: o.Progress = o.ProgressMode.auto,
    state_dir: o.StateDir = o.STATE_DIR,
    engine: o.EngineOption = None,
    temporal_address: o.TemporalAddress = None,
    temporal_namespace: o.TemporalNamespace = None,
    task_queue: o.TaskQueue = o.TASK_QUEUE,
    detach: o.Detach = False,
    exit_zero_on_rejects: o.ExitZero = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    log_file: o.LogFile = None,
) -> None:
    """Import files as one job; if the same job was interrupted, continue it."""
    from batchimport.jobs.identify import Request  # noqa: PLC0415 - imports Polars
    from batchimport.pipeline.transform import transform_digest  # noqa: PLC0415 - imports Polars
    from batchimport.schema.load import find_schema  # noqa: PLC0415 - imports Polars

    if min_chunk_size > max_chunk_size:
        raise UsageError("--min-chunk-size is larger than --max-chunk-size")
    if sql is not None and transform is not None:
        raise UsageError("--sql and --transform exclude each other")
    if on_conflict is o.OnConflict.update and not key:
        raise UsageError(
            "an update must know which row it is about",
            where="--on-conflict update",
            hint="name the columns that identify a row, such as --key id",
        )
    if job_id is not None and not JOB_ID_PATTERN.fullmatch(job_id):
        raise UsageError(
            f"not a job id: {job_id!r}",
            where="--job-id",
            hint="letters, digits, dot, dash and underscore, at most 128 of them",
        )
    paths = find_sources(sources)
    stem = stem_of(paths[0])
    count, share = o.parse_max_errors(max_errors) if max_errors else (None, None)
    document, model = find_schema(schema) if schema else (None, None)
    job = Job(
        sources=paths,
        destination=absolute(to or f"sqlite:///{stem}.db"),
        table=table or stem,
        options=o.source_options(
            format=format,
            compression=compression,
            encoding=encoding,
            delimiter=delimiter,
            quote=quote,
            no_header=no_header,
            null_string=null_string,
            skip_lines=skip_lines,
            max_record_bytes=max_record_bytes,
        ),
        schema=document,
        model=schema if model else None,
        model_digest=model.digest if model else None,
        infer_records=o.parse_infer_records(infer_rows),
        transform=transform,
        transform_digest=transform_digest(transform) if transform else None,
        sql=sql,
        if_exists=if_exists.value,
        on_conflict=on_conflict.value,
        key=tuple(name.strip() for name in key.split(",")) if key else (),
        limit=limit,
        ledger_schema=ledger_schema,
    )
    options = RunOptions(
        max_parallel=max_parallel,
        chunk_size=chunk_size,
        min_chunk_size=min_chunk_size,
        max_chunk_size=max_chunk_size,
        chunk_bytes=o.parse_size(chunk_bytes, "--chunk-bytes"),
        adaptive=adaptive.value,
        max_memory_bytes=o.parse_size(max_memory, "--max-memory") if max_memory else None,
        max_attempts=max_attempts,
        retry_initial_seconds=retry_initial,
        retry_max_seconds=retry_max,
        retry_backoff=retry_backoff,
        chunk_timeout_seconds=chunk_timeout,
        max_errors=count,
        max_errors_share=share,
        rejects_path=str(rejects) if rejects else None,
        dry_run=dry_run,
    )
    request = Request(
        job,
        options,
        StateDirectory(state_dir),
        job_id,
        restart,
        allow_duplicates,
        append=if_source_changed is o.IfSourceChanged.append,
        handle_signals=True,
        temporal=o.temporal_options(
            engine, temporal_address, temporal_namespace, task_queue, detach=detach
        ),
    )
    told = Told(progress, summary, log_file, json_, quiet, exit_zero_on_rejects)
    _execute(request, told)
    del verbose  # read by `main` and `_report`


def resume(  # noqa: PLR0913 - one parameter an option
    job: o.JobId,
    *,
    to: o.To = None,
    max_errors: o.MaxErrors = None,
    json_: o.Json = False,
    summary: o.SummaryPath = None,
    progress: o.Progress = o.ProgressMode.auto,
    state_dir: o.StateDir = o.STATE_DIR,
    engine: o.EngineOption = None,
    temporal_address: o.TemporalAddress = None,
    temporal_namespace: o.TemporalNamespace = None,
    task_queue: o.TaskQueue = o.TASK_QUEUE,
    detach: o.Detach = False,
    exit_zero_on_rejects: o.ExitZero = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    log_file: o.LogFile = None,
) -> None:
    """Continue an interrupted job with the options that it was begun with."""
    del verbose  # read by `main` and `_report`
    from batchimport.engines.lookup import recall  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.identify import Request, job_from  # noqa: PLC0415 - imports Polars

    state = StateDirectory(state_dir)
    temporal = o.temporal_options(
        engine, temporal_address, temporal_namespace, task_queue, detach=detach
    )
    document = state.load(job) or recall(job, absolute(to) if to else None, temporal)
    if engine is None and document.get("temporal"):
        temporal = TemporalOptions(**{**document["temporal"], "detach": detach})
    known = {each.name for each in fields(RunOptions)}
    given = {name: value for name, value in document["options"].items() if name in known}
    options = RunOptions(**given)
    if max_errors:
        count, share = o.parse_max_errors(max_errors)
        options = replace(options, max_errors=count, max_errors_share=share)
    destination = absolute(to) if to else document["destination"]
    request = Request(
        job_from(document["job"], destination),
        options,
        state,
        job,
        must_exist=True,
        handle_signals=True,
        temporal=temporal,
    )
    told = Told(progress, summary, log_file, json_, quiet, exit_zero_on_rejects)
    _execute(request, told)


def absolute(address: str) -> str:
    """Return an address whose relative path no longer depends on the current directory."""
    scheme, mark, path = address.partition(":///")
    if not mark or not path or path.startswith("/") or scheme not in FILES:
        return address
    return f"{scheme}:///{Path(path).absolute()}"


@dataclass(frozen=True, slots=True)
class Told:
    """How, and to whom, a run tells what it does and how it ended."""

    progress: o.ProgressMode
    summary: Path | None
    log_file: Path | None
    as_json: bool
    quiet: bool
    zero: bool


def _execute(request: Request, told: Told) -> None:
    from batchimport.importer import import_file  # noqa: PLC0415 - imports Polars

    display = open_display("none" if told.quiet else told.progress.value)
    with open_log(told.log_file) as log, display:

        def observe(event: Event) -> None:
            log(event)
            display(event)

        outcome = import_file(request, observe)
        log(JobFinished(outcome.summary))  # no event told, if it has not begun
    try:
        if told.summary is not None:  # before standard output, which may be a pipe that is closed
            body = json.dumps(outcome.summary.to_dict(), indent=1) + "\n"
            write_atomically(told.summary, [body.encode()])
    finally:
        _report(outcome, as_json=told.as_json, quiet=told.quiet)
    only = told.zero and outcome.summary.chunks.failed == 0 and _only_rejects(outcome)
    raise typer.Exit(0 if only else outcome.exit_code)


def _only_rejects(outcome: Outcome) -> bool:
    return outcome.exit_code == 3 and outcome.error is None


def _report(outcome: Outcome, *, as_json: bool, quiet: bool) -> None:
    try:
        if as_json:
            typer.echo(json.dumps(outcome.summary.to_dict()))
        elif not quiet and (outcome.summary.resume_command or outcome.error is None):
            final_report(outcome.summary, outcome.examples)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        # Nobody reads on (a closed pipe, a lost terminal); the exit code says how the import ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    resumable = isinstance(outcome.error, JobInterrupted) and outcome.summary.resume_command
    if outcome.error is not None and not resumable:
        print_error(outcome.error, verbose="--verbose" in sys.argv)
