"""The starter's side: begin a job's workflow or find it running, follow it, and return its outcome.

Whoever follows may go away at any time; the job goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowQueryFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from batchimport.engines.signals import draining_signals
from batchimport.engines.temporal import messages as m
from batchimport.engines.temporal.connection import connect, has_worker, is_running, no_answer
from batchimport.errors import (
    BatchImportError,
    FatalError,
    JobInterrupted,
    JobRunningElsewhereError,
    UsageError,
)
from batchimport.jobs.finish import Outcome, resume_command
from batchimport.jobs.identify import without_address
from batchimport.model import Progress, Summary, TemporalOptions
from batchimport.policy.events import JobFinished, Noted
from batchimport.sinks import redact

if TYPE_CHECKING:
    from batchimport.jobs.identify import Request
    from batchimport.policy.events import Observer

SECONDS_BETWEEN_QUERIES = 0.5
QUERY_SECONDS = 5
MOST_JOBS = 100
LARGEST_PAYLOAD = 1_500_000
"""Bytes; the server takes 2 MB."""
_UNREACHABLE = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
)


class RemoteJob:
    """A job's workflow, seen from the starter."""

    def __init__(self, request: Request, job_id: str, observer: Observer) -> None:
        assert request.temporal is not None  # noqa: S101 - a mistake in this program
        self._request, self._options, self.job_id = request, request.temporal, job_id
        self._observer = observer
        self._is_told = False
        self._notes: set[str] = set()
        self._left: JobInterrupted | None = None

    def is_running(self) -> bool:
        """Say whether the job's workflow is open.

        Raises:
            FatalError: If the server does not answer.
        """

        async def ask() -> bool:
            return await is_running(await connect(self._options), self.job_id)

        return asyncio.run(ask())

    def start(self) -> str:
        """Start the workflow, unless it runs already; return what names it as owner of the job.

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

        return asyncio.run(start())

    def detached(self) -> Outcome:
        """Return the outcome of a start that waits for nothing."""
        return Outcome(self._summary("running"), 0)

    def follow(self) -> Outcome:
        """Stay until the workflow ends, or a signal comes.

        Raises:
            FatalError: If the server cannot be reached, or somebody has ended the workflow.
        """
        return asyncio.run(self._follow())

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
            if not self._is_told:  # it was over before anybody looked
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
        """Wait for the end of the workflow, however often the server goes away meanwhile."""
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
        """Tell the display how far the job is; or why nobody answers."""
        try:
            await self._hear(client)
        except (RPCError, WorkflowQueryFailedError) as error:
            await self._explain(client, error)

    async def _hear(self, client: Client) -> None:
        account = await client.get_workflow_handle(self.job_id).query(
            m.ACCOUNT, result_type=m.Account, rpc_timeout=timedelta(seconds=QUERY_SECONDS)
        )
        if account.started is not None:
            if not self._is_told:
                self._is_told = True
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
        return Outcome(self._summary("interrupted", str(error)), error.exit_code, error=error)

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

    def _summary(self, status: str, error: str | None = None) -> Summary:
        job = self._request.job
        return Summary(
            job_id=self.job_id,
            status=status,
            sources=job.sources,
            destination=redact(job.destination),
            table=job.table,
            engine="temporal",
            resume_command=resume_command(self._request, self.job_id),
            error=error,
        )


def progress_of(options: TemporalOptions, job_id: str) -> Progress:
    """Return how far a job is.

    Raises:
        FatalError: If nobody answers.
        UsageError: If the server knows no such job.
    """

    async def ask() -> Progress:
        return await _ask_progress(await connect(options), job_id)

    return asyncio.run(ask())


def all_progress_of(options: TemporalOptions) -> list[Progress]:
    """Return how far the jobs are that the server remembers, the latest first.

    Raises:
        FatalError: If the server does not answer.
    """

    async def ask() -> list[Progress]:
        client = await connect(options)
        try:
            found = client.list_workflows(f"WorkflowType = '{m.WORKFLOW}'", page_size=MOST_JOBS)
            known = dict.fromkeys([each.id async for each in found])
        except RPCError as error:
            raise no_answer(error, client) from error
        return [await _progress_or_silence(client, job_id) for job_id in known]

    return asyncio.run(ask())


async def _ask_progress(client: Client, job_id: str) -> Progress:
    """Ask a workflow that runs; of one that has ended, read the result: nobody need be there."""
    handle = client.get_workflow_handle(job_id, result_type=m.Ended)
    try:
        if not await is_running(client, job_id):
            ended: m.Ended = await handle.result(rpc_timeout=timedelta(seconds=QUERY_SECONDS))
            return ended.progress()
        found: Progress = await handle.query(
            m.PROGRESS, result_type=Progress, rpc_timeout=timedelta(seconds=QUERY_SECONDS)
        )
    except WorkflowFailureError as error:
        return _ended_of(error).progress()
    except (RPCError, WorkflowQueryFailedError) as error:
        raise _why_no_progress(client, job_id, error) from error
    return found


async def _progress_or_silence(client: Client, job_id: str) -> Progress:
    """Return how far a job is, or that nobody tells."""
    try:
        return await _ask_progress(client, job_id)
    except BatchImportError as error:
        return Progress(job_id, "running" if "no worker" in error.message else "failed")


def _why_no_progress(client: Client, job_id: str, error: Exception) -> BatchImportError:
    if isinstance(error, RPCError):
        if error.status == RPCStatusCode.NOT_FOUND:
            return UsageError("the Temporal server knows no such job", where=f"job {job_id}")
        if error.status in (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED):
            return FatalError(
                "no worker serves the job's task queue, so that nobody can tell",
                where=f"job {job_id}",
                hint="start one with `batchimport worker`",
            )
        return no_answer(error, client)
    return FatalError(f"the job does not answer: {error}", where=f"job {job_id}")


def destination_of(options: TemporalOptions, job_id: str) -> str:
    """Return where a job imports to, without the password.

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
            raise UsageError(
                "the Temporal server knows no such job", where=f"job {job_id}"
            ) from error
        return str(await description.memo_value("destination", ""))

    return asyncio.run(ask())


def owner_has_ended(text: str) -> bool | None:
    """Say whether the workflow that owns a job has ended; None if nobody can tell."""
    owner = m.Owner.parse(text)

    async def ask() -> bool:
        client = await connect(TemporalOptions(owner.address, owner.namespace))
        return not await is_running(client, owner.workflow_id)

    try:
        return asyncio.run(ask())
    except BatchImportError:
        return None


def _ended_of(error: WorkflowFailureError) -> m.Ended:
    """Return the outcome that a failed workflow left; one in words if it was ended from outside."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.details:
        converter = DataConverter.default.payload_converter
        payloads = converter.to_payloads(cause.details[:1])
        found: m.Ended = converter.from_payloads(payloads, [m.Ended])[0]
        return found
    raise FatalError(
        f"the workflow has ended: {cause}",
        hint="what is committed is in the ledger: run the same command again",
    ) from error


def _check_size(spec: m.JobSpec) -> None:
    size = len(spec.job)
    if size > LARGEST_PAYLOAD:
        raise UsageError(
            f"schema and options take {size:,} bytes, more than Temporal carries",
            hint="use a smaller --schema, or --engine local",
        )
