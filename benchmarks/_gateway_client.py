"""The client of the gateway's benchmark: keep-alive connections that cost little, one request on each at a time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import orjson

from benchmarks._gateway_mock import CONTENT, SCHEMA

LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
FIRST = re.compile(rb'"content":\s*"\{')  # the first piece of the answer
SAID = re.compile(rb'"content":\s*"((?:[^"\\]|\\.)*)"')
WRITTEN = orjson.dumps(CONTENT)  # as it stands in a whole answer
FORMAT = {"type": "json_schema", "json_schema": {"name": "things", "schema": SCHEMA, "strict": True}}


@dataclass(frozen=True)
class Door:
    """Where requests go, and as what."""

    name: str
    port: int
    model: str = "mock"
    key: str = ""

    def request(self, order: str = "", *, stream: bool = False, session: str = "", schema: bool = True) -> bytes:
        """One request as bytes: about 1 kB of prompt, a JSON schema, a session."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You list things. " * 40},
                {"role": "user", "content": f"List a dozen. {order}"},
            ],
            "temperature": 0,
            **({"response_format": FORMAT} if schema else {}),
            **({"stream": True} if stream else {}),
        }
        data = orjson.dumps(body)
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *([f"Authorization: Bearer {self.key}"] if self.key else []),
            *([f"X-Session-Id: {session}"] if session else []),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@dataclass(slots=True)
class Answer:
    """Times are CLOCK_MONOTONIC, seconds."""

    began: float
    first: float  # byte of content
    ended: float
    raw: bytes

    @property
    def good(self) -> bool:
        """Whether it is the mock's answer, whole."""
        if not self.raw.startswith(b"HTTP/1.1 200"):
            return False
        return WRITTEN in self.raw or said(self.raw) == CONTENT


def said(raw: bytes) -> str:
    """The content of an answer, whole or in pieces."""
    return "".join(orjson.loads(b'"' + one + b'"') for one in SAID.findall(raw))


class Line(asyncio.Protocol):
    """One connection to one door; it connects again where the other side has closed it meanwhile."""

    def __init__(self, port: int) -> None:
        self.port, self.transport, self.waiting = port, None, None
        self.data, self.first = bytearray(), 0.0

    transport: asyncio.Transport | None
    waiting: asyncio.Future[None] | None

    async def ask(self, request: bytes) -> Answer:
        """Raises ConnectionError where the other side closes before the answer's end."""
        if self.transport is None or self.transport.is_closing():
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
        assert self.transport is not None
        self.data, self.first = bytearray(), 0.0
        self.waiting = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self.transport.write(request)
        await self.waiting
        ended = time.monotonic()
        return Answer(began, self.first or ended, ended, bytes(self.data))

    async def until_content(self, request: bytes, seconds: float = 30.0) -> None:
        """Returns when the first content is here, and leaves the answer to go on. Raises TimeoutError,
        ConnectionError."""
        self.first = 0.0  # of the answer before it
        asked = asyncio.ensure_future(self.ask(request))
        asked.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # whoever hangs up knows that it broke off
        async with asyncio.timeout(seconds):
            while not self.first:
                if asked.done():
                    raise ConnectionError(f"ended before any content: {bytes(self.data[:600])!r}")
                await asyncio.sleep(0.001)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by class

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionResetError("closed before the answer's end"))

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.first and FIRST.search(self.data):
            self.first = time.monotonic()
        if self.waiting is not None and not self.waiting.done() and self._whole():
            self.waiting.set_result(None)

    def _whole(self) -> bool:
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = LENGTH.search(self.data, 0, end)
        if length:
            return len(self.data) >= end + 4 + int(length[1])
        return self.data.endswith(b"\r\n0\r\n\r\n")


async def hang_up(lines: Iterable[Line]) -> None:
    """Close connections, and wait until they are."""
    for line in lines:
        line.close()
    await asyncio.sleep(0.01)


@dataclass
class Load:
    """What a closed loop saw."""

    asked: int = 0
    bad: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)  # seconds from request to last byte, of good answers
    example: str = ""  # what a bad one said


async def closed_loop(door: Door, requests: Sequence[bytes], in_flight: int, seconds: float) -> Load:
    """So many connections that each ask again as soon as they are answered."""
    lines, load = [Line(door.port) for _ in range(in_flight)], Load()
    began = time.monotonic()
    until = began + seconds

    async def keep_on(number: int, line: Line) -> None:
        request = requests[number % len(requests)]
        while time.monotonic() < until:
            load.asked += 1
            try:
                answer = await line.ask(request)
            except OSError as error:
                load.bad, load.example = load.bad + 1, f"{type(error).__name__}: {error}"
                continue
            if answer.good:
                load.times.append(answer.ended - answer.began)
            else:
                load.bad, load.example = load.bad + 1, answer.raw[:400].decode(errors="replace")

    await asyncio.gather(*(keep_on(number, line) for number, line in enumerate(lines)))
    load.seconds = time.monotonic() - began
    await hang_up(lines)
    return load
