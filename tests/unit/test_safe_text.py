"""Text from data cannot act on a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from batchimport.display.escape import HARMFUL, safe


@given(st.text())
def test_no_harmful_character_is_left(text: str) -> None:
    """Escapes, bidi marks and line ends are spelled out, and the text is bounded."""
    shown = safe(text)
    assert len(shown) <= 80
    assert not any(unicodedata.category(letter) in HARMFUL for letter in shown)


def test_escape_sequences_are_readable() -> None:
    """What was there can still be told."""
    assert safe("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
