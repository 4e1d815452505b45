"""The pure parts of the Temporal engine, and what keeps them pure."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from batchimport.engines.temporal import workflow
from batchimport.engines.temporal.messages import Failure, JobSpec, Owner, Reading
from batchimport.engines.temporal.open_jobs import OpenJobs, refuse_other_host
from batchimport.engines.temporal.worker import PURE_MODULES
from batchimport.engines.temporal.workflow import FORGET_AFTER_SECONDS, Fleet
from batchimport.errors import FatalError, RefusedError, SourceChangedError
from batchimport.jobs.identify import Request
from batchimport.model import Chunk, Position
from batchimport.policy.plan import Plan
from batchimport.policy.sizing import LoadReading


def reading(worker: str, host: str, cpu: float, own: float, memory: int = 1) -> Reading:
    return Reading(worker, host, LoadReading(cpu, own, 0.5, memory, 10, 4), 3, 0)


def test_workers_of_one_host_are_not_each_others_load() -> None:
    """What they use together is their own."""
    fleet = Fleet()
    fleet.hear(reading("a/1", "a", 1.0, 0.5), 0.0)
    fleet.hear(reading("a/2", "a", 1.0, 0.45, memory=9), 0.0)
    load = fleet.load(1.0)
    assert (load.cpus, load.process_bytes) == (4, 9)
    assert load.others == pytest.approx(0.05)
    assert fleet.slots(1.0) == 6


def test_hosts_add_processors_and_share_load() -> None:
    """A worker that was silent for long no longer counts, unless it is the last one."""
    fleet = Fleet()
    fleet.hear(reading("a/1", "a", 1.0, 0.2), 0.0)
    fleet.hear(reading("b/1", "b", 0.0, 0.0), 10.0)
    assert (fleet.load(11.0).cpus, fleet.load(11.0).cpu) == (8, 0.5)
    assert fleet.load(FORGET_AFTER_SECONDS + 5).cpus == 4
    assert fleet.load(FORGET_AFTER_SECONDS * 9).cpus == 4


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"BATCHIMPORT_TO": "postgresql://u:secret@db/x"}, "postgresql://u:secret@db/x"),
        ({"BATCHIMPORT_TO_SHOP": "postgresql://u:secret@db/x"}, "postgresql://u:secret@db/x"),
        ({"BATCHIMPORT_TO": "postgresql://u:secret@db/other"}, "postgresql://u@db/x"),
        ({}, "postgresql://u@db/x"),
    ],
)
def test_a_password_comes_from_the_environment(environment: dict[str, str], found: str) -> None:
    """From the variable whose address is the job's, apart from the password."""
    assert OpenJobs(environment).address("postgresql://u@db/x") == found


def test_a_database_file_stays_on_its_host() -> None:
    """A worker on another host refuses; a directory of Parquet files may be shared."""
    refuse_other_host("parquet:////shared/users", "elsewhere")
    with pytest.raises(RefusedError, match="elsewhere"):
        refuse_other_host("sqlite:////data/u.db", "elsewhere")


def test_errors_survive_the_history() -> None:
    """With class, place and hint; a class of a later version is read as a fatal error."""
    error = SourceChangedError("has changed", "u.jsonl", "look")
    revived = Failure.of(error).revive()
    assert (type(revived), revived.args) == (type(error), error.args)
    assert type(Failure("LaterError", "odd").revive()) is FatalError
    owner = Owner("db:7233", "default", "u-1")
    assert Owner.parse(str(owner)) == owner


def test_all_that_is_asked_for_reaches_the_workers() -> None:
    """A job's spec has every field of a request that does not concern the starter alone."""
    own = {"job", "options", "state", "handle_signals", "temporal", "objects", "interrupter"}
    asked = {each.name for each in fields(Request)} - own
    assert asked - {each.name for each in fields(JobSpec)} == set()


def test_a_plan_continues_from_a_position() -> None:
    """Whether that is in a gap, at its end, or in a committed chunk."""

    def cut(start: Position, limit: int, _: int) -> Chunk | None:
        stop = min(start.record + limit, 100)
        return Chunk(start, Position(stop, stop)) if stop > start.record else None

    committed = [
        Chunk(Position(20, 20), Position(40, 40)),
        Chunk(Position(60, 60), Position(70, 70)),
    ]
    whole, taken = Plan(100, committed), []
    while chunk := whole.take(cut, 7, 1000):
        taken.append(chunk)
    for at, chunk in enumerate(taken):
        rest = Plan(100, committed)
        rest.skip_to(chunk.start)
        assert [rest.take(cut, 7, 1000) for _ in taken[at:]] == taken[at:]
        after = Plan(100, committed)
        after.skip_to(chunk.end)
        assert after.take(cut, 7, 1000) == (taken[at + 1] if at + 1 < len(taken) else None)


def test_the_sandbox_loads_nothing_of_ours_twice() -> None:
    """Every module that the workflow imports is on the list of those that pass through."""
    tree = ast.parse(Path(workflow.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    used = set()
    for node in imports:
        if node.module == "batchimport.engines.temporal":
            used |= {f"{node.module}.{name.name}" for name in node.names}
        elif node.module and node.module.startswith("batchimport"):
            used.add(node.module)
    assert used - set(PURE_MODULES) == set()
