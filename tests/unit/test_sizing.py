"""Sizers decide from readings alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from batchimport.model import RunOptions
from batchimport.policy.sizing import (
    BASE_BYTES,
    WIDE_RECORD_BYTES,
    AutoSizer,
    FixedSizer,
    LoadReading,
    LoadSizer,
    MemoryGuard,
    Sizer,
    choose_sizer,
)

IDLE = LoadReading(cpu=0.1, own_cpu=0.1, memory=0.2, process_bytes=10, limit_bytes=1000, cpus=2)
AUTO = AutoSizer(1000, 100_000, 10, preferred=20_000, writers=1)


@pytest.mark.parametrize(
    ("cpu", "limit"), [(0.0, 100), (0.49, 100), (0.5, 55), (0.79, 55), (0.8, 10), (1.0, 10)]
)
def test_load_takes_the_size_by_the_cpu_alone(cpu: float, limit: int) -> None:
    """Below half: the maximum; below 0.8: the middle; else the minimum."""
    assert LoadSizer(10, 100, 4).decide(replace(IDLE, cpu=cpu)).limit == limit


def test_auto_does_not_shrink_for_its_own_load() -> None:
    """A machine that is busy with this import alone gets the preferred size."""
    decision = AUTO.decide(replace(IDLE, cpu=1.0, own_cpu=1.0))
    assert (decision.limit, decision.in_flight) == (20_000, 3)


@pytest.mark.parametrize(
    ("others", "limit", "in_flight"),
    [(0.49, 20_000, 3), (0.5, 10_000, 1), (0.79, 10_000, 1), (0.8, 5_000, 1), (1.0, 5_000, 1)],
)
def test_auto_makes_room_for_other_programs(others: float, limit: int, in_flight: int) -> None:
    """Half the size from half of the CPU on, a quarter from 80 %, and it says why."""
    decision = AUTO.decide(replace(IDLE, cpu=others, own_cpu=0.0))
    assert (decision.limit, decision.in_flight) == (limit, in_flight)
    assert ("other programs" in decision.reason) == (others >= 0.5)


def test_auto_halves_the_chunks_in_flight_before_it_goes_one_at_a_time() -> None:
    """Eight processors, four writers: 10 at most, 5 for moderate, 1 for heavy load of others."""
    sizer = replace(AUTO, writers=4)
    reading = replace(IDLE, cpus=8, own_cpu=0.0)
    found = [sizer.decide(replace(reading, cpu=cpu)).in_flight for cpu in (0.0, 0.6, 0.9)]
    assert found == [10, 5, 1]


def test_auto_stays_within_its_bounds() -> None:
    """Whatever suits the destination, however wide the records and busy the others."""
    assert replace(AUTO, preferred=500).decide(IDLE).limit == 1000
    assert replace(AUTO, preferred=500_000).decide(IDLE).limit == 100_000
    assert replace(AUTO, bytes_per_record=1e6).decide(IDLE).limit == 1000
    busy = replace(IDLE, cpu=1.0, own_cpu=0.0)
    assert replace(AUTO, smallest=8_000).decide(busy).limit == 8_000


@pytest.mark.parametrize("width", [300, 400, 60_000])
def test_auto_cuts_wide_records_smaller(width: int) -> None:
    """A chunk is about 6 MiB at most."""
    sizer = replace(AUTO, smallest=1, bytes_per_record=width)
    assert sizer.decide(IDLE).limit == min(20_000, 20_000 * WIDE_RECORD_BYTES // width)


def test_auto_gives_large_chunks_to_a_destination_that_likes_them() -> None:
    """What counts is the width of a record, not the bytes of a chunk that suit another destination."""
    sizer = replace(AUTO, preferred=122_880, bytes_per_record=260)
    assert sizer.decide(IDLE).limit == 100_000


@pytest.mark.parametrize("sizer", [FixedSizer(5, 8), LoadSizer(1, 9, 8), AutoSizer(1, 9, 8, 5, 6)])
def test_memory_is_short_above_nine_tenths(sizer: Sizer) -> None:
    """Whatever the sizer: at 90 % of the limit as usual, above it one chunk at a time."""
    assert sizer.decide(replace(IDLE, process_bytes=900)).in_flight == 8
    short = sizer.decide(replace(IDLE, process_bytes=901))
    assert (short.in_flight, short.reason) == (1, "memory is short: one chunk at a time")


@pytest.mark.parametrize(
    ("options", "sizer"),
    [
        (RunOptions(chunk_size=7), FixedSizer(7, 10)),
        (RunOptions(chunk_size=7, adaptive="load"), FixedSizer(7, 10)),
        (RunOptions(adaptive="off", max_parallel=4), FixedSizer(5000, 4)),
        (RunOptions(adaptive="off", min_chunk_size=6000), FixedSizer(6000, 10)),
        (RunOptions(adaptive="off", max_chunk_size=2000), FixedSizer(2000, 10)),
        (RunOptions(adaptive="load", max_chunk_size=2000), LoadSizer(1000, 2000, 10)),
        (RunOptions(min_chunk_size=2), AutoSizer(2, 100_000, 10, 5000, 3, 100)),
    ],
)
def test_options_choose_the_sizer(options: RunOptions, sizer: Sizer) -> None:
    """`--chunk-size` wins over `--adaptive`; the bounds hold for each of the others."""
    found = choose_sizer(options, preferred=5000, writers=3, bytes_per_record=100)
    assert found == MemoryGuard(sizer, 100, options.chunk_bytes)


@pytest.mark.parametrize(
    ("megabytes", "in_flight"), [(100, 1), (300, 1), (500, 3), (1000, 9), (9000, 10)]
)
def test_a_fixed_size_starts_as_many_chunks_as_fit(megabytes: int, in_flight: int) -> None:
    """Chunks of 10 MB take 80 MB each: those that would not fit are not started at once."""
    guard = MemoryGuard(FixedSizer(100_000, 10), 100.0, 1 << 25)
    reading = replace(IDLE, limit_bytes=megabytes * 1_000_000)
    assert guard.decide(reading).in_flight == in_flight


@pytest.mark.parametrize(
    ("megabytes", "block", "decided"),
    [
        (100, 0, (1, 1 << 20)),
        (300, 0, (1, 14_089_200)),
        (9000, 0, (10, 1 << 25)),
        (1000, 100_000_000, (3, 14_279_733)),
    ],
)
def test_a_chunk_is_cut_at_its_share_of_the_memory(
    megabytes: int, block: int, decided: tuple[int, int]
) -> None:
    """Whatever the records at the head of the source promise: 8 bytes for each of its source."""
    guard = MemoryGuard(FixedSizer(100_000, 10), 100.0, 1 << 25, block)
    decision = guard.decide(replace(IDLE, limit_bytes=megabytes * 1_000_000))
    assert (decision.in_flight, decision.chunk_bytes) == decided
    used = decision.in_flight * (block + 8 * decision.chunk_bytes)
    assert used + block + BASE_BYTES <= max(0.9e6 * megabytes, BASE_BYTES + (8 << 20))


def simulate(sizer: Sizer, seed: int, *, width: int, hog: float) -> tuple[float, int, float]:
    """Import 20 million records on a model of a machine with two processors.

    A chunk costs 20 ms and 4 microseconds a record. Other programs want the share `hog` of the
    machine in half of the time, and lose what this import's chunks in flight take from them.

    Returns:
        The seconds of the import, the most bytes in flight, and the seconds that others lost.
    """
    dice, left, seconds, peak, lost = random.Random(seed), 20_000_000, 0.0, 0, 0.0
    others = 0.0
    while left > 0:
        if dice.random() < 0.1:
            others = dice.choice([0.0, hog])
        decision = sizer.decide(replace(IDLE, cpu=1.0, own_cpu=1.0 - others, limit_bytes=10**9))
        records = min(left, decision.limit)
        busy = min(decision.in_flight, 2)
        took = (0.02 + 4e-6 * records) / busy / max(0.1, 1.0 - others * (busy / 2))
        lost += others * took * busy / 2
        seconds, left = seconds + took, left - records
        peak = max(peak, records * decision.in_flight * width)
    return seconds, peak, lost


def test_auto_is_near_the_best_fixed_size_on_an_idle_machine() -> None:
    """At most a quarter slower than the largest chunks, in a tenth of their memory."""
    seconds, peak, _ = simulate(AUTO, 0, width=300, hog=0.0)
    best = simulate(FixedSizer(100_000, 10), 0, width=300, hog=0.0)
    assert seconds <= 1.25 * best[0]
    assert peak <= best[1] / 10


@pytest.mark.parametrize("hog", [0.6, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_auto_takes_less_from_other_programs_than_a_fixed_size(seed: int, hog: float) -> None:
    """Moderate and heavy load of others are two branches; each makes room for them."""
    auto = simulate(AUTO, seed, width=300, hog=hog)
    fixed = simulate(FixedSizer(20_000, 10), seed, width=300, hog=hog)
    assert auto[2] < 0.6 * fixed[2]


@pytest.mark.parametrize("width", [300, 3_000, 30_000])
def test_auto_keeps_the_bytes_in_flight_bounded(width: int) -> None:
    """Records a hundred times as wide take no more memory."""
    sizer = replace(AUTO, smallest=1, bytes_per_record=width)
    assert simulate(sizer, 0, width=width, hog=0.0)[1] <= 3 * 20_000 * WIDE_RECORD_BYTES
