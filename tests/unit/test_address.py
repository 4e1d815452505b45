"""What is shown of an address has no password, and is the same place."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from batchimport.errors import UsageError
from batchimport.sinks import open_sink, redact
from batchimport.sinks.mysql import address as mysql
from tests.helpers.cli import environment

READABLE = [
    "postgresql://u:CANARY@h/d",
    "postgres://u:CANARY@/d",
    "postgresql://:CANARY@h/d",
    "postgresql://u:CAN%40ARY@h:5432/d?sslmode=require",
    "postgresql://us%40er:CANARY@h/d",
    "postgresql://u:CAN?ARY@h/d",
    "postgresql:///d?host=127.0.0.1&user=u&password=CAN@ARY",
    "postgresql://h/d?p%61ssword=CANARY",
    "postgresql://h:5432/d?user=u&password=CAN@ARY",
    "postgresql://u:CANARY@a:1,b:2/d?target_session_attrs=any",
    "postgresql://u:CANARY@[::1]:5/d",
    "postgresql://u:CANARY@%2Ftmp/d",
    "postgresql:///d?host=@abstract&user=u&password=CANARY",
    "postgresql://h/d?sslpassword=CANARY&sslcert=c.pem",
    "postgresql://u:CANARY@h/d?options=-c%20search_path%3Dx",
]
UNREADABLE = [
    "postgresql://u:CAN@ARY@h/d",
    "postgresql://u:CAN/ARY@h/d",
    "postgresql://u:12/CANARY@h/d",
    "postgresql://u:CANARY",
    "postgresql://u%3ACANARY@h/d",
    "postgresql://u:CAN?x@ARY@h/d",
    "postgresql://u:CAN ARY@h/d",
    "postgresql://u:CAN%zzARY@h/d",
    "postgresql//u:CANARY@h/d",
    "postgres:u:CANARY@h/d",
    "host=h password=CANARY",
    "POSTGRESQL://u:CANARY@h/d",
    "db2://u:CANARY@h/d",
    "postgresql://h/d?password=CANARY&nonsense=1",
    "mysql://u:CAN@ARY@h/d",
    "mysql://u:CAN/ARY@h/d",
    "mysql://u:CAN?ARY@h/d",
    "mysql://u:CAN#ARY@h/d",
    "mysql://u:12/CANARY@h/d",
    "mysql://u:12?CANARY@h/d",
    "mysql://u:CANARY",
    "mysql://u%3ACANARY@h/d",
    "mariadb://h/d?password=CANARY",
    "mysql:u:CANARY@h/d",
]
MYSQL = [
    ("mysql://u:CANARY@h/d", "mysql://u@h/d"),
    ("MySQL://:CANARY@h:3306/d", "mysql://h:3306/d"),
    ("mariadb://us%40er:CAN%40ARY@[::1]:5/d", "mariadb://us%40er@[::1]:5/d"),
    ("mysql://u:CAN%zzARY@h/a%2Fb", "mysql://u@h/a%2Fb"),
    (
        "mysql://u:CANARY@/d?unix_socket=/run/s.sock&ssl_ca=a%26b",
        "mysql://u@/d?unix_socket=/run/s.sock&ssl_ca=a%26b",
    ),
    ("mysql://u:@h/d", "mysql://u@h/d"),
]


def parts(address: str) -> dict[str, str]:
    known = conninfo_to_dict(address)
    return {name: str(value) for name, value in known.items() if "password" not in name}


@pytest.mark.parametrize("address", READABLE)
def test_only_the_password_is_gone(address: str) -> None:
    """As libpq understands the address."""
    shown = redact(address)
    assert not any(part in shown for part in ("CAN", "ARY"))
    assert conninfo_to_dict(shown) == parts(address)
    assert redact(shown) == shown


@pytest.mark.parametrize(("address", "shown"), MYSQL)
def test_only_the_password_of_mysql_is_gone(address: str, shown: str) -> None:
    """As its sink understands the address."""
    assert redact(address) == shown
    assert redact(shown) == shown
    known = mysql.parse(address)
    assert mysql.parse(shown) == replace(known, password="")
    assert "CAN" not in repr(known)


@pytest.mark.parametrize("address", UNREADABLE)
def test_nothing_is_shown_of_what_cannot_be_read(address: str) -> None:
    """Nor in the error that refuses it, nor in that error's causes."""
    assert not any(part in redact(address) for part in ("CAN", "ARY", "u:", "12"))
    with pytest.raises(UsageError) as caught:
        open_sink(address)
    error = caught.value
    seen = f"{error} {error.hint} {error.__cause__!r} {error.__context__!r}"
    assert not any(part in seen for part in ("CAN", "ARY"))


@pytest.mark.parametrize(
    "address",
    ["sqlite:////a/b:c@d.db", "duckdb:///x@y", "parquet:///p?q", "postgresql://u@h/d", "mysql://h"],
)
def test_an_address_without_a_password_is_shown_as_it_is(address: str) -> None:
    """Also a path with the marks of a login."""
    assert redact(address) == address


def test_without_psycopg_only_the_scheme_is_shown() -> None:
    """A host that has no driver cannot take the address apart."""
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from batchimport.sinks import redact\n"
        "print(redact('postgresql://u:CANARY@h/d'))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment()
    )
    assert ended.stdout == "postgresql://…\n"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_database_is_a_file(tmp_path: Path, kind: str) -> None:
    """Devices, pipes, links to themselves and parameters are refused before anything is opened."""
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for place, words in (
        ("loop", "link to itself"),
        ("pipe", "is not a file"),
        ("no/u.db", "does not exist"),
        ("u.db?mode=ro", "no parameters"),
        ("../../../../../../../../dev/null", "is not a file"),
    ):
        with pytest.raises(UsageError, match=words):
            open_sink(f"{kind}:///{tmp_path}/{place}")
    (tmp_path / "link.db").symlink_to("made.db")
    open_sink(f"{kind}:///{tmp_path}/link.db").close()
