"""Destinations, by the scheme of their address; each adapter is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError

if TYPE_CHECKING:
    from batchimport.sinks.base import Sink

SINKS = {"sqlite": "batchimport.sinks.sqlite:SqliteSink"}


def open_sink(address: str, *, create: bool = True) -> Sink:
    """Return the sink of an address such as `sqlite:///users.db`.

    Args:
        create: Make the database if it is not there.

    Raises:
        UsageError: If the scheme is unknown or the place cannot be opened.
    """
    scheme = address.partition(":")[0].lower()
    if "://" not in address or scheme not in SINKS:
        known = ", ".join(f"{name}://" for name in SINKS)
        raise UsageError(
            "not a destination this version knows",
            where=f"--to {redact(address)}",
            hint=f"an address begins with {known}, such as sqlite:///users.db",
        )
    module, _, name = SINKS[scheme].partition(":")
    return cast("Sink", getattr(import_module(module), name)(address, create=create))


def redact(address: str) -> str:
    """Return an address without its credentials."""
    scheme, mark, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
