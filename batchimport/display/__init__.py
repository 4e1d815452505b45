"""Progress while a job runs: drawn on a terminal, lines elsewhere; always on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, cast

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from batchimport.policy.events import Event

Mode = Literal["auto", "rich", "plain", "json", "none"]


class Display(Protocol):
    """An observer of a run, and a context manager around it."""

    def __call__(self, event: Event) -> None:
        """Take an event; return at once."""
        ...

    def __enter__(self) -> Self:
        """Start to draw."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was found."""
        ...


class _Unfailing:
    """A stream that ignores errors: a closed pipe, a terminal that hung up."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if possible."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_display(
    mode: Mode,
    *,
    verbose: bool = False,
    is_library: bool = False,
) -> Display:
    """Return the display for a mode; `auto` depends on whether standard error is a terminal.

    Args:
        verbose: Show the sizer's decisions, too.
        is_library: A program imports: `auto` also knows notebooks, and prints no lines elsewhere.
    """
    if is_library and mode in ("auto", "rich"):
        from batchimport.display.notebook import is_notebook, notebook_display  # noqa: PLC0415

        if is_notebook():
            return notebook_display(verbose=verbose)
    stream = cast("TextIO", _Unfailing(sys.stderr))
    if mode == "auto":
        capable = stream.isatty() and os.environ.get("TERM") != "dumb"
        mode = "rich" if capable else "none" if is_library else "plain"
    if mode == "rich":
        from batchimport.display.terminal import LiveDisplay, TerminalCanvas  # noqa: PLC0415

        return LiveDisplay(TerminalCanvas(stream), verbose=verbose)
    from batchimport.display.lines import JsonDisplay, NoDisplay, PlainDisplay  # noqa: PLC0415

    if mode == "none":
        return NoDisplay()
    if mode == "json":
        return JsonDisplay(stream)
    return PlainDisplay(stream, verbose=verbose)
