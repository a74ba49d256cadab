"""No invalid structured answer leaves, and every valid one does: hundreds of schemas, an upstream that lies."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from tests.serve.clients import drawn
from tests.serve.clients.conftest import TARGET, serving, settings_of

from quantgate.guard.contract import FREE
from quantgate.serve import Request
from quantgate.serve.scripted import Script, ScriptedUpstream
from quantgate.serve.settings import RoutePolicy

POLICIES = ("passthrough", "holdback", "window", "buffer")
AT_ONCE = 24


def told(body: Mapping[str, Any]) -> Script:
    """The upstream says what the first message orders, in every turn: also when it is asked to mend it."""
    order = json.loads(body["messages"][0]["content"])
    if "call" in order:
        function = {"name": order["call"], "arguments": order["say"]}
        called = {"id": "call_0", "type": "function", "function": function}
        return Script(message={"role": "assistant", "content": None, "tool_calls": [called]}, finish="tool_calls")
    return Script(text=order["say"], pieces=order["pieces"], finish=order.get("finish", "stop"))


def by_header(request: Request) -> RoutePolicy:
    return RoutePolicy(stream=request.headers["x-policy"], window=4, keep_alive_s=None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served():
    with ScriptedUpstream(always=told) as upstream:
        settings = replace(settings_of(upstream), policy=by_header)
        with serving(settings) as running:
            yield running


@dataclass
class Got:
    """One answer as a client has it: ``text`` only where it was delivered as whole."""

    status: int
    text: str | None
    error: str = ""


async def ask(client: aiohttp.ClientSession, port: int, body: dict[str, Any], policy: str) -> Got:
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"x-policy": policy}
    async with client.post(url, json=body, headers=headers) as response:
        raw = await response.read()
    if response.status != 200:
        return Got(response.status, None, json.loads(raw)["error"]["code"])
    if not body.get("stream"):
        choice = json.loads(raw)["choices"][0]
        return Got(200, _text(choice["message"]))
    return _streamed(raw)


def _streamed(raw: bytes) -> Got:
    """As the SDK reads it: an error object anywhere is no answer, and one without [DONE] has no end."""
    lines = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    errors = [chunk["error"]["code"] for chunk in chunks if "error" in chunk]
    if errors or not lines or lines[-1] != "[DONE]":
        return Got(200, None, errors[0] if errors else "no end")
    text, finish = "", None
    for chunk in chunks:
        for choice in chunk["choices"]:
            text += _text(choice["delta"])
            finish = choice["finish_reason"] or finish
    return Got(200, text if finish else None, "" if finish else "no finish")


def _text(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls") or ()
    return "".join(call["function"].get("arguments") or "" for call in calls) if calls else message.get("content") or ""


def request_of(
    schema: Mapping[str, Any], text: str, draw: random.Random, *, stream: bool, tool: bool
) -> dict[str, Any]:
    order = {"say": text, "pieces": drawn.cut(draw, text), **({"call": "act"} if tool else {})}
    asked: dict[str, Any] = {"model": TARGET, "messages": [{"role": "user", "content": json.dumps(order)}]}
    if tool:
        function = {"name": "act", "parameters": schema}
        asked |= {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    else:
        named = {"name": "thing", "schema": schema, "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": named}
    return asked | ({"stream": True} if stream else {})


async def all_of(port: int, rows: list[tuple[dict[str, Any], str]]) -> list[Got]:
    gate = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def one(body: dict[str, Any], policy: str) -> Got:
            async with gate:
                return await ask(client, port, body, policy)

        return await asyncio.gather(*(one(*row) for row in rows))


@dataclass
class Verdict:
    whole: int  # answers that were delivered
    invalid: list[Any]  # of them
    lost: list[Any]  # valid ones that were not, or were changed


def verdict(port: int, seed: int, schemas: int, *, tool: bool) -> Verdict:
    """What comes through a gateway, each text streamed and not, under policies drawn at random."""
    draw, cases = random.Random(seed), list(drawn.cases(seed, schemas))
    orders = [(case, stream) for case in cases for stream in (False, True)]
    rows = [
        (request_of(schema, text, draw, stream=stream, tool=tool), draw.choice(POLICIES))
        for (schema, text, _), stream in orders
    ]
    made = Verdict(0, [], [])
    for ((schema, text, good), stream), (_, policy), got in zip(
        orders, rows, asyncio.run(all_of(port, rows)), strict=True
    ):
        where = (policy, stream, text[:200], got)
        made.whole += got.text is not None
        if got.text is not None and not kept(got.text, schema):
            made.invalid.append(where)
        if good and got.text != text:
            made.lost.append(where)
    return made


@pytest.mark.parametrize(("tool", "schemas"), [(False, 100), (True, 100)], ids=["content", "arguments of a tool"])
def test_no_invalid_answer_leaves_and_every_valid_one_does(served, tool, schemas):
    found = verdict(served.port, 11 + tool, schemas, tool=tool)
    assert found.invalid == []
    assert found.lost == []
    assert found.whole >= 4 * schemas  # two good ones of each, streamed and not


def test_the_suite_finds_what_an_unguarded_gateway_lets_through():
    with ScriptedUpstream(always=told) as upstream:
        settings = replace(settings_of(upstream), policy=by_header, admit=lambda _body: FREE)
        with serving(settings) as running:
            assert len(verdict(running.port, 3, 10, tool=False).invalid) > 50


def kept(text: str, schema: drawn.Json) -> bool:
    try:
        return drawn.keeps(json.loads(text), schema)
    except ValueError:
        return False


def test_the_judge_agrees_with_what_was_drawn():
    for schema, text, good in drawn.cases(5, 100):
        assert kept(text, schema) or not good
