"""All destinations, by the scheme of their addresses. To add one: an entry here; see docs/adding.md.

Only facts, so that `--help` can be made from them: an adapter is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Scheme:
    """A scheme of addresses, and the sink that it stands for.

    Attributes:
        sink: `module:Class`, called with (address, SinkOptions).
        example: An address, for `--help`; empty for a second spelling of a scheme.
        is_path: After `scheme:///` comes a path; the command line makes it absolute.
        on_one_host: Only the host that has it can import into it: Temporal's other workers decline.
        extra: Extra of this package that installs its driver; None if it needs no driver.
        password_variable: Environment variable that its driver takes a password from.
    """

    sink: str
    example: str
    is_path: bool = False
    on_one_host: bool = False
    extra: str | None = None
    password_variable: str | None = None


_POSTGRES = Scheme(
    "batchimport.sinks.postgres.sink:PostgresSink",
    "postgresql://user@host/database",
    extra="postgres",
    password_variable="PGPASSWORD",  # noqa: S106 - a name
)

SINKS = {
    "sqlite": Scheme(
        "batchimport.sinks.sqlite.sink:SqliteSink",
        "sqlite:///path",
        is_path=True,
        on_one_host=True,
    ),
    "duckdb": Scheme(
        "batchimport.sinks.duckdb.sink:DuckdbSink",
        "duckdb:///path",
        is_path=True,
        on_one_host=True,
        extra="duckdb",
    ),
    "parquet": Scheme(
        "batchimport.sinks.parquet.sink:ParquetSink", "parquet:///directory", is_path=True
    ),
    "postgresql": _POSTGRES,
    "postgres": replace(_POSTGRES, example=""),
}
"""All schemes by their names in lower case."""


def scheme_of(address: str) -> Scheme | None:
    """Return the scheme of an address; None if there is no such scheme."""
    name, separator, _ = address.partition("://")
    return SINKS.get(name.lower()) if separator else None


def examples() -> str:
    """Return an address of each kind, as a sentence for `--help`."""
    paths = ", ".join(known.example for known in SINKS.values() if known.is_path)
    others = [known.example for known in SINKS.values() if known.example and not known.is_path]
    return " or ".join([f"{paths} (three slashes: relative path, four: absolute)", *others]) + "."
