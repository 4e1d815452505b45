"""Charts as SVG without scripts, fonts or addresses; the page's stylesheet gives them their colours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from pygal import XY, Histogram
from pygal.style import Style

from batchimport.display.html import Html
from batchimport.display.units import MINUTE, clock_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Its hook for plugins is of an old kind: with it, every later import in the user's program would warn.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pygal"]

Point = tuple[float, float | None]
FEW = 5
_STYLE = Style(font_family="inherit", label_font_size=12, major_label_font_size=12)
_SVG = "{http://www.w3.org/2000/svg}"
_LEFT_OUT = ("defs", "desc", "script", "title")
"""Elements with the library's styles and settings, or what its script would show."""


def lines(
    series: Mapping[str, Sequence[Point]],
    end: float,
    text: Callable[[float], str] = "{:,.0f}".format,
    highest: float | None = None,
) -> Html:
    """Return values over seconds.

    Args:
        end: Last second of the axis.
        text: How a value is written at the axis.
        highest: Top of the axis; None: the highest value.
    """
    known = [y for points in series.values() for _, y in points if y is not None]
    top = highest or max(known, default=0) or 1
    chart = XY(**_options(text, top), xrange=(0, end), fill=len(series) == 1, show_dots=False)
    return _drawn(chart, series)


def bars(
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    end: float,
    text: Callable[[float], str] = "{:,.0f}".format,
) -> Html:
    """Return values of spans of time: each is (value, from second, to second)."""
    top = max((bar[0] for spans in series.values() for bar in spans), default=0) or 1
    whole = {name: [*spans, (0, 0, end)] for name, spans in series.items()}
    return _drawn(Histogram(**_options(text, top)), whole)


def _options(text: Callable[[float], str], top: float) -> dict[str, Any]:
    labels = range(int(top) + 1) if isinstance(top, int) and top <= FEW else None
    return {
        "y_labels": labels,  # by itself the library would write fractions, rounded
        "style": _STYLE,
        "css": (),
        "js": (),
        "width": 760,
        "height": 190,
        "margin": 6,
        "range": (0, top),
        "show_legend": False,
        "show_x_guides": False,
        "min_scale": 3,
        "max_scale": 5,
        "value_formatter": text,
        "x_value_formatter": _time,
    }


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < MINUTE else clock_time(seconds)


def _drawn(chart: Any, series: Mapping[str, Sequence[Any]]) -> Html:
    for name, points in series.items():
        chart.add(name, list(points))
    svg = chart.render_tree()
    svg.attrib.pop("id", None)
    for parent in list(svg.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) in _LEFT_OUT:
                parent.remove(child)
    ET.register_namespace("", _SVG[1:-1])
    return Html(ET.tostring(svg, encoding="unicode"))
