"""Addresses of destinations, and what of them may be shown: never a password.

An address is taken apart by the library that connects with it, not by a pattern: what libpq takes for a
password is one, however it is written. Where an address cannot be taken apart, nothing of it is shown
but the scheme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from batchimport.errors import UsageError
from batchimport.sinks.registry import scheme_of

if TYPE_CHECKING:
    from collections.abc import Mapping

POSTGRES = frozenset({"postgresql", "postgres"})
HIDDEN = "…"


def _scheme_name(address: str) -> str:
    """Return the scheme of an address, known or not; empty if it has none."""
    scheme, mark, _ = address.partition("://")
    return scheme if mark and scheme.isascii() and scheme.isalnum() else ""


def redact(address: str) -> str:
    """Return an address without its passwords; still the same place where it can be taken apart."""
    scheme, known_scheme = _scheme_name(address), scheme_of(address)
    if known_scheme is not None and known_scheme.is_path:
        return address
    if scheme not in POSTGRES:
        return f"{scheme}://{HIDDEN}" if scheme else HIDDEN
    try:
        known = parse_postgres(address)
    except (UsageError, ImportError):
        return f"{scheme}://{HIDDEN}"
    shown = {name: value for name, value in known.items() if name not in _secrets()}
    if shown != known:
        return _address(scheme, shown)
    return address.replace(":@", "@", 1)  # an empty password


def has_secret(address: str) -> bool:
    """Say whether an address has a password, also where no library can take it apart."""
    shown = redact(address)
    if HIDDEN not in shown:
        return shown != address.replace(":@", "@", 1)
    return ":" in address.partition("://")[2].rpartition("@")[0] or "password=" in address


def parse_postgres(address: str) -> dict[str, str]:
    """Return the parameters of an address as libpq understands them.

    Raises:
        UsageError: If it does not, or if a password seems to have become a part of something else.
            The address is not in the error.
        ImportError: If psycopg is not installed.
    """
    from psycopg import Error  # noqa: PLC0415 - an extra
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - an extra

    try:
        known = {name: str(value) for name, value in conninfo_to_dict(address).items()}
    except (Error, ValueError):
        known = None
    if known is None or not _is_sane(address, known):
        raise UsageError(
            "not an address that libpq understands",
            where=f"--to {_scheme_name(address)}://{HIDDEN}",
            hint="write special characters of user and password by their codes (@ is %40, : is %3A, "
            "/ is %2F, % is %25), or set PGPASSWORD and leave the password out",
        )
    return known


def _is_sane(address: str, known: Mapping[str, str]) -> bool:
    """Say whether a password with an @ or a slash has not become a part of host, port or database."""
    place = address.partition("?")[0]
    port, host = known.get("port", ""), known.get("host", "")
    return (
        place.count("@") <= ("user" in known or "password" in known)
        and "@" not in host[1:]
        and ":" not in known.get("user", "")
        and all(part.isdigit() or not part for part in port.split(","))
    )


def _secrets() -> set[str]:
    """Return the names of the parameters that libpq itself marks as secret."""
    from psycopg.pq import Conninfo  # noqa: PLC0415 - an extra

    marked = {each.keyword.decode() for each in Conninfo.get_defaults() if each.dispchar == b"*"}
    return marked | {"password", "sslpassword", "scram_client_key", "scram_server_key"}


def _address(scheme: str, known: Mapping[str, str]) -> str:
    """Return the address that has these parameters."""
    rest = dict(known)
    user, place = "", ""
    host = rest.get("host", "")
    if host and not set(host) & set("/,@"):
        place = f"[{host}]" if ":" in host else quote(rest.pop("host"), safe="")
        rest.pop("host", None)
        place += f":{rest.pop('port')}" if rest.get("port", ",").isdigit() else ""
    if "user" in rest:
        user = quote(rest.pop("user"), safe="") + "@"
    database = f"/{quote(rest.pop('dbname'), safe='')}" if "dbname" in rest else ""
    query = urlencode(rest, quote_via=quote)
    slash = "/" if query and not database else ""
    return f"{scheme}://{user}{place}{database}{slash}{'?' if query else ''}{query}"
