"""Servers of files: a small web server that misbehaves as it is told, and a real S3 server."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import pytest

from tests.helpers.cli import SERVERS

CANARY = "canary9f3a"
"""In every credential: where it turns up, a secret has leaked."""
_UNTIL_THE_PIPE_ENDS = '"$@" & cat; kill -9 $!; wait'
_ABSENT = "moto[server] and obstore are not installed: S3 is not tested"


class HttpServer:
    """A server in this process, in threads."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Web(HttpServer):
    """A web server with files by path.

    Attributes:
        faults: What the next answers are instead: a status, or `cut` for half of the body.
        has_ranges: It gives parts of files.
        has_etags: It names versions.
        asked: The requests, as (method, path, range).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.has_ranges = self.has_etags = True
        self.authorization: str | None = None
        self.asked: list[tuple[str, str, str | None]] = []
        super().__init__(_handler_of(self))


def _handler_of(web: Web) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one answer
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.asked.append((self.command, self.path, wanted))
            fault = web.faults.pop(0) if web.faults and len(web.asked) > 1 else None
            data = web.files.get(self.path)
            if web.authorization and self.headers.get("Authorization") != web.authorization:
                fault = 401
            if isinstance(fault, int) or data is None:
                self._answer(fault if isinstance(fault, int) else 404, b"no")
                return
            etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            if self.headers.get("If-Match") not in (None, etag):
                self._answer(412, b"changed")
                return
            headers = {"ETag": etag} if web.has_etags else {}
            if wanted and web.has_ranges:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                if int(first) >= len(data):
                    self._answer(416, b"")
                    return
                part = data[int(first) : int(last) + 1]
                stop = int(first) + len(part) - 1
                headers["Content-Range"] = f"bytes {first}-{stop}/{len(data)}"
                self._answer(206, part, headers, cut=fault == "cut")
                return
            self._answer(200, data, headers, cut=fault == "cut")

        do_HEAD = do_GET  # noqa: N815 - called by this name

        def _answer(
            self,
            status: int,
            body: bytes,
            headers: Mapping[str, str] = MappingProxyType({}),
            *,
            cut: bool = False,
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut

        def log_message(self, *_: Any) -> None: ...

    return Handler


PLACE = "TESTS_S3"
"""The variable that holds the address of an S3 server that runs already."""


class S3:
    """A server of the S3 protocol, in a process of its own, with one bucket.

    Args:
        url: The address of one that runs already.
    """

    bucket = "bucket"

    def __init__(self, url: str = "") -> None:
        self.url = url or self._start()
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": f"id-{CANARY}",
            "AWS_SECRET_ACCESS_KEY": f"secret-{CANARY}",
            "AWS_REGION": "us-east-1",
        }

    def _start(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # It ends with this process, however that ends: then the pipe is closed.
        self._process = subprocess.Popen(
            ["sh", "-c", _UNTIL_THE_PIPE_ENDS, "sh", sys.executable]
            + ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            assert self._process.poll() is None, "moto_server ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            threading.Event().wait(0.1)
        url = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/{self.bucket}", method="PUT")).close()
        return url

    def store(self) -> Any:
        """Return the bucket, as another program opens it."""
        from obstore.store import S3Store  # noqa: PLC0415 - an extra

        known = self.environment
        return S3Store(
            self.bucket,
            endpoint=known["AWS_ENDPOINT_URL"],
            access_key_id=known["AWS_ACCESS_KEY_ID"],
            secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            region=known["AWS_REGION"],
            client_options={"allow_http": True},
        )

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class Gateway(HttpServer):
    """An HTTP server before that of S3, which forwards requests, and misbehaves as it is told.

    Attributes:
        before: Called with method and path of each request before it is forwarded.
        loses: Says of a request that was answered that its reply is lost.
        has_conditions: The server hears of conditions.
    """

    def __init__(self, address: str) -> None:
        self.before: Callable[[str, str], Any] = lambda *_: None
        self.loses: Callable[[str, str], bool] = lambda *_: False
        self.has_conditions = True
        self.target = address.removeprefix("http://")
        super().__init__(_forwarder_of(self))


def _forwarder_of(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Forwarder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            gateway.before(self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {
                name: value
                for name, value in self.headers.items()
                if gateway.has_conditions or not name.lower().startswith("if-")
            }
            server = HTTPConnection(gateway.target)
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            data = answer.read()
            server.close()
            self.close_connection = True
            if gateway.loses(self.command, self.path):
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - called by these names

        def log_message(self, *_: Any) -> None: ...

    return Forwarder


@cache
def shared_s3() -> S3:
    """Return the server of this process, which all commands find in their environment."""
    if find_spec("moto") is None or find_spec("obstore") is None:
        pytest.skip(_ABSENT)
    server = S3(os.environ.get(PLACE, ""))
    os.environ.update({**server.environment, PLACE: server.url})
    SERVERS.update(server.environment)
    return server


@contextmanager
def an_s3_server() -> Iterator[S3]:
    if find_spec("moto") is None or find_spec("obstore") is None:
        pytest.skip(_ABSENT)
    server = S3()
    try:
        yield server
    finally:
        server.stop()
