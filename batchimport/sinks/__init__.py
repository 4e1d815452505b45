"""Destinations, by the scheme of their address; each adapter is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from batchimport.errors import UsageError, did_you_mean
from batchimport.sinks.base import SinkOptions

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
    scheme = address.partition(":")[0].lower()
    if "://" not in address or scheme not in SINKS:
        near = did_you_mean(scheme, SINKS)
        known = ", ".join(f"{name}://" for name in SINKS)
        raise UsageError(
            "not a destination this version knows",
            where=f"--to {redact(address)}",
            hint=f"did you mean {near}://?"
            if near and "://" in address
            else f"an address begins with {known}, such as sqlite:///users.db",
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


def redact(address: str) -> str:
    """Return an address without its password, in the login or among the options.

    Everything between the first colon and the last `@` goes: a password may contain any character.
    """
    scheme, mark, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    place, question, query = place.partition("?")
    user = login.partition(":")[0]
    options = "&".join(part for part in query.split("&") if "pass" not in part.lower())
    return f"{scheme}{mark}{user}{at}{place}{question if options else ''}{options}"
