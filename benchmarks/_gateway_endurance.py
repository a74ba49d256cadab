"""What a gateway keeps: memory over many requests, clients that left, and connections on which nothing happens."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks._gateway_client import Door, Line, closed_loop, hang_up
from benchmarks._gateway_processes import Running, Unfit

IN_FLIGHT = 32
STREAMED, ABORTED = 10, 20  # every so many-th request streams, is left in mid-stream
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Grown:
    requests: int
    aborted: int
    bad: int
    rss: tuple[int, ...]  # bytes: after the warm-up, then after each tenth of the requests


async def memory(
    door: Door, running: Running, requests: int, warm: int, say: Callable[[str], None], *, rest_s: float = 1.0
) -> Grown:
    """Resident memory while requests go on, a tenth of them streams, and a twentieth streams that are left halfway."""
    aborted = bad = 0
    sizes = []
    for amount in (warm, *[requests // 10] * 10):
        left, wrong = await _mixed(door, amount)
        await asyncio.sleep(rest_s)  # for what is done behind the answers
        sizes.append(running.rss_bytes())
        if len(sizes) > 1:
            aborted, bad = aborted + left, bad + wrong
        say(f"  {(len(sizes) - 1) * requests // 10} requests: {sizes[-1] / 2**20:.1f} MiB resident")
    return Grown(requests, aborted, bad, tuple(sizes))


async def _mixed(door: Door, requests: int) -> tuple[int, int]:
    """Streams left in the middle, and answers that were wrong."""
    counts, numbers = [0, 0], iter(range(requests))
    plain = [door.request(session=f"memory-{number}") for number in range(64)]
    whole, endless = door.request(stream=True), door.request("!drip 0", stream=True)

    async def keep_on() -> None:
        line = Line(door.port)
        for number in numbers:
            if number % ABORTED == 1:
                await line.until_content(endless)
                line.close()
                line, counts[0] = Line(door.port), counts[0] + 1
                continue
            streamed = number % STREAMED == 0
            answer = await line.ask(whole if streamed else plain[number % len(plain)])
            counts[1] += not answer.good
        await hang_up([line])

    await asyncio.gather(*(keep_on() for _ in range(IN_FLIGHT)))
    return counts[0], counts[1]


async def disconnects(door: Door, upstream: int, tries: int) -> dict[str, list[float]]:
    """Seconds from the client's leaving until the upstream saw it, by the moment: both clocks are CLOCK_MONOTONIC."""
    found: dict[str, list[float]] = {"in prefill": [], "in mid-stream": [], "non-streamed": []}
    watch, number = Line(upstream), 0
    for _ in range(tries):
        for moment, kind, stream in (
            ("in prefill", "hang", True),
            ("in mid-stream", "drip", True),
            ("non-streamed", "hang", False),
        ):
            number += 1
            order, line = f"!{kind} {number}", Line(door.port)
            request = door.request(order, stream=stream)
            if kind == "drip":
                await line.until_content(request)
            else:
                asked = asyncio.ensure_future(line.ask(request))
                asked.add_done_callback(lambda done: done.cancelled() or done.exception())
                await _until(watch, "/here", lambda told, order=order: order in told)  # type: ignore[misc]
            left = time.monotonic()
            line.close()
            told = await _until(watch, "/left", lambda told, order=order: any(one[0] == order for one in told))  # type: ignore[misc]
            found[moment].append(next(at for name, at in told if name == order) - left)
    await hang_up([watch])
    return found


async def _until(watch: Line, path: str, true: Callable[[list], bool]) -> list:  # type: ignore[type-arg]
    """What the mock tells, as soon as it is so."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        raw = (await watch.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())).raw
        told: list = orjson.loads(raw.partition(b"\r\n\r\n")[2])  # type: ignore[type-arg]
        if true(told):
            return told
        await asyncio.sleep(0.002)
    raise Unfit(f"the upstream did not see at {path} within {PATIENCE_S:g} s what it had to")


@dataclass(frozen=True)
class Idle:
    connections: int
    bytes_each: float
    before_ms: tuple[float, float]  # p50 and p99 of requests, 16 in flight
    beside_ms: tuple[float, float]  # the same while the connections are there
    alive: int  # of the connections, at the end


async def idle(door: Door, running: Running, connections: int, seconds: float) -> Idle:
    """Connections on which nothing is asked, while requests go on over others. Raises Unfit where files run out."""
    before = await _times(door, seconds)
    empty, held = running.rss_bytes(), list[asyncio.StreamWriter]()
    try:
        for start in range(0, connections, 200):
            more = [asyncio.open_connection("127.0.0.1", door.port) for _ in range(min(200, connections - start))]
            held += [writer for _, writer in await asyncio.gather(*more)]
    except OSError as error:
        raise Unfit(f"{len(held)} idle connections, and no more: {error}") from None
    await asyncio.sleep(1.0)
    each = (running.rss_bytes() - empty) / connections
    beside = await _times(door, seconds)
    alive = sum(not writer.transport.is_closing() for writer in held)
    for writer in held:
        writer.transport.abort()
    await asyncio.sleep(0.1)
    return Idle(connections, each, before, beside, alive)


async def _times(door: Door, seconds: float) -> tuple[float, float]:
    load = await closed_loop(door, [door.request()], 16, seconds)
    if load.bad or not load.times:
        raise Unfit(f"{load.bad} of {load.asked} requests failed, such as {load.example[:200]}")
    p50, p99 = np.quantile(load.times, (0.5, 0.99))
    return round(1e3 * float(p50), 2), round(1e3 * float(p99), 2)


def more_files() -> int:
    """As many open files as this machine lets a process have; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
