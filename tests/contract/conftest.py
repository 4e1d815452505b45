"""The toys that docs/adding.md makes are registered here, as the page says, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batchimport.sinks.registry import SINKS
from batchimport.sources.registry import FORMATS
from tests.helpers.box_entry import BOX
from tests.helpers.cli import COMMAND
from tests.helpers.stores import ADAPTERS


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(FORMATS, "box", BOX)
    for name, adapter in ADAPTERS.items():
        if adapter.scheme is not None:
            monkeypatch.setitem(SINKS, name, adapter.scheme)
    command = COMMAND[1:]
    if command == ["-m", "batchimport"]:  # and not one with a deliberate mistake
        COMMAND[1:] = ["-m", "tests.helpers.toys"]
    yield
    COMMAND[1:] = command
