"""The toys that docs/adding.md makes are registered here, as the page says, and nowhere else."""

from __future__ import annotations

import pytest

from batchimport.sinks.registry import SINKS
from batchimport.sources.registry import FORMATS
from tests.helpers.stores import ADAPTERS
from tests.helpers.toy_source import BOX


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "box", BOX)
    for name, adapter in ADAPTERS.items():
        if adapter.scheme is not None:
            monkeypatch.setitem(SINKS, name, adapter.scheme)
