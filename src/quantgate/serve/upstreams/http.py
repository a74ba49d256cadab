"""An OpenAI-compatible server behind the gateway: one keep-alive pool per server, bodies parsed once.

aiohttp, because the HTTP client decides what a gateway in Python costs: about a tenth of httpx for each request. What
it does by itself and nobody asked for (cookies, decompression, redirects, limits) is off. Cancelling ``ask``, or
closing the iterator of ``stream``, closes the connection at once: that is how a server learns that nobody listens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from quantgate.serve import Body, Chunk, Reply, UpstreamFault
from quantgate.serve.upstreams import TRACE
from quantgate.serve.upstreams.dialects import PATCHES, Name
from quantgate.serve.upstreams.events import Events

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

QUICK_S = 0.25  # a kept connection that the server had closed fails at once; later than that, it died over the answer
LARGEST = 64 * 2**20  # bytes of a whole answer
OPEN_S = 5.0  # to open a connection
T = TypeVar("T")


class HttpUpstream:
    """``url`` is where its API begins, such as http://127.0.0.1:8000/v1, or unix:/path.sock for a socket and /v1."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        dialect: Name = "openai",
        keep_s: float = 4.0,  # below uvicorn's five seconds, so that the server is not the first to close
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """``extra`` are keys of every request, such as ``{"top_k": 1}``, where a request has none of its own."""
        self.url, self.model, self.extra = url.rstrip("/"), model, dict(extra or {})
        self._patch, self._keep_s = PATCHES[dialect], keep_s
        self._socket = self.url.removeprefix("unix:") if self.url.startswith("unix:") else None
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._session: ClientSession | None = None
        self._draining: set[asyncio.Future[None]] = set()
        self._chat = self._models = ""

    async def start(self) -> None:
        """Open the pool; no connection yet."""
        import aiohttp

        if self._session is not None:
            return
        where = "http://upstream/v1" if self._socket else self.url
        self._chat, self._models = f"{where}/chat/completions", f"{where}/models"
        connector: aiohttp.BaseConnector
        if self._socket:
            connector = aiohttp.UnixConnector(self._socket, limit=0, keepalive_timeout=self._keep_s)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keep_s)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=OPEN_S),
            headers=self._headers,
            skip_auto_headers=("User-Agent", "Accept"),
            read_bufsize=2**18,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        for task in tuple(self._draining):
            task.cancel()
        if session is not None:
            await session.close()

    async def ready(self) -> str | None:
        """The name of the model, as the server lists it; None while it is not up or does not have it."""
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=OPEN_S)
            async with self._open().get(self._models, allow_redirects=False, timeout=timeout) as response:
                rows = orjson.loads(await response.content.read(LARGEST)).get("data", ())
                names = [row.get("id") for row in rows if isinstance(row, dict)]
                return self.model if response.status == 200 and self.model in names else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AttributeError, TypeError):
            return None

    async def ask(self, body: Body, *, timeout_s: float | None) -> Reply:
        """Raises UpstreamFault."""
        asking = self._ask(self._sent(body, stream=False))
        return await (asking if timeout_s is None else _soon(asking, timeout_s))

    async def _ask(self, data: bytes) -> Reply:
        response = await self._begin(data)
        try:
            raw = await _read(response)
        finally:
            if not response.content.is_eof():
                response.close()
        if response.status != 200:
            raise _status(response, raw)
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise UpstreamFault("malformed", "the upstream's answer is not JSON") from None
        if not isinstance(found, dict):
            raise UpstreamFault("malformed", "the upstream's answer is not an object")
        if found.get("error"):
            raise UpstreamFault("error_event", _message(found, "the upstream answered with an error"), body=found)
        return Reply(200, found, raw, stages_of(found))

    async def stream(self, body: Body, *, timeout_s: float | None) -> AsyncIterator[Chunk]:
        """Raises UpstreamFault; ends after ``[DONE]``. ``timeout_s`` is for the time to each next piece."""
        beginning = self._begin(self._sent(body, stream=True))
        response = await (beginning if timeout_s is None else _soon(beginning, timeout_s))
        content, left = response.content, False
        try:
            await _begun(response)
            events = Events()
            while not events.done:
                reading = _some(response)
                data = await (reading if timeout_s is None else _soon(reading, timeout_s))
                if not data:
                    raise UpstreamFault("cut", "the upstream's stream ended without its end mark")
                chunks = events.feed(data)
                for chunk in chunks:
                    if chunk.body.get("error"):
                        said = _message(chunk.body, "the upstream broke off with an error")
                        raise UpstreamFault("error_event", said, body=chunk.body)
                    yield chunk
                if events.fault is not None:
                    raise events.fault
            if left := not content.at_eof():
                self._leave(response)
        finally:
            if not left and not content.is_eof():
                response.close()

    def _leave(self, response: ClientResponse) -> None:
        """The bytes that end a chunked body may come behind ``[DONE]``: read them aside, so that the connection is
        kept and nobody waits for them."""
        task = asyncio.ensure_future(_drain(response))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _sent(self, body: Body, *, stream: bool) -> bytes:
        sent = {**self.extra, **body, "model": self.model, "stream": stream}
        if stream:
            sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        else:
            sent.pop("stream_options", None)
        self._patch(sent)
        return orjson.dumps(sent)

    def _open(self) -> ClientSession:
        if self._session is None:
            raise UpstreamFault("refused", "the upstream is not started")
        return self._session

    async def _begin(self, data: bytes) -> ClientResponse:
        """The head of the answer. A kept connection may turn out closed: then the request never arrived, and goes once
        more. Raises UpstreamFault."""
        import aiohttp

        session, begun, again, trace = self._open(), monotonic(), False, TRACE.get()
        headers = {"traceparent": trace} if trace else None
        while True:
            try:
                return await session._request("POST", self._chat, data=data, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectorError as error:
                raise UpstreamFault("refused", f"the upstream cannot be reached: {_why(error)}", status=503) from None
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
                if again or monotonic() - begun > QUICK_S:
                    raise UpstreamFault("cut", "the upstream closed the connection before it answered") from None
                again = True
            except (aiohttp.ServerTimeoutError, TimeoutError):
                raise UpstreamFault("refused", f"the upstream took no connection in {OPEN_S:g} s", status=503) from None
            except aiohttp.ClientError as error:
                raise UpstreamFault("malformed", f"the upstream speaks no HTTP: {type(error).__name__}") from None


async def _soon(awaited: Coroutine[Any, Any, T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await awaited
    except TimeoutError:
        raise UpstreamFault("timeout", f"the upstream did not answer within {timeout_s:g} s", status=504) from None


async def _begun(response: ClientResponse) -> None:
    """Whether what follows is a stream of events. Raises UpstreamFault."""
    if response.status != 200:
        raise _status(response, await _read(response))
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise UpstreamFault("malformed", f"the upstream answered a stream with '{kind[:60]}'")


async def _some(response: ClientResponse) -> bytes:
    """What has come; b"" at the end. Raises UpstreamFault."""
    from aiohttp import ClientError

    try:
        return await response.content.readany()
    except (ClientError, OSError):
        raise UpstreamFault("cut", "the upstream closed the connection within its answer") from None


async def _drain(response: ClientResponse) -> None:
    from aiohttp import ClientError

    try:
        async with asyncio.timeout(1.0):
            while await response.content.readany():
                pass
    except (ClientError, OSError, TimeoutError):
        pass
    finally:
        response.close()


async def _read(response: ClientResponse) -> bytes:
    """The whole body. Raises UpstreamFault."""
    parts, size = [], 0
    while part := await _some(response):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise UpstreamFault("malformed", f"the upstream's answer is larger than {LARGEST:,} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _status(response: ClientResponse, raw: bytes) -> UpstreamFault:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found = None
    body = found if isinstance(found, dict) else None
    said = _message(body or {}, f"the upstream answered with status {response.status}")
    return UpstreamFault("status", said, status=response.status, body=body)


def _message(body: Mapping[str, Any], otherwise: str) -> str:
    error = body.get("error")
    said = error.get("message") if isinstance(error, Mapping) else error
    return said[:500] if isinstance(said, str) and said else otherwise


def _why(error: BaseException) -> str:
    """The system's own word, which names no secret: ``Connection refused``."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__


def stages_of(body: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage, where a server tells them: llama.cpp's ``timings``, vLLM's ``metrics``, this gateway's own.

    >>> stages_of({"timings": {"prompt_ms": 20.0, "predicted_ms": 300.0}})
    {'prefill': 0.02, 'decode': 0.3}
    """
    found: dict[str, float] = {}
    for key, names in TOLD:
        told = body.get(key)
        if isinstance(told, Mapping):
            for stage, name in names.items():
                took = told.get(name)
                if isinstance(took, int | float) and took >= 0:
                    found[stage] = took / 1000
    own = body.get("quantgate")
    if isinstance(own, Mapping) and isinstance(own.get("stages"), Mapping):
        found.update({stage: float(took) for stage, took in own["stages"].items()})
    return found


TOLD = (
    ("timings", {"prefill": "prompt_ms", "decode": "predicted_ms"}),
    ("metrics", {"queue": "queue_time_ms", "decode": "generation_time_ms"}),
)
