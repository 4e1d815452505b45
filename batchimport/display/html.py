"""HTML in which text is text: whatever is not made here is escaped."""

from __future__ import annotations

from html import escape

from batchimport.display.escape import safe

_MANY = 100_000


class Html(str):
    """Markup: the only strings that are not escaped."""

    __slots__ = ()


def together(*children: object) -> Html:
    """Return children one after the other; None is left out, and what is not markup is escaped.

    Control characters and direction marks become visible, too.
    """
    return Html("".join(_markup(child) for child in children if child is not None))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element; `class_` stands for `class`, and None leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{together(*children)}</{name}>")


def _markup(child: object) -> str:
    return child if isinstance(child, Html) else escape(safe(child, _MANY))
