"""The request that options stand for: which job it is, and how this run goes about it."""

from __future__ import annotations

import os
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any, is_typeddict

import msgspec

from batchimport import user_code
from batchimport.cli.options import absolute, parse_infer_records, run_options
from batchimport.cli.options.around import parse_script
from batchimport.errors import UsageError
from batchimport.jobs.identify import Objects, Request
from batchimport.model import Job, Summary
from batchimport.pipeline.transform import transform_digest
from batchimport.schema import RecordSchema
from batchimport.schema.load import find_schema
from batchimport.schema.pydantic import RecordModel
from batchimport.sinks.registry import redact
from batchimport.sources.objects import names_in, writer_of
from batchimport.sources.paths import RECORDS, find_sources, short_stem_of, stem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchimport.cli.options.values import Run
    from batchimport.policy.interrupter import Interrupter


def request_for(
    sources: Any,
    run: Run,
    *,
    transform: Callable[..., Any] | None = None,
    schema: Any = None,
    interrupter: Interrupter | None = None,
) -> Request:
    """Return the request that options stand for.

    Args:
        sources: Paths and patterns, or records that a program gives.
        transform: A function, if `--transform` does not name it.
        schema: A JSON Schema or a class, if `--schema` does not name it.

    Raises:
        UsageError: If the options are not valid, or a schema or function cannot be loaded.
    """
    selection, objects = run.selection, Objects()
    names = names_in(sources)
    if names is None:
        check = interrupter.check if interrupter is not None else lambda: None
        kind, write = writer_of(sources, check)
        if run.reading.format not in (None, kind):
            raise UsageError("records that a program gives have no format", where="--format")
        run = replace(run, reading=replace(run.reading, format=kind))
        objects = Objects(write=write)
    paths = (RECORDS,) if names is None else find_sources(names)
    job = _job(paths, run)
    if transform is not None:
        job, objects = _with_function(job, objects, transform, is_shared=run.engine.is_remote)
    if schema is not None:
        job, objects = _with_schema(job, objects, schema, is_shared=run.engine.is_remote)
    options = run_options(run.sizes, run.failures, dry_run=selection.dry_run)
    return Request(
        job,
        replace(options, min_records=selection.min_records),
        run.state.own,
        selection.job_id,
        selection.restart,
        selection.allow_duplicates,
        append=selection.if_source_changed == "append",
        temporal=run.engine.options(detach=run.engine.detach),
        objects=objects,
        interrupter=interrupter,
    )


def unknown(sources: Sequence[str], run: Run) -> Summary:
    """Return the summary of a run of which only the options are known."""
    address, table = redact(run.destination.address or ""), run.destination.table or ""
    return Summary(run.selection.job_id or "", "failed", tuple(sources), address, table)


def unbegun(request: Request) -> Summary:
    """Return the summary of a run that has not looked for its job."""
    job = request.job
    return Summary(request.job_id or "", "failed", job.sources, redact(job.destination), job.table)


def files_read(run: Run) -> dict[str, str | None]:
    """Return the files that are read besides the sources, by the option that names them."""
    code = (run.records.transform or "").rpartition(":")[0]
    return {"--schema": run.records.schema, "--transform": code or None}


def _job(paths: tuple[str, ...], run: Run) -> Job:
    """Return the job; the user's own code is loaded only if its rules allow it."""
    destination, records, selection = run.destination, run.records, run.selection
    if not paths:
        raise UsageError("no source", where="SOURCE", hint="name a file")
    stem, short = stem_of(*paths), short_stem_of(paths[0])
    if stem != short and destination.table is None and run.state.own.knows(paths, short):
        stem = short  # the table that an earlier version made
    job = Job(
        sources=paths,
        destination=destination.address or absolute(f"sqlite:///{stem}.db"),
        table=destination.table or stem,
        options=run.reading.options(run.shaping),
        infer_records=parse_infer_records(records.infer_rows),
        transform=records.transform,
        sql=records.sql,
        if_exists=destination.if_exists,
        on_conflict=destination.on_conflict,
        key=destination.columns,
        new_columns=destination.new_columns,
        limit=selection.limit,
        ledger_schema=destination.ledger_schema,
        before_sql=parse_script(destination.before_sql, "--before-sql"),
        after_sql=parse_script(destination.after_sql, "--after-sql"),
        analyze=destination.analyze,
        atomic=destination.atomic,
        defer_indexes=destination.defer_indexes,
    )
    if records.schema is not None:
        document, model = find_schema(records.schema)
        job = replace(job, schema=document)
        if model is not None:
            job = replace(job, model=records.schema, model_digest=model.digest)
    if records.transform is not None:
        job = replace(job, transform_digest=transform_digest(records.transform))
    return job


def _with_function(
    job: Job, objects: Objects, function: Callable[..., Any], *, is_shared: bool
) -> tuple[Job, Objects]:
    if not callable(function):
        raise UsageError("is not a function", where="--transform")
    name, digest = name_and_digest(function, "--transform", is_shared=is_shared)
    job = replace(job, transform=name, transform_digest=digest)
    return job, replace(objects, transform=function)


def _with_schema(
    job: Job, objects: Objects, schema: Any, *, is_shared: bool
) -> tuple[Job, Objects]:
    """Take a JSON Schema as it is; make one of a class, whose rules a pydantic model checks itself."""
    where = "--schema"
    if hasattr(schema, "model_json_schema"):
        name, digest = name_and_digest(schema, where, is_shared=is_shared)
        model = RecordModel(schema, digest)
        RecordSchema(model.document)
        job = replace(job, schema=model.document, model=name, model_digest=digest)
        return job, replace(objects, model=model)
    if is_dataclass(schema) or is_typeddict(schema) or hasattr(schema, "__struct_fields__"):
        schema = msgspec.json.schema(schema)
    try:
        document = msgspec.json.decode(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"is not a JSON Schema: {error}", where) from error
    if not isinstance(document, dict):
        raise UsageError(
            f"is not a schema: {type(schema).__name__}",
            where,
            hint="give a path, a JSON Schema as a dict, or a pydantic model",
        )
    RecordSchema(document)
    return replace(job, schema=document), objects


def name_and_digest(thing: Any, where: str, *, is_shared: bool) -> tuple[str, str]:
    """Return the name and the hash of a function or class of the user.

    Args:
        is_shared: Other programs must be able to import it.

    Raises:
        UsageError: If they are not.
    """
    name = user_code.name_of(thing)
    if user_code.is_importable(thing):
        return name, user_code.digest(thing)
    if is_shared:
        raise UsageError(
            f"workers cannot import {name}",
            where,
            hint="put it at the top level of a module that they have, too",
        )
    return name, user_code.own_digest(thing)


def is_object(option: Any) -> bool:
    """Say whether a function, schema or model is given itself, and not by a name."""
    return option is not None and not isinstance(option, str | os.PathLike)
