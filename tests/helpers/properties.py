"""How often a property is tried."""

from __future__ import annotations

from hypothesis import settings

LONG = "long"
"""The profile that tries all of it: `pytest --hypothesis-profile long tests/unit`."""
_SHARE = 3


def tried(examples: int) -> settings:
    """Try a property with so many examples, and with a third of them in the ordinary tests.

    They are others each time, so that many short runs find what a long one does.
    """
    is_long = settings.get_current_profile_name() == LONG
    return settings(max_examples=examples if is_long else examples // _SHARE)
