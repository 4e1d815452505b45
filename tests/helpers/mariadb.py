"""A real MariaDB server, and an empty database in it for each test that asks."""

from __future__ import annotations

import getpass
import itertools
import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pymysql
import pytest

from batchimport.sinks.mysql.address import parse
from tests.helpers.tracing import wait_for

_numbers = itertools.count(1)
PLACE = "TESTS_MARIADB"
"""The variable that names the directory of a server that runs already."""
_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
"""Servers are not on every user's own."""
_UNTIL_THE_PIPE_ENDS = 'path=$1; shift; "$@" & cat; kill $!; wait; rm -rf "$path"'
_ABSENT = "MariaDB is not installed: apt-get install mariadb-server"


class MariadbServer:
    """A server on a Unix socket in a directory of its own.

    Args:
        path: The directory. If a server is there, it is used.
    """

    def __init__(self, path: Path) -> None:
        self.socket = path / "socket"
        if not self.socket.exists():
            self._start(path)

    def _start(self, path: Path) -> None:
        # A server that starts removes the temporary tables that it finds, those of others too.
        own = path / "tmp"
        own.mkdir(exist_ok=True)
        common = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={path / 'data'}"]
        common.append(f"--tmpdir={own}")
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
        )
        command = [shutil.which("mariadbd", path=_PATH) or "", *common]
        command += [f"--socket={self.socket}", "--skip-networking", "--innodb-buffer-pool-size=64M"]
        # Tests kill processes, never the machine: what the kernel has is safe.
        command += ["--innodb-flush-method=nosync"]
        command += ["--character-set-server=latin1"]  # what is made must not depend on it
        # It ends with this process, however that ends: then the pipe is closed.
        self._life = subprocess.Popen(
            ["sh", "-c", _UNTIL_THE_PIPE_ENDS, "sh", str(path), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.is_up)

    def is_up(self) -> bool:
        """Say whether it takes connections."""
        ping = ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={self.socket}", "ping"]
        return subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def new_database(self) -> str:
        """Return the address of an empty database."""
        name = f"test{os.getpid()}_{next(_numbers)}"
        execute(f"mysql://root@/?unix_socket={self.socket}", f"CREATE DATABASE {name}")
        return f"mysql://root@/{name}?unix_socket={self.socket}"


@cache
def server() -> MariadbServer:
    """Return the server of this process, which is started by the first test that needs it.

    Not in pytest's own directory: the path of a socket is short.
    """
    if shutil.which("mariadbd", path=_PATH) is None:
        pytest.skip(_ABSENT)
    path = os.environ.get(PLACE) or tempfile.mkdtemp(prefix="batchimport-mariadb-")
    found = MariadbServer(Path(path))
    os.environ[PLACE] = path
    return found


def _connect(address: str) -> Any:
    known = parse(address)
    return pymysql.connect(
        user=known.user,
        database=known.database or None,
        unix_socket=known.socket,
        autocommit=True,
        charset="utf8mb4",
        init_command="SET SESSION sql_mode = 'STRICT_ALL_TABLES,ANSI_QUOTES'",
    )


def fetch(address: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query; names may be in double quotes."""
    with closing(_connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def execute(address: str, *statements: str) -> None:
    """Run statements."""
    for statement in statements:
        fetch(address, statement)
