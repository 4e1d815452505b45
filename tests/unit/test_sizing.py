"""Sizers decide from readings alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchimport.model import RunOptions
from batchimport.policy.sizing import AutoSizer, FixedSizer, LoadReading, LoadSizer, choose_sizer

IDLE = LoadReading(cpu=0.1, own_cpu=0.1, memory=0.2, process_bytes=10, limit_bytes=1000, cpus=2)


@pytest.mark.parametrize(
    ("cpu", "limit"), [(0.0, 100), (0.49, 100), (0.5, 55), (0.79, 55), (0.8, 10), (1.0, 10)]
)
def test_load_is_the_original_rule(cpu: float, limit: int) -> None:
    """Below half: the maximum; below 0.8: the middle; else the minimum."""
    assert LoadSizer(10, 100, 4).decide(replace(IDLE, cpu=cpu)).limit == limit


def test_auto_does_not_shrink_for_its_own_load() -> None:
    """A machine that is busy with this import alone gets the preferred size."""
    sizer = AutoSizer(1000, 100_000, 10, preferred=20_000, writers=1)
    assert sizer.decide(replace(IDLE, cpu=1.0, own_cpu=1.0)).limit == 20_000
    busy = sizer.decide(replace(IDLE, cpu=1.0, own_cpu=0.1))
    assert (busy.limit, busy.in_flight) == (5_000, 1)
    assert "other programs" in busy.reason


def test_auto_cuts_wide_records_smaller() -> None:
    """A chunk of wide records is limited by bytes."""
    sizer = AutoSizer(10, 100_000, 10, preferred=20_000, writers=1, bytes_per_record=60_000)
    assert sizer.decide(IDLE).limit < 200


def test_short_memory_lowers_the_number_in_flight() -> None:
    """Whatever the sizer, memory pressure leaves one chunk at a time."""
    short = replace(IDLE, process_bytes=950)
    for sizer in (FixedSizer(5, 8), LoadSizer(1, 9, 8), AutoSizer(1, 9, 8, 5, 1)):
        assert sizer.decide(short).in_flight == 1


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (RunOptions(chunk_size=7), FixedSizer),
        (RunOptions(adaptive="off"), FixedSizer),
        (RunOptions(adaptive="load"), LoadSizer),
        (RunOptions(), AutoSizer),
    ],
)
def test_options_choose_the_sizer(options: RunOptions, kind: type) -> None:
    """`--chunk-size` wins over `--adaptive`."""
    assert isinstance(choose_sizer(options, preferred=5000, writers=1, bytes_per_record=100), kind)
