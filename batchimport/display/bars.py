"""Bars and colours: readable on dark and on light backgrounds, without colour, and in ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

# Fixed colours of middle brightness: each has a contrast of at least 3:1 with black and with white,
# where the sixteen named colours of a terminal depend on its theme.
ACCENT = Style(color="color(32)")
GOOD = Style(color="color(28)", bold=True)
CAUTION = Style(color="color(130)")
TROUBLE = Style(color="color(160)", bold=True)
QUIET = Style(dim=True)
"""Dim is nearer to the background, whichever that is."""


def is_ascii(console: Console) -> bool:
    """Say whether the terminal shows ASCII only."""
    return not console.encoding.lower().startswith("utf")


def track(share: float, width: int, console: Console, style: Style = ACCENT) -> Text:
    """Return a bar of a share, 0 to 1: heavy where it is done, a thin dim line where it is not."""
    heavy, half, thin = ("=", "=", "-") if is_ascii(console) else ("━", "╸", "─")
    halves = int(min(1.0, max(0.0, share)) * width * 2)
    done = heavy * (halves // 2) + (half if halves % 2 else "")
    return Text.assemble((done, style), (thin * (width - len(done)), QUIET))


def bar(share: float, width: int, console: Console, style: Style = ACCENT) -> Text:
    """Return a bar of a share without its track, for tables; at least one character."""
    mark = "#" if is_ascii(console) else "■"
    return Text(mark * max(1, round(share * width)), style)
