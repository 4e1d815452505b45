"""Progress on a terminal: a few lines at its bottom, redrawn several times a second.

The lines are drawn by this module, since a terminal that is narrowed breaks lines that are already
drawn: how many rows they take must be computed anew before they are erased. The cursor is never hidden,
so a process that is killed leaves the terminal as it was.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from rich.console import Console
from rich.text import Text

from batchimport.display.bars import ACCENT, CAUTION, QUIET, TROUBLE, is_ascii, track
from batchimport.display.escape import safe
from batchimport.display.lines import (
    Warnings,
    decision,
    describe,
    preparing_line,
    speeds,
    waiting_line,
)
from batchimport.display.units import clock_time
from batchimport.policy.events import ChunkFailed, ChunkRetried, Waiting
from batchimport.policy.progress import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.policy.events import Event

REDRAW_SECONDS = 0.2
MARGIN = 4
"""Columns at the right that stay free: `^C`, which a terminal shows itself, must not begin a row."""
WIDEST = 100
"""Columns that the bar takes at most: on a wide terminal the eye need not travel."""


class Canvas(Protocol):
    """Where lines are drawn: at the bottom of a terminal, or in the output of a notebook's cell."""

    console: Console

    def draw(self, lines: list[Text]) -> None:
        """Draw these lines instead of the last ones."""
        ...

    def print_above(self, lines: Iterable[Text]) -> None:
        """Print lines that stay, above those that are drawn."""
        ...

    def leave(self) -> None:
        """End: what was drawn stays."""
        ...


class LiveDisplay:
    """Redraws from a tally at a fixed rate, so that a thousand events a second cost little."""

    def __init__(self, canvas: Canvas, *, verbose: bool = False) -> None:
        self._canvas = canvas
        self._console, self._verbose = self._canvas.console, verbose
        self._tally = Tally()
        self._warnings = Warnings()
        self._frame = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._redraw, name="display", daemon=True)

    def __call__(self, event: Event) -> None:
        """Count an event; print it above the bar if users should read it."""
        self._tally(event)
        lines = describe(event, self._warnings)
        style = {ChunkFailed: TROUBLE, ChunkRetried: CAUTION}.get(type(event), QUIET)
        if lines and not isinstance(event, Waiting):  # that one is drawn
            self._canvas.print_above([Text(line, style) for line in lines])

    def __enter__(self) -> Self:
        """Start to draw."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw once more, and leave what was drawn."""
        self._over.set()
        self._thread.join()
        self._canvas.draw(self._lines())
        self._canvas.leave()

    def _redraw(self) -> None:
        while not self._over.wait(REDRAW_SECONDS):
            self._frame += 1
            self._canvas.draw(self._lines())

    def _lines(self) -> list[Text]:
        tally, is_over = self._tally, self._over.is_set()
        if tally.job is None and is_over:
            return []
        if tally.job is None:
            return [self._waiting(tally.waiting) if tally.waiting else self._preparing()]
        lines = [self._bar(), self._fitted(self._speeds()), self._fitted(self._outcomes())]
        if tally.waiting is not None and not is_over:
            lines.append(self._waiting(tally.waiting))
        elif tally.preparing is not None and not is_over:
            lines.append(self._preparing())
        elif self._verbose and tally.decision is not None and not is_over:
            lines.append(Text(decision(tally.decision, tally.in_flight), QUIET))
        return lines

    def _waiting(self, waiting: Waiting) -> Text:
        return Text(waiting_line(waiting), CAUTION)

    @property
    def _width(self) -> int:
        return min(self._console.width - MARGIN, WIDEST)

    def _preparing(self) -> Text:
        """A bar where the size is known, else something that moves."""
        preparing, text = self._tally.preparing, Text(preparing_line(self._tally))
        if preparing is not None and preparing.total:
            room = self._width - text.cell_len - 2
            share = preparing.done / preparing.total
            return text.append("  ").append(track(share, min(room, 40), self._console))
        frames = "|/-\\" if is_ascii(self._console) else "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        return Text(frames[self._frame % len(frames)] + " ", ACCENT).append(text)

    def _bar(self) -> Text:
        tally, eta = self._tally, self._tally.eta_seconds()
        words = f"  {tally.share():6.1%}"
        if tally.stage != "finished":
            left = f"{clock_time(eta)} left" if eta is not None else ""
            words += f"  {left:>12}"
        style = TROUBLE if tally.chunks.failed else ACCENT
        line = track(tally.share(), max(4, self._width - len(words)), self._console, style)
        return line.append(words.rstrip())

    def _speeds(self) -> list[Text]:
        tally = self._tally
        of = f" of {tally.total:,}" if tally.total is not None else ""
        parts = [
            f"{tally.totals.processed:,}{of} records",
            f"{clock_time(tally.elapsed())} elapsed",
        ]
        return [Text(part) for part in (parts[0], *speeds(tally), parts[1])]

    def _outcomes(self) -> list[Text]:
        tally, totals = self._tally, self._tally.totals
        parts = [
            Text(f"stored {totals.successful:,}"),
            Text(f"rejected {totals.failed:,}", CAUTION if totals.failed else ""),
        ]
        if totals.filtered:
            parts.append(Text(f"filtered {totals.filtered:,}"))
        if tally.chunks.failed:
            parts.append(Text(f"chunks given up {tally.chunks.failed:,}", TROUBLE))
        if tally.chunks.retried:
            parts.append(Text(f"retried {tally.chunks.retried:,}", CAUTION))
        if tally.reading():
            parts.append(Text(f"file {safe(tally.reading(), 60)}", QUIET))
        return parts

    def _fitted(self, parts: Sequence[Text]) -> Text:
        """Join what fits into the width, in order of importance."""
        # Not a text of this style as a whole: what it joins would be dim, too.
        separator = Text.assemble((" - " if is_ascii(self._console) else " · ", QUIET))
        count = len(parts)
        while count > 1 and separator.join(parts[:count]).cell_len > self._width:
            count -= 1
        return separator.join(parts[:count])


class TerminalCanvas:
    """Lines at the bottom of a terminal that are drawn again and again, under those that stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.console = Console(file=stream, highlight=False)
        self._lock = threading.Lock()
        self._drawn: list[Text] = []

    def draw(self, lines: list[Text]) -> None:
        """Draw these lines instead of the last ones."""
        with self._lock:
            self._write(self._erase() + self._render(lines))
            self._drawn = lines

    def print_above(self, lines: Iterable[Text]) -> None:
        """Print lines that stay, above those that are drawn."""
        with self._lock:
            with self.console.capture() as captured:
                for line in lines:
                    self.console.print(line, soft_wrap=True)
            self._write(self._erase() + captured.get() + self._render(self._drawn))

    def leave(self) -> None:
        """Let the cursor stand below what was drawn."""
        with self._lock:
            self._write("\n" if self._drawn else "")
            self._drawn = []

    def _erase(self) -> str:
        """Return what removes the drawn lines, however many rows they take by now."""
        if not self._drawn:
            return ""
        width = max(1, self.console.width)
        rows = sum(max(1, -(-line.cell_len // width)) for line in self._drawn)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J"

    def _render(self, lines: list[Text]) -> str:
        """Return the lines without a line end, each cut to the width."""
        with self.console.capture() as captured:
            for number, line in enumerate(lines):
                line.truncate(max(1, self.console.width - MARGIN))
                self.console.print(
                    line, end="\n" if number < len(lines) - 1 else "", no_wrap=True, crop=False
                )
        return captured.get()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
