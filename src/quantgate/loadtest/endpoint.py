"""An OpenAI-compatible endpoint under load: every request is streamed, once, with the times of all its pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import aiohttp

from quantgate.engines import Prompt
from quantgate.engines._openai_http import CONNECT_S, Again, Answer, Client, Lost, Patience, Refused
from quantgate.engines._openai_stream import Malformed
from quantgate.engines._openai_wire import as_messages, count, path_of, request_of
from quantgate.errors import EngineError
from quantgate.loadtest import Heard, Stage
from quantgate.loadtest.stages import from_body, from_comment, from_header

WARM_UP = (("user", "Hi"),)


class Endpoint:
    """See ``loadtest.Target``. Entering it asks one token, and raises EngineError where that does not succeed."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        key: str | None = None,
        timeout_s: float = 120.0,
        body: Mapping[str, Any] = {},
        name: str = "",
    ) -> None:
        """``url`` is where the API begins; ``body`` goes into every request (``{"ignore_eos": true}``)."""
        self.client = Client(url, key, Patience(timeout_s=timeout_s, tries=1))
        self.model, self.body, self.name = model, {"temperature": 0.0, **body}, name or url
        self.session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.client.key}"} if self.client.key else {},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),  # an open loop has no limit of its own
            timeout=aiohttp.ClientTimeout(total=self.client.patience.timeout_s, sock_connect=CONNECT_S),
        )
        try:
            self.model = self.model or await self._only_model()
            heard = await self.ask(Prompt(turns=WARM_UP, max_tokens=1))
            if heard.lost:
                raise EngineError(f"{self.client.url}: does not answer: {heard.lost}; mend that before it is loaded")
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(self, *problem: object) -> None:
        if self.session is not None:
            await self.session.close()
            await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def _only_model(self) -> str:
        assert self.session is not None
        try:
            listed = (await self.client.get_patiently(self.session, "/models")).get("data")
        except Lost as problem:
            raise EngineError(f"{self.client.url}: {problem}; start it, or mend the address") from None
        except Refused as problem:
            sentence = f"its models cannot be listed: {problem}; name one with --model"
            raise EngineError(f"{self.client.url}: {sentence}") from None
        names = [str(one.get("id")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        if len(names) != 1:
            has = ", ".join(names[:8]) or "none that it tells of"
            raise EngineError(f"{self.client.url}: has {len(names)} models ({has}); name one with --model")
        return names[0]

    async def ask(self, prompt: Prompt) -> Heard:
        """One streamed request; what went wrong stands in ``lost``, and a wrong key or route raises EngineError."""
        assert self.session is not None
        body = {**self.body, "model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        body |= request_of(prompt, schemas="json_schema")
        stamps: list[float] = []
        sent = time.perf_counter()
        try:
            answer = await self.client.once(
                self.session, path_of(prompt), body, lambda: stamps.append(time.perf_counter())
            )
        except Again as problem:
            return _lost(sent, stamps, str(problem), gone=not problem.reached and "reached" in str(problem))
        except (Refused, Malformed) as problem:
            return _lost(sent, stamps, str(problem))
        return _heard(sent, stamps, answer)

    async def prompt_tokens(self, text: str) -> int | None:
        """Tokens of a user's message as the endpoint counts them, template included; None where it does not say."""
        return (await self.ask(Prompt(turns=tuple(as_turns(text)), max_tokens=1))).prompt_tokens


def as_turns(text: str) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in as_messages([("user", text)])]


def _lost(sent: float, stamps: list[float], why: str, *, gone: bool = False) -> Heard:
    return Heard(sent=sent, first=stamps[0] if stamps else None, gaps_s=_gaps(stamps), lost=why, gone=gone)


def _heard(sent: float, stamps: list[float], answer: Answer) -> Heard:
    reply = answer.reply
    stages: dict[Stage, float] = from_body(reply.timings)
    stages |= from_header(answer.headers.get("server-timing", ""))
    for comment in answer.comments:
        stages |= from_comment(comment)
    return Heard(
        sent=sent,
        first=stamps[0] if stamps else None,
        last=answer.ended,
        gaps_s=_gaps(stamps),
        tokens=count(reply.usage, "completion_tokens"),
        prompt_tokens=count(reply.usage, "prompt_tokens"),
        stages=stages,
    )


def _gaps(stamps: list[float]) -> tuple[float, ...]:
    return tuple(later - earlier for earlier, later in pairwise(stamps))
