"""A network that breaks: a TCP proxy in front of PostgreSQL's Unix socket."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BLOCK = 16_384
COMMIT = b"COMMIT\0"


@dataclass
class Weather:
    """What the network does; may be changed while it is used.

    Attributes:
        delay_seconds: Before each block of bytes is passed on.
        cut_after: All connections are cut, once, when so many bytes were passed on.
        silent_after: The connection that passes on so many bytes loses all that is sent from then
            on, and nobody is told; the server notices after `noticed_seconds`.
        is_away: New connections are closed at once.
        lost_replies: The COMMITs, counted from 1, that reach the server, but their reply is lost.
    """

    delay_seconds: float = 0.0
    cut_after: int | None = None
    silent_after: int | None = None
    noticed_seconds: float = 0.5
    lost_replies: frozenset[int] = frozenset()
    is_away: bool = False


class Proxy:
    """Listens on a port of this machine, from a thread of its own."""

    def __init__(self, socket: Path, weather: Weather) -> None:
        self._socket, self.weather = socket, weather
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._open: set[_Link] = set()
        self.passed_bytes = 0
        self.cuts = self.commits = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self.cut_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(tasks, timeout=5) if tasks else None

    def address(self, database: str) -> str:
        """Return the address by which a database is reached through this proxy."""
        where = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"{where}?sslmode=disable&gssencmode=disable"

    def go_away(self) -> None:
        """Cut all connections and refuse new ones, from another thread."""

        async def go() -> None:
            self.weather.is_away = True
            self.cut_all()

        asyncio.run_coroutine_threadsafe(go(), self._loop).result()

    def cut_all(self) -> None:
        """Cut all connections, on both sides."""
        for link in list(self._open):
            link.cut()
        self._open.clear()

    async def _accept(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        if self.weather.is_away:
            answer.transport.abort()
            return
        try:
            server, ask = await asyncio.open_unix_connection(self._socket)
        except OSError:  # the server is down
            answer.close()
            return
        link = _Link(answer, ask)
        self._open.add(link)
        try:
            await asyncio.gather(
                self._pass_on(client, ask, link), self._pass_on(server, answer, link)
            )
        finally:
            link.cut()
            self._open.discard(link)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        with suppress(OSError):
            while block := await reader.read(BLOCK):
                if self.weather.delay_seconds:
                    await asyncio.sleep(self.weather.delay_seconds)
                self.passed_bytes += len(block)
                self._blow(block, writer, link)
                if not link.is_silent:
                    writer.write(block)
                    await writer.drain()
        if not link.is_silent:
            link.cut()

    def _blow(self, block: bytes, writer: asyncio.StreamWriter, link: _Link) -> None:
        weather, to_server = self.weather, writer is link.ask
        if weather.cut_after is not None and self.passed_bytes > weather.cut_after:
            weather.cut_after = None
            self.cuts += 1
            self.cut_all()
        if weather.silent_after is not None and self.passed_bytes > weather.silent_after:
            weather.silent_after = None
            self.cuts += 1
            link.is_silent = True
            self._loop.call_later(weather.noticed_seconds, link.ask.transport.abort)
        if link.hides_reply and not to_server:
            self.cuts += 1
            link.cut()
        if to_server and block.endswith(COMMIT):
            self.commits += 1
            link.hides_reply = self.commits in weather.lost_replies


class _Link:
    """A connection on both sides of the proxy."""

    def __init__(self, answer: asyncio.StreamWriter, ask: asyncio.StreamWriter) -> None:
        self.answer, self.ask = answer, ask
        self.is_silent = self.hides_reply = False

    def cut(self) -> None:
        """Close both sides, without waiting."""
        for writer in (self.answer, self.ask):
            writer.transport.abort()
