"""What a display derives from events and the clock, and how it fits a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.text import Text

from batchimport.display.bars import track
from batchimport.display.jobs import _fit
from batchimport.display.lines import preparing_line, progress_line
from batchimport.display.terminal import TerminalCanvas
from batchimport.display.units import ago, clock_time, data_size, short_ago, short_count
from batchimport.errors import did_you_mean
from batchimport.model import Chunk, ChunkResult, Position
from batchimport.policy.events import (
    ChunkFinished,
    ChunkStarted,
    JobStarted,
    Preparing,
    RecordsCounted,
)
from batchimport.policy.progress import Tally


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def committed(tally: Tally, lo: int, hi: int) -> None:
    """A chunk of one record for each ten bytes."""
    chunk = Chunk(Position(lo, lo // 10), Position(hi, hi // 10))
    tally(ChunkStarted(chunk, "b.jsonl (2 of 3)"))
    tally(ChunkFinished(ChunkResult(chunk, chunk.records, 0, 0), 0.1))


def test_the_end_is_estimated_from_bytes_until_records_are_counted() -> None:
    """The time before the import counts as elapsed, not for the speed."""
    clock = Clock()
    tally = Tally(clock)
    tally(Preparing("unpacking u.gz", 5_000_000, 20_000_000))
    clock.now += 7
    assert preparing_line(tally) == "unpacking u.gz: 5.0 MB of 20 MB (0:07)"
    tally(JobStarted("j", ("a", "b", "c"), "sqlite:///u.db", "u", size=10_000))
    clock.now += 2
    committed(tally, 0, 1_000)
    assert (tally.rate(), tally.position_rate()) == (50, 500)
    assert tally.eta_seconds() == 18
    assert progress_line(tally) == (
        " 10.0%  100 records  50/s  500 B/s  0:09 elapsed  ETA 0:18  stored 100  rejected 0"
        "  file b.jsonl (2 of 3)"
    )
    tally(RecordsCounted(500))
    assert tally.eta_seconds() == 8


def test_what_is_erased_is_what_the_lines_take_now() -> None:
    """A line of 70 columns takes two rows after the terminal was narrowed to 40."""
    canvas = TerminalCanvas(io.StringIO())
    canvas.console = Console(file=io.StringIO(), width=80)
    canvas.draw([Text("x" * 70), Text("y" * 30)])
    assert canvas._erase() == "\r\x1b[1A\x1b[J"
    canvas.console = Console(file=io.StringIO(), width=40)
    assert canvas._erase() == "\r\x1b[2A\x1b[J"
    canvas.draw([Text("x" * 70), Text("y" * 30)])
    assert canvas._erase() == "\r\x1b[1A\x1b[J", "it was cut to the width when it was drawn"


def test_the_part_that_is_not_done_is_lighter() -> None:
    """A thin, dim line after a heavy one; ASCII where a terminal has nothing else."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    drawn = track(0.55, 10, console)
    assert drawn.plain == "━━━━━╸────"
    assert [str(span.style) for span in drawn.spans][1] == "dim"
    ascii_only = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert track(0.5, 4, ascii_only).plain == "==--"


def test_a_table_fits_by_its_widest_names() -> None:
    """The id of a job, in the first column, keeps its width."""
    row = ["job-" * 5, "source" * 5, "place" * 5, "completed", "1", "0", "now", "0:01"]
    widths = _fit([row], 80, 1)
    assert sum(widths) + 7 == 80
    assert widths[0] == 20


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (5, "just now", "now"),
        (60, "1 minute ago", "1m ago"),
        (7300, "2 hours ago", "2h ago"),
        (86_400 * 400, "400 days ago", "400d ago"),
    ],
)
def test_times_as_people_read_them(seconds: int, long: str, short: str) -> None:
    """In words, and in a few characters."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    then = now - timedelta(seconds=seconds)
    assert (ago(then, now), short_ago(then, now)) == (long, short)


def test_numbers_as_people_read_them() -> None:
    """Sizes with a unit, counts in at most seven characters."""
    assert [data_size(size) for size in (0, 999, 5_149_000, 9.96e6, 1.2e12)] == [
        *("0 B", "999 B", "5.1 MB", "10 MB", "1.2 TB")
    ]
    assert [short_count(count) for count in (999_999, 12_345_678)] == ["999,999", "12.3M"]
    assert [clock_time(seconds) for seconds in (59.6, 3_661)] == ["1:00", "1:01:01"]


def test_what_was_meant() -> None:
    """A near word, a beginning; nothing if nothing is near."""
    assert did_you_mean("USRES", ["users", "orders"]) == "users"
    assert did_you_mean("cust", ["customer_accounts"]) == "customer_accounts"
    assert did_you_mean("zzz", ["users"]) is None
