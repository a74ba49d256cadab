"""A server behind the gateway, asked directly: connections, dialects, sockets, and what is told of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.serve.gateways import asked

from quantgate.errors import UsageError
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
            while upstream._pool is not None and not upstream._pool._idle:
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


def replies(*parts: bytes, close: bool = True) -> Body | UpstreamFault:
    """What an upstream makes of these bytes, which come one by one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    async def run() -> Body | UpstreamFault:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        upstream = HttpUpstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "scripted")
        await upstream.start()
        try:
            return (await upstream.ask(asked(), timeout_s=10)).body
        except UpstreamFault as fault:
            return fault
        finally:
            await upstream.close()
            server.close()

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"content-length: 7\r\n\r\n", b'{"a":1}'),
        (OK + b"Content-Length: 7\r\n\r\n" + b'{"a":1}',),
        (OK, b"transfer-encoding: chunked\r\n", b"\r\n", b"3\r\n", b'{"a', b"\r\n4\r\n", b'":1}', b"\r\n0\r\n\r\n"),
        (OK + b"\r\n", b'{"a"', b":1}"),  # until it closes
        (b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n", b'{"a":1}'),
        (b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n", OK + b"content-length: 7\r\n\r\n", b'{"a":1}'),
    ],
)
def test_http_is_read_however_a_server_frames_it(parts: tuple[bytes, ...]) -> None:
    assert replies(*parts) == {"a": 1}


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ((b"SSH-2.0-OpenSSH_9\r\n",), "malformed"),
        ((OK + b"content-length: 9\r\n\r\n" + b'{"a":1}',), "cut"),
        ((OK + b"transfer-encoding: chunked\r\n\r\n7\r\n", b'{"a":1}'), "cut"),
        ((OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",), "malformed"),
        ((OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",), "malformed"),
        ((OK + b"x: " + b"y" * 100_000,), "malformed"),
        ((OK + b"content-length: 3\r\n\r\n[1]",), "malformed"),
        ((b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno",), "status"),
        ((), "cut"),
    ],
)
def test_what_is_not_http_as_it_was_asked_is_a_fault(parts: tuple[bytes, ...], kind: str) -> None:
    fault = replies(*parts)
    assert isinstance(fault, UpstreamFault) and fault.kind == kind


def test_an_answer_larger_than_the_buffers_comes_whole() -> None:
    text = "x" * 3_000_000

    async def ask(upstream: HttpUpstream) -> str:
        reply = await upstream.ask(asked(), timeout_s=60)
        return str(reply.body["choices"][0]["message"]["content"])

    with ScriptedUpstream(lambda _body: text) as server:
        assert with_upstream(client(server), ask) == text


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:8000", "http:///v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        HttpUpstream(url, "scripted")


def test_a_key_that_would_write_headers_of_its_own_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        HttpUpstream("http://127.0.0.1/v1", "scripted", key="secret\r\nx-more: 1")
    assert "secret" not in str(caught.value)
