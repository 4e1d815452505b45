"""A database file that is removed, moved or replaced while the job runs: never called completed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.sweep import write_source
from tests.helpers.cli import Workdir
from tests.helpers.tracing import has_stopped, wait_for

RUN = ("run", "users.jsonl", "--infer-rows", "all", "--chunk-size", 100, "--json")


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace(path: Path) -> None:
    _move(path)
    path.touch()


@pytest.mark.parametrize("point", ["before-commit=stop@3", "before-finish=stop"])
@pytest.mark.parametrize("harm", [Path.unlink, _move, _replace])
@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_file_that_is_gone(
    workdir: Workdir, scheme: str, harm: Callable[[Path], None], point: str
) -> None:
    """The job fails and names the file; a file that comes back is continued."""
    write_source(workdir.path, 1000)
    path = workdir.path / "d.db"
    process = workdir.start(*RUN, "--to", f"{scheme}:///d.db", BATCHIMPORT_FAILPOINTS=point)
    wait_for(lambda: has_stopped(process.pid))
    harm(path)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "d.db: the file was removed, moved or replaced" in err
    if harm is not Path.unlink:
        path.with_name("moved.db").replace(path)
        ended = workdir.call(*RUN, "--to", f"{scheme}:///d.db")
        assert (ended.code, ended.summary["total_processed"]) == (3, 1000)
