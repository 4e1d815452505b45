"""Addresses of MySQL and MariaDB: taken apart strictly, so that no password hides in another part."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from batchimport.errors import UsageError
from batchimport.sinks.registry import HIDDEN

LAST_PORT = 65_535
PARAMETERS = frozenset(
    {"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_identity"}
    | {"connect_timeout", "read_default_file"}
)
_SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108
"""Where servers listen on Debian, on Red Hat, and as MySQL itself has it."""
_ADDRESS = re.compile(
    r"(?P<scheme>mysql|mariadb)://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^:@/?#]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[^:@/?#]*))?(?:\?(?P<query>[^?#]*))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Address:
    """A database on a server.

    Attributes:
        host: Empty for the server's socket on this machine.
        parameters: Those of `PARAMETERS` that are given.
    """

    scheme: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int | None
    database: str
    parameters: dict[str, str]

    @property
    def socket(self) -> str:
        """The Unix socket to connect by; empty if it is TCP."""
        if self.host or "read_default_file" in self.parameters:
            return self.parameters.get("unix_socket", "")
        found = (path for path in _SOCKETS if Path(path).exists())
        return self.parameters.get("unix_socket") or next(found, "")

    @property
    def server(self) -> str:
        """What users call the server."""
        name = "MariaDB" if self.scheme == "mariadb" else "MySQL"
        place = self.socket or f"{self.host or 'localhost'}:{self.port or 3306}"
        return f"{name} at {place}"

    def without_password(self) -> str:
        """Return the address of the same place without its password."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        port = f":{self.port}" if self.port else ""
        given = (f"{name}={quote(value, safe='/')}" for name, value in self.parameters.items())
        query = "&".join(given)
        database = quote(self.database, safe="")
        return f"{self.scheme}://{user}{host}{port}/{database}{'?' if query else ''}{query}"


def parse(address: str) -> Address:
    """Take an address apart.

    Raises:
        UsageError: If it is none, or if a password seems to have become a part of something else.
            The address is not in the error.
    """
    match = _ADDRESS.fullmatch(address)
    query = match["query"] if match else None
    pairs = [pair.partition("=") for pair in (query or "").split("&") if pair]
    parameters = {name: unquote(value) for name, _, value in pairs}
    user = unquote(match["user"] or "") if match else ""
    if match is None or ":" in user or not all(equal and value for _, equal, value in pairs):
        raise _wrong(
            address,
            "not an address that this version understands",
            "write special characters of user and password by their codes (@ is %40, : is %3A, "
            "/ is %2F, % is %25), or set MYSQL_PWD and leave the password out",
        )
    unknown = sorted(parameters.keys() - PARAMETERS)
    if unknown:
        known = ", ".join(sorted(PARAMETERS))
        raise _wrong(address, "an unknown parameter", f"known ones are {known}")
    if (
        not parameters.get("connect_timeout", "1").isdecimal()
        or int(match["port"] or 1) > LAST_PORT
    ):
        raise _wrong(address, "a port or a timeout is no number", f"ports end at {LAST_PORT}")
    return Address(
        match["scheme"].lower(),
        user,
        unquote(match["password"] or ""),
        unquote(match["host"].strip("[]")),
        int(match["port"]) if match["port"] else None,
        unquote(match["database"] or ""),
        parameters,
    )


def redact(address: str) -> str:
    """Return an address without its password; nothing but the scheme if it cannot be taken apart."""
    try:
        known = parse(address)
        return known.without_password() if known.password or ":@" in address else address
    except UsageError:
        return f"{address.partition('://')[0]}://{HIDDEN}"


def _wrong(address: str, message: str, hint: str) -> UsageError:
    return UsageError(message, where=f"--to {address.partition('://')[0]}://{HIDDEN}", hint=hint)
