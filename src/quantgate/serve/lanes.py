"""The way to one upstream: so many are asked at once, so many more may wait; who would wait too long is told."""

from __future__ import annotations

import asyncio
from time import monotonic

from quantgate.serve import Upstream
from quantgate.serve.metrics import Metrics
from quantgate.serve.refusals import Refused
from quantgate.serve.settings import Limits
from quantgate.serve.stages import Clock


class Lane:
    """One upstream and its queue, first come, first served."""

    def __init__(self, name: str, upstream: Upstream, limits: Limits, metrics: Metrics) -> None:
        self.name, self.upstream, self._most = name, upstream, limits.waiting
        self._size, self._free = limits.per_arm, asyncio.Semaphore(limits.per_arm)
        self._waiting, self._metrics = 0, metrics
        self._gauge = metrics.waiting.labels(name)
        self._took_s = 0.0  # an answer takes, as a moving average

    def expected_s(self) -> float:
        """How long the next one would wait, if answers go on as they did."""
        if not self._free.locked():
            return 0.0
        return (self._waiting + 1) * self._took_s / self._size

    async def enter(self, clock: Clock, stage: str) -> float:
        """Take a place among those who are asked; ``clock`` stands in ``queue`` while it waits, and in ``stage`` then.

        Returns the moment, for ``leave``. Raises Refused, 503, at once where the queue is full or the wait would break
        the budget of ``queue``.
        """
        clock.enter("queue")
        if self._free.locked():
            await self._wait(clock)
        else:
            await self._free.acquire()
        return clock.enter(stage)

    def leave(self, begun: float) -> None:
        self._free.release()
        took = monotonic() - begun
        self._took_s = took if not self._took_s else 0.9 * self._took_s + 0.1 * took

    async def _wait(self, clock: Clock) -> None:
        expected, budget = self.expected_s(), clock.budget("queue")
        if self._waiting >= self._most or (budget is not None and expected * 1000 > budget):
            self._metrics.shed.labels("queue").inc()
            raise Refused(503, "overloaded", f"{self.name}: too many requests wait already", after_s=max(0.1, expected))
        self._waiting += 1
        self._gauge.set(self._waiting)
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            self._gauge.set(self._waiting)
