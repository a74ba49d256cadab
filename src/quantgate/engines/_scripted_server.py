"""A scripted OpenAI-compatible server, which answers by a function and breaks as it is told to. For tests and trials.

    with ScriptedServer(lambda body: last(body).upper()) as server:
        server.next(Fault("status", status=429, headers={"Retry-After": "1"}), Fault("cut"))
        open_engine(server.url).generate(prompts)
        server.asked, server.most_at_once, server.left

It listens on loopback, in a thread of its own. A fault is used up by one request for an answer, in the order given;
``always`` decides request by request instead. What a fault does not touch is true: usage, finish reasons, a stream of
one token a chunk, tool calls in pieces, log probabilities of a model that counts (``_scripted_model``).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from quantgate.engines._scripted_model import (
    Made,
    Says,
    asked_text,
    deltas,
    echoed,
    make,
    message_of,
    prompt_rows,
    rendered,
    sse,
)

Kind = Literal[
    "slow",  # the whole answer after ``seconds``
    "stall",  # nothing at all until the client leaves
    "stall_midway",  # ``after`` chunks (or the headers), and then nothing
    "cut",  # the connection closes after ``after`` chunks, or in the middle of the body
    "reset",  # the connection closes before anything
    "html",  # a web page with ``status``
    "status",  # an error with ``status``, ``headers`` and ``text``
    "truncated",  # half of the JSON
    "shape",  # ``value`` in place of the answer, or of a chunk
    "malformed",  # a chunk that is no JSON, after ``after`` good ones
    "error_event",  # an error as a chunk, after ``after`` good ones, with ``status`` as its code
    "early_end",  # a stream that ends well-formed, before the answer does
    "no_usage",  # the answer without a count of tokens
    "no_done",  # a stream without [DONE]
    "no_index",  # calls of tools without their index
    "other_model",  # the answer in the name of ``text``
]


@dataclass(frozen=True)
class Fault:
    """One way to break one answer."""

    kind: Kind
    seconds: float = 0.2
    after: int = 2  # chunks that go out well
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = "scripted fault"
    code: str = ""  # of an error
    value: Any = None


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Answer = Callable[[dict[str, Any]], "Says | str"]


class ScriptedServer:
    """See the module. ``asked`` holds every request for an answer; ``left`` counts clients that went before the end."""

    def __init__(
        self,
        answer: Answer | Mapping[str, str] = lambda body: asked_text(body)[::-1],
        *,
        models: tuple[str, ...] = ("scripted",),
        key: str | None = None,
        always: Callable[[Asked], Fault | None] = lambda _asked: None,
        rows: bool = True,
        timings: bool = False,
        owner: str = "quantgate",
        version: str = "1.0",
    ) -> None:
        """``key`` is the secret that is wanted; ``rows``: whether log probabilities of given text are offered."""
        self.answer: Answer = answer if callable(answer) else lambda body: answer[last(body)]
        self.models, self.key, self.always = models, key, always
        self.rows, self.timings, self.owner, self.version = rows, timings, owner, version
        self.asked: list[Asked] = []
        self.faults: deque[Fault] = deque()
        self.at_once = self.most_at_once = self.left = self.port = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.ready, self.over = threading.Event(), asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def next(self, *faults: Fault) -> None:
        """Break the next answers, one fault each."""
        self.faults.extend(faults)

    def __enter__(self) -> Self:
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Close every connection and the port; may be called twice."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.over.set)
            self.thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.ready.set()
            self.loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/chat/completions", self._ask)
        app.router.add_post("/v1/completions", self._ask)
        runner = web.AppRunner(
            app, handle_signals=False, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.ready.set()
        await self.over.wait()
        await runner.cleanup()

    def _locked(self, request: web.Request) -> web.Response | None:
        if self.key is None or request.headers.get("Authorization") == f"Bearer {self.key}":
            return None
        return _error(401, f"Incorrect API key provided: {request.headers.get('Authorization', '')}", "invalid_api_key")

    async def _models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model", "owned_by": self.owner, "max_model_len": 4096} for name in self.models]
        return self._locked(request) or web.json_response({"object": "list", "data": rows})

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = Asked(request.path, dict(request.headers), body)
        self.asked.append(asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self._locked(request) or self._unknown(body) or await self._answered(request, asked)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left += 1
            raise
        finally:
            self.at_once -= 1

    def _unknown(self, body: Mapping[str, Any]) -> web.Response | None:
        if body.get("model") in self.models:
            return None
        return _error(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")

    async def _answered(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else self.always(asked)
        if fault is not None:
            broken = await self._before(request, fault)
            if broken is not None:
                return broken
        says = self.answer(asked.body)
        made = make(Says(says) if isinstance(says, str) else says, asked.body)
        head = self._head(asked.body, fault)
        if asked.body.get("stream"):
            return await self._stream(request, asked, made, head, fault)
        return await self._whole(request, asked, made, head, fault)

    async def _before(self, request: web.Request, fault: Fault) -> web.StreamResponse | None:
        """Faults that come before any answer."""
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "stall":
            await asyncio.sleep(3600)
        if fault.kind == "reset":
            _close(request)
            return web.Response()
        if fault.kind == "html":
            page = "<!doctype html><html><body><h1>Bad gateway</h1></body></html>"
            return web.Response(status=fault.status, text=page, content_type="text/html", headers=dict(fault.headers))
        if fault.kind == "status":
            return _error(fault.status, fault.text, fault.code, fault.headers)
        return None

    def _head(self, body: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
        chat = "messages" in body
        model = fault.text if fault is not None and fault.kind == "other_model" else body["model"]
        kind = "chat.completion" if chat else "text_completion"
        return {"id": f"scripted-{len(self.asked)}", "object": kind, "created": 1, "model": model}

    async def _whole(
        self, request: web.Request, asked: Asked, made: Made, head: dict[str, Any], fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        chat = "messages" in asked.body
        said: dict[str, Any] = {"message": message_of(made)} if chat else {"text": "".join(made.pieces)}
        answer = head | {"choices": [{"index": 0, **said, "finish_reason": made.finish}], "usage": made.usage}
        answer |= self._beside(asked.body, answer)
        if kind == "no_usage":
            del answer["usage"]
        if fault is not None and kind == "shape":
            answer = fault.value
        data = json.dumps(answer).encode()
        if kind == "truncated":
            data = data[: len(data) // 2]
        if kind not in ("cut", "stall_midway"):
            return web.Response(body=data, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if kind == "stall_midway":
            await asyncio.sleep(3600)
        _close(request)
        return response

    def _beside(self, body: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
        """What is only given when it is asked for: timings, and log probabilities of the text."""
        more: dict[str, Any] = {}
        if self.timings:
            more["timings"] = {"prompt_ms": 20.0, "predicted_ms": 30.0}
        if self.rows and body.get("echo") and body.get("logprobs"):
            more["choices"] = [{**answer["choices"][0], "logprobs": echoed(body["prompt"], int(body["logprobs"]))}]
        if self.rows and body.get("prompt_logprobs"):
            text = rendered(body["messages"], answer=body.get("add_generation_prompt", True))
            more["prompt_logprobs"] = prompt_rows(text, int(body["prompt_logprobs"]))
        return more

    async def _stream(
        self, request: web.Request, asked: Asked, made: Made, head: dict[str, Any], fault: Fault | None
    ) -> web.StreamResponse:
        kind, chat = (fault.kind if fault else ""), "messages" in asked.body
        head = head | ({"object": "chat.completion.chunk"} if chat else {})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for at, delta in enumerate(deltas(made)):
            if fault is not None and at == fault.after and await self._midway(request, response, fault):
                return response
            if kind == "no_index" and "tool_calls" in delta:
                delta = {"tool_calls": [_bare(call) for call in delta["tool_calls"]]}
            said = {"delta": delta} if chat else {"text": delta.get("content", "")}
            await response.write(sse(head | {"choices": [{"index": 0, **said, "finish_reason": None}]}))
        if kind == "early_end":
            return response
        last_one: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        await response.write(sse(head | {"choices": [{"index": 0, **last_one, "finish_reason": made.finish}]}))
        if (asked.body.get("stream_options") or {}).get("include_usage") and kind != "no_usage":
            more = {"timings": {"prompt_ms": 20.0, "predicted_ms": 30.0}} if self.timings else {}
            await response.write(sse(head | {"choices": [], "usage": made.usage} | more))
        if kind != "no_done":
            await response.write(sse("[DONE]"))
        return response

    async def _midway(self, request: web.Request, response: web.StreamResponse, fault: Fault) -> bool:
        """A fault in the middle of a stream; whether nothing more is to be sent."""
        if fault.kind == "stall_midway":
            await asyncio.sleep(3600)
        if fault.kind == "cut":
            _close(request)
            return True
        if fault.kind == "malformed":
            await response.write(b'data: {"choices": [{"delta"\n\n')
        if fault.kind == "shape":
            await response.write(sse(fault.value))
        if fault.kind == "error_event":
            await response.write(sse({"error": {"message": fault.text, "type": "server_error", "code": fault.status}}))
            return True
        return False


def _bare(call: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name != "index"}


def _close(request: web.Request) -> None:
    """The connection, without a word."""
    with suppress(AttributeError):
        request.transport.abort()  # type: ignore[union-attr]


def _error(status: int, text: str, code: str = "", headers: Mapping[str, str] = {}) -> web.Response:
    body = {"error": {"message": text, "type": "scripted", "param": None, "code": code or None}}
    return web.json_response(body, status=status, headers=dict(headers))


def last(body: Mapping[str, Any]) -> str:
    """What the last message of a request says, or its whole plain prompt."""
    if "messages" in body:
        return str(body["messages"][-1].get("content") or "")
    return str(body.get("prompt", ""))
