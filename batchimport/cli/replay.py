"""`replay`: process the rejects of a job again."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typer import Option

from batchimport.cli import options as o
from batchimport.cli.run import leave_with
from batchimport.cli.trust import refuse_foreign_code
from batchimport.model import NewColumns, TemporalOptions

if TYPE_CHECKING:
    from batchimport.jobs.identify import Request
    from batchimport.model import Job
    from batchimport.replay import Mending


@dataclass(frozen=True)
class Mended:
    """What is different since the records were rejected, and which of them are meant."""

    title: ClassVar = "Replay"

    from_: Annotated[
        str | None,
        Option(
            "--from",
            metavar="FILE",
            help="A rejects file in which you have edited `raw`; null gives a record up.",
        ),
    ] = None
    schema: Annotated[
        str | None,
        Option(metavar="FILE|MODULE:MODEL", help="Schema of the records. Default: the job's."),
    ] = None
    transform: Annotated[
        str | None,
        Option(metavar="MODULE:FUNC", help="Function for the records. Default: the job's."),
    ] = None
    sql: Annotated[str | None, Option(metavar="QUERY", help="Query instead of a function.")] = None
    new_columns: Annotated[
        NewColumns | None,
        Option(help="Keys that the table has no column for. Default: as the job began."),
    ] = None
    where: Annotated[
        list[str] | None,
        Option(
            metavar="CODE|FIELD|STAGE",
            help="Only these rejects: code=…, field=…, stage=…, or the word alone. Repeatable.",
        ),
    ] = None
    dry_run: Annotated[
        bool, Option("--dry-run", help="Do everything as usual, and keep nothing.")
    ] = False


def replay(
    job: o.JobId,
    *,
    mended: Mended,
    ledger: o.Ledger,
    output: o.Output,
    state: o.State,
) -> None:
    """Process the rejects of a job again, once the schema, transform or data are fixed."""
    from batchimport.display.report import replay_report  # noqa: PLC0415 - imports Rich
    from batchimport.replay import replay_rejects  # noqa: PLC0415 - imports Polars

    request, mending = asked_for(job, mended, ledger, state)
    leave_with(
        lambda observer: replay_rejects(request, mending, observer),
        request,
        output,
        replay_report,
        {"--schema": mended.schema},
    )


def asked_for(
    job: str,
    mended: Mended,
    ledger: o.Ledger,
    state: o.State,
    *,
    schema: Mapping[str, Any] | None = None,
    function: Callable[..., Any] | None = None,
) -> "tuple[Request, Mending]":
    """Return what a replay is asked to do.

    Args:
        schema: A JSON Schema, if `mended` does not name it.
        function: The transform that `mended` names, if it cannot be imported.

    Raises:
        UsageError: If the job is not known, or a schema or function cannot be loaded.
    """
    from batchimport.cli.recorded import ledger_of, options_of  # noqa: PLC0415 - imports drivers
    from batchimport.engines.lookup import recorded_job  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.identify import Request, job_from  # noqa: PLC0415 - imports Polars
    from batchimport.jobs.selecting import RejectFilter  # noqa: PLC0415 - imports msgspec
    from batchimport.replay import Mending  # noqa: PLC0415 - imports Polars

    conditions = RejectFilter.of(mended.where or ())
    address, ledger_schema, document = ledger_of(job, ledger, state)
    record = recorded_job(job, address, ledger_schema)
    recorded = replace(job_from(record.configuration, address), ledger_schema=ledger_schema)
    _refuse_foreign(job, recorded, document, mended, is_given=schema is not None)
    effective, changes = _changed(recorded, mended, schema, function)
    remote = document.get("temporal") if record.state != "completed" else None
    request = Request(
        recorded,
        # What another user wrote may name a file to be written.
        options_of(
            document if document.get("trusted") else {"options": {}}, dry_run=mended.dry_run
        ),
        state.directory,
        job,
        must_exist=True,
        handle_signals=True,
        temporal=TemporalOptions(**remote) if remote else None,
    )
    return request, Mending(effective, changes, mended.from_, conditions, function)


def _refuse_foreign(
    job: str, recorded: "Job", document: Mapping[str, Any], mended: Mended, *, is_given: bool
) -> None:
    """Refuse to run code that the ledger names, unless this user's state names it, too."""
    code = {
        "transform": None if mended.transform or mended.sql else recorded.transform,
        "model": None if mended.schema or is_given else recorded.model,
    }
    known = document.get("job", {})
    is_ours = all(known.get(name) == code[name] for name in code if code[name])
    trusted = bool(document.get("trusted")) and is_ours
    refuse_foreign_code(job, {"job": code, "trusted": trusted}, {})


def _changed(
    job: "Job",
    mended: Mended,
    given: Mapping[str, Any] | None,
    function: Callable[..., Any] | None,
) -> tuple["Job", dict[str, Any]]:
    """Return the job as it is for the replayed records, and what of it was changed."""
    from batchimport import user_code  # noqa: PLC0415 - for functions alone
    from batchimport.pipeline.transform import transform_digest  # noqa: PLC0415 - imports Polars
    from batchimport.schema.load import find_schema  # noqa: PLC0415 - imports Polars

    changes: dict[str, Any] = {}
    spec = mended.schema or job.model
    if given is not None:
        changes["schema"] = dict(given)
        job = replace(job, schema=dict(given), model=None, model_digest=None)
    elif spec is not None:
        document, model = find_schema(spec)
        digest = model.digest if model is not None else None
        if mended.schema or digest != job.model_digest:  # or the model was mended where it is
            changes["schema"] = document
            name = spec if model is not None else None
            job = replace(job, schema=document, model=name, model_digest=digest)
    if mended.transform is not None:
        digest = user_code.own_digest(function) if function else transform_digest(mended.transform)
        sql = mended.sql  # both together are refused by the job's own rules
        job = replace(job, transform=mended.transform, transform_digest=digest, sql=sql)
        changes |= {"transform": mended.transform, "transform_digest": digest}
    elif mended.sql is not None:
        job = replace(job, transform=None, transform_digest=None, sql=mended.sql)
        changes["sql"] = mended.sql
    if mended.new_columns is not None:
        job = replace(job, new_columns=mended.new_columns)
        changes["new_columns"] = mended.new_columns
    return job, changes
