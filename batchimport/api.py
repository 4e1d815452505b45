"""The Python API. The command line is a thin client of it: both ask for an import in the same way.

Options are those of `batchimport run`, as keywords of the same names; what is not given may come from the
environment (`BATCHIMPORT_TO`) or from a job.toml (`config=`).
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from batchimport import importer, user_code
from batchimport.cli.config import choose, read_config
from batchimport.cli.notify import Notifier
from batchimport.cli.options import Ledger, Output, State
from batchimport.cli.options.values import convert, find, from_environment, run_from, settings
from batchimport.cli.perform import perform
from batchimport.cli.recorded import Place, continued, look, look_at_all, refuse_changed, sink_of
from batchimport.cli.replay import Mended, asked_for
from batchimport.cli.report import data_of
from batchimport.cli.request import (
    files_read,
    is_object,
    name_and_digest,
    request_for,
    unknown,
)
from batchimport.cli.trust import Code
from batchimport.errors import (
    BatchImportError,
    JobInterrupted,
    RecordsRejectedError,
    UsageError,
    without_panics,
)
from batchimport.jobs.identify import Objects
from batchimport.policy.interrupter import Interrupter
from batchimport.replay import replay_rejects
from batchimport.result import JobStatus, Report, Result
from batchimport.schema.pydantic import RecordModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from batchimport.cli.config import ConfiguredJob
    from batchimport.cli.options.values import Run
    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request
    from batchimport.keywords import PlaceKeywords, ResumeKeywords, RunKeywords
    from batchimport.model import NewColumns
    from batchimport.policy.events import Observer

_OBJECTS = ("schema", "transform")
"""Options that may be objects of the program, where the command line has a name."""


def import_file(
    sources: Any = None,
    *,
    config: str | Path | None = None,
    on_event: Observer | None = None,
    raise_on_rejects: bool = False,
    **options: Unpack[RunKeywords],
) -> Result:
    """Import files or records as one job; if the same job was interrupted, continue it.

    Blocks until the run has ended; in a notebook, too. Ctrl-C, or a notebook's stop button, lets the chunks
    in flight end and raises KeyboardInterrupt; the same call continues the job.

    Args:
        sources: A path or pattern, or a list of them; or the records: a frame of Polars or pandas, whatever
            has Arrow's stream, dicts in a list, or what yields dicts. With a `config` of several jobs, the
            name of the job.
        config: A job.toml.
        on_event: Called with every event of the run (`batchimport.events`), from several threads. The
            logger `batchimport` gets the same events.
        raise_on_rejects: Raise RecordsRejectedError if a record was rejected.
        options: Those of `batchimport run`, with underscores. `schema` may also be a dict or a class,
            `transform` a function.

    Returns:
        How the run ended, also if the job was completed before, or has rejects.

    Raises:
        BatchImportError: If the run did not end well. Its attribute `result` says how far it came, if it
            began.
    """
    with _with_hints():
        call = _Call(sources, config, on_event, options)
        return call.finished(call.outcome(), raise_on_rejects=raise_on_rejects)


async def aimport_file(
    sources: Any = None,
    *,
    config: str | Path | None = None,
    on_event: Observer | None = None,
    raise_on_rejects: bool = False,
    **options: Unpack[RunKeywords],
) -> Result:
    """Do as `import_file` does, in a thread, so that the running event loop goes on.

    If the task is cancelled, the chunks in flight end first; the same call continues the job.
    """
    with _with_hints():
        call = _Call(sources, config, on_event, options)
        running = asyncio.ensure_future(asyncio.to_thread(call.outcome))
        try:
            outcome = await asyncio.shield(running)
        except asyncio.CancelledError:
            call.interrupter.interrupt("the task was cancelled")
            await asyncio.wait({running})
            running.exception()  # asked for, so that asyncio does not warn about it
            raise
        return call.finished(outcome, raise_on_rejects=raise_on_rejects)


@contextmanager
def _with_hints() -> Iterator[None]:
    """Let a traceback show what to do next."""
    try:
        yield
    except BatchImportError as error:
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise


class _Call:
    """A call of the API: what was asked for, and its display."""

    def __init__(
        self,
        sources: Any,
        config: str | Path | None,
        on_event: Observer | None,
        options: Mapping[str, Any],
    ) -> None:
        self.interrupter = Interrupter()
        self._on_event = on_event
        self._sources = sources
        values, objects = _checked(options)
        configured: Mapping[str, Any] = {}
        if config is not None:
            job = _configured(config, sources)
            configured = job.values
            self._sources = job.sources if sources is None or job.name else sources
        self._run = run_from(values, from_environment(), configured)
        self._objects = objects

    def outcome(self) -> Outcome:
        """Run it to its end."""
        output = self._run.output
        with Notifier(output.on_finish, output.metrics).failing(lambda: unknown([], self._run)):
            request = request_for(
                [] if self._sources is None else self._sources,
                self._run,
                **self._objects,
                interrupter=self.interrupter,
            )
        self._request = request
        return _perform(request, self._run.output, self._on_event, files_read(self._run))

    def finished(self, outcome: Outcome, *, raise_on_rejects: bool) -> Result:
        """Return the result, or raise what ended the run."""
        place = _place_of(self._request, self._run)
        return result_of(outcome, place, self._run.output, raise_on_rejects=raise_on_rejects)


def _checked(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options as values of their types, and those that are objects; None is not given."""
    values: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, value in options.items():
        known = find(name, name)
        if value is None:
            continue
        if name in _OBJECTS and is_object(value):
            objects[name] = value
        else:
            values[name] = convert(known, value, name)
    return values, objects


