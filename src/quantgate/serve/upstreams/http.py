"""An OpenAI-compatible server behind the gateway: kept connections, bodies parsed once.

Cancelling ``ask``, or closing the iterator of ``stream``, closes the connection at once: that is how a server learns
that nobody listens. Redirects, cookies, compression and proxies of the environment are not for a gateway.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from quantgate.errors import UsageError
from quantgate.serve import Body, Chunk, Reply, UpstreamFault
from quantgate.serve.stages import LONGEST_S, seconds
from quantgate.serve.upstreams import TRACE
from quantgate.serve.upstreams._connection import OPEN_S, Connection, Malformed, Pool
from quantgate.serve.upstreams.dialects import PATCHES, Name
from quantgate.serve.upstreams.events import Events

QUICK_S = 0.25  # a kept connection that the server had closed fails at once; later than that, it died over the answer
LARGEST = 64 * 2**20  # bytes of a whole answer
SAID = 500  # characters of an error of the upstream's
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
        self._key = key.strip() if key else ""
        self._patch, self._keep_s = PATCHES[dialect], keep_s
        self._socket = self.url.removeprefix("unix:") if self.url.startswith("unix:") else None
        self._at = urlsplit("http://upstream/v1" if self._socket else self.url)
        if self._at.scheme not in ("http", "https") or not self._at.hostname:
            raise UsageError(f"{self.url}: no address of a server; expected such as http://127.0.0.1:8000/v1")
        host = self._at.netloc.rpartition("@")[2]
        said = [
            f"host: {host}",
            "accept-encoding: identity",
            *([f"authorization: Bearer {key.strip()}"] if key else []),
        ]
        if any(not line.isprintable() for line in said):
            raise UsageError("the server's key holds signs that no header can; give the key alone, on one line")
        self._headers = "".join(f"{line}\r\n" for line in said).encode()
        self._post = f"POST {self._at.path}/chat/completions HTTP/1.1\r\n".encode() + self._headers
        self._post += b"content-type: application/json\r\n"
        self._pool: Pool | None = None

    async def start(self) -> None:
        """Open the pool; no connection yet."""
        if self._pool is None:
            self._pool = Pool(self._at, self._socket, self._keep_s)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def ready(self) -> str | None:
        """The name of the model, as the server lists it; None while it is not up or does not have it."""
        try:
            status, raw = await _soon(self._listed(), OPEN_S)
            names = [row.get("id") for row in orjson.loads(raw).get("data", ()) if isinstance(row, dict)]
            return self.model if status == 200 and self.model in names else None
        except (UpstreamFault, ValueError, AttributeError, TypeError):
            return None

    async def _listed(self) -> tuple[int, bytes]:
        connection = await self._begin(f"GET {self._at.path}/models HTTP/1.1\r\n".encode() + self._headers + b"\r\n")
        try:
            return connection.status, await _read(connection)
        finally:
            connection.give_back()

    async def ask(self, body: Body, *, timeout_s: float | None) -> Reply:
        """Raises UpstreamFault."""
        asking = self._ask(self._sent(body, stream=False))
        return await (asking if timeout_s is None else _soon(asking, timeout_s))

    async def _ask(self, request: bytes) -> Reply:
        connection = await self._begin(request)
        try:
            raw = await _read(connection)
        finally:
            connection.give_back()
        if connection.status != 200:
            raise self._status(connection.status, raw)
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise UpstreamFault("malformed", "the upstream's answer is not JSON") from None
        if not isinstance(found, dict):
            raise UpstreamFault("malformed", "the upstream's answer is not an object")
        if found.get("error"):
            raise UpstreamFault("error_event", self._message(found, "the upstream answered with an error"), body=found)
        return Reply(200, found, raw, stages_of(found))

    async def stream(self, body: Body, *, timeout_s: float | None) -> AsyncIterator[Chunk]:
        """Raises UpstreamFault; ends after ``[DONE]``. ``timeout_s`` is for the time to each next piece."""
        beginning = self._begin(self._sent(body, stream=True))
        connection = await (beginning if timeout_s is None else _soon(beginning, timeout_s))
        events = Events()
        try:
            await self._begun(connection)
            while not events.done:
                reading = _some(connection)
                data = await (reading if timeout_s is None else _soon(reading, timeout_s))
                if not data and not events.ended():
                    raise UpstreamFault("cut", "the upstream's stream ended without its end mark")
                for chunk in events.feed(data):
                    if chunk.body.get("error"):
                        said = self._message(chunk.body, "the upstream broke off with an error")
                        raise UpstreamFault("error_event", said, body=chunk.body)
                    yield chunk
                if events.fault is not None:
                    raise events.fault
        finally:
            if events.done:
                connection.leave()
            else:
                connection.give_back()

    async def _begun(self, connection: Connection) -> None:
        """Whether what follows is a stream of events. Raises UpstreamFault."""
        if connection.status != 200:
            raise self._status(connection.status, await _read(connection))
        kind = connection.headers.get(b"content-type", b"").decode("latin-1")
        if not kind.startswith("text/event-stream"):
            raise UpstreamFault("malformed", f"the upstream answered a stream with '{kind[:60]}'")

    def _status(self, status: int, raw: bytes) -> UpstreamFault:
        """What a status other than 200 says. Of the gateway's own key callers learn that it is wrong, and no more."""
        if status in (401, 403):
            return UpstreamFault("status", f"the upstream refuses the gateway's key (status {status})", status=status)
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError:
            found = None
        said = self._message(found if isinstance(found, dict) else {}, f"the upstream answered with status {status}")
        error = found.get("error") if isinstance(found, dict) else None
        body = {"error": {**error, "message": said}} if isinstance(error, dict) else None
        return UpstreamFault("status", said, status=status, body=body)

    def _message(self, body: Mapping[str, Any], otherwise: str) -> str:
        """The upstream's own words, the first of them, and never the gateway's key for it."""
        error = body.get("error")
        said = error.get("message") if isinstance(error, Mapping) else error
        if not isinstance(said, str) or not said:
            return otherwise
        return (said.replace(self._key, "***") if self._key else said)[:SAID]

    def _sent(self, body: Body, *, stream: bool) -> bytes:
        sent = {**self.extra, **body, "model": self.model, "stream": stream}
        if stream:
            sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        else:
            sent.pop("stream_options", None)
        self._patch(sent)
        data, trace = orjson.dumps(sent), TRACE.get()
        told = b"traceparent: %b\r\n" % trace.encode() if trace else b""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self._post, told, len(data), data)

    async def _begin(self, request: bytes) -> Connection:
        """A connection with the head of its answer. A kept one may turn out closed: then the request never arrived, and
        goes once more, on a new one. Raises UpstreamFault."""
        if self._pool is None:
            raise UpstreamFault("refused", "the upstream is not started")
        begun, again = monotonic(), False
        while True:
            connection = await _opened(self._pool, fresh=again)
            try:
                await connection.ask(request)
                return connection
            except ConnectionError:
                connection.give_back()
                if connection.fresh or again or monotonic() - begun > QUICK_S:
                    raise UpstreamFault("cut", "the upstream closed the connection before it answered") from None
                again = True
            except Malformed:
                connection.give_back()
                raise UpstreamFault("malformed", "the upstream's answer is not HTTP") from None
            except BaseException:
                connection.give_back()
                raise


