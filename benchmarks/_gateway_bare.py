"""The floor of a Python gateway: bytes in, bytes out, no look at either. Raw ASGI on uvicorn, aiohttp upstream.

python -m benchmarks._gateway_bare PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn


class Bare:
    def __init__(self, upstream: int) -> None:
        self.url = f"http://127.0.0.1:{upstream}"
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if self.session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self.session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        headers = {"content-type": "application/json"}
        async with self.session.request(scope["method"], self.url + scope["path"], data=body, headers=headers) as got:
            kind, length = got.headers.get("content-type", ""), got.headers.get("content-length", "")
            fields = [(b"content-type", kind.encode())]
            if length:
                fields.append((b"content-length", length.encode()))
            await send({"type": "http.response.start", "status": got.status, "headers": fields})
            if length:
                await send({"type": "http.response.body", "body": await got.read()})
                return
            async for piece in got.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        Bare(int(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools",
        lifespan="off", access_log=False, log_level="error", backlog=4096,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
