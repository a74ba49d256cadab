"""Connections to one server over HTTP/1.1: one request at a time on each, kept for the next.

Just what a gateway needs, because it is most of what a gateway costs: asking through aiohttp took 180 microseconds of
CPU for a whole answer of 1 kB, this takes about 50. The answer is read by httptools (llhttp, the parser of node.js).
What came before a cut is delivered before the cut is told. Giving back a connection whose answer is not at its end
closes it at once, which is how a server learns that nobody listens.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from time import monotonic
from urllib.parse import SplitResult

import httptools

OPEN_S = 5.0  # to open a connection
HIGH = 2**18  # bytes that wait to be read before the server is held up
HEADERS = 2**16  # bytes of an answer's head
TAIL_S = 1.0  # for the end of an answer that nobody waits for


class Malformed(Exception):
    """What the server says is not HTTP as it was asked."""


class Connection(asyncio.Protocol):
    """One connection; ``fresh`` until its first answer is whole."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._transport, self._waiter = pool, None, None
        self.fresh, self.idle_since = True, 0.0
        self._reset()

    _transport: asyncio.Transport | None
    _waiter: asyncio.Future[None] | None

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.headers = 0, dict[bytes, bytes]()
        self._parts, self._size, self._heads = list[bytes](), 0, 0
        self._begun = self._whole = self._kept = self._leaving = self._paused = False
        self._fault: Exception | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for the head of its answer. Raises ConnectionError, Malformed."""
        if not self.fresh:
            self._reset()
        if self._transport is None:
            raise ConnectionResetError
        self._transport.write(request)
        while not self._begun:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body; b"" at its end. Raises ConnectionError, Malformed."""
        while not self._parts and not self._whole:
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def at_end(self) -> bool:
        return self._whole and not self._parts

    def give_back(self) -> None:
        """Keep it for the next request, or close it where its answer is not at its end."""
        if self._whole and self._kept and self.open and self._fault is None:
            self.fresh = False
            self._pool.keep(self)
        else:
            self.close()

    def leave(self) -> None:
        """The answer is at its end as far as anybody cares; the last bytes of it may still come."""
        if self._whole or not self.open:
            self.give_back()
            return
        self._leaving = True
        asyncio.get_running_loop().call_later(TAIL_S, self._left)

    def _left(self) -> None:
        if self._leaving:
            self.close()

    def close(self) -> None:
        self._leaving = False
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _more(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        if self.idle_since:  # an answer that nobody asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
            if not self._begun:
                self._heads += len(data)
                if self._heads > HEADERS:
                    raise Malformed("its head is too long")
        except (httptools.HttpParserError, Malformed) as error:
            self._fault = Malformed(str(error))
            self.close()
        if self._size > HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()
        if self._leaving and self._whole:
            self._leaving = False
            self.give_back()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if not self._whole:
            until_closed = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers
            if self._begun and until_closed and exc is None:
                self._whole = True
            elif self._fault is None:
                self._fault = ConnectionResetError()
        self._wake()

    def on_message_begin(self) -> None:
        if self._whole:
            raise Malformed("a second answer, which nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status, self._begun = status, True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self._begun:
            self._whole, self._kept = True, self._parser.should_keep_alive()
        else:  # 100 Continue, 103 Early Hints
            self.headers.clear()


class Pool:
    """The connections to one server. ``keep_s``: how long an idle one is trusted."""

    def __init__(self, url: SplitResult, socket: str | None, keep_s: float) -> None:
        self._host, self._port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        self._socket, self._keep_s = socket, keep_s
        self._ssl = ssl.create_default_context() if url.scheme == "https" and socket is None else None
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()

    async def take(self, *, fresh: bool = False) -> Connection:
        """An idle connection, the one used last, or a new one. Raises OSError, TimeoutError."""
        now = monotonic()
        while self._idle and not fresh:
            found = self._idle.pop()
            if found.open and now - found.idle_since < self._keep_s:
                found.idle_since = 0.0
                return found
            found.close()
        return await self._new()

    async def _new(self) -> Connection:
        loop = asyncio.get_running_loop()
        made = Connection(self)
        async with asyncio.timeout(OPEN_S):
            if self._socket is not None:
                await loop.create_unix_connection(lambda: made, self._socket)
            else:
                await loop.create_connection(lambda: made, self._host, self._port, ssl=self._ssl)
        self._all.add(made)
        return made

    def keep(self, connection: Connection) -> None:
        connection.idle_since = now = monotonic()
        self._idle.append(connection)
        while self._idle and now - self._idle[0].idle_since > self._keep_s:
            self._idle.popleft().close()

    def forget(self, connection: Connection) -> None:
        """It is closed. Where it was idle it is passed over when it is met."""
        self._all.discard(connection)

    def close(self) -> None:
        for connection in tuple(self._all):
            connection.close()
        self._idle.clear()
