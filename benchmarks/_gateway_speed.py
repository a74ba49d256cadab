"""Latency and throughput of proxies in front of one mock, in turns: each round asks all of them, in another order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks._gateway_client import Door, Line, closed_loop, hang_up
from benchmarks._gateway_processes import Running, Unfit

SESSIONS = 64  # that a load comes from
SETTLE_S = 0.05  # after a proxy's turn, for what it does behind its answer


@dataclass(frozen=True)
class Added:
    """Milliseconds that a proxy adds to the mock's own, request by request of the same place in the same round."""

    p50: float
    p99: float


def added(times: Mapping[str, Sequence[float]], name: str, floor: str = "direct") -> Added:
    """
    >>> added({"direct": [0.001, 0.001], "proxy": [0.002, 0.002]}, "proxy")
    Added(p50=1.0, p99=1.0)
    """
    more = 1e3 * (np.asarray(times[name]) - np.asarray(times[floor]))
    return Added(*(round(float(one), 3) for one in np.quantile(more, (0.5, 0.99))))


async def latency(
    doors: Sequence[Door], rounds: int, block: int, order: str = "", *, stream: bool = False
) -> dict[str, list[float]]:
    """Seconds of each request by door: to the last byte, of a stream to the first byte of content.

    One request at a time. In each round every door is asked ``block`` times in a row, after one that is not counted.
    Raises Unfit where an answer is not the mock's.
    """
    found: dict[str, list[float]] = {door.name: [] for door in doors}
    lines = {door.name: Line(door.port) for door in doors}
    for turn in range(rounds):
        for door in (*doors[turn % len(doors) :], *doors[: turn % len(doors)]):
            request, line = door.request(order, stream=stream, session=f"latency-{turn}"), lines[door.name]
            answers = [await line.ask(request) for _ in range(block + 1)][1:]
            for answer in answers:
                if not answer.good:
                    await hang_up(lines.values())
                    raise Unfit(f"{door.name} gave another answer than the mock's: {answer.raw[:300]!r}")
                found[door.name].append((answer.first if stream else answer.ended) - answer.began)
            await asyncio.sleep(SETTLE_S)
    await hang_up(lines.values())
    return found


@dataclass(frozen=True)
class Pace:
    """One proxy at one number of requests in flight; the medians of its turns."""

    per_s: float
    cpu_us: float  # of the proxy, per request
    p50_ms: float
    p99_ms: float
    bad: int  # answers that were not the mock's, in all turns


async def pace(
    doors: Sequence[tuple[Door, Running]], in_flight: int, seconds: float, turns: int, *, stream: bool = False
) -> dict[str, Pace]:
    """Closed loops, in turns. A turn of a proxy that could not answer at all counts as nothing a second."""
    seen: dict[str, list[Pace]] = {door.name: [] for door, _ in doors}
    for turn in range(turns):
        for door, running in (*doors[turn % len(doors) :], *doors[: turn % len(doors)]):
            requests = [door.request(stream=stream, session=f"pace-{number}") for number in range(SESSIONS)]
            await closed_loop(door, requests, in_flight, seconds / 6)
            before = running.cpu_s()
            load = await closed_loop(door, requests, in_flight, seconds)
            spent, good = running.cpu_s() - before, len(load.times)
            p50, p99 = np.quantile(load.times, (0.5, 0.99)) if load.times else (float("inf"), float("inf"))
            if load.bad:
                print(f"  {door.name} at {in_flight}: {load.bad} of {load.asked} failed, such as {load.example[:200]}")
            each = 1e6 * spent / max(load.asked, 1)
            seen[door.name].append(Pace(good / load.seconds, each, 1e3 * p50, 1e3 * p99, load.bad))
    return {name: _middle(every) for name, every in seen.items()}


def _middle(turns: Sequence[Pace]) -> Pace:
    return Pace(
        per_s=round(median(one.per_s for one in turns), 1),
        cpu_us=round(median(one.cpu_us for one in turns), 1),
        p50_ms=round(float(median(one.p50_ms for one in turns)), 2),
        p99_ms=round(float(median(one.p99_ms for one in turns)), 2),
        bad=sum(one.bad for one in turns),
    )
