"""`status`, `jobs` and `rejects`: looking, never changing."""

from __future__ import annotations

import json
import sys
import threading
from typing import Annotated, Any

import typer

from batchimport.checkpoint import StateDirectory
from batchimport.cli import options as o
from batchimport.display import report
from batchimport.errors import UsageError
from batchimport.load import owner_is_gone

SECONDS_BETWEEN_LOOKS = 1.0
ENDED = {"completed", "completed_with_rejects", "already_completed", "interrupted", "stopped"}
ENDED |= {"failed", "refused"}


def status(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the latest.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Until the job ends.")] = False,
    json_: o.Json = False,
    state_dir: o.StateDir = o.STATE_DIR,
) -> None:
    """Tell how far a job is, from any terminal, while it runs or after."""
    state = StateDirectory(state_dir)
    while True:
        progress = _progress(state, job)
        if json_:
            typer.echo(json.dumps(progress))
        else:
            report.show_progress(progress)
        if not watch or progress["status"] in ENDED:
            return
        threading.Event().wait(SECONDS_BETWEEN_LOOKS)


def jobs(*, json_: o.Json = False, state_dir: o.StateDir = o.STATE_DIR) -> None:
    """List all known jobs, the latest first."""
    known = [_progress_of(document) for document in StateDirectory(state_dir).jobs()]
    if json_:
        typer.echo(json.dumps(known))
    elif known:
        report.show_jobs(known)
    else:
        typer.echo(f"no jobs in {state_dir}", err=True)


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


def _progress(state: StateDirectory, job: str | None) -> dict[str, Any]:
    document = state.load(job) if job else next(iter(state.jobs()), None)
    if document is None:
        where = f"job {job}" if job else str(state.path)
        raise UsageError("no such job", where=where, hint="see `batchimport jobs`")
    return _progress_of(document)


def _progress_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of a checkpoint; a killed process cannot say itself that it ended."""
    progress = dict(document["progress"])
    if progress["status"] == "running" and owner_is_gone(str(document.get("owner"))):
        progress |= {"status": "interrupted", "current_stage": "finished", "in_flight": 0}
    return progress
