"""Text from data, made harmless for a terminal."""

from __future__ import annotations

import unicodedata

HARMFUL = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories of control, format (bidi, zero width), surrogate, private and line marks."""


def safe(text: object, limit: int = 80) -> str:
    """Return text in which every character that could act on a terminal is spelled out."""
    whole = str(text)
    shown = "".join(map(_spell, whole[: limit + 1]))
    return shown if len(shown) <= limit and len(whole) <= limit else shown[: limit - 1] + "…"


def _spell(letter: str) -> str:
    if unicodedata.category(letter) not in HARMFUL:
        return letter
    code = ord(letter)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
