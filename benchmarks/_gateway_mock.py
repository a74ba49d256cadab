"""The upstream of the gateway's benchmark: answers at once with 1 kB, and tells when it saw clients leave.

    python -m benchmarks._gateway_mock

Its first line on standard output is its port; it ends when standard input closes. It speaks just enough HTTP/1.1 to
cost next to nothing. What the last message says decides the answer: ``!hang`` never begins one, ``!drip`` streams
without end, ``!pause 50`` waits so many milliseconds, ``!pace 1`` puts as many between chunks. ``GET /left`` lists
[order, CLOCK_MONOTONIC] of the requests whose client left before their answer ended, ``GET /here`` the orders of those
that are being answered.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, cast

import orjson

from quantgate.loadtest._instant import listen

CHUNKS = 50
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
ORDER = re.compile(rb"!(hang|drip|pause|pace) ([\d.]+)")
ITEM = {"name": "a thing of some length", "count": 12, "open": True}
VALUE = {"items": [{**ITEM, "count": number} for number in range(12)], "note": "about a kilobyte"}
CONTENT = orjson.dumps(VALUE).decode()
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}, "open": {"type": "boolean"}},
                "required": ["name", "count", "open"],
                "additionalProperties": False,
            },
        },
        "note": {"type": "string"},
    },
    "required": ["items", "note"],
    "additionalProperties": False,
}
USAGE = {"prompt_tokens": 300, "completion_tokens": 150, "total_tokens": 450}
HEAD = {"id": "chatcmpl-mock", "created": 1, "model": "mock", "system_fingerprint": "fp_mock"}


def _whole() -> bytes:
    message = {"role": "assistant", "content": CONTENT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _answer(orjson.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}))


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return b"data: " + orjson.dumps({**HEAD, "object": "chat.completion.chunk", "choices": choices, **more}) + b"\n\n"


def _piece(text: str, finish: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}])


def _events() -> list[bytes]:
    """The role with the first piece, pieces, the finish, the usage."""
    step = -(-len(CONTENT) // CHUNKS)
    first = _event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    pieces = [_piece(CONTENT[at : at + step]) for at in range(0, len(CONTENT), step)]
    pieces[0] = first + pieces[0]
    return [*pieces, _piece("", "stop"), _event([], usage=USAGE), b"data: [DONE]\n\n"]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = _whole()
EVENTS = [_chunk(event) for event in _events()]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = _answer(orjson.dumps({"object": "list", "data": [{"id": "mock", "object": "model", "created": 1}]}))
DRIPS = _chunk(_piece('{"note":"')), _chunk(_piece("a"))  # a text without end is a beginning of the schema


class Upstream(asyncio.Protocol):
    """One connection, one request at a time. ``left`` and ``here`` are shared by all."""

    left: list[tuple[str, float]] = []
    here: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        self.rest, self.busy, self.open = b"", "", True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.busy:
            self.left.append((self.busy, time.monotonic()))
            self.here.discard(self.busy)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.rest[:end])
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.rest) < whole:
                return
            head, body, self.rest = self.rest[:end], self.rest[end + 4 : whole], self.rest[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self.transport.write(self._told(head))
            return
        order = ORDER.search(body)
        kind, amount = (order[1].decode(), float(order[2])) if order else ("", 0.0)
        self.busy = order[0].decode() if order else "plain"
        self.here.add(self.busy)
        later = asyncio.get_running_loop().call_later
        if kind == "hang":
            return
        if b'"stream":true' not in body.replace(b" ", b""):
            later(amount / 1e3, self._end, WHOLE) if kind == "pause" else self._end(WHOLE)
            return
        self.transport.write(STREAM)
        if kind == "drip":
            self.transport.write(DRIPS[0])
            later(0.02, self._drip)
        elif kind == "pause":
            later(amount / 1e3, self._pieces, 0, 0.0)
        else:
            self._pieces(0, amount / 1e3 if kind == "pace" else 0.0)

    def _told(self, head: bytes) -> bytes:
        if head.startswith(b"GET /left"):
            return _answer(orjson.dumps(self.left))
        return _answer(orjson.dumps(sorted(self.here))) if head.startswith(b"GET /here") else MODELS

    def _pieces(self, at: int, pace_s: float) -> None:
        if not self.open:
            return
        if at == len(EVENTS) - 1:
            self._end(EVENTS[at] + b"0\r\n\r\n")
            return
        self.transport.write(EVENTS[at])
        loop = asyncio.get_running_loop()
        if pace_s:
            loop.call_later(pace_s, self._pieces, at + 1, pace_s)
        else:
            loop.call_soon(self._pieces, at + 1, pace_s)

    def _drip(self) -> None:
        if self.open:
            self.transport.write(DRIPS[1])
            asyncio.get_running_loop().call_later(0.02, self._drip)

    def _end(self, data: bytes) -> None:
        if self.open:
            self.here.discard(self.busy)
            self.busy = ""
            self.transport.write(data)


if __name__ == "__main__":
    import uvloop

    uvloop.run(listen(Upstream))
