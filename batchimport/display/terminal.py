"""Progress on a terminal: one bar and one line of detail, redrawn a few times a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchimport.display.escape import safe
from batchimport.display.lines import Warnings, clock_time, describe, waiting_line
from batchimport.policy.events import Waiting
from batchimport.policy.progress import Tally

if TYPE_CHECKING:
    from rich.console import RenderableType

    from batchimport.policy.events import Event

REDRAWS_PER_SECOND = 5


class LiveDisplay:
    """Redraws from a tally at a fixed rate, so that a thousand events a second cost little."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._tally = Tally()
        self._warnings = Warnings()
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REDRAWS_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __call__(self, event: Event) -> None:
        """Count an event; print it above the bar if users should read it."""
        self._tally(event)
        lines = describe(event, self._warnings)
        for line in lines if not isinstance(event, Waiting) else ():  # that one is in the bar
            self._console.print(Text(line, style="dim"))

    def __enter__(self) -> Self:
        """Start to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw once more and restore the cursor."""
        self._live.stop()

    def _render(self) -> RenderableType:
        tally = self._tally
        if tally.job is None and tally.waiting is not None:
            return Text(waiting_line(tally.waiting), style="yellow")
        if tally.job is None:
            return Text("examining the source …", style="dim")
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        bar.add_column(justify="right")
        eta = tally.eta_seconds()
        left = "" if eta is None or tally.stage == "finished" else f"ETA {clock_time(eta)}"
        bar.add_row(
            ProgressBar(total=1.0, completed=tally.share()),
            Text(f"{tally.share():.1%}", style="bold"),
            Text(f"{tally.rate():,.0f}/s {left}"),
        )
        return Group(bar, self._counts(), self._details())

    def _counts(self) -> Text:
        tally, totals = self._tally, self._tally.totals
        of = f" of {tally.total:,}" if tally.total is not None else ""
        text = Text(f"{totals.processed:,}{of} records · stored {totals.successful:,} · ")
        text.append(f"rejected {totals.failed:,}", style="yellow" if totals.failed else "")
        if totals.filtered:
            text.append(f" · filtered {totals.filtered:,}")
        if tally.chunks.retried:
            text.append(f" · retries {tally.chunks.retried:,}", style="yellow")
        return text

    def _details(self) -> Text:
        tally, decision = self._tally, self._tally.decision
        if tally.waiting is not None:
            return Text(
                waiting_line(tally.waiting), style="yellow", overflow="ellipsis", no_wrap=True
            )
        if decision is None or tally.stage == "finished":
            return Text("")
        parts = [f"{tally.in_flight} in flight", f"chunk {decision.limit:,} ({decision.reason})"]
        if decision.cpu_usage is not None and decision.memory_usage is not None:
            parts.append(f"cpu {decision.cpu_usage:.0%} mem {decision.memory_usage:.0%}")
        if tally.reading():
            parts.insert(0, safe(tally.reading(), 40))
        return Text(" · ".join(parts), style="dim", overflow="ellipsis", no_wrap=True)
