"""Jobs that were begun before: how one is continued, how far it is, what it rejected."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from batchimport.cli.options import parse_max_errors
from batchimport.cli.trust import refuse_foreign_code, trusted_address
from batchimport.engines import lookup
from batchimport.errors import ConfigurationChangedError, UnknownJobError, UsageError
from batchimport.jobs.identify import Objects, Request, job_from
from batchimport.model import RunOptions, TemporalOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchimport.cli.options import Engine, Ledger, State, Temporal
    from batchimport.cli.trust import Code
    from batchimport.jobs.known import Known
    from batchimport.policy.interrupter import Interrupter
    from batchimport.sinks.base import Sink


@dataclass(frozen=True)
class Place:
    """Where jobs are looked for."""

    ledger: Ledger
    engine: Temporal
    state: State


def continued(  # noqa: PLR0913 - one parameter per group of options
    job: str,
    ledger: Ledger,
    engine: Engine,
    state: State,
    *,
    code: Code,
    max_errors: str | None = None,
    objects: Objects | None = None,
    interrupter: Interrupter | None = None,
) -> Request:
    """Return the request to continue a job with the options that it was started with.

    Args:
        code: What the user names of the code that the job runs; of `objects`, their names.

    Raises:
        UsageError: If the job is not known, or its record needs to be confirmed.
    """
    temporal = engine.options(detach=engine.detach)
    document = state.directory.load(job)
    if document is None:
        document = lookup.recall(job, ledger.address, temporal, ledger.ledger_schema)
        address = document["destination"]
    else:
        address = trusted_address(job, document, ledger.address)
    if engine.engine is None and document.get("temporal"):
        temporal = TemporalOptions(**{**document["temporal"], "detach": engine.detach})
    if temporal is None:  # else its workers load it, who refuse any other version
        refuse_foreign_code(job, document, {"--transform": code.transform, "--schema": code.schema})
    recorded = job_from(document["job"], str(address))
    if ledger.ledger_schema is not None:
        recorded = replace(recorded, ledger_schema=ledger.ledger_schema)
    limits = {} if max_errors is None else parse_max_errors(max_errors)
    return Request(
        recorded,
        options_of(document, **limits),
        state.directory,
        job,
        must_exist=True,
        temporal=temporal,
        objects=objects or Objects(),
        interrupter=interrupter,
    )


def options_of(document: Mapping[str, Any], **changes: Any) -> RunOptions:
    """Return how a job was run; what a later version has recorded besides is left out."""
    known = {each.name for each in fields(RunOptions)}
    options = {name: value for name, value in document["options"].items() if name in known}
    return RunOptions(**(options | changes))


def look(job: str | None, place: Place) -> Known:
    """Return what is known of a job by the server, the state directory, or the ledger.

    Args:
        job: None for the latest one.

    Raises:
        UnknownJobError: If none of them knows it.
    """
    directory, ledger, temporal = place.state.directory, place.ledger, place.engine.options()
    if temporal is not None and job is not None:
        return lookup.ask(temporal, job)
    if temporal is not None:
        jobs = lookup.ask_all(temporal)
        if not jobs:
            raise UnknownJobError("the Temporal server knows no job")
        return jobs[0]
    found = None
    if job is None and ledger.address is not None:  # the latest one there
        found = lookup.known_at(None, ledger.address, ledger.ledger_schema)
        job = found.progress.job_id
    known = [] if job and directory.load(job) else directory.jobs()
    document = directory.load(job) if job else next(iter(known), None)
    if document is not None:
        return lookup.known_by(document)
    if ledger.address is not None:
        return found or lookup.known_at(job, ledger.address, ledger.ledger_schema)
    raise lookup.unknown(job, [each["job_id"] for each in known], str(directory.path))


def look_at_all(place: Place) -> list[Known]:
    """Return all jobs that the state directory or the Temporal server knows, the latest first."""
    temporal = place.engine.options()
    if temporal is not None:
        return lookup.ask_all(temporal)
    return [lookup.known_by(document) for document in place.state.directory.jobs()]


@contextmanager
def sink_of(job: str, ledger: Ledger, state: State) -> Iterator[Sink]:
    """Open the destination that has the ledger of a job.

    Raises:
        UsageError: If the job is not known.
    """
    address, schema, _ = ledger_of(job, ledger, state)
    with lookup.opened(address, schema) as sink:
        if sink.owner(job) is None:
            raise UsageError(
                "no such job there", where=f"job {job}", hint="check --to and --ledger-schema"
            )
        yield sink


def ledger_of(job: str, ledger: Ledger, state: State) -> tuple[str, str | None, dict[str, Any]]:
    """Return address and schema of the ledger of a job, and what the state directory knows of the job.

    Raises:
        UsageError: If the job is not known, or this user did not write its state.
    """
    document = state.directory.load(job) or {}
    address = trusted_address(job, document, ledger.address)
    if address is None:
        raise lookup.unknown(job, [str(each.get("job_id")) for each in state.directory.jobs()])
    schema = ledger.ledger_schema or document.get("job", {}).get("ledger_schema")
    return address, schema, document


def refuse_changed(request: Request, digests: dict[str, str]) -> None:
    """Refuse to continue a job with a function or model that is not the one it began with.

    Args:
        digests: Of the objects that were given, by the fields of the job.

    Raises:
        ConfigurationChangedError: If so.
    """
    for name, digest in digests.items():
        if getattr(request.job, name) != digest:
            raise ConfigurationChangedError(
                f"the {name.removesuffix('_digest')} is not the one that this job began with",
                where=f"job {request.job_id}",
                hint="continue it with the old one, or import with restart=True",
            )
