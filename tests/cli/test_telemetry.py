"""OpenTelemetry as a collector hears it, which the standard environment variables name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.collector import Collector, collecting
from tests.helpers.temporal import TemporalServer, new_name

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ERROR = 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_a_collector_hears_of_job_chunks_and_attempts(
    workdir: Workdir, collector: Collector
) -> None:
    """Each inside of the other, with its counts, its time and its error; the job inside of what called it."""
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 1}, {"id": 2}])
    ended = workdir.call(
        *("run", "users.jsonl", "--key", "id", "--chunk-size", "2", "--retry-initial", "0.2"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        TRACEPARENT=f"00-{TRACE}-{PARENT}-01",
        BATCHIMPORT_FAILPOINTS="before-commit=error@2",
    )
    assert ended.code == 3, ended.err
    assert "OpenTelemetry" not in ended.err
    assert collector.service()["service.name"] == "batchimport"
    assert collector.service()["deployment.environment.name"] == "test"
    (job,) = collector.spans("job")
    assert (job.trace_id.hex(), job.parent_span_id.hex()) == (TRACE, PARENT)
    said = collector.facts(job)
    assert (said["status"], said["records.stored"], said["records.rejected"]) == (
        "completed_with_rejects",
        2,
        1,
    )
    assert said["table"] == "users"
    chunks = {
        collector.facts(each)["chunk.first_record"]: each for each in collector.spans("chunk")
    }
    assert {each.parent_span_id for each in chunks.values()} == {job.span_id}
    assert [collector.facts(chunks[at])["records.stored"] for at in (0, 2)] == [1, 1]
    assert [collector.facts(chunks[at])["chunk.attempts"] for at in (0, 2)] == [1, 2]
    failed, passed = sorted(
        (each for each in collector.spans("attempt") if each.parent_span_id == chunks[2].span_id),
        key=lambda each: each.start_time_unix_nano,
    )
    assert (failed.status.code, failed.status.message) == (ERROR, "failpoint before-commit")
    assert passed.status.code != ERROR
    assert passed.start_time_unix_nano > failed.end_time_unix_nano  # the wait between is in neither
    records = {facts["outcome"]: point.as_int for facts, point in collector.points("records")}
    assert records == {"stored": 2, "rejected": 1, "filtered": 0}
    assert collector.points("chunk.retries")[0][1].as_int == 1
    assert collector.points("chunk.duration")[0][1].count == 2
    assert collector.points("source.bytes")[0][1].as_int == len('{"id": 1}\n') * 3


def test_a_run_that_is_refused_is_a_span_with_its_error(
    workdir: Workdir, collector: Collector
) -> None:
    """Only what is asked for is sent: here traces."""
    workdir.lines("users.jsonl", [{"id": 1}])
    ended = workdir.call(
        *("run", "users.jsonl", "--min-records", "9"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_METRICS_EXPORTER="none",
    )
    assert ended.code == 6
    (job,) = collector.spans("job")
    assert job.status.code == ERROR
    assert "fewer than --min-records" in job.status.message
    assert not collector.points("run.duration")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
            "not all was sent within 5 seconds",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "no exporter zipkin is installed"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "-5"}, "no OpenTelemetry"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_a_job_does_not_mind_a_collector_that_is_not_there(
    workdir: Workdir, variables: dict[str, str], said: str
) -> None:
    """It says so in a line of its own, and waits for a bounded time only."""
    workdir.lines("users.jsonl", [{"id": 1}])
    ended = workdir.call("run", "users.jsonl", "--json", **variables)
    assert (ended.code, ended.summary["status"]) == (0, "completed")
    assert (said in ended.err) if said else ("OpenTelemetry" not in ended.err)
    assert "Traceback" not in ended.err


def test_workers_tell_of_their_attempts(
    workdir: Workdir, collector: Collector, temporal: TemporalServer
) -> None:
    """The chunks come from the worker, the job from the client, with the id of one job."""
    queue, variables = new_name("queue"), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    workdir.lines("users.jsonl", [{"id": at} for at in range(4)])
    words = ("--engine", "temporal", "--task-queue", queue, "--chunk-size", "2")
    with temporal.worker(workdir, queue, **variables):
        ended = workdir.call("run", "users.jsonl", *words, **temporal.environment(), **variables)
        assert ended.code == 0, ended.err
    told = [collector.facts(each) for name in ("job", "chunk") for each in collector.spans(name)]
    assert [each.get("records.stored") for each in told] == [4, 2, 2]
    assert len({each["job_id"] for each in told}) == 1
    assert len(collector.spans("attempt")) == 2
