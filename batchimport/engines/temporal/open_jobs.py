"""The jobs that a worker has open: source, transform and sink, opened once for all of its chunks."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchimport.display.lines import Warnings, describe
from batchimport.errors import (
    BatchImportError,
    ConfigurationChangedError,
    JobRunningElsewhereError,
    RefusedError,
    SourceChangedError,
    TransientError,
)
from batchimport.jobs.identify import job_from
from batchimport.jobs.start import Parts, join_job
from batchimport.pipeline.transform import load_transform, transform_digest
from batchimport.schema.pydantic import load_model
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import SinkOptions
from batchimport.sinks.registry import scheme_of
from batchimport.sinks.waiting import DestinationWait, patient
from batchimport.sources.opening import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batchimport.engines.temporal.messages import JobRef
    from batchimport.model import Chunk, Job
    from batchimport.pipeline.chunk import Work
    from batchimport.policy.events import Event, Observer
    from batchimport.sinks.base import JobRecord, Sink

ADDRESS_VARIABLE = "BATCHIMPORT_TO"
SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(slots=True)
class OpenJob:
    """A job that this worker has joined at one epoch.

    Attributes:
        committed: Chunks that earlier runs have committed, which `cut` leaves out.
        used: Time of the last use, by the monotonic clock.
        users: Activities that are using it now.
        ended: Notified when a chunk of this worker has ended.
    """

    record: JobRecord
    parts: Parts
    work: Work
    committed: list[Chunk]
    used: float
    users: int = 0
    ended: threading.Condition = field(default_factory=threading.Condition)

    def wake_waiting(self) -> None:
        """Wake chunks that wait for another chunk of this process."""
        with self.ended:
            self.ended.notify_all()

    def wait_for(self, position: int, seconds: float, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until the chunk that begins at a position is committed; say whether it is.

        Raises:
            TransientError: If the attempt was cancelled.
        """
        until = time.monotonic() + seconds
        while not is_cancelled():
            if self.parts.sink.is_committed(self.record.job_id, position):
                return True
            if time.monotonic() >= until:
                return False
            with self.ended:  # nothing wakes us when the chunk runs in another process
                self.ended.wait(SECONDS_BETWEEN_LOOKS)
        raise TransientError("the attempt was cancelled")


