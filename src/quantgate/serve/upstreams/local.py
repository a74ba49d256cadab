"""An engine of this process behind the gateway: ``quantgate serve`` on a laptop, with no server beside it.

    upstream = LocalUpstream(lambda: open_engine(model, artifact), name="W4A16")

The engine lives in one thread (see ``_desk``). Answers are greedy unless a request names a temperature, for so the
variant was judged: their text is that of ``engine.generate``. A schema that compiles holds the answer to it token by
token (``_forms``); the checks behind the gateway hold for every answer all the same.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson

from quantgate.engines._kept import Keep
from quantgate.engines._sampling import Logprob
from quantgate.engines._token_stream import Answer, Piece, TokenStream
from quantgate.errors import DataError, EngineError, ModelError, QuantgateError
from quantgate.models.tools import messages_for
from quantgate.serve import Body, Chunk, Reply, UpstreamFault
from quantgate.serve.upstreams._desk import Desk, Job
from quantgate.serve.upstreams._forms import Forms
from quantgate.serve.upstreams._local_ask import Asked, asked, refused
from quantgate.serve.upstreams._local_said import Said, logprobs


class LocalUpstream:
    """See ``serve.Upstream``. ``open`` is called once, in the engine's own thread, by ``start``."""

    def __init__(
        self,
        open: Callable[[], Any],
        *,
        name: str,
        at_once: int = 4,
        waiting: int = 64,
        keep: Keep | None = None,
        constrain: bool = True,
    ) -> None:
        """``at_once`` answers are written in turns and ``waiting`` more may wait; ``keep`` says how much of past
        conversations is kept for those that begin alike; ``constrain`` False leaves schemas to the checks alone."""
        self.name, self._open, self._constrain = name, open, constrain
        self._desk, self._keep = Desk(at_once, waiting), keep
        self._stream: TokenStream | None = None
        self._forms: Forms | None = None
        self.fingerprint = ""

    async def start(self) -> None:
        """Open the engine. Raises what it raises, and EngineError for a model without a chat template."""
        if self._stream is None:
            self._desk.start()
            try:
                await self._desk.call(self._begin)
            except BaseException:
                await self._desk.close()
                raise

    def _begin(self) -> None:
        engine = self._open()
        if not engine.source.tokenizer.chat_template:
            raise EngineError(
                f"{engine.source.path}: the tokenizer has no chat template, so no conversation can be answered; add "
                "'chat_template' to tokenizer_config.json"
            )
        stream = TokenStream(engine, self._keep, at_once=self._desk.at_once)
        self._forms = Forms(engine.source.tokenizer) if self._constrain else None
        self.fingerprint = str(engine.identity.weights).removeprefix("sha256:")[:16]
        self._stream = stream

    async def close(self) -> None:
        await self._desk.close()

    async def ready(self) -> str | None:
        """The digest of what is loaded: of the artifact, or of the baseline's weights."""
        return None if self._stream is None else str(self._stream.engine.identity.weights)

    async def ask(self, body: Body, *, timeout_s: float | None) -> Reply:
        """Raises UpstreamFault."""
        wanted = asked(body)
        job, said = self._job(body, wanted), Said(bool(wanted.tools))
        texts, chances, finish = list[str](), list[Logprob](), "stop"
        try:
            async with asyncio.timeout(timeout_s), aclosing(_told(job)) as pieces:
                async for piece in pieces:
                    texts.append(said.push(piece.text))
                    chances += piece.logprobs
                    finish = piece.finish or finish
        except TimeoutError:
            raise _late(timeout_s) from None
        content = "".join(texts) + said.end()
        message: Body = {"role": "assistant", "content": content or (None if said.calls else ""), "refusal": None}
        if said.calls:
            message["tool_calls"], finish = said.calls, "tool_calls" if finish == "stop" else finish
        choice: Body = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        if wanted.sampling.logprobs is not None:
            choice["logprobs"] = logprobs(chances, self._spell)
        answer = {**self._head("chat.completion"), "choices": [choice], "usage": _usage(job)}
        return Reply(200, answer, orjson.dumps(answer), dict(job.stages))

    async def stream(self, body: Body, *, timeout_s: float | None) -> AsyncGenerator[Chunk]:
        """Raises UpstreamFault. ``timeout_s`` is for the time to each next step; the last chunk holds usage, and in its
        body, not in its line, the stages."""
        wanted = asked(body)
        job, said = self._job(body, wanted), Said(bool(wanted.tools))
        head, first, finish = self._head("chat.completion.chunk"), {"role": "assistant"}, "stop"
        chunk = partial(_chunk, head, tells=wanted.sampling.logprobs is not None)
        async with aclosing(_told(job, timeout_s)) as pieces:
            async for piece in pieces:
                text = said.push(piece.text)
                finish = piece.finish or finish
                if piece.finish:
                    text += said.end()
                if text or piece.logprobs:
                    chances = logprobs(piece.logprobs, self._spell) if piece.logprobs else None
                    yield chunk({**first, "content": text}, logprobs=chances)
                    first = {}
        for at, call in enumerate(said.calls):
            yield chunk({**first, "tool_calls": [{"index": at, **call}]})
            first = {}
        if said.calls and finish == "stop":
            finish = "tool_calls"
        yield chunk({**first, "content": ""} if first else {}, finish=finish)
        last = {**head, "choices": [], "usage": _usage(job)}
        yield Chunk(b"data: " + orjson.dumps(last), {**last, "quantgate": {"stages": dict(job.stages)}})

    def _job(self, body: Body, wanted: Asked) -> Job:
        stream = self._stream
        if stream is None:
            raise UpstreamFault("refused", "the engine of this process is not started", status=503)
        return self._desk.ask(partial(self._answer, stream, body, wanted))

    def _answer(self, stream: TokenStream, body: Body, wanted: Asked) -> Answer:
        """In the engine's thread: the prompt as tokens, the form that holds the answer, and the answer unwritten."""
        source = stream.engine.source
        messages, tools = messages_for(source.tokenizer, wanted.turns, wanted.tools)
        try:
            ids = stream.ids(source.render(messages, tools=tools))
        except (DataError, ModelError) as problem:
            raise refused("messages", str(problem), "invalid_messages") from None
        room = stream.context - len(ids)
        most = wanted.max_tokens or room
        if room < 1 or most > room:
            raise refused(
                "messages",
                f"the context has {stream.context} tokens; the messages are {len(ids)} and the answer may be "
                f"{wanted.max_tokens or 'of any length'}: shorten the messages, or lower max_tokens",
                "context_length_exceeded",
            )
        largest = max(wanted.sampling.bias, default=0)
        if largest >= int(source.config.vocab_size) or min(wanted.sampling.bias, default=0) < 0:
            raise refused("logit_bias", f"logit_bias: this model has no token {largest}", "invalid_value")
        mask = self._forms.mask(body, wanted) if self._forms else None
        return stream.texts(ids, most, wanted.sampling, mask=mask, stop=wanted.stop)

    def _spell(self, token: int) -> str:
        assert self._stream is not None
        return self._stream.spell(token)

    def _head(self, kind: str) -> Body:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": self.fingerprint,
        }


async def _told(job: Job, timeout_s: float | None = None) -> AsyncGenerator[Piece]:
    """The pieces of a job; whatever goes wrong is an UpstreamFault. Leaving it ends the work."""
    async with aclosing(job.pieces()) as pieces:
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _late(timeout_s) from None
            except UpstreamFault:
                raise
            except QuantgateError as problem:
                raise UpstreamFault("error_event", str(problem), status=500) from None
            except Exception as problem:
                kind = type(problem).__name__
                raise UpstreamFault(
                    "error_event", f"the engine of this process failed: {kind}", status=500
                ) from problem
            yield piece


def _late(timeout_s: float | None) -> UpstreamFault:
    return UpstreamFault("timeout", f"the engine of this process did not answer within {timeout_s:g} s", status=504)


def _chunk(head: Body, delta: Body, *, finish: str | None = None, logprobs: Any = None, tells: bool) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    if tells:
        choice["logprobs"] = logprobs
    body = {**head, "choices": [choice], "usage": None}
    return Chunk(b"data: " + orjson.dumps(body), body)


def _usage(job: Job) -> Body:
    answer = job.answer
    assert answer is not None
    prompt, made = len(answer.prompt), len(answer.made)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": answer.reused},
    }
