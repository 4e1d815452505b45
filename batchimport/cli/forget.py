"""`forget` and `prune`: remove what is kept of jobs that are over."""

import json
import re
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchimport.cli import options as o
from batchimport.cli.trust import trusted_address
from batchimport.display.units import counted
from batchimport.errors import BatchImportError, FatalError, UsageError
from batchimport.sinks.registry import redact

if TYPE_CHECKING:
    from batchimport.jobs.forget import Gone, Place, Pruned, Removal

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Completely = Annotated[
    bool,
    typer.Option(
        "--completely", help="Also forget the job's content, so that it can be imported again."
    ),
]


def forget(
    job: o.JobId,
    *,
    completely: Completely = False,
    json_: o.Json = False,
    ledger: o.Ledger,
    state: o.State,
) -> None:
    """Remove ledger, rejects and state of a finished job; its rows stay in the table."""
    from batchimport.cli.recorded import ledger_of  # noqa: PLC0415 - imports drivers
    from batchimport.engines.lookup import has_ended  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.forget import Place, Removal  # noqa: PLC0415 - imports drivers

    address, schema, _ = ledger_of(job, ledger, state)
    removal = Removal(state.directory, has_ended, completely)
    gone = removal.forget(job, Place(address, schema))
    if json_:
        typer.echo(json.dumps(gone.to_dict() | {"completely": completely}))
    else:
        _show(gone, "forgot")


def prune(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Age since the job's end, such as 30d, 12h or 2w.")
    ],
    rejects_only: Annotated[
        bool, typer.Option("--rejects-only", help="Remove the rejects, and keep ledger and state.")
    ] = False,
    completely: Completely = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and keep it.")
    ] = False,
    json_: o.Json = False,
    ledger: o.Ledger,
    state: o.State,
) -> None:
    """Remove ledger, rejects and state of all jobs that were finished that long ago.

    Looks at the jobs that the state directory knows, or, with --to, at all jobs of that ledger.
    """
    from batchimport.engines.lookup import has_ended  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.forget import Place, Removal  # noqa: PLC0415 - imports drivers

    age = parse_age(older_than)
    removal = Removal(state.directory, has_ended, completely, rejects_only, dry_run)
    places: dict[Place, frozenset[str] | None] = {}
    kept: dict[str, str] = {}
    if ledger.address is not None:
        places[Place(ledger.address, ledger.ledger_schema)] = None
    else:
        known: dict[Place, set[str]] = defaultdict(set)
        for document in state.directory.jobs():
            job_id = str(document["job_id"])
            try:
                address = trusted_address(job_id, document, None)
            except UsageError as error:
                kept[job_id] = error.message
            else:
                schema = document.get("job", {}).get("ledger_schema")
                known[Place(str(address), ledger.ledger_schema or schema)].add(job_id)
        places |= {place: frozenset(jobs) for place, jobs in known.items()}
    gone, failed = _each(places, removal, age, kept)
    _show_all(gone, kept, removal, as_json=json_)
    if failed:
        raise FatalError(
            f"{len(failed)} of {len(places)} destinations could not be pruned: {failed[0]}",
            hint="run the same command again when they are there",
        )


def _each(
    places: "dict[Place, frozenset[str] | None]",
    removal: "Removal",
    age: timedelta,
    kept: dict[str, str],
) -> "tuple[list[Gone], list[BatchImportError]]":
    """Prune each place; one that cannot be reached does not stop the others."""
    gone: list[Gone] = []
    failed: list[BatchImportError] = []
    for place, jobs in places.items():
        try:
            pruned: Pruned = removal.prune(place, age, jobs)
        except BatchImportError as error:
            if len(places) == 1:
                raise
            failed.append(error)
        else:
            gone += pruned.gone
            kept |= pruned.kept
    return gone, failed


def parse_age(text: str) -> timedelta:
    """Return the time that `30d`, `12h` or `2w` stands for.

    Raises:
        UsageError: If it is not an age.
    """
    match = re.fullmatch(r"(\d{1,6})\s*([mhdw])", text.strip().lower())
    if not match:
        raise UsageError(
            f"not an age: {text!r}", where="--older-than", hint="such as 30d, 12h, 90m or 2w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _show_all(
    gone: "list[Gone]", kept: dict[str, str], removal: "Removal", *, as_json: bool
) -> None:
    if as_json:
        facts: dict[str, Any] = {
            "removed": [each.to_dict() for each in gone],
            "kept": [{"job_id": job_id, "reason": why} for job_id, why in kept.items()],
            "dry_run": removal.dry_run,
        }
        typer.echo(json.dumps(facts))
        return
    verb = "would forget" if removal.dry_run else "forgot"
    if removal.rejects_only:
        verb = "would remove the rejects of" if removal.dry_run else "removed the rejects of"
    for each in gone:
        _show(each, verb)
    for job_id, why in kept.items():
        typer.echo(f"kept {job_id}: {why}", err=True)
    if not gone:
        typer.echo("no finished job is that old", err=True)


def _show(gone: "Gone", verb: str) -> None:
    counts = [counted(gone.rejects, "reject")]
    counts += [counted(gone.chunks, "chunk")] if gone.chunks else []
    place = f"table {gone.table} of {redact(gone.destination)}"
    typer.echo(f"{verb} {gone.job_id}: {', '.join(counts)}; the rows stay in {place}")
    if gone.rejects_file:
        typer.echo(f"its rejects file is yours to remove: {gone.rejects_file}", err=True)
