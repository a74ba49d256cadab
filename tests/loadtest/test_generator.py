"""The generator itself: a thousand requests a second from one process, and a stall that nobody can overlook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quantgate.engines import Prompt
from quantgate.loadtest import arrivals
from quantgate.loadtest.drive import Run, drive
from quantgate.loadtest.endpoint import Endpoint
from quantgate.loadtest.measure import validity_of

PROMPT = Prompt(turns=(("user", "Hi"),), max_tokens=1)
ATTEMPTS = 6  # the machine may be taken by others; it has to be free for one and a half seconds


def load(url: str, schedule: arrivals.Schedule) -> Run:
    async def go() -> Run:
        async with Endpoint(url, model="instant") as target:
            return await drive(target, list(enumerate(schedule.times)), lambda _at: PROMPT, window_s=schedule.seconds)

    return asyncio.run(go())


def test_a_thousand_requests_a_second_are_held_within_half_a_percent(instant: Callable[..., Any]) -> None:
    """Judged by the server's own clock as well: its process saw the requests come in, whatever the client believes."""
    schedule = arrivals.draw("constant", 1000.0, 1.5, seed=0)
    assert len(schedule.times) == 1500 and schedule.times[-1] == pytest.approx(1.499)
    seen = []
    for _ in range(ATTEMPTS):
        server = instant()
        run = load(server.url, schedule)
        came = server.came()[1:]  # behind the warm-up
        assert len(run.timed) == len(came) == 1500 and not any(one.lost for one in run.timed)
        said = validity_of([run]).achieved_rate
        found = (len(came) - 1) / (came[-1] - came[0])
        assert said <= 1000.0001, "no rate above the asked one is ever claimed"
        seen.append((said, found))
        if abs(said - 1000) <= 5 and abs(found - 1000) <= 5:
            return
    pytest.fail(f"asked for 1000/s, rates by the generator and by the server: {seen}")


def test_a_stall_shows_in_every_request_that_was_due_meanwhile(instant: Callable[..., Any]) -> None:
    """0.4 s of silence at 500/s touch 200 requests, whose waits fall from 0.4 s to nothing: a closed loop would have
    shown one of each of its connections, and its p95 nothing at all (coordinated omission)."""
    schedule = arrivals.draw("constant", 500.0, 2.0, seed=0)
    stalled = load(instant("--stall-at", "0.8", "--stall", "0.4").url, schedule)
    waits = sorted((one.e2e_s or 0.0 for one in stalled.timed), reverse=True)
    assert len(stalled.timed) == 1000 and not any(one.lost for one in stalled.timed)
    # whatever else the machine did can only make waits longer: those of the stall are there at least
    assert waits[0] >= 0.39
    assert sum(wait >= 0.2 for wait in waits) >= 90  # due in the first half of the silence
    assert waits[49] >= 0.29  # p95: it lies a quarter into the 200


def test_latency_counts_from_the_intended_time_when_the_generator_itself_is_late() -> None:
    """A loop that is blocked for 0.3 s sends late; the lateness is in the lag and in the latency."""

    class Blocks:
        name = "blocks"

        async def __aenter__(self) -> Blocks:
            return self

        async def __aexit__(self, *problem: object) -> None: ...

        async def ask(self, prompt: Prompt) -> Any:
            import time

            from quantgate.loadtest import Heard

            sent = time.perf_counter()
            if prompt.max_tokens == 7:
                time.sleep(0.3)
            return Heard(sent=sent, first=sent, last=time.perf_counter(), tokens=1)

    slow = Prompt(turns=PROMPT.turns, max_tokens=7)
    due = [(at, at * 0.01) for at in range(40)]
    run = asyncio.run(drive(Blocks(), due, lambda at: slow if at == 5 else PROMPT))
    by_place = {one.at: one for one in run.timed}
    assert (by_place[6].lag_s >= 0.28) and (by_place[6].e2e_s or 0) >= 0.28
    assert by_place[15].lag_s >= 0.18
    found = validity_of([run])
    assert not found.valid and (found.lag_p99_s or 0) >= 0.28
