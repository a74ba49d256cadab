"""The time of each stage of one request, and the budgets that a route gives them.

A clock stands in exactly one stage. Entering the next books the time since, and moves the deadline: the nearer of the
stage's own and of the whole request's. What an upstream tells of itself (queue, prefill, decode of a whole answer)
is added as it tells it; what nobody tells stays untold, because missing is not zero.
"""

from __future__ import annotations

from asyncio import Timeout, timeout_at
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Any

from quantgate.serve import STAGES
from quantgate.serve.refusals import Refused, StageTimeout

LONGEST_S = 1e6  # that an upstream may say of a stage
OUTSIDE = frozenset({"queue", "upstream", "prefill", "decode", "stream"})  # not the gateway's own work


def seconds(told: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage, of what anybody tells: without other names, and without numbers that are none.

    >>> seconds({"queue": 0.5, "decode": "long", "prefill": -1, "lunch": 2})
    {'queue': 0.5}
    """
    return {
        name: took
        for name, took in told.items()
        if name in STAGES and isinstance(took, int | float) and 0 <= took < LONGEST_S
    }


class Clock:
    """Seconds by stage. All times are ``time.monotonic``, as the loop counts."""

    __slots__ = ("_before", "_budgets", "_deadline", "_since", "_timeout", "broke", "spent", "stage", "started")

    def __init__(self, budgets_ms: Mapping[str, float], deadline: float | None, *, started: float) -> None:
        self.started = self._since = started
        self.stage = "parse"
        self.spent: dict[str, float] = {}
        self.broke = ""  # the first stage that broke its budget
        self._budgets, self._deadline = budgets_ms, deadline
        self._before: dict[str, float] = {}  # spent on upstreams that did not answer
        self._timeout: Timeout | None = None

    def enter(self, stage: str) -> float:
        """Book the time since the last stage began to it; the moment."""
        now = monotonic()
        left, took = self.stage, now - self._since
        self.spent[left] = self.spent.get(left, 0.0) + took
        self.stage, self._since = stage, now
        if self._budgets:
            self._weigh(left, stage, now)
        return now

    def _weigh(self, left: str, stage: str, now: float) -> None:
        self._hold(left, self._on(left))
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self.deadline(stage, now))

    def deadline(self, stage: str, now: float) -> float | None:
        """When ``stage`` must be over that begins, or goes on, now."""
        budget = self.budget(stage)
        if budget is None:
            return self._deadline
        due = now + budget / 1000 - self._on(stage)
        return due if self._deadline is None else min(due, self._deadline)

    def again(self) -> None:
        """Another upstream is asked: its stages have their budgets whole, as far as the request's own deadline goes."""
        self.enter(self.stage)
        self._before = dict(self.spent)

    def _on(self, stage: str) -> float:
        """Seconds of this attempt."""
        return self.spent.get(stage, 0.0) - self._before.get(stage, 0.0)

    def add(self, stage: str, seconds: float) -> None:
        """Take time from the stage it stands in to another: what a loop measured by itself."""
        self.spent[stage] = self.spent.get(stage, 0.0) + seconds
        self.spent[self.stage] = self.spent.get(self.stage, 0.0) - seconds

    def budget(self, stage: str) -> float | None:
        """Milliseconds. ``upstream`` is what a whole answer takes there: its three stages show no border from here,
        so it has a budget where each of them has one, and then their sum."""
        if stage != "upstream":
            return self._budgets.get(stage)
        parts = [self._budgets.get(name) for name in ("prefill", "decode")]
        return None if None in parts else sum(part for part in parts if part is not None)

    async def __aenter__(self) -> None:
        """The deadline of the stage that it stands in, and of those entered within: ``async with clock``.

        Raises TimeoutError at its end, which ``late`` explains.
        """
        self._timeout = timeout_at(self.deadline(self.stage, self._since))
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        timeout, self._timeout = self._timeout, None
        assert timeout is not None  # __aenter__ made it
        await timeout.__aexit__(kind, error, at)

    def late(self) -> Refused:
        """What its TimeoutError was: the stage's budget, or the end of the whole request."""
        now = monotonic()
        budget = self.budget(self.stage)
        self.spent[self.stage] = self.spent.get(self.stage, 0.0) + now - self._since
        self._since = now
        if budget is not None and (self._on(self.stage) + 2e-3) * 1000 >= budget:
            stage = "decode" if self.stage == "upstream" else self.stage
            self.broke = self.broke or stage
            return StageTimeout(stage, budget / 1000)
        return Refused(504, "deadline", f"{self.stage}: the request's own deadline has passed", type="timeout_error")

    def told(self, stages: Mapping[str, float]) -> None:
        """What the upstream says of itself, in seconds; it was part of ``upstream``, of which it is taken."""
        for name, took in seconds(stages).items():
            self.spent[name] = self.spent.get(name, 0.0) + took
            if "upstream" in self.spent:
                self.spent["upstream"] = max(0.0, self.spent["upstream"] - took)
            self._hold(name, took)

    def _hold(self, stage: str, took: float) -> None:
        budget = self._budgets.get(stage)
        if budget is not None and took * 1000 > budget and not self.broke:
            self.broke = stage

    def header(self, now: float) -> str:
        """``server-timing`` (W3C), milliseconds: every stage, untold ones by name only, then total and overhead."""
        spent, own, parts = self.spent, 0.0, []
        for name, took in spent.items():
            if name not in OUTSIDE:
                own += took
        if self.stage not in OUTSIDE:
            own += now - self._since
        for name in STAGES:
            seconds = spent.get(name)
            parts.append(f"{name};dur={seconds * 1000:.3f}" if seconds is not None else f"{name};desc=untold")
        if "upstream" in spent:
            parts.append(f"upstream;dur={spent['upstream'] * 1000:.3f}")
        parts.append(f"total;dur={(now - self.started) * 1000:.3f}, overhead;dur={own * 1000:.3f}")
        return ", ".join(parts)

    def overhead(self) -> float:
        """Seconds of the request that were the gateway's own work."""
        return sum(took for name, took in self.spent.items() if name not in OUTSIDE)
