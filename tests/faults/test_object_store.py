"""What an object store without locks must survive: claims between two requests, replies that are lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest

from batchimport.errors import JobRunningElsewhereError, TransientError, UsageError
from batchimport.model import Chunk, Position
from batchimport.policy.plan import Plan
from batchimport.sinks.base import Sink
from batchimport.sinks.waiting import DestinationWait, patient
from tests.faults.sweep import KILLED, at_passes, new_victim
from tests.faults.test_failpoints import BEGINNING, IN_CHUNK, OF_THE_SINK, POINTS, reached
from tests.helpers.destinations import ObjectStore
from tests.helpers.stores import ADAPTERS, Store, a_record, a_reject, a_request, chunk, rows
from tests.helpers.web import Gateway, shared_s3

PART, JOBS = "/part-", "/_jobs.parquet"


class Place(Store):
    """A prefix, and a way to it by which requests may be delayed and replies lost."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("s3", ADAPTERS["s3"].new_address(Path(), lambda: None))
        self.gateway, self._patch = gateway, monkeypatch

    def open_by_gateway(self) -> Sink:
        with self._patch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.gateway.url)
            return self.open()

    def use_gateway(self) -> None:
        self._patch.setenv("AWS_ENDPOINT_URL", self.gateway.url)

    def before_put(self, name: str, action: Callable[[], Any]) -> None:
        """Do something when the next object of such a name is on its way to the store."""

        def look(method: str, path: str) -> None:
            if method == "PUT" and name in path and "/_batchimport/" not in path:
                self.gateway.before = lambda *_: None
                action()

        self.gateway.before = look

    def lose_reply(self, name: str) -> list[str]:
        """Lose the reply to the next such PUT; return what was lost, as it happens."""
        lost: list[str] = []

        def lose(method: str, path: str) -> bool:
            is_meant = method == "PUT" and name in path and "/_batchimport/" not in path
            if is_meant and not lost:
                lost.append(path)
                return True
            return False

        self.gateway.loses = lose
        return lost

    def names(self) -> list[str]:
        destination = ObjectStore(self.address)
        prefix = destination.prefix
        found = obstore.list(destination.store, prefix.rstrip("/")).collect()
        return sorted(meta["path"].removeprefix(prefix) for meta in found)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    gateway = Gateway(shared_s3().environment["AWS_ENDPOINT_URL"])
    yield Place(gateway, monkeypatch)
    gateway.close()


def test_a_part_that_comes_after_the_next_claim_is_refused(place: Place) -> None:
    """Its owner has looked, and has slept until another one took over: its place is taken."""
    job = place.job()
    old = place.open_by_gateway().claim(job, a_record(job), "old")
    new: list[Any] = []
    place.before_put(PART, lambda: new.append(place.open().claim(job, a_record(job), "new")))
    with pytest.raises(JobRunningElsewhereError):
        old.store(a_request(chunk(0, 3), rows(1, 2, 3)))
    assert place.rows() == []
    new[0].store(a_request(chunk(0, 3), rows(1, 2, 3)))
    new[0].store(a_request(chunk(3, 2), rows(4)))
    assert [row[0] for row in place.rows()] == [1, 2, 3, 4]
    assert [row.chunk for row in place.open().committed("users-1")] == [chunk(0, 3), chunk(3, 2)]
    assert new[0].finish("completed", 5) == 0
    assert not [name for name in place.names() if name.startswith("_batchimport")]


def test_a_part_that_was_removed_does_not_come_again(place: Place) -> None:
    """A worker sleeps; another one stores its chunk; the job is resumed, and begun again; it wakes up."""
    job = place.job()
    sink = place.open()
    claim = sink.claim(job, a_record(job), "me")
    asleep = place.open_by_gateway().join(job, claim.record)

    def meanwhile() -> None:
        claim.store(a_request(chunk(0, 2), rows(1, 2)))
        sink.claim(job, a_record(job), "me")
        sink.claim(job, a_record(job), "me", sink.jobs())

    place.before_put(PART, meanwhile)
    with pytest.raises(JobRunningElsewhereError):
        asleep.store(a_request(chunk(0, 2), rows(1, 2)))
    assert place.rows() == []
    replacing = place.job(if_exists="replace")
    last = place.open().claim(replacing, a_record(replacing, "users-2", columns=()), "me")
    assert last.finish("completed", 0) == 0
    assert place.rows("*") == [], "what takes the places has the new columns"


def test_a_replay_that_comes_after_the_next_claim_changes_nothing_twice(place: Place) -> None:
    """The part is no longer the one that it has read."""
    job = place.job()
    sink = place.open()
    claim = sink.claim(job, a_record(job), "me")
    claim.store(a_request(chunk(0, 2), rows(1), [a_reject(1)]))
    claim.finish("completed", 2)
    (record,) = sink.jobs()
    request = replace(a_request(chunk(0, 2), rows(2)), replayed=(1,))
    old = place.open_by_gateway().claim(job, record, "old", replay={})

    def meanwhile() -> None:
        sink.claim(job, record, "new", replay={}).store(request)

    place.before_put(PART, meanwhile)
    with pytest.raises(JobRunningElsewhereError):
        old.store(request)
    assert [row[0] for row in place.rows()] == [1, 2]
    assert list(sink.rejects("users-1")) == []


