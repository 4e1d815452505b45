"""A small OpenTelemetry collector: takes what is posted by OTLP over HTTP, and keeps it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helpers.web import HttpServer

REQUESTS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector(HttpServer):
    """What was posted, decoded."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        super().__init__(_handler_of(self))

    def spans(self, name: str) -> list[Any]:
        """The spans of a name."""
        requests = [each for each in self.posted if isinstance(each, ExportTraceServiceRequest)]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.name == name
        ]

    @staticmethod
    def facts(of: Any) -> dict[str, Any]:
        """The attributes of a span, a point or a resource, without our prefix."""
        return {
            each.key.removeprefix("batchimport."): getattr(
                each.value, each.value.WhichOneof("value")
            )
            for each in of.attributes
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes and the data of each point of a metric, as they were sent last."""
        requests = [each for each in self.posted if isinstance(each, ExportMetricsServiceRequest)]
        return [
            (self.facts(point), point)
            for resource in (requests[-1].resource_metrics if requests else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == f"batchimport.{name}"
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def service(self) -> dict[str, Any]:
        """What the sender says of itself."""
        resources = self.posted[0].ListFields()[0][1]
        return self.facts(resources[0].resource)


def _handler_of(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.posted.append(REQUESTS[self.path].FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    return Handler


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()
