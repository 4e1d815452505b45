"""Connect to a Temporal server, configured by options, environment or profile."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.envconfig import ClientConfig
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode

from batchimport.errors import FatalError, UsageError

if TYPE_CHECKING:
    from batchimport.model import TemporalOptions

DEFAULT_ADDRESS = "localhost:7233"


async def connect(options: TemporalOptions) -> Client:
    """Connect by the options, else by `TEMPORAL_...` variables, else by the profile file.

    Raises:
        FatalError: If the server cannot be reached.
        UsageError: If the profile cannot be read.
    """
    try:
        config = ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        raise UsageError(f"the Temporal configuration cannot be read: {error}") from error
    address = options.address or config.get("target_host") or DEFAULT_ADDRESS
    namespace = options.namespace or config.get("namespace") or "default"
    config["target_host"], config["namespace"] = address, namespace
    try:
        return await Client.connect(**config, runtime=_runtime())
    except (RuntimeError, RPCError, ValueError) as error:
        raise FatalError(
            f"the Temporal server cannot be reached: {_first_line(error)}",
            where=address,
            hint="start one with `temporal server start-dev`, or give --temporal-address",
        ) from error


@cache
def _runtime() -> Runtime:
    """Return the SDK's core with its logging off: errors are reported by this package."""
    quiet = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    return Runtime(telemetry=TelemetryConfig(logging=quiet))


async def is_running(client: Client, workflow_id: str) -> bool:
    """Say whether a job's workflow is running.

    Raises:
        FatalError: If the server does not answer, or the namespace does not exist.
    """
    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND and "amespace" not in error.message:
            return False
        raise no_answer(error, client) from error
    return description.status == WorkflowExecutionStatus.RUNNING


async def check_namespace(client: Client) -> None:
    """Refuse a namespace that does not exist.

    Raises:
        FatalError: If it does not exist, or the server does not answer.
    """
    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
    except RPCError as error:
        raise no_answer(error, client) from error


async def has_worker(client: Client, task_queue: str) -> bool:
    """Say whether a worker has polled the task queue lately."""
    description = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return bool(description.pollers)


def no_answer(error: RPCError, client: Client) -> FatalError:
    """Return the error for a server that refused or did not answer."""
    return FatalError(
        f"the Temporal server does not answer: {_first_line(error)}",
        where=f"{client.service_client.config.target_host}, namespace {client.namespace}",
        hint="check --temporal-address and --temporal-namespace",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
