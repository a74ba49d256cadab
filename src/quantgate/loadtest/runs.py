"""A whole load test: every rate, limit and stretch, the arms in turns, from the plan to the result.

A schedule is cut into stretches. Each is asked of the first arm and then of the second, the next one the other way
round: both see the same requests with the same neighbours within a minute of each other, and what the machine did
meanwhile falls out of their ratio. Each stretch begins with empty queues and ends when its last answer came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from quantgate.engines import Prompt
from quantgate.errors import UsageError
from quantgate.loadtest import Target
from quantgate.loadtest.arrivals import Schedule
from quantgate.loadtest.drive import Run, drive
from quantgate.loadtest.journal import Cell, Journal
from quantgate.loadtest.objectives import ALPHA, Objective
from quantgate.loadtest.prompts import Fitted
from quantgate.loadtest.result import LoadResult, result_of
from quantgate.records import Record

Tell = Callable[[str, int, int, str], None]  # stage, done, total, note
MOST_BLOCKS = 1000


class Arm(Record):
    """One thing that is asked."""

    name: str
    what: str  # digest or address: what its numbers belong to
    rows: int | None = None  # decoded together at most, by an engine of this process
    weights: str = Field(default="", exclude_if=lambda weights: not weights)  # digest of its bytes, where it is known


class Plan(Record):
    """Everything that the numbers depend on; its digest names the journal."""

    arms: tuple[Arm, ...]
    schedules: tuple[Schedule, ...]  # the asked rate first
    fitted: tuple[Fitted, ...]  # of each schedule's prompts
    limits: tuple[int | None, ...] = (None,)  # requests in flight at most, None: no limit
    objectives: tuple[Objective, ...] = ()
    blocks: int = 1
    seed: int = 0
    trace: str = Field(default="", exclude_if=lambda trace: not trace)  # digest of the replayed file
    alpha: float = Field(default=ALPHA, exclude_if=lambda alpha: alpha == ALPHA)  # of all limits together


@dataclass(frozen=True)
class Load:
    """A plan with what it is asked of and with, ready to run."""

    plan: Plan
    targets: Sequence[Target]
    prompts: Sequence[Sequence[Prompt]]  # of each schedule


def stretches(schedule: Schedule, blocks: int) -> list[list[tuple[int, float]]]:
    """The arrivals in ``blocks`` windows of equal length: (place in the schedule, seconds from the window's beginning).

    Windows that nobody came in are left out.
    """
    if not 1 <= blocks <= MOST_BLOCKS:
        raise UsageError(f"{blocks} blocks: expected 1 to {MOST_BLOCKS}")
    cut: list[list[tuple[int, float]]] = [[] for _ in range(blocks)]
    for at, when in enumerate(schedule.times):
        block = min(blocks - 1, int(blocks * when / schedule.seconds))
        cut[block].append((at, max(0.0, when - block * schedule.seconds / blocks)))
    return [one for one in cut if one]


def cells(plan: Plan) -> list[Cell]:
    """In the order they run: the arms of a stretch side by side, first one first, then the other.

    Further rates are asked under the first limit, further limits at the first rate.
    """
    found = []
    for at, schedule in enumerate(plan.schedules):
        for limit in range(len(plan.limits) if at == 0 else 1):
            for block in range(len(stretches(schedule, plan.blocks))):
                arms = range(len(plan.arms))
                turned = arms if block % 2 == 0 else reversed(arms)
                found += [Cell(at, limit, block, arm) for arm in turned]
    return found


def run(load: Load, journal: Journal, tell: Tell = lambda *_: None) -> tuple[LoadResult, Literal["", "stopped"]]:
    """The result, and whether Ctrl-C ended it: it is partial then, and holds what was measured so far.

    Stretches that the journal holds are not run again. Raises EngineError when a target cannot be asked at all.
    """
    done = dict(journal.held)
    work = _Work(load, journal, done, tell)
    try:
        asyncio.run(work.all())
    except KeyboardInterrupt:
        work.partial = "stopped before the end"
        if work.now is not None and work.now[1].timed:
            done[work.now[0]] = work.now[1]
    return result_of(load.plan, done, work.partial), "stopped" if work.partial.startswith("stopped") else ""


class _Work:
    def __init__(self, load: Load, journal: Journal, done: dict[Cell, Run], tell: Tell) -> None:
        self.load, self.journal, self.done, self.tell = load, journal, done, tell
        self.now: tuple[Cell, Run] | None = None  # the stretch that runs
        self.partial = ""
        plan = load.plan
        self.cut = [stretches(one, plan.blocks) for one in plan.schedules]
        self.total = sum(len(self.cut[cell.schedule][cell.block]) for cell in cells(plan))

    async def all(self) -> None:
        left = [cell for cell in cells(self.load.plan) if cell not in self.done]
        if not left:
            return
        async with _all_open(self.load.targets):
            for cell in left:
                await self._one(cell)
                if self.partial:
                    return

    async def _one(self, cell: Cell) -> None:
        plan, before = self.load.plan, sum(run.sent for run in self.done.values())
        name, rate = plan.arms[cell.arm].name, plan.schedules[cell.schedule].rate
        run = Run()
        self.now = cell, run
        await drive(
            self.load.targets[cell.arm],
            self.cut[cell.schedule][cell.block],
            lambda at: self.load.prompts[cell.schedule][at],
            window_s=plan.schedules[cell.schedule].seconds / plan.blocks,
            limit=plan.limits[cell.limit],
            into=run,
            told=lambda count: self.tell("asking under load", before + count, self.total, f"{name} at {rate:g}/s"),
        )
        self.now = None
        self.done[cell] = run
        if run.stopped:
            self.partial = f"{name}: {run.stopped}"
            return
        self.journal.keep(cell, run)


class _all_open:
    """Enter every target; leave those that were entered."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets, self.open = targets, list[Target]()

    async def __aenter__(self) -> None:
        try:
            for target in self.targets:
                await target.__aenter__()
                self.open.append(target)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *problem: object) -> None:
        for target in reversed(self.open):
            await target.__aexit__(*problem)
