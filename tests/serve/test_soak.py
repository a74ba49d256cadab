"""A gateway that answers for a while keeps nothing of what it answered; the benchmark ``gateway`` asks 200 thousand."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
from tests.serve.clients.conftest import TARGET, serving, settings_of

from quantgate.serve.scripted import Script, ScriptedUpstream

WARM, MEASURED, AT_ONCE = 800, 2000, 16
GROWTH = 8 * 2**20  # bytes; the client and the upstream live in this process too
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def body(stream: bool, text: str = "Count.") -> dict[str, object]:
    named = {"name": "n", "schema": SCHEMA}
    return {
        "model": TARGET,
        "messages": [{"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": named},
        "stream": stream,
    }


async def ask(port: int, requests: int) -> int:
    """So many requests: plain, streamed, left in the middle, invalid ones. Returns how many were left."""
    url, numbers, left = f"http://127.0.0.1:{port}/v1/chat/completions", iter(range(requests)), 0

    async def keep_on(client: aiohttp.ClientSession) -> None:
        nonlocal left
        for number in numbers:
            kind = number % 10
            order = {3: "Go on.", 5: "Lie."}.get(kind, "Count.")
            async with client.post(
                url, json=body(kind in (3, 4, 5), order), headers={"x-session-id": str(number)}
            ) as got:
                if kind == 3:
                    await got.content.readany()
                    left += 1
                    got.close()
                else:
                    await got.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        await asyncio.gather(*(keep_on(client) for _ in range(AT_ONCE)))
    return left


def told(order: dict[str, object]) -> Script:
    said = str(order["messages"][0]["content"])  # type: ignore[index]
    if said.startswith("Go"):
        return Script("stall_midway", after=3, text='{"n": 1234567890123}')
    return Script(text='{"n": "many"}' if said.startswith("Lie") else '{"n": 12}')


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it becomes so."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_memory_stays_over_thousands_of_requests_with_streams_that_are_left():
    with ScriptedUpstream(always=told) as upstream, serving(settings_of(upstream)) as running:
        asyncio.run(ask(running.port, WARM))
        upstream.asked.clear()
        before = resident()
        left = asyncio.run(ask(running.port, MEASURED))
        assert left == MEASURED // 10
        assert upstream.wait(lambda server: server.at_once == 0)  # whoever was left has been told
        seen = len(upstream.aborts)
        upstream.asked.clear()
        upstream.aborts.clear()
        assert resident() - before < GROWTH
        assert seen >= left
        assert until(lambda: running.gateway.in_flight == 0)