def _configured(config: str | Path, sources: Any) -> ConfiguredJob:
    jobs = read_config(config)
    if None in jobs:
        return jobs[None]
    if not isinstance(sources, str):
        raise UsageError(
            f"has several jobs: {', '.join(map(str, jobs))}",
            where=f"config {config}",
            hint="name one as the source, such as import_file('users', config=...)",
        )
    return choose(jobs, [sources], config)[0]


def _perform(
    request: Request,
    output: Output,
    on_event: Observer | None = None,
    read: Mapping[str, str | None] = {},
    work: Callable[[Request, Observer], Outcome] = importer.import_file,
) -> Outcome:
    """Import, or do other work on a job, with a display, a log and a summary as they were asked for."""

    def report(outcome: Outcome) -> None:
        if output.json_:
            print(json.dumps(outcome.summary.to_dict()))  # noqa: T201 - it was asked for

    return perform(
        lambda observer: work(request, observer),
        request,
        output,
        report,
        read,
        on_event=on_event or (lambda _: None),
        is_library=True,
    )


def _place_of(request: Request, run: Run) -> Place:
    """Return where the job of a request is known, from any directory."""
    ledger = Ledger(request.job.destination, request.job.ledger_schema)
    return Place(ledger, run.engine, State(run.state.state_dir.absolute()))


def result_of(outcome: Outcome, place: Place, output: Output, *, raise_on_rejects: bool) -> Result:
    """Return the result of an outcome.

    Args:
        place: Where the job is known.

    Raises:
        BatchImportError: The error that ended the run.
        KeyboardInterrupt: If it was interrupted by the keyboard.
        RecordsRejectedError: If that was asked for, and records were rejected.
    """
    is_fine = outcome.exit_code == 3 and output.exit_zero_on_rejects
    result = Result.of(outcome, place, 0 if is_fine else outcome.exit_code, replay)
    error = outcome.error
    if error is None and result.failed and raise_on_rejects:
        error = RecordsRejectedError(
            f"{result.failed:,} of {result.total_processed:,} records were rejected",
            where=f"job {result.job_id}",
            hint=f"they are in {result.rejects_file}",
        )
    if error is None:
        return result
    error.result = result
    if isinstance(error, JobInterrupted):
        raise KeyboardInterrupt(error.message) from error
    if output.verbose and error.__cause__ is not None:
        error.add_note(f"cause: {error.__cause__!r}")
    raise error


def resume(
    job: str,
    *,
    on_event: Observer | None = None,
    raise_on_rejects: bool = False,
    **options: Unpack[ResumeKeywords],
) -> Result:
    """Continue an interrupted job with the options that it was started with.

    Args:
        options: Those of `batchimport resume`. A function or model of this program that the job was begun
            with must be given again, as `transform` or `schema`.

    Raises:
        BatchImportError: If there is nothing to continue, or the run did not end well.
    """
    with _with_hints():
        values, objects = _checked(options)
        run = run_from(values, from_environment())
        ledger = Ledger(run.destination.to, run.destination.ledger_schema)
        given, names, digests = _named_again(objects, values, is_remote=run.engine.is_remote)
        request = continued(
            job,
            ledger,
            run.engine,
            run.state,
            code=Code(**names),
            max_errors=run.failures.max_errors,
            objects=given,
            interrupter=Interrupter(),
        )
        refuse_changed(request, digests)
        outcome = _perform(request, run.output, on_event)
        place = _place_of(request, run)
        return result_of(outcome, place, run.output, raise_on_rejects=raise_on_rejects)


