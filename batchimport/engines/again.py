"""The engine in this process, for rejects: their chunks are cut already, and no number of them is too many."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport.engines.local import LocalEngine
from batchimport.policy.plan import Plan
from batchimport.policy.sizing import choose_sizer
from batchimport.policy.stop_rules import StopRule
from batchimport.system import LoadReader

if TYPE_CHECKING:
    from batchimport.model import RunOptions
    from batchimport.pipeline.chunk import Work
    from batchimport.policy.events import Observer
    from batchimport.sinks.waiting import DestinationWait


def engine_for_rejects(
    work: Work, count: int, options: RunOptions, observer: Observer, wait: DestinationWait
) -> LocalEngine:
    """Return an engine that processes rejects again.

    What stops a run for its rejects does not stop it.

    Args:
        count: Number of rejects.
    """
    options = replace(options, max_errors=None, max_errors_share=None, hopeless_after=None)
    hints = work.claim.hints
    return LocalEngine(
        work,
        Plan(count, []),
        choose_sizer(
            options,
            preferred=hints.preferred_records,
            writers=hints.writers,
            bytes_per_record=0.0,
        ),
        options,
        StopRule(options, 0, 0),
        observer=observer,
        read_load=LoadReader(options.max_memory_bytes).read,
        wait=wait,
    )
