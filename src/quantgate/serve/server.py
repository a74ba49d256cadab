"""uvicorn as the gateway wants it: uvloop, httptools, no line per request, and an end that tells first.

At the end ``/ready`` says 503 for a moment while requests are still taken, so that whoever spreads them can turn away;
then the port closes, answers in flight have their time of grace, and the upstreams are closed.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn

from quantgate.serve._protocol import Bounded
from quantgate.serve.app import Gateway
from quantgate.serve.metrics import TYPE

BACKLOG = 4096  # connections that may wait to be taken


class Server(uvicorn.Server):
    """One process of the gateway."""

    def __init__(
        self,
        gateway: Gateway,
        config: uvicorn.Config,
        *,
        notice_s: float = 0.0,
        settle: bool = True,
        metrics_port: int | None = None,
    ) -> None:
        """``notice_s``: how long ``/ready`` says 503 before the port closes; ``settle``: see ``startup``;
        ``metrics_port``: of loopback, where this very process shows its figures, for gateways of several processes."""
        super().__init__(config)
        self.gateway, self.notice_s, self._settle = gateway, notice_s, settle
        self.metrics_port = metrics_port
        self._figures: asyncio.Server | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """What was loaded to here lives as long as the process. Left to the garbage collector, it would be walked
        through again and again, for 50 to 100 ms in the middle of some request each time."""
        await super().startup(sockets)
        if self.metrics_port is not None and self.started:
            self._figures = await asyncio.start_server(self._show, "127.0.0.1", self.metrics_port)
            self.metrics_port = self._figures.sockets[0].getsockname()[1]
        if self._settle:
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 50)

    async def _show(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """This process's figures, whatever was asked."""
        try:
            async with asyncio.timeout(5.0):
                await reader.readuntil(b"\r\n\r\n")
                page = self.gateway.metrics.page()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                writer.write(head % (TYPE, len(page)) + page)
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.gateway.draining = True
        await asyncio.sleep(self.notice_s)
        await super().shutdown(sockets)
        if self._figures is not None:
            self._figures.close()


def config(gateway: Gateway, host: str = "127.0.0.1", port: int = 0, *, uds: str | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        gateway, host=host, port=port, uds=uds, loop="uvloop", http=Bounded, ws="none", lifespan="on",
        access_log=False, log_level="warning", server_header=False, date_header=False, proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75, timeout_graceful_shutdown=max(1, round(gateway.settings.limits.grace_s)),
        h11_max_incomplete_event_size=65536,
    )  # fmt: skip


class Running:
    """A gateway in a thread of its own on a free port of loopback; for tests and trials.

    with Running(Gateway(settings)) as running:
        httpx.post(running.url + "/chat/completions", ...)
    """

    def __init__(self, gateway: Gateway, *, notice_s: float = 0.0, metrics_port: int | None = None) -> None:
        self.gateway = gateway
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self.server = Server(gateway, config(gateway), notice_s=notice_s, settle=False, metrics_port=metrics_port)
        self._thread = threading.Thread(target=self.server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        begun = threading.Event()
        start = self.gateway.start

        async def started() -> None:
            await start()
            begun.set()

        self.gateway.start = started  # type: ignore[method-assign]
        self._thread.start()
        while not begun.wait(0.05):
            if not self._thread.is_alive():
                raise RuntimeError("the gateway did not start; its log tells why")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As on Ctrl-C; may be called twice."""
        self.server.should_exit = True
        self._thread.join()
        self._socket.close()