def replay(  # noqa: PLR0913 - the options of the command
    job: str,
    *,
    from_: str | Path | None = None,
    schema: Any = None,
    transform: str | Callable[..., Any] | None = None,
    sql: str | None = None,
    new_columns: NewColumns | None = None,
    where: str | Sequence[str] = (),
    dry_run: bool = False,
    on_event: Observer | None = None,
    raise_on_rejects: bool = False,
    **options: Unpack[PlaceKeywords],
) -> Result:
    """Process the rejects of a job again, in the same job and exactly once.

    Args:
        from_: A rejects file in which `raw` was edited; null gives a record up.
        schema: A path, `module:Model`, a dict, or a class that can be imported. Default: the job's.
        transform: A function, or its name. Default: the job's.
        sql: A query instead of a function.
        new_columns: What to do with keys that the table has no column for.
        where: Only these rejects: `code=…`, `field=…`, `stage=…`, or the word alone.
        dry_run: Do everything as usual, and keep nothing.

    Returns:
        How it ended; its `failed` are the rejects that are left.

    Raises:
        BatchImportError: If the job is not known, or its rejects cannot be processed.
    """
    with _with_hints():
        place = _place(options)
        function = transform if callable(transform) else None
        named = user_code.name_of(transform) if callable(transform) else transform
        document = schema if isinstance(schema, Mapping) else None
        if isinstance(schema, type):
            if not user_code.is_importable(schema):
                raise UsageError("cannot be imported by its name", where=f"schema {schema!r}")
            schema = user_code.name_of(schema)
        mended = Mended(
            from_=None if from_ is None else str(from_),
            schema=None if schema is None or document is not None else str(schema),
            transform=named,
            sql=sql,
            new_columns=new_columns,
            where=[where] if isinstance(where, str) else list(where),
            dry_run=dry_run,
        )
        is_own = function is not None and not user_code.is_importable(function)
        request, mending = asked_for(
            job,
            mended,
            place.ledger,
            place.state,
            schema=document,
            function=function if is_own else None,
        )
        output = Output()
        outcome = _perform(
            request,
            output,
            on_event,
            {"--schema": mended.schema},
            lambda request, observer: replay_rejects(request, mending, observer),
        )
        return result_of(outcome, place, output, raise_on_rejects=raise_on_rejects)


def _named_again(
    objects: Mapping[str, Any], values: Mapping[str, Any], *, is_remote: bool
) -> tuple[Objects, dict[str, Any], dict[str, str]]:
    """Return the objects of a job that is continued, their names, and their hashes."""
    given = Objects()
    names = {name: values.get(name) for name in _OBJECTS}
    digests: dict[str, str] = {}
    function: Any = objects.get("transform")
    model: Any = objects.get("schema")
    if function is not None:
        names["transform"], digests["transform_digest"] = name_and_digest(
            function, "transform", is_shared=is_remote
        )
        given = replace(given, transform=function)
    if hasattr(model, "model_json_schema"):
        names["schema"], digests["model_digest"] = name_and_digest(
            model, "schema", is_shared=is_remote
        )
        given = replace(given, model=RecordModel(model, digests["model_digest"]))
    return given, names, digests


def status(job: str | None = None, **options: Unpack[PlaceKeywords]) -> JobStatus:
    """Return how far a job is, or what became of it; of the latest job, if none is named.

    Raises:
        UnknownJobError: If it is not known.
    """
    with _with_hints():
        return JobStatus.of(look(job, _place(options)))


def jobs(**options: Unpack[PlaceKeywords]) -> list[JobStatus]:
    """Return all jobs that the state directory or a Temporal server knows, the latest first."""
    with _with_hints():
        return [JobStatus.of(known) for known in look_at_all(_place(options))]


def rejects(job: str, **options: Unpack[PlaceKeywords]) -> Iterator[dict[str, Any]]:
    """Yield the rejects of a job, as its destination has them, in order of record.

    Raises:
        UsageError: If the job is not known.
    """
    place = _place(options)
    with _with_hints(), without_panics(), sink_of(job, place.ledger, place.state) as sink:
        for reject in sink.rejects(job):
            yield reject.to_dict()


def report(job: str, **options: Unpack[PlaceKeywords]) -> Report:
    """Return the report of a job, running or ended.

    Raises:
        UnknownJobError: If it is not known.
    """
    with _with_hints():
        place = _place(options)
        return Report(data_of(job, place.ledger, place.state))


def _place(options: Mapping[str, Any]) -> Place:
    values, _ = _checked(options)
    run = run_from(values, from_environment())
    ledger = Ledger(run.destination.to, run.destination.ledger_schema)
    return Place(ledger, run.engine, run.state)


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a signature that has every option, for `help()` and for notebooks."""
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=each.default) for name, each in settings().items()
    ]
    return signature.replace(parameters=[*named, *options])


# What `inspect.signature` returns.
vars(import_file)["__signature__"] = _signature_of(import_file)
vars(aimport_file)["__signature__"] = _signature_of(aimport_file)
