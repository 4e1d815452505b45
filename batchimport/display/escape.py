"""Text from data, escaped so that it cannot act on a terminal."""

from __future__ import annotations

import unicodedata

HARMFUL = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories: control, format (bidi, zero width), surrogate, private use, separators."""


def safe(text: object, limit: int = 80) -> str:
    """Return the text with harmful characters escaped, cut to `limit` characters."""
    whole = str(text)
    shown = "".join(map(_escape, whole[: limit + 1]))
    return shown if len(shown) <= limit and len(whole) <= limit else shown[: limit - 1] + "…"


def _escape(letter: str) -> str:
    if unicodedata.category(letter) not in HARMFUL:
        return letter
    code = ord(letter)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
