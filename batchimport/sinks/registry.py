"""All destinations, by the scheme of their addresses. To add one: an entry here; see docs/adding.md.

Only facts, so that `--help` can be made from them: an adapter is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import PurePath

from batchimport.plugins import register

HIDDEN = "…"
"""Stands for what of an address is not shown."""


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
        suffixes: Of paths that stand for such an address, in lower case.
        redact: `module:function` that returns an address without its password; it needs no driver.
    """

    sink: str
    example: str
    is_path: bool = False
    on_one_host: bool = False
    extra: str | None = None
    password_variable: str | None = None
    suffixes: tuple[str, ...] = ()
    redact: str = ""


_POSTGRES = Scheme(
    "batchimport.sinks.postgres.sink:PostgresSink",
    "postgresql://user@host/database",
    extra="postgres",
    password_variable="PGPASSWORD",  # noqa: S106 - a name
    redact="batchimport.sinks.postgres.address:redact",
)
_MYSQL = Scheme(
    "batchimport.sinks.mysql.sink:MysqlSink",
    "mysql://user@host/database",
    extra="mysql",
    password_variable="MYSQL_PWD",  # noqa: S106 - a name
    redact="batchimport.sinks.mysql.address:redact",
)
_STORE = Scheme(
    "batchimport.sinks.parquet.store:StoreSink",
    "s3://bucket/prefix (Parquet; also gs:// and az://)",
    extra="remote",
    redact="batchimport.object_store:redact",
)

SINKS = {
    "sqlite": Scheme(
        "batchimport.sinks.sqlite.sink:SqliteSink",
        "sqlite:///path",
        is_path=True,
        on_one_host=True,
        suffixes=(".db", ".sqlite", ".sqlite3"),
    ),
    "duckdb": Scheme(
        "batchimport.sinks.duckdb.sink:DuckdbSink",
        "duckdb:///path",
        is_path=True,
        on_one_host=True,
        extra="duckdb",
        suffixes=(".duckdb", ".ddb"),
    ),
    "parquet": Scheme(
        "batchimport.sinks.parquet.sink:ParquetSink",
        "parquet:///directory",
        is_path=True,
        suffixes=(".parquet",),
    ),
    "postgresql": _POSTGRES,
    "postgres": replace(_POSTGRES, example=""),
    "mysql": _MYSQL,
    "mariadb": replace(_MYSQL, example=""),
    "s3": _STORE,
    "gs": replace(_STORE, example=""),
    "az": replace(_STORE, example=""),
}
"""All schemes by their names in lower case."""


def scheme_of(address: str) -> Scheme | None:
    """Return the scheme of an address; None if there is no such scheme."""
    name, separator, _ = address.partition("://")
    return SINKS.get(name.lower()) if separator else None


def scheme_name(address: str) -> str:
    """Return the scheme of an address, known or not; empty if it has none."""
    scheme, mark, _ = address.partition("://")
    return scheme if mark and scheme.isascii() and scheme.isalnum() else ""


def redact(address: str) -> str:
    """Return an address without its passwords; still the same place where it can be taken apart.

    Else nothing of it is shown but the scheme.
    """
    name, scheme = scheme_name(address), scheme_of(address)
    if scheme is not None and scheme.is_path:
        return address
    if scheme is None or not scheme.redact:
        return f"{name}://{HIDDEN}" if name else HIDDEN
    module, _, function = scheme.redact.partition(":")
    return str(getattr(import_module(module), function)(address))


def has_secret(address: str) -> bool:
    """Say whether an address has a password, also where no library can take it apart."""
    shown = redact(address)
    if HIDDEN not in shown:
        return shown != address.replace(":@", "@", 1)
    return ":" in address.partition("://")[2].rpartition("@")[0] or "password=" in address


def examples() -> str:
    """Return an address of each kind, as a sentence for `--help`."""
    paths = ", ".join(known.example for known in SINKS.values() if known.is_path)
    others = [known.example for known in SINKS.values() if known.example and not known.is_path]
    slashes = f"{paths} (three slashes: relative path, four: absolute)"
    endings = ", ".join(known.suffixes[0] for known in SINKS.values() if known.suffixes)
    return " or ".join([f"{slashes}, a path that ends in {endings}", *others]) + "."


def address_of(text: str) -> str:
    """Return the address that a path stands for by its suffix; an address stays as it is."""
    suffix = PurePath(text).suffix.lower()
    for name, scheme in SINKS.items():
        if suffix in scheme.suffixes and ":" not in text:
            return f"{name}:///{text}"
    return text


register("batchimport.sinks", SINKS, Scheme)
