"""A scripted upstream, which answers truly or lies in every way that upstreams have been seen to. For tests and trials.

    with ScriptedUpstream() as upstream:
        upstream.next(Script("cut", after=2))
        HttpUpstream(upstream.url, "scripted") ...
        upstream.asked, upstream.aborts

It speaks HTTP over plain sockets, so that it may break off anywhere, and runs in a thread of its own. What it does is
said by ``next`` for the next requests, by ``always`` request by request, or by the model's name, which is how
a command line says it: ``scripted:cut,after=2``. ``aborts`` holds when a client left, and in which stage it was.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

import orjson

from quantgate.serve import Body
from quantgate.serve._scripted_wire import completion, error, head, http, page, pieces, usage

Kind = Literal[
    "true",  # as it should be
    "reset",  # the connection closes before anything
    "stall",  # nothing at all, until the client leaves
    "stall_midway",  # ``after`` chunks, and then nothing
    "slow",  # ``seconds`` before the first byte, and before each chunk
    "cut",  # the connection closes after ``after`` chunks, or in the middle of the body
    "early_end",  # the stream ends well-formed after ``after`` chunks, without [DONE]
    "no_done",  # the whole answer, without [DONE]
    "malformed",  # after ``after`` chunks one that is no JSON; a body that is none
    "error_event",  # after ``after`` chunks an error as an event; an error object with status 200
    "status",  # an error with ``status``
    "wrong_type",  # a web page where events or JSON were expected
    "endless",  # chunks without end
    "blanks",  # a run of blanks without end
    "no_choices",  # a body that is JSON, and no answer
    "no_usage",  # without a count of tokens
]
STAGE = Literal["prefill", "stream", "whole"]


@dataclass(frozen=True)
class Script:
    """One way to answer one request."""

    kind: Kind = "true"
    after: int = 2
    seconds: float = 0.0
    status: int = 500
    text: str | None = None  # the content instead of what ``answer`` says
    message: Mapping[str, Any] | None = None  # the whole message instead
    finish: str = "stop"
    pieces: Sequence[str] | None = None  # of the content, in a stream
    chunks: Sequence[Mapping[str, Any]] | None = None  # the deltas of a stream, word for word
    held: bool = False  # break off only when ``go_on`` is called
    raw: bytes | None = None  # these bytes for an answer, HTTP and all; the connection stays open

    @classmethod
    def of(cls, name: str) -> Script | None:
        """
        >>> Script.of("scripted:cut,after=3").after
        3
        """
        _, colon, said = name.partition(":")
        if not colon:
            return None
        kind, *more = said.split(",")
        if kind not in get_args(Kind):
            return None
        kinds: dict[str, Any] = {
            one.name: type(one.default) for one in fields(cls) if isinstance(one.default, int | float | str)
        }
        given = dict(pair.split("=", 1) for pair in more if "=" in pair)
        return cls(cast(Kind, kind), **{key: kinds[key](value) for key, value in given.items() if key in kinds})


@dataclass(frozen=True)
class Abort:
    """A client that left before the end."""

    at: float  # monotonic
    stage: STAGE
    sent: int  # chunks that had gone out


Answer = Callable[[Body], str]


def echo(body: Body) -> str:
    """The last message's text, reversed.

    >>> echo({"messages": [{"role": "user", "content": "abc"}]})
    'cba'
    """
    content = body["messages"][-1].get("content")
    return (content if isinstance(content, str) else "")[::-1] or "nothing"


class ScriptedUpstream:
    """See the module. ``asked`` holds the body of each request for an answer."""

    def __init__(
        self,
        answer: Answer = echo,
        *,
        models: Sequence[str] = ("scripted",),
        always: Callable[[Body], Script | None] = lambda _body: None,
        key: str | None = None,
    ) -> None:
        self.answer, self.models, self.always, self.key = answer, tuple(models), always, key
        self.asked: list[Body] = []
        self.aborts: list[Abort] = []
        self.connections = self.port = self.at_once = self.most_at_once = 0
        self.sent = 0  # chunks of all streams
        self._scripts: deque[Script] = deque()
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready, self._over = threading.Event(), asyncio.Event()
        self.going = asyncio.Event()
        self._tasks = set[asyncio.Task[Any]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def next(self, *scripts: Script) -> None:
        """What the next requests get, one each."""
        self._scripts.extend(scripts)

    def forget(self) -> None:
        """What ``next`` said and nobody asked for."""
        self._scripts.clear()

    def go_on(self) -> None:
        """What is held may happen now."""
        self._loop.call_soon_threadsafe(self.going.set)

    def wait(self, what: Callable[[Self], bool], seconds: float = 20.0) -> bool:
        """Until ``what`` is true of this server, such as one more abort; False where it never became so."""
        with self._changed:
            return self._changed.wait_for(lambda: what(self), seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and every connection; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # start_server runs it in one
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request of a connection; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ", 2)
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            writer.write(http(401, error("Incorrect API key provided", "invalid_api_key")))
            return True
        if method == "GET":
            rows = [{"id": name, "object": "model", "owned_by": "quantgate"} for name in self.models]
            found = path.endswith("/models")
            writer.write(http(200 if found else 404, {"object": "list", "data": rows} if found else error("no path")))
            return True
        return await self._answered(orjson.loads(raw), reader, writer)

    async def _answered(self, body: Body, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        script = self._scripts.popleft() if self._scripts else self.always(body)
        script = script or Script.of(str(body.get("model"))) or Script()
        self.asked.append(body)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._tell()
        telling = Telling(self, script, body, writer)
        work = asyncio.create_task(telling.tell())
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not isinstance(work.exception(), ConnectionError):
                return work.result()
            self.aborts.append(Abort(monotonic(), telling.stage, telling.sent))
            return False
        finally:
            self.at_once -= 1
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self._tell()


@dataclass
class Telling:
    """One answer, as its script says. ``stage`` and ``sent`` tell how far it has come."""

    server: ScriptedUpstream
    script: Script
    body: Body
    writer: asyncio.StreamWriter
    stage: STAGE = "prefill"
    sent: int = 0

    async def tell(self) -> bool:
        """Whether the connection may be kept."""
        script, writer = self.script, self.writer
        if script.kind == "reset":
            writer.transport.abort()
            return False
        if script.kind == "stall":
            await asyncio.Event().wait()
        await asyncio.sleep(script.seconds)
        if script.raw is not None:
            writer.write(script.raw)
            await writer.drain()
            return True
        if script.kind == "status":
            writer.write(http(script.status, error("scripted fault", "scripted"), retry="2"))
            return True
        if script.kind == "wrong_type":
            writer.write(page())
            return True
        return await (self._stream() if self.body.get("stream") else self._whole())

    async def _whole(self) -> bool:
        self.stage = "whole"
        answer: Any = completion(self.body, self._message(), self.script.finish)
        match self.script.kind:
            case "malformed":
                data = http(200, None, raw=orjson.dumps(answer)[:-20])
            case "error_event":
                data = http(200, error("scripted fault", "scripted"))
            case "no_choices":
                data = http(200, {"object": "chat.completion", "choices": []})
            case "no_usage":
                data = http(200, {key: value for key, value in answer.items() if key != "usage"})
            case "cut" | "early_end" | "stall_midway":
                data = http(200, answer)[:-20]
            case _:
                data = http(200, answer)
        self.writer.write(data)
        await self.writer.drain()
        if self.script.kind == "stall_midway":
            await asyncio.Event().wait()
        return self.script.kind not in ("cut", "early_end")

    def _message(self) -> Mapping[str, Any]:
        if self.script.message is not None:
            return self.script.message
        text = self.script.text if self.script.text is not None else self.server.answer(self.body)
        return {"role": "assistant", "content": text}

    async def _stream(self) -> bool:
        kind, writer = self.script.kind, self.writer
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        async for chunk in self._chunks():
            if kind in BREAKS and self.sent >= self.script.after:
                return await self._break()
            await self._send(b"data: " + orjson.dumps(chunk) + b"\n\n")
            self.sent += 1
            self.server.sent += 1
            self.stage = "stream"
        if kind in BREAKS:
            return await self._break()
        if kind != "no_done":
            await self._send(b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        return True

    async def _send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def _break(self) -> bool:
        if self.script.held:
            await self.server.going.wait()
        match self.script.kind:
            case "stall_midway":
                await asyncio.Event().wait()
            case "malformed":
                await self._send(b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n')
            case "error_event":
                await self._send(b"data: " + orjson.dumps(error("scripted fault", "scripted")) + b"\n\n")
            case "cut":
                await self.writer.drain()
                return False
        self.writer.write(b"0\r\n\r\n")
        return True

    async def _chunks(self) -> AsyncIterator[Body]:
        deltas = self._endless() if self.script.kind in ("endless", "blanks") else self._deltas()
        for delta, finish in deltas:
            if self.script.kind == "slow" and self.script.seconds:
                await asyncio.sleep(self.script.seconds)
            yield head(self.body) | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            if self.script.kind in ("endless", "blanks"):
                await asyncio.sleep(0.001)
        if (self.body.get("stream_options") or {}).get("include_usage") and self.script.kind != "no_usage":
            yield head(self.body) | {"choices": [], "usage": usage(self.body, self._message())}

    def _endless(self) -> Iterator[tuple[Mapping[str, Any], str | None]]:
        if self.script.kind == "blanks":
            yield {"content": "{"}, None
        while True:
            yield {"content": "word " if self.script.kind == "endless" else "\n  "}, None

    def _deltas(self) -> Iterator[tuple[Mapping[str, Any], str | None]]:
        if self.script.chunks is not None:
            yield from ((chunk, None) for chunk in self.script.chunks)
            yield {}, self.script.finish
            return
        message = self._message()
        yield {"role": "assistant", "content": ""}, None
        content = message.get("content") or ""
        for piece in self.script.pieces if self.script.pieces is not None else pieces(content):
            yield {"content": piece}, None
        for at, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            begun = {"index": at, "id": call["id"], "type": "function"}
            yield {"tool_calls": [begun | {"function": {"name": function["name"], "arguments": ""}}]}, None
            for piece in pieces(function["arguments"]):
                yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, None
        yield {}, self.script.finish


BREAKS = ("cut", "early_end", "stall_midway", "malformed", "error_event")
