"""Destinations, by the scheme of their address; each adapter is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError, did_you_mean
from batchimport.sinks.registry import SINKS, redact, scheme_of

__all__ = ["open_sink", "redact"]

if TYPE_CHECKING:
    from batchimport.sinks.base import Sink, SinkOptions


def open_sink(address: str, options: SinkOptions | None = None) -> Sink:
    """Return the sink of an address such as `sqlite:///users.db`.

    Raises:
        UsageError: If the scheme is unknown, its driver is not installed, or nothing can be there.
    """
    from batchimport.sinks.base import SinkOptions  # noqa: PLC0415 - not for `--help`

    scheme = scheme_of(address)
    if scheme is None:
        near = did_you_mean(address.partition(":")[0], SINKS)
        known = ", ".join(f"{name}://" for name in SINKS)
        raise UsageError(
            "not a destination this version knows",
            where=f"--to {redact(address)}",
            hint=f"did you mean {near}://?"
            if near and "://" in address
            else f"an address begins with {known}, such as sqlite:///users.db",
        )
    module, _, name = scheme.sink.partition(":")
    try:
        adapter = getattr(import_module(module), name)
    except ImportError as error:
        if scheme.extra is None or str(error.name).startswith("batchimport"):
            raise
        raise UsageError(
            f"the driver for {address.partition(':')[0].lower()} is not installed",
            where=f"--to {redact(address)}",
            hint=f"pip install 'batchimport[{scheme.extra}]'",
        ) from error
    return cast("Sink", adapter(address, options or SinkOptions()))
