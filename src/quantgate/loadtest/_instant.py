"""An endpoint that answers at once, to measure the generator with: a process of its own, which ends with its parent.

    python -m quantgate.loadtest._instant --seconds 20 --stall-at 0.5 --stall 0.3

Its first line on standard output is its port; when standard input closes it writes one more, a JSON list of when each
request came (seconds from the first), and ends. A stall stops everything it does, once, ``stall-at`` seconds after the
first request for an answer behind the warm-up. It speaks just enough HTTP/1.1 for one client, to cost it little.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import threading
import time

LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = (
    {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
)


def answer() -> bytes:
    """The whole streamed answer, as bytes on the wire."""
    body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in CHUNKS) + b"data: [DONE]\n\n"
    return HEAD + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


ANSWER = answer()


class Instant(asyncio.Protocol):
    """One connection. ``came`` is shared by all."""

    came: list[float] = []
    stall_at_s, stall_s = 0.0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.rest = transport, b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.rest[:end])
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.rest) < whole:
                return
            self.rest = self.rest[whole:]
            self.came.append(time.perf_counter())
            self._stall()
            self.transport.write(ANSWER)

    def _stall(self) -> None:
        if self.stall_s and len(self.came) > 2 and time.perf_counter() - self.came[1] >= self.stall_at_s:
            cls, seconds = type(self), self.stall_s
            cls.stall_s = 0.0
            time.sleep(seconds)


async def listen(protocol: type[asyncio.Protocol], seconds: float | None = None) -> None:
    """Print the port; until standard input closes, or for so many seconds."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    server.close()


async def serve(seconds: float) -> None:
    """Answer until standard input closes, or for so many seconds; then tell when each request came in."""
    await listen(Instant, seconds)
    print(json.dumps([round(one - Instant.came[0], 6) for one in Instant.came]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--stall-at", type=float, default=0.0)
    parser.add_argument("--stall", type=float, default=0.0)
    given = parser.parse_args()
    Instant.stall_at_s, Instant.stall_s = given.stall_at, given.stall
    asyncio.run(serve(given.seconds))


if __name__ == "__main__":
    main()
