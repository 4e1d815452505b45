"""Destinations, by the scheme of their address; each adapter is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError
from batchimport.sinks.address import redact, scheme_of
from batchimport.sinks.base import SinkOptions

__all__ = ["open_sink", "redact"]

if TYPE_CHECKING:
    from batchimport.sinks.base import Sink

SINKS = {
    "sqlite": "batchimport.sinks.sqlite.sink:SqliteSink",
    "duckdb": "batchimport.sinks.duckdb.sink:DuckdbSink",
    "parquet": "batchimport.sinks.parquet.sink:ParquetSink",
    "postgresql": "batchimport.sinks.postgres.sink:PostgresSink",
    "postgres": "batchimport.sinks.postgres.sink:PostgresSink",
}
EXTRAS = {"psycopg": "postgres", "duckdb": "duckdb"}
"""By driver: the extra of this package that installs it."""


def open_sink(address: str, options: SinkOptions = SinkOptions()) -> Sink:
    """Return the sink of an address such as `sqlite:///users.db`.

    Raises:
        UsageError: If the scheme is unknown, its driver is not installed, or nothing can be there.
    """
    scheme = scheme_of(address).lower()
    if scheme not in SINKS:
        known = ", ".join(f"{name}://" for name in SINKS)
        raise UsageError(
            "not a destination this version knows",
            where=f"--to {redact(address)}",
            hint=f"an address begins with {known}, such as sqlite:///users.db",
        )
    module, _, name = SINKS[scheme].partition(":")
    try:
        adapter = getattr(import_module(module), name)
    except ImportError as error:
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        raise UsageError(
            f"the driver for {scheme} is not installed",
            where=f"--to {redact(address)}",
            hint=f"pip install 'batchimport[{extra}]'",
        ) from error
    return cast("Sink", adapter(address, options))
