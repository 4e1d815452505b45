"""What others are told: a command gets the summary whatever the end, and metrics are in a file."""

from __future__ import annotations

import json
import re
import stat

import pytest

from batchimport.display import metrics
from batchimport.display.metrics import Metrics, lines_of
from batchimport.model import ChunkResult, Summary
from batchimport.policy.events import ChunkFinished, ChunkStarted, JobStarted
from tests.helpers.cli import Workdir
from tests.helpers.stores import chunk

HOOK = 'cat > told.json; echo "$BATCHIMPORT_JOB $BATCHIMPORT_STATUS"; exit 7'


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["users.jsonl"], "completed", 0),
        (["users.jsonl", "--schema", "strict.json"], "completed_with_rejects", 3),
        (["users.jsonl", "--min-records", "9"], "refused", 6),
        (["users.jsonl", "--transform", "no:where"], "failed", 2),
        (["missing.jsonl"], "failed", 2),
        (["users.jsonl", "--summary", "users.jsonl"], "failed", 2),
    ],
)
def test_a_command_hears_of_every_end(
    workdir: Workdir, words: list[str], status: str, code: int
) -> None:
    """Its exit code changes nothing, and what it prints does not disturb `--json`."""
    workdir.lines("users.jsonl", [{"id": 1}, {"id": 2}])
    workdir.write("strict.json", '{"properties": {"id": {"maximum": 1}}}')
    extra = ["--on-finish", HOOK, "--metrics", "m.prom", "--json", "--progress", "none"]
    ended = workdir.call("run", *words, *extra)
    assert ended.code == code, ended.err
    told = json.loads((workdir.path / "told.json").read_text())
    assert told["status"] == status
    assert bool(told["error"]) == (status in ("failed", "refused"))
    assert f"{told['job_id']} {status}\n" in ended.err
    assert "--on-finish ended with exit code 7" in ended.err
    if ended.out:
        assert json.loads(ended.out) == told
    text = (workdir.path / "m.prom").read_text()
    assert f'status="{status}"}} 1\n' in text
    assert "batchimport_running{" in text


def test_metrics_while_it_runs(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds, for the collector, who is another user."""
    monkeypatch.setattr(metrics, "SECONDS_BETWEEN_WRITES", 0.0)
    path = workdir.path / "m.prom"
    observer = Metrics(path)
    observer(JobStarted("users-1", ("/u",), "sqlite:///u.db", 'us"ers', 100))
    place = chunk(0, 5)
    observer(ChunkStarted(place))
    observer(ChunkFinished(ChunkResult(place, 4, 1, 0, ""), 0.1))
    text = path.read_text()
    assert r'batchimport_records_stored{job_id="users-1",table="us\"ers"} 4' in text
    assert 'batchimport_status{job_id="users-1",table="us\\"ers",status="running"} 1\n' in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_metrics_are_what_prometheus_reads() -> None:
    """Each metric has its help and type before its value, once."""
    lines = list("".join(lines_of(Summary("j", "completed", (), "", "t"), 1.5)).splitlines())
    for comment, kind, value in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        name = comment.split()[2]
        assert comment.startswith("# HELP ")
        assert kind == f"# TYPE {name} gauge"
        assert re.fullmatch(name + r'\{(\w+="\w*",?)+\} [\d.]+', value)
