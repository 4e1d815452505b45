"""Fixtures that every room shares."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from tests.helpers.cli import Workdir
from tests.helpers.postgres import PLACE, PostgresServer
from tests.helpers.properties import LONG
from tests.helpers.temporal import TemporalServer
from tests.helpers.web import S3, Web, an_s3_server

_MEMORY = Path("/dev/shm")
_GIGABYTES = 8


def pytest_configure(config: pytest.Config) -> None:
    """Put what tests write into memory, if there is enough: a test waits for the disk at each commit.

    The long sweep writes to the disk. Tests kill processes, never the machine; what is synced, and in which
    order, is the same.
    """
    is_ordinary = str(config.option.markexpr).startswith("not slow")
    if is_ordinary and "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def _has_room() -> bool:
    if not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    free = psutil.virtual_memory().available, shutil.disk_usage(_MEMORY).free
    return min(free) > _GIGABYTES * 10**9


settings.register_profile("house", deadline=None)  # no test depends on the machine's speed
settings.register_profile(LONG, settings.get_profile("house"))
settings.load_profile("house")


def pytest_xdist_auto_num_workers() -> int:
    """Run two tests for each processor: most of a test's time, it waits for a process or a disk."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the tests out: each worker begins with its share of the long ones, and none ends alone."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        items.sort(key=lambda item: "faults" not in item.path.parts)
        items[:] = [item for first in range(workers) for item in items[first::workers]]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """An empty directory to run commands in."""
    return Workdir(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests; not under pytest's own directory, which is closed to other users."""
    if PLACE in os.environ:
        yield PostgresServer(Path(os.environ[PLACE]))
        return
    with tempfile.TemporaryDirectory(prefix="batchimport-pg-", ignore_cleanup_errors=True) as path:
        server = PostgresServer(Path(path))
        os.environ[PLACE] = path
        yield server
        del os.environ[PLACE]
        server.stop()


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    """A Temporal server for all tests."""
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server for all tests."""
    with an_s3_server() as server:
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server of one test's own."""
    server = Web()
    yield server
    server.close()
