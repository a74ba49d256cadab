"""Comparisons with chosen counts, as evaluate would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from quantgate import stats
from quantgate.decide import Candidate
from quantgate.decide.rules import TargetRules
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.hardware.targets import Place
from quantgate.loadtest import Timed
from quantgate.loadtest.arrivals import draw
from quantgate.loadtest.drive import Run
from quantgate.loadtest.objectives import parse_objective
from quantgate.loadtest.prompts import Fitted
from quantgate.loadtest.result import LoadResult, result_of
from quantgate.loadtest.runs import Arm, Plan, cells
from quantgate.records import digest_of


def gate_of(capability: str = "math", **rules: object) -> Gate:
    return Gate.model_validate({"capability": capability, "suite": capability, "margin": 0.05} | rules)


def comparison_of(
    gate: Gate, n: int, lost: int = 0, gained: int = 0, *, wrong: int = 0, unscored: Sequence[str] = (), void: int = 0
) -> Comparison:
    """``n`` judged pairs: ``wrong`` are wrong on both sides, the rest right on both but for the flips."""
    base = [1.0] * lost + [0.0] * gained + [0.0] * wrong + [1.0] * (n - lost - gained - wrong)
    other = [0.0] * lost + [1.0] * gained + [0.0] * wrong + [1.0] * (n - lost - gained - wrong)
    finding = stats.judge(
        base, other, gate.margin, relative=gate.relative, test=gate.test, alpha=gate.alpha, pass_alpha=gate.pass_alpha
    )
    return Comparison(
        gate=gate,
        suite_digest=digest_of("cases"),
        n=n,
        asked=n + void,
        available=400,
        unscored=tuple(unscored),
        baseline_score=sum(base) / n if n else None,
        variant_score=sum(other) / n if n else None,
        finding=finding,
        slices=(),
        flips=(),
    )


def candidate_of(name: str, stored_bytes: int) -> Candidate:
    return Candidate(name=name, artifact=digest_of(name), stored_bytes=stored_bytes, bits_per_weight=4.0)


def evidence_of(name: str, *comparisons: Comparison, artifact: str | None = None, baseline: str = "base") -> Evidence:
    return Evidence(
        variant=name,
        artifact=artifact or digest_of(name),
        baseline=digest_of(baseline),
        engine=digest_of("engine"),
        baseline_engine=digest_of("baseline engine"),
        kernels=(),
        comparisons=comparisons,
        drift=None,
    )


class Make:
    gate = staticmethod(gate_of)
    comparison = staticmethod(comparison_of)
    candidate = staticmethod(candidate_of)
    evidence = staticmethod(evidence_of)

    @staticmethod
    def run(gate: Gate, **counts: tuple[int, int, int]) -> tuple[list[Candidate], list[Evidence]]:
        """``name=(bytes, cases, lost)`` for every variant, judged by one gate."""
        candidates = [candidate_of(name, size) for name, (size, _, _) in counts.items()]
        evidence = [evidence_of(name, comparison_of(gate, n, lost)) for name, (_, n, lost) in counts.items()]
        return candidates, evidence


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


def timed_of(at: int, due: float, e2e: float, *, tokens: int = 16, prompt: int = 128, lost: str = "") -> Timed:
    """A request that took ``e2e`` seconds, a quarter of them to its first token."""
    return Timed(
        at=at, due_s=due, lag_s=0.0, ttft_s=None if lost else e2e / 4, e2e_s=None if lost else e2e, gaps_s=(),
        tokens=None if lost else tokens, prompt_tokens=None if lost else prompt, beside=1.0, stages={}, lost=lost,
    )  # fmt: skip


def load_of(
    seconds: Mapping[float, float],
    *,
    limits: Mapping[int | None, float] = {None: 1.0},
    weights: tuple[str, ...] = (digest_of("base"), digest_of("small")),
    whats: tuple[str, ...] = (digest_of("engine of base"), digest_of("engine of small")),
    names: tuple[str, ...] = ("baseline", "small"),
    promises: Sequence[str] = ("e2e-p95=1s",),
    requests: int = 100,
    took: float = 1.0,
    partial: str = "",
    queue: float = 0.0,
    **timed: Any,
) -> LoadResult:
    """A load test as it would be kept: at each rate every request took so many ``seconds``, the baseline twice as long.

    ``limits`` multiply the times; ``took``: how much longer than asked the generator needed; the first rate was asked,
    and there each request waits ``queue`` seconds more than the one before.
    """
    schedules = [draw("constant", rate, requests / rate, 0) for rate in seconds]
    fitted = Fitted(requests=requests, made=0, cut=0, wanted_tokens=0, made_tokens=0, counted="", prompts="")
    plan = Plan(
        arms=tuple(Arm(name=name, what=what, weights=bytes_)
                   for name, what, bytes_ in zip(names, whats, weights or ("",) * len(names), strict=True)),
        schedules=tuple(schedules), fitted=(fitted,) * len(schedules), limits=tuple(limits),
        objectives=tuple(parse_objective(one) for one in promises),
    )  # fmt: skip
    done = {}
    for cell in cells(plan):
        rate = schedules[cell.schedule].rate
        slow = 2.0 if len(names) == 2 and cell.arm == 0 else 1.0
        e2e = seconds[rate] * slow * tuple(limits.values())[cell.limit]
        grows = queue if cell.schedule == 0 else 0.0
        ran = [timed_of(at, when, e2e + grows * at, **timed) for at, when in enumerate(schedules[cell.schedule].times)]
        window = schedules[cell.schedule].seconds
        done[cell] = Run(ran, len(ran), window, window, window * took, "", window + e2e + grows * len(ran))
    return result_of(plan, done, partial)


def rules_of(*gates: Gate, **place: Any) -> TargetRules:
    told = {"hardware": "here", "runtime": "torch", "rate": "4/s", "e2e_p95": "1s", "prompt": 128, "answer": 16} | place
    rules = {key: told.pop(key) for key in ("cost", "prefer", "speed", "stack") if key in told}
    place_ = Place.model_validate(told)
    return TargetRules.model_validate({"name": "desk", "place": place_, "gates": gates, "stack": "any"} | rules)


class Loads:
    """What tests of load evidence are made of."""

    timed = staticmethod(timed_of)
    result = staticmethod(load_of)
    rules = staticmethod(rules_of)


@pytest.fixture(scope="session")
def loads() -> type[Loads]:
    return Loads