async def _opened(pool: Pool, *, fresh: bool) -> Connection:
    try:
        return await pool.take(fresh=fresh)
    except TimeoutError:
        raise UpstreamFault("refused", f"the upstream took no connection in {OPEN_S:g} s", status=503) from None
    except OSError as error:
        raise UpstreamFault("refused", f"the upstream cannot be reached: {_why(error)}", status=503) from None


async def _soon(awaited: Coroutine[Any, Any, T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await awaited
    except TimeoutError:
        raise UpstreamFault("timeout", f"the upstream did not answer within {timeout_s:g} s", status=504) from None


async def _some(connection: Connection) -> bytes:
    """What has come; b"" at the end. Raises UpstreamFault."""
    try:
        return await connection.read()
    except ConnectionError:
        raise UpstreamFault("cut", "the upstream closed the connection within its answer") from None
    except Malformed:
        raise UpstreamFault("malformed", "the upstream's answer is not HTTP") from None


async def _read(connection: Connection) -> bytes:
    """The whole body. Raises UpstreamFault."""
    raw = await _some(connection)
    if connection.at_end():
        return raw
    parts, size = [raw], len(raw)
    while part := await _some(connection):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise UpstreamFault("malformed", f"the upstream's answer is larger than {LARGEST:,} bytes")
    return b"".join(parts)


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
                if isinstance(took, int | float) and 0 <= took < LONGEST_S:
                    found[stage] = took / 1000
    own = body.get("quantgate")
    if isinstance(own, Mapping) and isinstance(own.get("stages"), Mapping):
        found |= seconds(own["stages"])
    return found


TOLD = (
    ("timings", {"prefill": "prompt_ms", "decode": "predicted_ms"}),
    ("metrics", {"queue": "queue_time_ms", "decode": "generation_time_ms"}),
)