def test_replies_that_are_lost(place: Place) -> None:
    """To a claim, a part, a replay, the end: what happened is found, and happens once."""
    job = place.job()
    sink = patient(place.open_by_gateway(), DestinationWait(20))
    lost = place.lose_reply(JOBS)
    claim = sink.claim(job, a_record(job), "me")
    assert (len(lost), claim.record.epoch) == (1, 1)
    lost = place.lose_reply(PART)
    result = claim.store(a_request(chunk(0, 3), rows(1), [a_reject(1), a_reject(2)]))
    assert (len(lost), result.counts) == (1, (1, 2, 0))
    lost = place.lose_reply(JOBS)
    assert claim.finish("completed", 3) == 0
    assert (len(lost), sink.jobs()[0].state) == (1, "completed")
    claim = sink.claim(job, sink.jobs()[0], "me", replay={})
    lost = place.lose_reply(PART)
    again = claim.store(replace(a_request(chunk(0, 3), rows(2)), replayed=(1,)))
    assert (len(lost), again.counts, again.already_committed) == (1, (1, 0, 0), False)
    lost = place.lose_reply(JOBS)
    begun = sink.claim(job, a_record(job), "me", sink.jobs())
    assert (len(lost), begun.record.epoch, place.rows()) == (1, 1, [])


def test_a_store_that_does_not_know_conditions_is_refused(place: Place) -> None:
    """At the start; nothing is left there."""
    place.gateway.has_conditions = False
    job = place.job()
    with pytest.raises(UsageError, match="does not honour conditions"):
        place.open_by_gateway().claim(job, a_record(job), "me")
    assert place.names() == []


def test_files_without_rows_get_the_columns_that_come_later(place: Place) -> None:
    """A job without records was first; a reader of everything sees one schema."""
    _, empty = place.claimed(columns=())
    empty.store(a_request(chunk(0, 1), [], [a_reject(0)], columns=()))
    empty.finish("completed", 1)
    place.close()
    sink, claim = place.claimed(job_id="users-2")
    claim.store(a_request(chunk(0, 1), rows(1)))
    assert place.rows() == [(1, "user 1")]
    assert [each.record for each in sink.rejects("users-1")] == [0]


def test_killed_at_every_point(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Where the store has something to do, of a job and of its second beginning, one after the other."""
    whole = new_victim("parquet", tmp_path / "whole", request).end()
    victim = new_victim("s3", tmp_path / "broken", request)
    points = reached("s3", [point for point in POINTS if point in (*OF_THE_SINK, *IN_CHUNK)])
    assert victim.end(at_passes(points, [1])) == whole
    assert victim.kills == len(points), "each of them is passed"
    for point in reached("s3", BEGINNING)[:3]:
        assert victim.run(f"{point}=kill", "--restart").code == KILLED, point
    assert victim.end() == whole


class Owner:
    """One that takes the job from the others, does what is missing, and begins anew at times."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self.job, self.chance, self.sink = place.job(), chance, place.open()
        self.patient, self.turns = patient(self.sink, DestinationWait(60)), 0

    def work(self) -> bool:
        """Do it; say whether the job is completed, by whoever did it."""
        self.turns += 1
        known = self.patient.jobs()
        if known and known[0].state == "completed":
            return True
        again = known if self.chance.random() < 0.15 else []
        try:
            claim = self.patient.claim(self.job, a_record(self.job), "me", again)
            plan = Plan(1000, [row.chunk for row in self.patient.committed("users-1")])
            while (piece := plan.take(self._cut, 100, 1000)) is not None:
                numbers = range(piece.offset, piece.offset + piece.records)
                claim.store(a_request(piece, rows(*numbers)))
            return claim.finish("completed", 100) == 0
        except (JobRunningElsewhereError, TransientError):
            return False

    def _cut(self, start: Position, limit: int, _: int) -> Chunk | None:
        records = min(self.chance.randint(3, 17), limit, 100 - start.record)
        return chunk(start.record, records) if records else None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_four_that_take_it_from_each_other(place: Place, seed: int) -> None:
    """With slow requests and lost replies: all rows are there once."""
    weather, never = random.Random(seed), threading.Event()
    place.gateway.before = lambda *_: never.wait(weather.choice([0, 0, 0.01, 0.02, 0.3]))
    place.gateway.loses = lambda method, _: method == "PUT" and weather.random() < 0.06

    def own(number: int) -> None:
        owner = Owner(place, random.Random(seed * 10 + number))
        while owner.turns < 6 and not owner.work():
            never.wait(owner.chance.random())

    place.use_gateway()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(own, range(4)))
    place.gateway.before, place.gateway.loses = lambda *_: None, lambda *_: False
    last = Owner(place, random.Random(1))
    while not last.work():
        pass
    assert [row[0] for row in place.rows()] == list(range(100))
    assert ObjectStore(place.address).accounts() == (100, 0)
