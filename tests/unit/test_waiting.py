"""The one wait of a job, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batchimport.errors import (
    DestinationAwayError,
    DestinationLockedError,
    FatalError,
    JobRunningElsewhereError,
)
from batchimport.policy.events import Event, WaitEnded, Waiting
from batchimport.sinks import waiting
from batchimport.sinks.waiting import DestinationWait

AWAY = DestinationAwayError("connection refused", "PostgreSQL at db:5432")


class Scene:
    """A destination that is away for some calls; each of them takes a second."""

    def __init__(self, *errors: Exception, limit: float = 60.0) -> None:
        self.errors, self.now = list(errors), 0.0
        self.events: list[Event] = []
        self.wait = DestinationWait(limit, self.events.append, lambda: self.now)

    def __call__(self) -> str:
        self.now += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.0)


def test_it_is_said_after_two_seconds() -> None:
    """A short wait has no line; the end is told always, with its length."""
    scene = Scene(AWAY, AWAY, AWAY, AWAY)
    assert scene.wait.call(scene) == "done"
    said = [event.seconds for event in scene.events if isinstance(event, Waiting)]
    assert said == [2.0, 3.0]
    assert scene.events[-1] == WaitEnded(4.0, is_back=True)
    assert scene.wait.seconds == 4.0


def test_the_limit_holds_for_all_that_follows() -> None:
    """Once the job has given up, nothing waits, or even tries, again."""
    scene = Scene(*[AWAY] * 99, limit=3.0)
    for _ in range(2):
        with pytest.raises(FatalError, match="waited 3 s"):
            scene.wait.call(scene)
    assert scene.now == 4
    assert scene.events[-1] == WaitEnded(3.0, is_back=False)


def test_a_call_that_fails_after_the_job_gave_up_is_no_failed_attempt() -> None:
    """Of chunks side by side one gives up, and the run stops; the others' errors are the same end."""
    scene = Scene(*[AWAY] * 99, limit=3.0)
    with pytest.raises(FatalError):
        scene.wait.call(scene)
    scene.wait.stop()
    with pytest.raises(FatalError, match="waited 3 s"):
        scene.wait.pause(AWAY, 1.0)
    assert scene.wait.seconds == 3.0


def test_a_success_begins_the_time_anew() -> None:
    """Two short waits are not one long wait."""
    scene = Scene(AWAY, AWAY, limit=3.0)
    scene.wait.call(scene)
    scene.errors = [AWAY, AWAY]
    scene.wait.call(scene)
    assert scene.wait.seconds == 4.0


def test_without_a_limit_or_after_a_stop_the_error_is_the_callers() -> None:
    """Then it is an attempt that failed."""
    for stop, limit in ((lambda wait: None, 0.0), (DestinationWait.stop, 9.0)):
        scene = Scene(AWAY, limit=limit)
        stop(scene.wait)
        with pytest.raises(DestinationAwayError):
            scene.wait.call(scene)


def test_a_chunk_that_ends_its_session_each_time_is_not_repeated_for_ever() -> None:
    """The third connection that it loses is a failed attempt; refused connections do not count."""
    lost = DestinationAwayError("connection lost", was_connected=True)
    scene = Scene(lost, AWAY, AWAY, lost, AWAY, lost)
    with pytest.raises(DestinationAwayError, match="lost"):
        scene.wait.call(scene)
    assert scene.now == 6


@pytest.mark.parametrize(
    ("claimed", "kind"), [(False, JobRunningElsewhereError), (True, FatalError)]
)
def test_what_a_lock_means(claimed: bool, kind: type[Exception]) -> None:
    """Before the claim another program has the place; after it the job can be continued."""
    scene = Scene(*[DestinationLockedError("locked by x")] * 9, limit=1.0)
    scene.wait.is_claimed = claimed
    check: Callable[[], str] = lambda: scene.wait.call(scene)  # noqa: E731 - short
    with pytest.raises(kind, match="locked by x"):
        check()


def test_a_part_of_a_call_does_not_wait_by_itself() -> None:
    """What a claim looks up inside its transaction fails with it: the whole claim is repeated."""
    scene, claims = Scene(AWAY), []

    def claim() -> str:
        claims.append(scene.now)
        return scene.wait.call(scene)

    assert scene.wait.call(claim) == "done"
    assert claims == [0.0, 1.0]
