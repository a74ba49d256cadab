"""Requests to an OpenAI-compatible server: bounded, timed, asked again where that may help, and told apart at the end.

What can end a request: a ``Reply``; ``Refused``, when the server says what is wrong with this request; ``Lost``, when
it could not be had after all tries; EngineError, when no other request can do better (a key, a model, a server that is
gone). Secrets are sent and never shown: they are cut out of every sentence.
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from quantgate.engines._openai_stream import Events, Malformed, Reply, Stream, Told, decoded, error_sentence, whole
from quantgate.errors import EngineError

AGAIN = frozenset({408, 409, 425, 429})  # and every status from 500 on
KEYS, ROUTES = frozenset({401, 403}), frozenset({404, 405, 501})
CONNECT_S = 10.0
DRAIN_S = 0.05
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for. Seconds."""

    timeout_s: float = 120.0  # of one request, from sending to the last byte
    tries: int = 6
    first_s: float = 0.5  # wait before the second try; doubled for each further one
    longest_s: float = 30.0
    asked_s: float = 120.0  # the longest wait that a server may ask for by Retry-After

    def wait(self, tried: int, asked: float, chance: random.Random) -> float:
        """Before the next try: exponential, half of it by chance, and no less than what the server asked for."""
        full = min(self.longest_s, self.first_s * 2.0 ** (tried - 1))
        return max(asked, full * (0.5 + 0.5 * chance.random()))


class Again(Exception):
    """This try failed, and another one may not."""

    def __init__(self, sentence: str, asked_s: float = 0.0, *, reached: bool = True, final: bool = False) -> None:
        super().__init__(sentence)
        self.asked_s, self.reached, self.final = asked_s, reached, final


class Lost(Exception):
    """The request could not be had; ``reached``: whether the server answered anything at all."""

    def __init__(self, sentence: str, *, reached: bool) -> None:
        super().__init__(sentence)
        self.reached = reached


