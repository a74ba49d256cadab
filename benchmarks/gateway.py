"""The gateway beside LiteLLM's proxy and a bare pass-through, in front of one loopback mock, in one run.

    python -m benchmarks gateway [--only latency|throughput|memory|disconnect|idle] [--quick] [--anyway] [--write]

The client and the mock share one core, the proxy under test has another; proxies take turns. The mock's answer is 1 kB
of JSON, for which each request gives a schema; streamed, it comes in 50 chunks. Ours runs with all that it has on:
keys, a budget, a route with a schema, validation, metrics, exchanges on disk. What was measured is also written, as
JSON, to ``.bench/gateway/result.json``. A machine that is at work is refused.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import _gateway_endurance as endurance
from benchmarks import _gateway_proxies as proxies
from benchmarks import _gateway_speed as speed
from benchmarks._gateway_client import Door
from benchmarks._gateway_processes import Running, Unfit, demand_quiet, mock, pin
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.machine import machine
from benchmarks.tables import Table

PARTS = ("latency", "throughput", "memory", "disconnect", "idle")
RESULT = Path(__file__).parents[1] / ".bench" / "gateway" / "result.json"
IN_FLIGHT = (16, 64, 256, 1000)
P50_MS, P99_MS, FIRST_MS = 0.6, 1.5, 1.0  # goals: added to a whole answer, and to the first content of a stream
TIMES_LITELLM, PER_CORE, FLAT = 10.0, 2500.0, 0.5
GROWTH_MB, SEEN_S = 5.0, 0.25


@dataclass(frozen=True)
class Sizes:
    rounds: int
    block: int  # requests of one proxy's turn
    seconds: float  # of a closed loop
    turns: int
    requests: int  # over which memory is watched
    warm: int
    tries: int  # of each way to leave
    idle: int  # connections


FULL = Sizes(40, 25, 3.0, 3, 200_000, 20_000, 100, 10_000)
QUICK = Sizes(2, 5, 0.4, 1, 500, 100, 3, 100)


@dataclass(frozen=True)
class Row:
    what: str
    cells: tuple[str, ...]  # one a proxy
    goal: str = ""
    met: bool | None = None

    def told(self) -> tuple[str, ...]:
        return (self.what, *self.cells, self.goal, {True: "met", False: "missed", None: ""}[self.met])


def run(
    *,
    only: Sequence[str] = PARTS,
    quick: bool = False,
    anyway: bool = False,
    say: Callable[[str], None] = print,
) -> list[Table]:
    """Raises Unfit where this machine cannot measure, or an answer is not what it has to be."""
    endurance.more_files()
    if not (quick or anyway):
        say(f"  {100 * demand_quiet():.0f} % of the machine is at work")
    sizes, kept = QUICK if quick else FULL, dict[str, Any]()
    pin()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(mock())
        ours = stack.enter_context(proxies.ours(upstream.port, folder))
        rows: list[Row] = []
        tables: list[Table] = []
        if {"latency", "throughput"} & set(only):
            others = [stack.enter_context(proxies.bare(upstream.port, folder)), ours]
            try:
                others.append(stack.enter_context(proxies.litellm(upstream.port, folder)))
            except Unavailable as error:
                say(f"  LiteLLM is left out: {error}")
            direct = Door("direct", upstream.port)
            if "latency" in only:
                rows += uvloop.run(_latency(direct, others, sizes, kept, say))
            if "throughput" in only:
                rows += uvloop.run(_throughput(others, sizes, kept, say))
            tables.append(_table(rows, [one.door.name for one in others]))
        alone = []
        for part, measure in (("disconnect", _disconnect), ("idle", _idle), ("memory", _memory)):
            if part in only:
                alone += uvloop.run(measure(ours.door, ours.running, upstream.port, sizes, kept, say))
        if alone:
            tables.append(_table(alone, ["quantgate"]))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
    return tables


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    notes = (
        "The client and the mock on one core, the proxy on another; proxies take turns in each round. 1 kB of prompt, "
        "a JSON schema, 1 kB of answer; streams have 50 chunks. Added: against the same request sent to the mock. "
        f"LiteLLM {proxies.litellm_version()}, one worker, a key to check, no database.",
        machine(1),
    )
    return Table(("what", *names, "goal", ""), tuple(row.told() for row in rows), "The gateway", notes)


Say = Callable[[str], None]


async def _latency(
    direct: Door, others: Sequence[proxies.Standing], sizes: Sizes, kept: dict[str, Any], say: Say
) -> list[Row]:
    doors, rows = [direct, *(one.door for one in others)], []
    for what, order, stream, rounds, goals in (
        ("added to a whole answer", "", False, sizes.rounds, (P50_MS, P99_MS)),
        ("added to the first content of a stream", "!pace 1", True, max(1, sizes.rounds // 5), (FIRST_MS, None)),
    ):
        say(f"  {what}")
        times = await speed.latency(doors, rounds, sizes.block, order, stream=stream)
        found = {one.door.name: speed.added(times, one.door.name) for one in others}
        kept[what] = {name: asdict(one) for name, one in found.items()}
        kept[what]["direct"] = dict(zip(("p50_ms", "p99_ms"), _quantiles(times["direct"]), strict=True))
        for name, goal in zip(("p50", "p99"), goals, strict=True):
            cells = tuple(f"{getattr(found[one.door.name], name):.2f} ms" for one in others)
            mine = getattr(found["quantgate"], name)
            told = f"at most {goal:g} ms" if goal else ""
            rows.append(Row(f"{what}, {name}", cells, told, mine <= goal if goal else None))
    return rows


async def _throughput(others: Sequence[proxies.Standing], sizes: Sizes, kept: dict[str, Any], say: Say) -> list[Row]:
    pairs, rows, costs = [(one.door, one.running) for one in others], list[Row](), list[float]()
    for in_flight in IN_FLIGHT:
        say(f"  requests a second, {in_flight} in flight")
        found = await speed.pace(pairs, in_flight, sizes.seconds, sizes.turns)
        kept[f"{in_flight} in flight"] = {name: asdict(one) for name, one in found.items()}
        mine, costs = found["quantgate"], [*costs, found["quantgate"].cpu_us]
        theirs = found.get("LiteLLM")
        goals = [(f"at least {PER_CORE:g}/s", mine.per_s >= PER_CORE)]
        if theirs:
            times = mine.per_s / theirs.per_s if theirs.per_s else float("inf")
            goals.append((f"{times:.0f}x LiteLLM, of at least {TIMES_LITELLM:g}x", times >= TIMES_LITELLM))
        cells = tuple(_told(found[one.door.name]) for one in others)
        goal, met = ", ".join(text for text, _ in goals), all(kept_up for _, kept_up in goals)
        rows.append(Row(f"{in_flight} in flight", cells, goal, met and not mine.bad))
    spread = max(costs) / max(min(costs), 1e-9) - 1
    kept["cpu spread"] = spread
    rows.append(
        Row(
            f"processor time a request, from {IN_FLIGHT[0]} to {IN_FLIGHT[-1]} in flight",
            tuple(f"{100 * spread:.0f} % apart" if one.door.name == "quantgate" else "" for one in others),
            f"within {100 * FLAT:.0f} %",
            spread <= FLAT,
        )
    )
    say("  streams a second")
    found = await speed.pace(pairs, 64, sizes.seconds, sizes.turns, stream=True)
    kept["streams, 64 in flight"] = {name: asdict(one) for name, one in found.items()}
    rows.append(Row("streams of 50 chunks, 64 in flight", tuple(_told(found[one.door.name]) for one in others)))
    return rows


def _told(one: speed.Pace) -> str:
    failed = f", {one.bad} failed" if one.bad else ""
    return f"{one.per_s:.0f}/s, {one.cpu_us:.0f} us CPU, p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms{failed}"


async def _disconnect(
    door: Door, _running: Running, upstream: int, sizes: Sizes, kept: dict[str, Any], say: Say
) -> list[Row]:
    say("  clients that leave")
    found = await endurance.disconnects(door, upstream, sizes.tries)
    rows = []
    for moment, seconds in found.items():
        p50, p99 = _quantiles(seconds)
        kept[f"left {moment}"] = {"p50_ms": p50, "p99_ms": p99, "max_ms": 1e3 * max(seconds)}
        told = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {1e3 * max(seconds):.1f} ms"
        goal = f"at most {1e3 * SEEN_S:.0f} ms"
        rows.append(Row(f"the upstream sees that the client left {moment}", (told,), goal, max(seconds) <= SEEN_S))
    return rows


async def _idle(
    door: Door, running: Running, _upstream: int, sizes: Sizes, kept: dict[str, Any], say: Say
) -> list[Row]:
    say("  idle connections")
    found = await endurance.idle(door, running, sizes.idle, sizes.seconds)
    kept["idle"] = asdict(found)
    told = f"{found.bytes_each / 1024:.1f} KiB each, {found.alive} still open after requests went on"
    before, beside = (f"p50 {one[0]:.1f} ms, p99 {one[1]:.1f} ms" for one in (found.before_ms, found.beside_ms))
    return [
        Row(f"{found.connections} idle connections", (told,)),
        Row("16 requests in flight, without them", (before,)),
        Row("16 requests in flight, beside them", (beside,)),
    ]


async def _memory(
    door: Door, running: Running, _upstream: int, sizes: Sizes, kept: dict[str, Any], say: Say
) -> list[Row]:
    say("  memory")
    found = await endurance.memory(door, running, sizes.requests, sizes.warm, say)
    growth = (found.rss[-1] - found.rss[0]) / 1e6
    kept["memory"] = {**asdict(found), "growth_mb": growth}
    what = f"memory over {found.requests} requests, {found.aborted} of them streams left in the middle"
    told = f"{growth:+.2f} MB, at {found.rss[-1] / 1e6:.0f} MB"
    return [Row(what, (told,), f"less than {GROWTH_MB:g} MB", growth < GROWTH_MB and not found.bad)]


def _quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, milliseconds."""
    p50, p99 = np.quantile(seconds, (0.5, 0.99))
    return round(1e3 * float(p50), 3), round(1e3 * float(p99), 3)


__all__ = ["PARTS", "Unfit", "run"]
