"""Addresses of PostgreSQL, and what of them may be shown: never a password.

They are taken apart by the library that connects with them, not by a pattern: what libpq takes for a
password is one, however it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from batchimport.errors import UsageError
from batchimport.sinks.registry import HIDDEN, scheme_name

if TYPE_CHECKING:
    from collections.abc import Mapping


def redact(address: str) -> str:
    """Return an address without its passwords; nothing but the scheme if it cannot be taken apart."""
    scheme = scheme_name(address)
    try:
        known = parse(address)
    except (UsageError, ImportError):
        return f"{scheme}://{HIDDEN}"
    shown = {name: value for name, value in known.items() if name not in _secrets()}
    if shown != known:
        return _address(scheme, shown)
    return address.replace(":@", "@", 1)  # an empty password


def parse(address: str) -> dict[str, str]:
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
            where=f"--to {scheme_name(address)}://{HIDDEN}",
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
