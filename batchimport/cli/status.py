"""`status`, `jobs` and `rejects`: looking, never changing."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchimport.cli import options as o
from batchimport.display import report
from batchimport.errors import UsageError
from batchimport.state.directory import StateDirectory

if TYPE_CHECKING:
    from batchimport.model import TemporalOptions

SECONDS_BETWEEN_LOOKS = 1.0
ENDED = {"completed", "completed_with_rejects", "already_completed", "interrupted", "stopped"}
ENDED |= {"failed", "refused"}


def status(  # noqa: PLR0913 - one parameter an option
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the latest.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Until the job ends.")] = False,
    json_: o.Json = False,
    state_dir: o.StateDir = o.STATE_DIR,
    engine: o.EngineOption = None,
    temporal_address: o.TemporalAddress = None,
    temporal_namespace: o.TemporalNamespace = None,
    task_queue: o.TaskQueue = o.TASK_QUEUE,
) -> None:
    """Tell how far a job is, from any terminal, while it runs or after."""
    state = StateDirectory(state_dir)
    temporal = o.temporal_options(engine, temporal_address, temporal_namespace, task_queue)
    while True:
        progress = _progress(state, job, temporal)
        if json_:
            typer.echo(json.dumps(progress))
        else:
            report.show_progress(progress)
        if not watch or progress["status"] in ENDED:
            return
        threading.Event().wait(SECONDS_BETWEEN_LOOKS)


def jobs(
    *,
    json_: o.Json = False,
    state_dir: o.StateDir = o.STATE_DIR,
    engine: o.EngineOption = None,
    temporal_address: o.TemporalAddress = None,
    temporal_namespace: o.TemporalNamespace = None,
    task_queue: o.TaskQueue = o.TASK_QUEUE,
) -> None:
    """List all known jobs, the latest first."""
    from batchimport.engines.lookup import all_progress, progress  # noqa: PLC0415 - imports drivers

    temporal = o.temporal_options(engine, temporal_address, temporal_namespace, task_queue)
    if temporal is not None:
        known = all_progress(temporal)
    else:
        known = [progress(document) for document in StateDirectory(state_dir).jobs()]
    if json_:
        typer.echo(json.dumps(known))
    elif known:
        report.show_jobs(known)
    else:
        typer.echo(f"no jobs in {'that namespace' if temporal else state_dir}", err=True)


def rejects(
    job: o.JobId,
    *,
    raw: Annotated[bool, typer.Option("--raw", help="The original records, to stdout.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    to: o.To = None,
    ledger_schema: o.LedgerSchema = None,
    state_dir: o.StateDir = o.STATE_DIR,
) -> None:
    """Show the records that were rejected, and why."""
    from batchimport.sinks import open_sink  # noqa: PLC0415 - imports drivers
    from batchimport.sinks.base import SinkOptions  # noqa: PLC0415 - imports drivers

    document = StateDirectory(state_dir).load(job)
    if document is None and to is None:
        raise UsageError("no such job", where=f"job {job}", hint="see `batchimport jobs`")
    facts = document or {"destination": to, "job": {}}
    options = SinkOptions(
        create=False, ledger_schema=ledger_schema or facts["job"].get("ledger_schema")
    )
    sink = open_sink(to or facts["destination"], options)
    try:
        if sink.owner(job) is None:
            raise UsageError("the destination knows no such job", where=f"job {job}")
        found = sink.rejects(job)
        if raw:
            for reject in found:
                sys.stdout.buffer.write(reject.raw + b"\n")
        elif json_:
            for reject in found:
                typer.echo(json.dumps(reject.to_dict()))
        else:
            report.show_rejects(found)
    finally:
        sink.close()


def _progress(
    state: StateDirectory, job: str | None, temporal: TemporalOptions | None
) -> dict[str, Any]:
    from batchimport.engines.lookup import ask_progress, progress  # noqa: PLC0415 - imports drivers

    if temporal is not None and job is not None:
        return ask_progress(temporal, job)
    document = state.load(job) if job else next(iter(state.jobs()), None)
    if document is None:
        where = f"job {job}" if job else str(state.path)
        raise UsageError("no such job", where=where, hint="see `batchimport jobs`")
    return progress(document)
