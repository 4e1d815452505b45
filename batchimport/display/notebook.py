"""Progress in a notebook: the lines of the terminal's display, in an output that is updated."""

from __future__ import annotations

import sys
import threading
from contextvars import copy_context
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console

from batchimport.display.terminal import LiveDisplay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

COLUMNS = 100
_HTML = "<pre style='white-space:pre-wrap;line-height:normal'>{code}</pre>"


def is_notebook() -> bool:
    """Say whether this program is the kernel of a notebook, which shows HTML."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def notebook_display(*, verbose: bool) -> LiveDisplay:
    """Return a display in the output of the cell that runs."""
    return LiveDisplay(_CellOutput(), verbose=verbose)


class _CellOutput:
    """The output of a cell: lines that stay, and below them those that are drawn again and again."""

    def __init__(self) -> None:
        self.console = _console()
        self._lock = threading.Lock()
        self._above: list[Text] = []
        self._drawn: list[Text] = []
        self._shown: Any = None
        self._context = copy_context()  # of the cell: other threads show in it, too

    def draw(self, lines: list[Text]) -> None:
        """Draw these lines instead of the last ones."""
        with self._lock:
            self._drawn = lines
            self._show()

    def print_above(self, lines: Iterable[Text]) -> None:
        """Print lines that stay, above those that are drawn."""
        with self._lock:
            self._above += lines
            self._show()

    def leave(self) -> None:
        """Do nothing: what was drawn stays."""

    def _show(self) -> None:
        lines = [*self._above, *self._drawn]
        if lines:
            self._context.run(self._publish, _rendered(lines))

    def _publish(self, content: dict[str, str]) -> None:
        if self._shown is None:
            library: Any = import_module("IPython.display")  # a notebook has it, without types
            self._shown = library.display(content, raw=True, display_id=True)
        else:
            self._shown.update(content, raw=True)


def _console() -> Console:
    return Console(
        file=StringIO(), width=COLUMNS, record=True, highlight=False, force_jupyter=False
    )


def _rendered(lines: list[Text]) -> dict[str, str]:
    console = _console()
    for line in lines:
        console.print(line, soft_wrap=True)
    page = console.export_html(inline_styles=True, code_format=_HTML, clear=False)
    return {"text/plain": console.export_text(), "text/html": page}
