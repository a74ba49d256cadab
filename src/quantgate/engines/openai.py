"""Any OpenAI-compatible server as an engine: vLLM, SGLang, llama.cpp, TGI, Ollama, a vendor.

    engine = open_engine("http://127.0.0.1:8000/v1", model="qwen", key=secret, revision="2026-11-02")
    engine.generate(prompts)

A server says what it likes about itself, so the identity keeps what was said apart from what is known. ``weights`` is
the digest of real bytes only for an artifact that the caller launched; else it is a digest of names, and ``declared``.
Without a ``revision`` nobody vouches that the same name means the same weights tomorrow: such an engine's identity
holds a mark of its own, and its answers are never taken for those of a later one.

A request that finally failed is a Failure, ``lost`` where it says nothing about the model; an answer that a filter
withheld is a Completion, ``filtered``. What no other request can do better (a key, a model that is gone, a server that
no longer answers) raises EngineError.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from quantgate.engines import Completion, Failure, Identity, KernelPath, Prompt, TokenLogprobs
from quantgate.engines._openai_http import Answer, Client, Lost, Patience, Refused
from quantgate.engines._openai_known import Known
from quantgate.engines._openai_open import Served, learn
from quantgate.engines._openai_wire import (
    Schemas,
    completion_of,
    path_of,
    request_of,
    sampling_of,
    sampling_text,
)
from quantgate.errors import EngineError
from quantgate.records import digest_of

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TOO_LONG = ("context_length", "context length", "context window", "context size", "too long", "maximum context")


class OpenAIEngine:
    """See ``engines.Engine`` and ``engines.Remote``. Raises EngineError when the server cannot be asked."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        key: str | None = None,
        concurrency: int = 16,
        patience: Patience | None = None,
        sampling: Mapping[str, float] = {},
        schemas: Schemas = "json_schema",
        stream: bool = False,
        body: Mapping[str, Any] = {},
        revision: str = "",
        weights: str = "",
        tokenizer: str = "",
        template: str = "",
        launched: Sequence[str] = (),
        render: Callable[[Sequence[tuple[str, str]]], str] | None = None,
        dead: Callable[[], str] = lambda: "",
    ) -> None:
        """``url`` is where the API begins (``http://127.0.0.1:8000/v1``), ``key`` the secret that it wants.

        ``model`` may be left out where the server has one. ``body`` goes into every request. ``weights`` is the digest
        of the bytes that are known to be served; ``launched`` says how, and enters the identity. ``tokenizer`` and
        ``template`` are digests where they are known, ``render`` that template at work. ``dead`` says why a server
        that was started here has ended, or nothing.
        """
        self.client = Client(url, key, patience or Patience(), dead=dead)
        self.concurrency, self.stream, self.schemas, self.extra = concurrency, stream, schemas, dict(body)
        self.render = render
        self.declared = not weights
        self.sampling = sampling_of(sampling)
        self.served: Served = _now(self._session(lambda session: learn(self.client, session, model, self._sampled())))
        if not self.served.seeded:
            self.sampling.pop("seed", None)
        self.kernels: tuple[KernelPath, ...] = ()
        self.identity = self._identity(revision, weights, (tokenizer, template), launched)
        self.known = Known(self.client, self.served, render, self.extra)

    def _sampled(self) -> dict[str, Any]:
        return self.extra | self.sampling

    def _identity(self, revision: str, weights: str, text: tuple[str, str], launched: Sequence[str]) -> Identity:
        served = self.served
        counted = None if None in served.reads else list(served.reads)
        told = f"told by prompts of {counted} tokens" if counted else "not known"
        names = [served.model, served.reported, served.root, revision]
        mark = "" if weights or revision else f"{os.getpid()}-{os.urandom(8).hex()}"
        return Identity(
            engine="openai",
            weights=weights or digest_of(["declared", *names]),
            tokenizer=text[0] or digest_of(["prompts counted", counted]),
            template=text[1] or digest_of(["prompts counted", counted]),
            runtime=(
                *launched,
                *([] if launched else [f"url={self.client.url}"]),
                *([] if weights else [f"model={served.model}", f"answers as={served.reported}"]),
                f"server={served.server} {served.version}".strip(),
                f"weights={'known' if weights else 'declared'}",
                f"template={'known' if text[1] else told}",
                *([f"revision={revision}"] if revision else []),
                *([f"this session only={mark}"] if mark else []),
                f"concurrency={self.concurrency}",
                f"schemas={self.schemas}",
                f"seed={self.sampling.get('seed', 'not taken')}",
                *([f"body={digest_of(self.extra)[7:23]}"] if self.extra else []),
            ),
            sampling=sampling_text(self.sampling),
        )

    @property
    def sentence(self) -> str:
        """Who answered, and how much of that is known."""
        seen = "its bytes were not seen, they are what the server's operator declares" if self.declared else ""
        return f"answered as {self.served.sentence} at {self.client.url}" + (f"; {seen}" if seen else "")

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """Answers in the order asked, ``concurrency`` requests at a time. Raises EngineError as the module says."""
        return _now(self._session(lambda session: self._all(session, prompts))) if prompts else []

    async def _session(self, work: Callable[[aiohttp.ClientSession], Awaitable[T]]) -> T:
        async with self.client.session(self.concurrency) as session:
            return await work(session)

    async def _all(self, session: aiohttp.ClientSession, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        found: dict[int, Completion | Failure] = {}
        left = iter(enumerate(prompts))

        async def work() -> None:
            for at, prompt in left:
                found[at] = await self._one(session, prompt)

        workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(prompts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [found[at] for at in range(len(prompts))]

    async def _one(self, session: aiohttp.ClientSession, prompt: Prompt) -> Completion | Failure:
        try:
            if prompt.choices:
                return await self.known.choices(session, prompt)
            asked = request_of(prompt, schemas=self.schemas, budget_key=self.served.budget_key)
            body = {"model": self.served.model, **self._sampled(), **asked}
            if self.stream:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            return self._read(await self.client.ask(session, path_of(prompt), body))
        except Refused as refused:
            return refusal_of(refused)
        except Lost as lost:
            if not lost.reached:
                await self._still_there(session)
            return Failure(reason=str(lost), lost=True)

    def _read(self, answer: Answer) -> Completion | Failure:
        named = answer.reply.model
        if named and named != self.served.reported:
            return Failure(reason=f"answered by '{named}', and all before by '{self.served.reported}'", lost=True)
        return completion_of(answer.reply, answer.latency_s, answer.ttft_s)

    async def _still_there(self, session: aiohttp.ClientSession) -> None:
        """One lost request may be its own fault; raises EngineError where the server does not answer at all."""
        try:
            await self.client.get_patiently(session, "/models")
        except Lost as lost:
            if lost.reached:
                return
            sentence = f"no longer answers ({lost}); start it and run again, finished answers are kept"
            raise EngineError(f"{self.client.url}: {sentence}") from None
        except Refused:
            return  # it is there

    def answer_logprobs(self, turns: Sequence[tuple[str, str]], top: int) -> list[TokenLogprobs] | Failure:
        """See ``engines.Remote``. A Failure says why where the server gives no log probabilities of given text."""
        try:
            found: list[TokenLogprobs] | Failure = _now(
                self._session(lambda session: self.known.answer(session, turns, top))
            )
            return found
        except Refused as refused:
            return Failure(reason=f"the server refuses the request: {refused}", lost=True)
        except Lost as lost:
            return Failure(reason=str(lost), lost=True)

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        raise EngineError(f"{self.client.url}: a server of this kind gives no token ids; ask for 'answer_logprobs'")

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        raise EngineError(f"{self.client.url}: a server of this kind gives no logits; ask for 'answer_logprobs'")


def refusal_of(refused: Refused) -> Completion | Failure:
    """A filter in front of the model gives an answer of its own kind; a prompt that is too long is the model's limit;
    whatever else is refused says nothing about the model."""
    if refused.code == "content_filter":
        return Completion(text="", tokens=None, prompt_tokens=None, finish="filtered")
    long = any(word in f"{refused.code} {refused}".lower() for word in TOO_LONG)
    return Failure(reason=f"the server refuses the request: {refused}", lost=not long)


def _now(work: Any) -> Any:
    """Run to the end, here or, where a loop runs already (a notebook, an actor), in a thread beside it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    box: dict[str, Any] = {}

    def beside() -> None:
        try:
            box["found"] = asyncio.run(work)
        except BaseException as problem:
            box["problem"] = problem

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    if "problem" in box:
        raise box["problem"]
    return box["found"]


def open_engine(url: str, **settings: Any) -> OpenAIEngine:
    """An engine for a server; ``settings`` are those of ``OpenAIEngine``."""
    return OpenAIEngine(url, **settings)


ENGINE = open_engine
