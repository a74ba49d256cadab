"""uvicorn's protocol with bounds on what comes before a body: a head has so many bytes and so many seconds.

With httptools uvicorn itself has neither, so anybody, with or without a key, could fill the memory by a head without
end, or keep a connection by one that never ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quantgate.serve import wire
from quantgate.serve.refusals import Refused

HEAD = 2**16  # bytes, beyond the read in which it begins
HEAD_S = 75.0  # also of a connection that says nothing; one that was used before has uvicorn's own time
SAID = wire.dumps(Refused(431, "head_too_long", f"the head is too long; at most {HEAD:,} bytes are taken").body())
TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(SAID), SAID)
)


class Bounded(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._heading, self._head = False, 0  # within a head, and its bytes so far
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._heading:
            self._head += len(data)
            if self._head > HEAD:
                self.transport.write(TOO_LONG)
                self.transport.close()
            elif self._late is None:
                self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._heading, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._heading = False
        if self._late is not None:
            self._in_time()
        super().on_headers_complete()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
