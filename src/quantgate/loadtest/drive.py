"""The open loop: every request at its intended time, whatever became of those before it.

Nothing is slept by differences, so lateness does not add up: each wait ends at an absolute time. A request that is late
is sent at once, and its latency begins when it was due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quantgate.engines import Prompt
from quantgate.errors import QuantgateError
from quantgate.loadtest import Heard, Target, Timed

GONE = 8  # requests in a row that nobody answered at all: the endpoint is down
LEAD_S = 0.02  # between the decision to begin and the first intended time


@dataclass
class Crowd:
    """How many requests are in flight, and the sum of that over time."""

    count: int = 0
    area: float = 0.0
    since: float = 0.0

    def change(self, by: int, now: float) -> float:
        self.area += self.count * (now - self.since)
        self.count, self.since = self.count + by, now
        return self.area


@dataclass
class Run:
    """One stretch of a schedule against one target. ``timed`` fills as answers come, and is right at any moment."""

    timed: list[Timed] = field(default_factory=list)
    sent: int = 0
    window_s: float = 0.0  # how long requests were to come
    wanted_s: float = 0.0  # from the beginning to the last intended time
    span_s: float = 0.0  # from the beginning to the last sending
    stopped: str = ""  # why it ended before everything was sent
    ended_s: float = 0.0  # when the last answer came


async def drive(
    target: Target,
    due: Sequence[tuple[int, float]],
    prompts: Callable[[int], Prompt],
    *,
    window_s: float = 0.0,
    limit: int | None = None,
    into: Run | None = None,
    told: Callable[[int], None] = lambda _done: None,
) -> Run:
    """Ask ``target`` every request of ``due`` (place in the schedule, seconds from the beginning), and wait for all.

    ``window_s`` is how long requests come, if that is longer than to the last one. ``limit`` holds requests back while
    so many are in flight; the wait counts, as it does for a user. ``into`` keeps what was measured should the caller be
    cancelled. Ends early when GONE requests in a row found nobody, and when no other request can do better.
    """
    run = into or Run()
    run.wanted_s = due[-1][1] if due else 0.0
    run.window_s = max(window_s, run.wanted_s)
    asked = [(at, when, prompts(at)) for at, when in due]  # before the clock runs
    loop = _Loop(target, run, told, asyncio.Semaphore(limit) if limit else None, time.perf_counter() + LEAD_S)
    try:
        await loop.send(asked)
        while loop.tasks:
            await asyncio.gather(*loop.tasks)
    finally:
        left = [*loop.tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    return run


class _Loop:
    """The clock of one stretch, and what is in flight."""

    def __init__(
        self, target: Target, run: Run, told: Callable[[int], None], room: asyncio.Semaphore | None, start: float
    ) -> None:
        self.target, self.run, self.told, self.room, self.start = target, run, told, room, start
        self.crowd, self.alone = Crowd(since=start), _Alone()
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, asked: Sequence[tuple[int, float, Prompt]]) -> None:
        """Each at its time; one that is late goes at once."""
        run = self.run
        for at, when, prompt in asked:
            while (wait := self.start + when - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if self.alone.why:
                run.stopped = self.alone.why
                return
            task = asyncio.create_task(self._one(at, when, prompt))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            run.sent += 1
            run.span_s = time.perf_counter() - self.start
            if run.sent % 64 == 0:
                await asyncio.sleep(0)  # a generator that is behind must still let answers in

    async def _one(self, at: int, when: float, prompt: Prompt) -> None:
        room, held = self.room, self.room is not None and self.room.locked()
        if room is not None:
            await room.acquire()
        began = time.perf_counter()
        before = self.crowd.change(+1, began)
        try:
            heard = await self.target.ask(prompt)
            self.alone.saw(heard)
        except QuantgateError as problem:  # a key that is refused, a route that is gone: for all that follow, too
            heard = Heard(sent=began, lost=str(problem), gone=True)
            self.alone.why = str(problem)
        finally:
            ended = time.perf_counter()
            after = self.crowd.change(-1, ended)
            if room is not None:
                room.release()
        beside = float(heard.batch or ((after - before) / (ended - began) if ended > began else 1.0))
        self.run.timed.append(timed(at, when, self.start, heard, beside, held=held))
        self.run.ended_s = ended - self.start
        self.told(len(self.run.timed))


@dataclass
class _Alone:
    """Whether anybody still answers; ``why`` once nobody does."""

    row: int = 0
    why: str = ""

    def saw(self, heard: Heard) -> None:
        self.row = self.row + 1 if heard.gone else 0
        if self.row >= GONE:
            self.why = f"nobody answers any more ({heard.lost})"


def timed(at: int, due_s: float, start: float, heard: Heard, beside: float, *, held: bool = False) -> Timed:
    """An answer on the schedule's clock: latencies from the intended time."""

    def since(stamp: float | None) -> float | None:
        return None if stamp is None else round(stamp - start - due_s, 7)

    return Timed(
        at=at,
        due_s=round(due_s, 7),
        lag_s=round(heard.sent - start - due_s, 7),
        held=held,
        ttft_s=since(heard.first),
        e2e_s=None if heard.lost else since(heard.last),
        gaps_s=tuple(round(gap, 7) for gap in heard.gaps_s),
        tokens=heard.tokens,
        prompt_tokens=heard.prompt_tokens,
        beside=round(beside, 3),
        stages={stage: round(seconds, 7) for stage, seconds in heard.stages.items()},
        lost=heard.lost,
    )