class Refused(Exception):
    """The server says what is wrong with this request."""

    def __init__(self, sentence: str, status: int, code: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Answer:
    """A reply and its times, in seconds from the sending of the try that brought it."""

    reply: Reply
    latency_s: float
    ttft_s: float | None
    headers: Mapping[str, str] = field(default_factory=dict)
    comments: tuple[str, ...] = ()  # of the stream
    ended: float = 0.0  # when a stream's last byte came, on the clock of time.perf_counter


class Client:
    """One server. ``session`` opens the connections of one call; nothing stays open between calls."""

    def __init__(
        self, url: str, key: str | None, patience: Patience, *, dead: Callable[[], str] = lambda: "", seed: int = 0
    ) -> None:
        """``dead`` says why a server that was started here has ended, or nothing."""
        self.dead = dead
        self.url, self.key, self.patience = url.rstrip("/"), key, patience
        self.chance = random.Random(seed)
        self.pause_until = 0.0  # a server that asks for a pause asks it of everyone
        self.answered: set[str] = set()  # paths that have answered before

    def session(self, connections: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=self.patience.timeout_s, sock_connect=CONNECT_S),
        )

    def shown(self, sentence: str) -> str:
        """A sentence without the secret, should a server have put it there."""
        return sentence.replace(self.key, "***") if self.key else sentence

    async def get(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        """One JSON object, at the first try. Raises Again, Refused, EngineError."""
        async with self._told(), session.get(self.url + path, allow_redirects=False) as response:
            body = await response.read()
            self._refuse(response, body, path)
            return decoded(body.decode(errors="replace"))

    async def get_patiently(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        """``get`` with at most three tries. Raises Refused, Lost, EngineError."""
        return await self._patient(lambda: self.get(session, path), most=3)

    async def ask(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> Answer:
        """The answer to one request, streamed where ``body`` says so. Raises Refused, Lost, EngineError."""
        once = self._streamed if body.get("stream") else self._whole
        answer = await self._patient(lambda: once(session, path, body))
        self.answered.add(path)
        return answer

    async def raw(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers a request. Raises Refused, Lost, EngineError."""
        return await self._patient(lambda: self._json(session, path, body))

    async def _patient(self, once: Callable[[], Awaitable[T]], most: int = 1000) -> T:
        for tried in itertools.count(1):
            await self._pause()
            try:
                return await once()
            except Again as problem:
                if not problem.reached and (why := self.dead()):
                    raise EngineError(f"{self.url}: {why}") from None
                asked = problem.asked_s
                if tried >= min(most, self.patience.tries) or asked > self.patience.asked_s or problem.final:
                    times = f" in {tried} tries" if tried > 1 else ""
                    raise Lost(f"no answer{times}: {problem}", reached=problem.reached) from None
                if asked:
                    self.pause_until = max(self.pause_until, time.monotonic() + asked)
                await asyncio.sleep(self.patience.wait(tried, asked, self.chance))
        raise AssertionError("unreachable")

    async def _pause(self) -> None:
        while (left := self.pause_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _json(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self._told(), session.post(self.url + path, json=body, allow_redirects=False) as response:
            data = await response.read()
            self._refuse(response, data, path)
            return decoded(data.decode(errors="replace"))

    async def _whole(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> Answer:
        began = time.perf_counter()
        async with self._told():
            reply = whole(await self._json(session, path, body))
        return Answer(reply, time.perf_counter() - began, None)

    async def once(
        self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any], heard: Callable[[], None]
    ) -> Answer:
        """One try of a streamed request; ``heard`` is called for each piece that brings something of the answer.

        Raises Again, Refused, EngineError.
        """
        return await self._streamed(session, path, body, heard)

    async def _streamed(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: Mapping[str, Any],
        heard: Callable[[], None] = lambda: None,
    ) -> Answer:
        began, first, said = time.perf_counter(), None, 0
        events, stream = Events(), Stream()
        async with self._told(), session.post(self.url + path, json=body, allow_redirects=False) as response:
            if response.status != 200 or "event-stream" not in response.headers.get("Content-Type", ""):
                data = await response.read()
                self._refuse(response, data, path)
                reply = whole(decoded(data.decode(errors="replace")))  # some servers answer whole all the same
                ended = time.perf_counter()
                return Answer(reply, ended - began, None, response.headers, (), ended)
            async for piece in response.content.iter_any():
                for event in events.feed(piece):
                    stream.take(event)
                if first is None and stream.reply.said:
                    first = time.perf_counter() - began
                if stream.pieces > said:
                    said = stream.pieces
                    heard()
                if stream.reply.over:
                    break
            for event in [] if stream.reply.over else events.end():
                stream.take(event)
            ended = time.perf_counter()
            await _drain(response)
            return Answer(stream.end(), ended - began, first, response.headers, tuple(events.comments), ended)

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """What the network and a broken server do, in sentences."""
        try:
            yield
        except TimeoutError:
            raise Again(f"no answer within {self.patience.timeout_s:g} s", reached=False) from None
        except Malformed as broken:
            raise Again(self.shown(str(broken))) from None
        except Told as told:
            if told.status is not None and 400 <= told.status < 500 and told.status not in AGAIN:
                raise Refused(self.shown(str(told)), told.status, "") from None
            raise Again(f"the server broke off: {self.shown(str(told))}") from None
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionResetError):
            raise Again("the connection was cut before the answer ended", reached=False) from None
        except aiohttp.ClientConnectorError as problem:
            raise Again(f"cannot be reached ({problem.strerror or problem.os_error})", reached=False) from None
        except (aiohttp.ClientError, OSError) as problem:
            raise Again(self.shown(f"the connection failed ({problem})"), reached=False) from None

    def _refuse(self, response: aiohttp.ClientResponse, data: bytes, path: str) -> None:
        """Raises for every status but 200."""
        status = response.status
        if status == 200:
            return
        said, code = said_in(data)
        sentence = self.shown(f"{said or response.reason or 'no reason given'} (status {status})")
        if 300 <= status < 400:
            raise EngineError(
                f"{self.url}: sends elsewhere ({sentence}); write the address that it sends to under 'url'"
            )
        if status in KEYS:
            what = "a key is needed" if self.key is None else "the key is not accepted"
            do = "name the environment variable that holds one under 'api_key_env'"
            raise EngineError(f"{self.url}: {what}: {sentence}; {do if self.key is None else 'check it'}")
        if status in ROUTES and path in self.answered:
            raise EngineError(f"{self.url}: no longer has the model: {sentence}; serve it again and run again")
        if status in AGAIN or (status >= 500 and status not in ROUTES):
            again = response.headers.get("x-should-retry", "").lower() != "false"
            raise Again(sentence, asked_wait(response.headers), final=not again)
        raise Refused(sentence, status, code)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """What comes behind [DONE], so that the connection can serve again; who holds it open is not waited for."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(DRAIN_S):
            await response.content.read()


def said_in(data: bytes) -> tuple[str, str]:
    """The server's words and its code in an error's body; nothing where it is no JSON."""
    try:
        body = decoded(data.decode(errors="replace"))
    except Malformed as other:
        plain = " ".join(data[:200].decode(errors="replace").split())
        return (str(other) if plain.startswith("<") else plain), ""
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return error_sentence(body), code if isinstance(code, str) else ""


def asked_wait(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float:
    """Seconds that a server asks to wait: ``retry-after-ms``, or Retry-After as seconds or a date (RFC 9110, 10.2.3).

    >>> asked_wait({"Retry-After": "3"}), asked_wait({"Retry-After": "soon"})
    (3.0, 0.0)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("Retry-After", 1.0)):
        written = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", written):
            return float(written) * unit
        if written and name == "Retry-After":
            try:
                return max(0.0, email.utils.parsedate_to_datetime(written).timestamp() - now())
            except (ValueError, OverflowError):
                return 0.0
    return 0.0
