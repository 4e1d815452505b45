"""The workflow of today follows the histories that earlier versions wrote.

One of each way that a job can go, recorded by `tests/helpers/record_histories.py`. Once a version is
released, a change that breaks one of its recordings needs `workflow.patched`, and a new recording
beside the old one: jobs that were begun with that version may still run.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from batchimport.engines.temporal.worker import sandbox
from batchimport.engines.temporal.workflow import ImportJob
from tests.helpers.cli import ROOT

HISTORIES = sorted((ROOT / "tests" / "fixtures" / "temporal").glob("*.json"))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_recorded_histories_replay(path: Path) -> None:
    """Every decision comes out as it was recorded."""
    history = WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))
    replayer = Replayer(workflows=[ImportJob], workflow_runner=sandbox())
    asyncio.run(replayer.replay_workflow(history))


def test_there_are_recordings() -> None:
    """Of a whole job, a cancelled one, one with retries and failures, and one that was renewed, in both of its runs."""
    assert {path.stem for path in HISTORIES} >= {
        "cancelled",
        "failed",
        "renewed",
        "renewing",
        "retried",
        "whole",
    }
