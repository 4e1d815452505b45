"""The client's side: start a job's workflow or find it running, follow it, ask how far it is.

A follower may go away at any time; the job goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from batchimport.engines import event_loop
from batchimport.engines.signals import draining_signals
from batchimport.engines.temporal import messages as m
from batchimport.engines.temporal.connection import connect, has_worker, is_running, no_answer
from batchimport.errors import (
    BatchImportError,
    FatalError,
    JobInterrupted,
    JobRunningElsewhereError,
    UnknownJobError,
    UsageError,
)
from batchimport.jobs.export import export_rejects
from batchimport.jobs.finish import (
    Outcome,
    rejects_path,
    resume_command,
    summary_of,
)
from batchimport.jobs.identify import without_address
from batchimport.jobs.known import Known, next_command
from batchimport.jobs.recorder import Recorder
from batchimport.model import Progress, TemporalOptions
from batchimport.policy.events import JobFinished, Noted
from batchimport.policy.progress import utc_now
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions

if TYPE_CHECKING:
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer

SECONDS_BETWEEN_QUERIES = 0.5
QUERY_SECONDS = 5
JOBS_PER_PAGE = 100
WAITING_FOR_WORKER = "waiting for a worker"
_SILENT = (
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
)
"""What a query ends with while no worker serves the task queue."""
LARGEST_PAYLOAD = 1_500_000
"""Bytes; the server accepts 2 MB."""
_UNREACHABLE = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
)


def attach(request: Request, observer: Observer) -> Outcome | None:
    """Follow the job that was asked for by its id if a workflow is running it; else return None.

    Raises:
        BatchImportError: If the server cannot be reached, or cannot do what is asked.
    """
    if request.options.dry_run:
        raise UsageError("a dry run needs --engine local", where="--dry-run --engine temporal")
    if request.job_id is None or request.restart:
        return None
    if not RemoteJob(request, request.job_id, observer).is_running():
        return None
    return follow(request, request.job_id, observer)


def follow(request: Request, job_id: str, observer: Observer) -> Outcome:
    """Start the job's workflow or find it running, and follow it to its end.

    Raises:
        BatchImportError: If the server cannot be reached, or refuses.
    """
    recorder = Recorder(request, observer, "")
    job = RemoteJob(request, job_id, recorder)
    recorder.owner = job.start()
    recorder.save(job_id)
    if request.temporal is not None and request.temporal.detach:
        return Outcome(summary_of(request, job_id, "running"), 0)
    return _with_rejects(request, job.follow())


def _with_rejects(request: Request, outcome: Outcome) -> Outcome:
    """Write the rejects file here, on the user's host; workers may be anywhere."""
    summary = outcome.summary
    path = rejects_path(request, summary.job_id, summary.failed)
    if path is None:
        return outcome
    try:
        options = SinkOptions(create=False, ledger_schema=request.job.ledger_schema)
        sink = open_sink(request.job.destination, options)
    except BatchImportError:
        return outcome  # this host does not reach the destination
    try:
        with closing(sink):
            rejects = export_rejects(sink, summary.job_id, path)
    except BatchImportError as error:
        return replace(outcome, error=outcome.error or error)
    summary = replace(
        summary,
        rejects_by_code=rejects.codes,
        rejects_by_field=rejects.fields,
        rejects_file=rejects.path,
    )
    return replace(outcome, summary=summary, examples=rejects.examples)


