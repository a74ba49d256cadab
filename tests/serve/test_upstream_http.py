"""A server behind the gateway, asked directly: connections, dialects, sockets, and what is told of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.serve.gateways import asked

from quantgate.serve import Body, UpstreamFault
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.upstreams import TRACE
from quantgate.serve.upstreams.dialects import PATCHES
from quantgate.serve.upstreams.http import HttpUpstream

T = TypeVar("T")
SCHEMA = {"type": "object"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}


def with_upstream(upstream: HttpUpstream, work: Callable[[HttpUpstream], Awaitable[T]]) -> T:
    async def run() -> T:
        await upstream.start()
        try:
            return await work(upstream)
        finally:
            await upstream.close()

    return asyncio.run(run())


def client(server: ScriptedUpstream, **more: Any) -> HttpUpstream:
    return HttpUpstream(server.url, "scripted", **more)


def test_connections_are_kept_over_whole_answers_and_streams() -> None:
    async def many(upstream: HttpUpstream) -> None:
        for _ in range(5):
            await upstream.ask(asked(), timeout_s=None)
            assert [chunk async for chunk in upstream.stream(asked(), timeout_s=None)]
            while upstream._draining:
                await asyncio.sleep(0)

    with ScriptedUpstream() as server:
        with_upstream(client(server), many)
        assert server.connections == 1 and len(server.asked) == 10


@pytest.mark.parametrize("kind", ["stall", "stall_midway", "endless"])
def test_a_stream_that_is_left_closes_its_connection(kind: Any) -> None:
    async def leave(upstream: HttpUpstream) -> None:
        async def read() -> None:
            async for _ in upstream.stream(asked(), timeout_s=None):
                pass

        task = asyncio.create_task(read())
        assert await asyncio.to_thread(server.wait, lambda one: len(one.asked) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(server.wait, lambda one: len(one.aborts) == 1)

    with ScriptedUpstream(always=lambda _body: Script(kind, text="some words")) as server:
        with_upstream(client(server), leave)


@pytest.mark.parametrize("stream", [False, True])
def test_its_own_time_limit_is_a_fault_of_its_own(stream: bool) -> None:
    async def wait(upstream: HttpUpstream) -> None:
        if stream:
            async for _ in upstream.stream(asked(), timeout_s=0.1):
                pass
        else:
            await upstream.ask(asked(), timeout_s=0.1)

    with (
        ScriptedUpstream(always=lambda _body: Script("stall_midway")) as server,
        pytest.raises(UpstreamFault) as caught,
    ):
        with_upstream(client(server), wait)
    assert (caught.value.kind, caught.value.status) == ("timeout", 504)


def test_ready_says_the_name_only_where_the_server_has_it() -> None:
    async def ready(upstream: HttpUpstream) -> str | None:
        return await upstream.ready()

    with ScriptedUpstream(models=("one", "two"), key="secret") as server:
        assert with_upstream(HttpUpstream(server.url, "two", key="secret"), ready) == "two"
        assert with_upstream(HttpUpstream(server.url, "three", key="secret"), ready) is None
        assert with_upstream(HttpUpstream(server.url, "two", key="wrong"), ready) is None
        url = server.url
    assert with_upstream(HttpUpstream(url, "two", key="secret"), ready) is None


def test_a_wrong_key_of_the_server_is_the_operators_affair_and_names_no_secret() -> None:
    async def ask(upstream: HttpUpstream) -> None:
        await upstream.ask(asked(), timeout_s=None)

    with ScriptedUpstream(key="right") as server, pytest.raises(UpstreamFault) as caught:
        with_upstream(client(server, key="wrong-secret"), ask)
    assert (caught.value.kind, caught.value.status) == ("status", 401)
    assert "wrong-secret" not in str(caught.value)


def test_a_server_that_is_not_there_says_why_and_what_was_not_started_is_refused() -> None:
    async def ask(upstream: HttpUpstream) -> None:
        await upstream.ask(asked(), timeout_s=None)

    with ScriptedUpstream() as server:
        url = server.url
    with pytest.raises(UpstreamFault, match="Connection refused") as caught:
        with_upstream(HttpUpstream(url, "scripted"), ask)
    assert caught.value.kind == "refused"
    with pytest.raises(UpstreamFault, match="not started"):
        asyncio.run(ask(HttpUpstream(url, "scripted")))


def test_a_unix_socket_is_asked_like_a_port(tmp_path: Path) -> None:
    where = str(tmp_path / "upstream.sock")
    body = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"}}]}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions ")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        writer.close()

    async def run() -> Body:
        server = await asyncio.start_unix_server(serve, where)
        upstream = HttpUpstream(f"unix:{where}", "scripted")
        await upstream.start()
        reply = await upstream.ask(asked(), timeout_s=10)
        await upstream.close()
        server.close()
        return reply.body

    assert asyncio.run(run())["choices"][0]["message"]["content"] == "hi"


def test_the_request_that_goes_out_is_the_clients_with_few_other_keys() -> None:
    async def both(upstream: HttpUpstream) -> None:
        body = asked(temperature=0.5, stream_options={"include_usage": False})
        before = dict(body)
        await upstream.ask(body, timeout_s=None)
        assert [chunk async for chunk in upstream.stream(body, timeout_s=None)]
        assert body == before

    with ScriptedUpstream() as server:
        with_upstream(client(server, extra={"top_k": 1, "temperature": 0.0}), both)
        whole, streamed = server.asked
        assert (whole["model"], whole["temperature"], whole["top_k"]) == ("scripted", 0.5, 1)
        assert "stream_options" not in whole and not whole["stream"]
        assert streamed["stream"] and streamed["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("dialect", "wanted"),
    [("openai", FORMAT), ("vllm", FORMAT), ("sglang", FORMAT), ("llamacpp", {"type": "json_object", "schema": SCHEMA})],
)
def test_a_schema_is_said_in_the_servers_own_words(dialect: str, wanted: Body) -> None:
    body: Body = {**asked(response_format=FORMAT, structured_outputs={"json": {}}), "max_completion_tokens": 3}
    PATCHES[dialect](body)
    assert body["response_format"] == wanted
    assert ("max_tokens" in body) is (dialect == "llamacpp")
    assert ("structured_outputs" in body) is (dialect != "vllm")


def test_a_server_that_traces_is_told_the_span_of_the_request() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        upstream = HttpUpstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "scripted")
        await upstream.start()
        TRACE.set("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        with pytest.raises(UpstreamFault):
            await upstream.ask(asked(), timeout_s=10)
        await upstream.close()
        server.close()

    asyncio.run(run())
    assert all(b"traceparent: 00-" + b"a" * 32 in head.lower() for head in heads) and heads