class OpenJobs:
    """Opens a job on first use, and closes it once it is idle."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        tell: Callable[[str], None] = lambda _: None,
        max_memory_bytes: int | None = None,
    ) -> None:
        self._environment, self._tell = environment, tell
        self._max_memory_bytes = max_memory_bytes
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], OpenJob] = {}
        self._waits: dict[tuple[str, int], DestinationWait] = {}
        self._is_stopping = False

    @contextmanager
    def use(self, ref: JobRef) -> Iterator[OpenJob]:
        """Keep a job open for the time of an activity; errors on opening it name this host.

        Raises:
            BatchImportError: If this worker cannot work on the job.
        """
        wait = self._wait(ref)
        with naming_this_host():
            job = wait.call(lambda: self._opened(ref, wait))
        try:
            yield job
        finally:
            with self._lock:
                job.users -= 1
                job.used = time.monotonic()

    def _opened(self, ref: JobRef, wait: DestinationWait) -> OpenJob:
        with self._lock:
            key = (ref.job_id, ref.epoch)
            if key not in self._open:
                self._open[key] = self._join(ref, wait)
            self._open[key].users += 1
            return self._open[key]

    def close(self, idle_seconds: float = 0.0) -> None:
        """Close the jobs that have been idle for this long."""
        now = time.monotonic()
        with self._lock:
            for key, job in list(self._open.items()):
                if not job.users and now - job.used >= idle_seconds:
                    del self._open[key]
                    self._waits.pop(key, None)
                    job.parts.sink.close()
                    job.parts.source.close()

    def stop_waiting(self) -> None:
        """End all waits for destinations: this worker is stopping, others may be luckier."""
        with self._lock:
            self._is_stopping = True
            for wait in self._waits.values():
                wait.stop()

    def waited(self, ref: JobRef) -> float:
        """Return how long this worker has waited for the destination of a job, in seconds."""
        return self._wait(ref).seconds

    def _wait(self, ref: JobRef) -> DestinationWait:
        with self._lock:
            key = (ref.job_id, ref.epoch)
            if key not in self._waits:
                wait = self._waits[key] = DestinationWait(ref.wait_seconds, self._teller(ref))
                wait.is_claimed = True
                if self._is_stopping:
                    wait.stop()
            return self._waits[key]

    def _teller(self, ref: JobRef) -> Observer:
        def tell(event: Event) -> None:
            for line in describe(event, seen):
                self._tell(f"job {ref.job_id}: {line}")

        seen = Warnings()
        return tell

    def _join(self, ref: JobRef, wait: DestinationWait) -> OpenJob:
        refuse_other_host(ref.destination, ref.starter_host)
        address = self.address(ref.destination)
        with ExitStack() as stack:
            options = SinkOptions(
                create=False,
                ledger_schema=ref.ledger_schema,
                max_memory_bytes=self._max_memory_bytes,
            )
            sink = open_sink(address, options)
            stack.callback(sink.close)
            sink = patient(sink, wait)
            record = _record_of(sink, ref)
            job = job_from(record.configuration, address)
            parts = open_parts(job, sink, ref.store_seconds, stack)
            if parts.source.fingerprint != record.fingerprint:
                raise SourceChangedError(
                    "the source is not the file that this job imports", where=parts.source.name
                )
            committed = [row.chunk for row in sink.committed(ref.job_id)]
            work = join_job(record, parts)
            stack.pop_all()
        return OpenJob(record, parts, work, committed, time.monotonic())

    def address(self, destination: str) -> str:
        """Return the address with its password, if a variable `BATCHIMPORT_TO…` has it."""
        for name, value in sorted(self._environment.items()):
            if name.startswith(ADDRESS_VARIABLE) and redact(value) == destination:
                return value
        return destination


def open_parts(job: Job, sink: Sink, store_seconds: float, stack: ExitStack) -> Parts:
    """Open source and transform beside an open sink; the stack closes the source.

    Raises:
        ConfigurationChangedError: If the user's own code differs from the code of the job.
    """
    source = open_source(job.sources, job.options)
    stack.callback(source.close)
    transform = load_transform(job)
    if job.transform and transform_digest(job.transform) != job.transform_digest:
        raise _another_version(job.transform)
    if job.model and load_model(job.model).digest != job.model_digest:
        raise _another_version(job.model)
    return Parts(job, source, transform, sink, store_seconds)


def _another_version(name: str) -> ConfigurationChangedError:
    return ConfigurationChangedError(
        f"the code of {name} is not the code that the job was started with",
        hint="copy the same file to every worker",
    )


def refuse_other_host(destination: str, starter_host: str) -> None:
    """Refuse a destination that is a file on another host.

    Raises:
        RefusedError: If it is.
    """
    scheme = scheme_of(destination)
    if scheme and scheme.on_one_host and os.uname().nodename != starter_host:
        raise RefusedError(
            f"a {destination.partition(':')[0]} database is a file on the host that started the job, {starter_host}",
            where=destination,
            hint="run all workers there, or import into PostgreSQL or Parquet",
        )


@contextmanager
def naming_this_host() -> Iterator[None]:
    """Put the name of this host into errors, since a job may have workers on many."""
    try:
        yield
    except BatchImportError as error:
        host = os.uname().nodename
        error.where = f"worker on {host}: {error.where}" if error.where else f"worker on {host}"
        raise


def _record_of(sink: Sink, ref: JobRef) -> JobRecord:
    records = [record for record in sink.jobs() if record.job_id == ref.job_id]
    if not records or records[0].epoch != ref.epoch:
        raise JobRunningElsewhereError(
            "another program has taken over this job", where=f"job {ref.job_id}"
        )
    return records[0]