class RemoteJob:
    """A job's workflow, seen from a client."""

    def __init__(self, request: Request, job_id: str, observer: Observer) -> None:
        assert request.temporal is not None  # noqa: S101 - a mistake in this program
        self._request, self._options, self.job_id = request, request.temporal, job_id
        self._observer = observer
        self._is_announced = False
        self._notes: set[str] = set()
        self._left: JobInterrupted | None = None

    def is_running(self) -> bool:
        """Say whether the job's workflow is open.

        Raises:
            FatalError: If the server does not answer.
        """

        async def ask() -> bool:
            return await is_running(await connect(self._options), self.job_id)

        return event_loop.run(ask())

    def start(self) -> str:
        """Start the workflow unless it is running; return its name as the job's owner.

        Raises:
            BatchImportError: If it cannot be started.
        """

        async def start() -> str:
            client = await connect(self._options)
            if not self._request.restart and await is_running(client, self.job_id):
                self._note("a workflow is running this job already, with the options it was given")
            await self._start(client)
            address = client.service_client.config.target_host
            return str(m.Owner(address, client.namespace, self.job_id))

        return event_loop.run(start())

    def follow(self) -> Outcome:
        """Follow the workflow until it ends or this process gets a signal.

        Raises:
            FatalError: If the server cannot be reached, or the workflow was ended from outside.
        """
        return event_loop.run(self._follow())

    async def _follow(self) -> Outcome:
        client = await connect(self._options)
        leaving = asyncio.Event()

        def leave(reason: str) -> None:
            self._left = JobInterrupted(f"{reason}; the job goes on")
            leaving.set()

        with draining_signals(leave) if self._request.handle_signals else nullcontext():
            ended = asyncio.create_task(self._result(client))
            gone = asyncio.create_task(leaving.wait())
            watching = asyncio.create_task(self._watch(client))
            await asyncio.wait({ended, gone, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, gone, watching):
            task.cancel()  # those that are done stay as they are
        if ended.done():
            if not self._is_announced:  # it ended before the first query
                with suppress(RPCError, WorkflowQueryFailedError):
                    await self._hear(client)
            return self._conclude(ended.result())
        if watching.done():
            watching.result()
        return self._leave(client)

    async def _watch(self, client: Client) -> None:
        while True:
            await self._look(client)
            await asyncio.sleep(SECONDS_BETWEEN_QUERIES)

    async def _start(self, client: Client) -> None:
        request = self._request
        spec = m.JobSpec(
            job_id=self.job_id,
            job=json.dumps(without_address(request.job)),
            destination=redact(request.job.destination),
            starter_host=os.uname().nodename,
            options=request.options,
            restart=request.restart,
            allow_duplicates=request.allow_duplicates,
            must_exist=request.must_exist,
            append=request.append,
            heartbeat_seconds=self._options.heartbeat_seconds,
        )
        _check_size(spec)
        try:
            await client.start_workflow(
                m.WORKFLOW,
                m.Begin(spec),
                id=self.job_id,
                task_queue=self._options.task_queue,
                result_type=m.Ended,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL
                if request.restart
                else WorkflowIDConflictPolicy.USE_EXISTING,
                memo={"destination": spec.destination, "table": request.job.table},
                static_summary=f"into {request.job.table} of {spec.destination}"[:200],
            )
        except WorkflowAlreadyStartedError as error:
            raise JobRunningElsewhereError(
                "a workflow is running this job, so that it cannot be started over",
                where=f"job {self.job_id}",
                hint=f"stop it first: temporal workflow cancel --workflow-id {self.job_id}",
            ) from error
        except RPCError as error:
            raise no_answer(error, client) from error

    async def _result(self, client: Client) -> m.Ended:
        """Wait for the end of the workflow, even if the server goes away meanwhile."""
        handle = client.get_workflow_handle(self.job_id, result_type=m.Ended)
        while True:
            try:
                ended: m.Ended = await handle.result()
            except WorkflowFailureError as error:
                return _ended_of(error)
            except RPCError as error:
                if error.status not in _UNREACHABLE:
                    raise no_answer(error, client) from error
            else:
                return ended
            await asyncio.sleep(SECONDS_BETWEEN_QUERIES)

    async def _look(self, client: Client) -> None:
        """Show how far the job is, or why nobody answers."""
        try:
            await self._hear(client)
        except (RPCError, WorkflowQueryFailedError) as error:
            await self._explain(client, error)

    async def _hear(self, client: Client) -> None:
        account = await client.get_workflow_handle(self.job_id).query(
            m.ACCOUNT, result_type=m.Account, rpc_timeout=timedelta(seconds=QUERY_SECONDS)
        )
        if account.started is not None:
            if not self._is_announced:
                self._is_announced = True
                self._observer(account.started)
            self._observer(account.advanced)

    async def _explain(self, client: Client, error: Exception) -> None:
        if isinstance(error, RPCError) and error.status == RPCStatusCode.UNAVAILABLE:
            self._note("the Temporal server does not answer; the job goes on when it is back")
            return
        queue = self._options.task_queue
        with suppress(RPCError):
            if not await has_worker(client, queue):
                self._note(
                    f"no worker serves the task queue {queue}: start one with `batchimport worker"
                    + ("`" if queue == TemporalOptions().task_queue else f" --task-queue {queue}`")
                )

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self._observer(Noted(text))

    def _leave(self, client: Client) -> Outcome:
        error = self._left
        assert error is not None  # noqa: S101 - a mistake in this program
        place = client.service_client.config.target_host
        self._note(
            f"{error.message} at {place}; stop it with: "
            f"temporal workflow cancel --workflow-id {self.job_id}"
        )
        summary = summary_of(self._request, self.job_id, "interrupted", error)
        return Outcome(summary, error.exit_code, error=error)

    def _conclude(self, ended: m.Ended) -> Outcome:
        error = ended.error.revive() if ended.error else None
        if ended.advanced is not None:
            self._observer(ended.advanced)
        summary = ended.summary
        if summary.resume_command:  # the workflow does not know what this host needs for it
            command = resume_command(self._request, self.job_id)
            summary = replace(summary, resume_command=command)
        self._observer(JobFinished(summary))
        return Outcome(summary, ended.exit_code, error=error)


def known_of(options: TemporalOptions, job_id: str) -> Known:
    """Return what is known of a job.

    Raises:
        FatalError: If nobody answers.
        UsageError: If the server knows no such job.
    """

    async def ask() -> Known:
        return await _known(await connect(options), job_id)

    return event_loop.run(ask())


def all_known(options: TemporalOptions) -> list[Known]:
    """Return what is known of all jobs that the server remembers, the latest first.

    Raises:
        FatalError: If the server does not answer.
    """

    async def ask() -> list[Known]:
        client = await connect(options)
        try:
            runs = client.list_workflows(f"WorkflowType = '{m.WORKFLOW}'", page_size=JOBS_PER_PAGE)
            job_ids = dict.fromkeys([run.id async for run in runs])  # a job may have several runs
        except RPCError as error:
            raise no_answer(error, client) from error
        return [await _known_or_failed(client, job_id) for job_id in job_ids]

    return event_loop.run(ask())


async def _known(client: Client, job_id: str) -> Known:
    """Query a workflow that is running; read the result of one that has ended: needs no worker."""
    handle = client.get_workflow_handle(job_id, result_type=m.Ended)
    try:
        description = await handle.describe(rpc_timeout=timedelta(seconds=QUERY_SECONDS))
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND and "amespace" not in error.message:
            raise _not_there(job_id) from error
        raise no_answer(error, client) from error
    begun, ended = description.start_time, description.close_time
    known = Known(
        Progress(job_id, "running", current_stage=WAITING_FOR_WORKER, updated_at=utc_now()),
        destination=str(await description.memo_value("destination", "")),
        table=str(await description.memo_value("table", "")),
        begun_at=begun.isoformat(timespec="milliseconds"),
        ended_at=ended.isoformat(timespec="milliseconds") if ended else None,
        duration_seconds=round(((ended or datetime.now(UTC)) - begun).total_seconds(), 3),
    )
    if description.status == WorkflowExecutionStatus.RUNNING:
        known = await _queried(client, handle, known)
    else:
        known = await _as_it_ended(client, handle, known)
    command = f"batchimport resume {job_id} --engine temporal"
    rejects = f"batchimport rejects {job_id} --to {known.destination}"
    commands = {"resume": command, "rejects": rejects}
    return replace(known, next_command=next_command(known.progress, commands))


async def _queried(client: Client, handle: WorkflowHandle[Any, m.Ended], known: Known) -> Known:
    """Add what the workflow answers; nothing if no worker lets it answer."""
    wait = timedelta(seconds=QUERY_SECONDS)
    try:
        progress = await handle.query(m.PROGRESS, result_type=Progress, rpc_timeout=wait)
        account = await handle.query(m.ACCOUNT, result_type=m.Account, rpc_timeout=wait)
    except (RPCError, WorkflowQueryFailedError) as error:
        if isinstance(error, RPCError) and error.status in _SILENT:
            return known
        if isinstance(error, RPCError):
            raise no_answer(error, client) from error
        raise FatalError(f"the job does not answer: {error}", where=f"job {handle.id}") from error
    started = account.started
    sources = started.sources if started else ()
    return replace(
        known, progress=progress, sources=sources, started=started, advanced=account.advanced
    )


async def _as_it_ended(client: Client, handle: WorkflowHandle[Any, m.Ended], known: Known) -> Known:
    try:
        ended = await handle.result(rpc_timeout=timedelta(seconds=QUERY_SECONDS))
    except WorkflowFailureError as error:
        ended = _ended_of(error)
    except RPCError as error:
        raise no_answer(error, client) from error
    summary = ended.summary
    return replace(
        known,
        progress=replace(ended.progress(), eta_seconds=None),
        sources=tuple(summary.sources),
        destination=summary.destination,
        table=summary.table,
        error=summary.error,
        advanced=ended.advanced,
    )


async def _known_or_failed(client: Client, job_id: str) -> Known:
    """Return what is known of a job; only that it failed if it was ended from outside."""
    try:
        return await _known(client, job_id)
    except BatchImportError as error:
        return Known(Progress(job_id, "failed", current_stage="finished"), error=str(error))


def _not_there(job_id: str) -> UnknownJobError:
    return UnknownJobError("the Temporal server knows no such job", where=f"job {job_id}")


def destination_of(options: TemporalOptions, job_id: str) -> str:
    """Return the address that a job imports to, without the password.

    Raises:
        UsageError: If the server knows no such job.
    """

    async def ask() -> str:
        client = await connect(options)
        try:
            description = await client.get_workflow_handle(job_id).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise no_answer(error, client) from error
            raise _not_there(job_id) from error
        return str(await description.memo_value("destination", ""))

    return event_loop.run(ask())


def owner_has_ended(text: str) -> bool | None:
    """Say whether the workflow that owns a job has ended; None if the server does not answer."""
    try:
        owner = m.Owner.parse(text)
    except TypeError:  # no workflow's name
        return None

    async def ask() -> bool:
        client = await connect(TemporalOptions(owner.address, owner.namespace))
        return not await is_running(client, owner.workflow_id)

    try:
        return event_loop.run(ask())
    except BatchImportError:
        return None


def _ended_of(error: WorkflowFailureError) -> m.Ended:
    """Return the outcome that a failed workflow left.

    Raises:
        FatalError: If the workflow was ended from outside, such as by `temporal workflow terminate`.
    """
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.details:
        converter = DataConverter.default.payload_converter
        payloads = converter.to_payloads(cause.details[:1])
        ended: m.Ended = converter.from_payloads(payloads, [m.Ended])[0]
        return ended
    raise FatalError(
        f"the workflow has ended: {cause}",
        hint="what is committed is in the ledger: run the same command again",
    ) from error


def _check_size(spec: m.JobSpec) -> None:
    size = len(spec.job)
    if size > LARGEST_PAYLOAD:
        raise UsageError(
            f"schema and options take {size:,} bytes; Temporal accepts {LARGEST_PAYLOAD:,}",
            hint="use a smaller --schema, or --engine local",
        )
