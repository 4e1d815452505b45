"""`rejects`: the records that a job rejected."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from batchimport.cli import options as o
from batchimport.errors import UsageError
from batchimport.model import Reject

if TYPE_CHECKING:
    from batchimport.jobs.selecting import RejectFilter
    from batchimport.model import FieldError
    from batchimport.sinks.base import JobRecord


@dataclass(frozen=True)
class Which:
    """Which rejects are meant."""

    title: ClassVar = "Filters"

    code: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Only with this reason. Repeatable.")
    ] = None
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Only with an error in this field. Repeatable."),
    ] = None
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE", help="Only of parse, validate, transform or store. Repeatable."
        ),
    ] = None
    limit: Annotated[int | None, o.Number("--limit", min=1, help="Only the first N.")] = None


def rejects(
    job: o.JobId,
    *,
    summary: Annotated[
        bool, typer.Option("--summary", help="Count the errors by field and reason.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Write the records to stdout, as a file of their source's format."
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per record.")] = False,
    which: Which,
    ledger: o.Ledger,
    state: o.State,
) -> None:
    """Show the rejected records, and the reasons."""
    from batchimport.cli.recorded import ledger_of  # noqa: PLC0415 - imports drivers
    from batchimport.engines.lookup import find_record, opened  # noqa: PLC0415 - imports drivers
    from batchimport.jobs.selecting import (  # noqa: PLC0415 - imports msgspec
        RejectFilter,
        removal_of,
    )

    if raw and (summary or json_):
        raise UsageError("cannot be combined with --summary or --json", where="--raw")
    conditions = RejectFilter(
        *(tuple(each or ()) for each in (which.code, which.field, which.stage))
    )
    address, schema, _ = ledger_of(job, ledger, state)
    with opened(address, schema) as sink:
        record = find_record(sink, job)

        def meant() -> Iterator[Reject]:
            found = (each for each in sink.rejects(job) if conditions.errors_of(each))
            return islice(found, which.limit)

        if next(iter(sink.rejects(job)), None) is None and not json_:
            typer.echo(removal_of(sink.committed(job)) or "no rejects", err=not summary)
        elif summary:
            _show_counts(meant(), conditions, json_=json_)
        elif raw:
            _write_raw(meant, record, address)
        elif json_:
            for reject in meant():
                typer.echo(json.dumps(reject.to_dict()))
        else:
            from batchimport.display.report import show_rejects  # noqa: PLC0415 - imports Rich

            show_rejects(meant())


def _show_counts(rejects: "Iterable[Reject]", conditions: "RejectFilter", *, json_: bool) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    errors: Iterable[FieldError]
    for reject in rejects:
        errors = conditions.errors_of(reject)
        counts.update((error.field, error.code) for error in errors)
    if json_:
        fields: dict[str, dict[str, int]] = {}
        for (name, code), count in sorted(counts.items()):
            fields.setdefault(name, {})[code] = count
        typer.echo(json.dumps(fields))
    elif counts:
        from batchimport.display.report import show_reasons  # noqa: PLC0415 - imports Rich

        show_reasons(counts)
    else:
        typer.echo("no rejects")


def _write_raw(
    rejects: "Callable[[], Iterable[Reject]]", record: "JobRecord", address: str
) -> None:
    from batchimport.jobs.identify import job_from  # noqa: PLC0415 - imports Polars
    from batchimport.jobs.raw import raw_records, refuse_different_forms  # noqa: PLC0415 - the same
    from batchimport.jobs.replaying import forms_of  # noqa: PLC0415 - imports Polars

    job = job_from(record.configuration, address)
    forms = forms_of(record, job)
    refuse_different_forms(rejects(), forms)
    for line in raw_records(rejects(), forms, job):
        sys.stdout.buffer.write(line)
