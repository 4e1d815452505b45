"""Traces and metrics of a run. What goes wrong here never reaches the job."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from batchimport.policy.events import (
    ChunkFailed,
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    JobStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span

    from batchimport.model import Chunk, ChunkResult, Summary
    from batchimport.policy.events import Event, Observer

FLUSH_SECONDS = 5.0
"""How long a run waits at its end for what is still to be sent."""
LONGEST_ERROR = 200
_SECOND = 1_000_000_000
_PASSWORD = re.compile(r"//[^/@\s]*@")
_PREFIX = "batchimport."


@dataclass
class _Attempts:
    """The attempts of a chunk; times are nanoseconds since 1970.

    Attributes:
        next: When the one begins that has not ended.
        ended: Begin, end and error of the others.
    """

    file: str
    next: int = field(default_factory=time.time_ns)
    ended: list[tuple[int, int, str]] = field(default_factory=list)

    def end(self, error: str = "", wait_seconds: float = 0.0) -> None:
        """End the attempt that is running, if it has begun.

        Args:
            wait_seconds: After this time another one begins.
        """
        if (now := time.time_ns()) >= self.next:
            self.ended.append((self.next, now, error))
            self.next = now + int(wait_seconds * _SECOND)


class Telemetry:
    """An observer of a run: its job is a span, with a span for each chunk, with one for each attempt.

    Args:
        traces: Names of exporters.
        metrics: Likewise.
        tell: Called with what the user should know.
        errors: Keeps what goes wrong.

    Raises:
        Exception: What exporters raise that cannot be made.
    """

    def __init__(
        self,
        traces: Sequence[str],
        metrics: Sequence[str],
        tell: Callable[[str], None],
        errors: Errors,
    ) -> None:
        own = {"service.name": "batchimport", "service.version": version("batchimport")}
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        processors = [BatchSpanProcessor(_exporter("traces", name)) for name in traces]
        exporters = [_exporter("metrics", name) for name in metrics]
        readers = [
            each if isinstance(each, MetricReader) else PeriodicExportingMetricReader(each)
            for each in exporters
        ]
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in processors:
            self._traces.add_span_processor(processor)
        self._metrics = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._tell, self.errors = tell, errors
        self.tracer = self._traces.get_tracer("batchimport", own["service.version"])
        meter = self._metrics.get_meter("batchimport", own["service.version"])
        self.records = meter.create_counter(
            f"{_PREFIX}records", "{record}", "Records by outcome: stored, rejected, filtered"
        )
        self.bytes = meter.create_counter(
            f"{_PREFIX}source.bytes", "By", "Bytes of the source that were imported"
        )
        self.retries = meter.create_counter(
            f"{_PREFIX}chunk.retries", "{attempt}", "Attempts at a chunk that failed"
        )
        self.seconds = meter.create_histogram(
            f"{_PREFIX}chunk.duration", "s", "Time from the start of a chunk to its commit"
        )
        self.run_seconds = meter.create_histogram(
            f"{_PREFIX}run.duration", "s", "Duration of a run, by its status"
        )
        self._job: Span | None = None
        self._chunks: Observer = lambda _: None

    def begin(self) -> None:
        """Begin the span of a job: inside of the caller's, or of the one that TRACEPARENT names."""
        around = context.get_current()
        if not trace.get_current_span().get_span_context().is_valid:
            names = ("traceparent", "tracestate")
            carrier = {name: os.environ.get(name.upper(), "") for name in names}
            around = TraceContextTextMapPropagator().extract(carrier)
        self._job = self.tracer.start_span("job", around)

    def __call__(self, event: Event) -> None:
        """Take note of an event of the run."""
        if isinstance(event, JobStarted):
            around = trace.set_span_in_context(self._job) if self._job else Context()
            facts = _facts(event.job_id, event.table)
            self._chunks = _Chunks(self, facts, around, event.unit)
        self._chunks(event)

    def attempt_of(self, job_id: str, table: str, unit: str, number: int) -> Observer:
        """Return an observer of one attempt at a chunk: in a worker, which sees nothing of the run."""
        return _Chunks(self, _facts(job_id, table), Context(), unit, number)

    def finish(self, summary: Summary) -> None:
        """Tell how the run ended, and send what was not sent yet."""
        with self.errors.kept():
            facts = _facts(summary.job_id, summary.table)
            status = {f"{_PREFIX}status": summary.status}
            self.run_seconds.record(summary.duration_seconds, facts | status)
            if self._job is not None:
                self._job.set_attributes(facts | _described(summary))
                if summary.error is not None:
                    self._job.set_status(Status(StatusCode.ERROR, summary.error))
                self._job.end()
        self.close()

    def close(self) -> None:
        """Send what was not sent yet, but do not wait long for it; say so if that failed."""
        sending = threading.Thread(target=self._shut_down, name="telemetry", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
        if sending.is_alive():
            why = f": {self.errors.last}" if self.errors.last else ""
            self.errors.keep(f"not all was sent within {FLUSH_SECONDS:g} seconds{why}")
        self.errors.end()
        if self.errors.last:
            self._tell(f"OpenTelemetry: {self.errors.last}")

    def _shut_down(self) -> None:
        for provider in (self._traces, self._metrics):
            with self.errors.kept():
                provider.shutdown()


class _Chunks:
    """An observer of the chunks of a job.

    Args:
        around: Where their spans are.
        unit: What a position of the source is: `bytes` or `rows`.
        first: Number of the first attempt at a chunk.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        facts: Mapping[str, str],
        around: Context,
        unit: str,
        first: int = 1,
    ) -> None:
        self._telemetry, self._facts, self._around = telemetry, facts, around
        self._unit, self._first = unit, first
        self._running: dict[int, _Attempts] = {}

    def __call__(self, event: Event) -> None:
        with self._telemetry.errors.kept():
            match event:
                case ChunkStarted():
                    self._running[event.chunk.lo] = _Attempts(event.file)
                case ChunkRetried():
                    self._running[event.chunk.lo].end(event.error, event.wait_seconds)
                case ChunkFinished():
                    attempts = self._running.pop(event.result.chunk.lo)
                    attempts.end()
                    self._count(event.result, attempts)
                    self._draw(event.result.chunk, attempts, self._outcome(event.result))
                case ChunkFailed():
                    attempts = self._running.pop(event.chunk.lo)
                    attempts.end(event.error)
                    self._draw(event.chunk, attempts, {}, event.error)
                case _:
                    pass

    def _outcome(self, result: ChunkResult) -> dict[str, int | bool]:
        return {
            "records.stored": result.successful,
            "records.rejected": result.failed,
            "records.filtered": result.filtered,
            "chunk.bisected": result.bisected,
        }

    def _count(self, result: ChunkResult, attempts: _Attempts) -> None:
        """Add a committed chunk to the metrics."""
        telemetry = self._telemetry
        for outcome, number in zip(("stored", "rejected", "filtered"), result.counts, strict=True):
            telemetry.records.add(number, {**self._facts, f"{_PREFIX}outcome": outcome})
        if self._unit == "bytes":
            telemetry.bytes.add(result.chunk.hi - result.chunk.lo, self._facts)
        began, ended = attempts.ended[0][0], attempts.ended[-1][1]
        telemetry.seconds.record((ended - began) / _SECOND, self._facts)

    def _draw(
        self, chunk: Chunk, attempts: _Attempts, outcome: Mapping[str, int | bool], error: str = ""
    ) -> None:
        """Make the spans of a chunk that has ended."""
        if not attempts.ended:  # none has begun
            return
        failed = sum(1 for _, _, why in attempts.ended if why)
        self._telemetry.retries.add(failed, self._facts)
        said: dict[str, str | int | bool] = {
            "chunk.first_record": chunk.offset,
            "chunk.records": chunk.records,
            "chunk.file": attempts.file,
            f"chunk.{self._unit}": chunk.hi - chunk.lo,
            "chunk.attempts": self._first - 1 + len(attempts.ended),
            **outcome,
        }
        attributes = {**self._facts, **{_PREFIX + name: value for name, value in said.items()}}
        start, tracer = attempts.ended[0][0], self._telemetry.tracer
        span = tracer.start_span("chunk", self._around, attributes=attributes, start_time=start)
        inside = trace.set_span_in_context(span, self._around)
        for number, (start, end, why) in enumerate(attempts.ended, self._first):
            numbered: dict[str, str | int] = {**self._facts, f"{_PREFIX}attempt": number}
            child = tracer.start_span("attempt", inside, attributes=numbered, start_time=start)
            if why:
                child.set_status(Status(StatusCode.ERROR, why))
            child.end(end)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(attempts.ended[-1][1])


class Errors(logging.Handler):
    """Keeps what the SDK logs, which would go to the terminal where nobody has set up logging."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        logging.getLogger("opentelemetry").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.keep(record.getMessage())

    def keep(self, text: str) -> None:
        """Keep what went wrong last, without the password of an address."""
        self.last = _PASSWORD.sub("//***@", text)[:LONGEST_ERROR]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error of what is done meanwhile: it must not reach the job."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.keep(f"{type(error).__name__} {error}".strip())

    def end(self) -> None:
        """Hear no more."""
        logging.getLogger("opentelemetry").removeHandler(self)


def _exporter(signal: str, name: str) -> Any:
    """Return a new exporter by its name in the environment variable.

    Raises:
        LookupError: If none of that name is installed.
    """
    entry = name
    if name == "otlp":
        own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
        protocol = own or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
        entry = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=entry))
    if not found:
        hint = ": pip install 'batchimport[otel]'" if entry == "otlp_proto_http" else ""
        raise LookupError(
            f"no exporter {entry} is installed (OTEL_{signal.upper()}_EXPORTER){hint}"
        )
    make = found[0].load()
    return make(out=sys.stderr) if name == "console" else make()  # standard output is the user's


def _facts(job_id: str, table: str) -> dict[str, str]:
    return {f"{_PREFIX}job_id": job_id, f"{_PREFIX}table": table}


def _described(summary: Summary) -> dict[str, Any]:
    """Return the attributes of the span of a job."""
    said = {
        "status": summary.status,
        "sources": list(summary.sources),
        "destination": summary.destination,
        "engine": summary.engine,
        "resumed": summary.resumed,
        "records.total": summary.total_items,
        "records.stored": summary.successful,
        "records.rejected": summary.failed,
        "records.filtered": summary.filtered,
        "records.per_second": summary.records_per_second,
        "source.bytes": summary.bytes_read,
        "chunks.committed": summary.chunks.committed,
        "chunks.retried": summary.chunks.retried,
        "chunks.failed": summary.chunks.failed,
    }
    return {_PREFIX + name: value for name, value in said.items() if value is not None}
