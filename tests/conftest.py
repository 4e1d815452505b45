"""Fixtures that every room shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cli import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """An empty directory to run commands in."""
    return Workdir(tmp_path)
