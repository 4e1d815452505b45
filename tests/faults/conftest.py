"""A job to be broken, and what it must end like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.sweep import Ending, Victim, new_victim
from tests.helpers.destinations import SWEPT

_WHOLE: dict[str, Ending] = {}


@pytest.fixture(scope="module", params=SWEPT)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def victim(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Victim:
    return new_victim(kind, tmp_path / "broken", request)


@pytest.fixture
def whole(
    kind: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Ending:
    """The ending of an unbroken run, which all modules share."""
    if kind not in _WHOLE:
        _WHOLE[kind] = new_victim(kind, tmp_path_factory.mktemp(kind), request).end()
    return _WHOLE[kind]
