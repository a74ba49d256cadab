"""The record of a load test: every arm at every rate and limit, their ratio, the knee, the limit to run with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from quantgate.loadtest.drive import Run
from quantgate.loadtest.journal import Cell
from quantgate.loadtest.knee import Knee, LimitPoint, Policy, RatePoint, knee_of, policy_of
from quantgate.loadtest.measure import Measured, measure
from quantgate.loadtest.objectives import ALPHA, LATENCIES, Latency, Objective, latency_of, shown
from quantgate.loadtest.prompts import Fitted
from quantgate.records import Record
from quantgate.stats import Verdict
from quantgate.stats.quantiles import Ratio, ratio_of_quantiles

if TYPE_CHECKING:
    from quantgate.loadtest.runs import Plan

RATIOS = (0.5, 0.95)
LONG = 5  # median latencies that a stretch must last to show what a queue does


class Asked(Record):
    """One schedule in short; the plan's digest holds every arrival."""

    law: str
    rate: float  # requests a second
    seconds: float
    burstiness: float
    requests: int
    fitted: Fitted


class ArmResult(Record):
    """One arm at one rate and limit."""

    arm: str
    rate: float
    limit: int | None
    measured: Measured


class PairResult(Record):
    """The second arm over the first on the same requests: below 1 is faster."""

    rate: float
    limit: int | None
    latency: Latency
    ratios: tuple[Ratio, ...]


class LoadResult(Record):
    """Everything that ``quantgate loadtest`` found; ``load.json`` is this record."""

    plan: str  # digest
    arms: tuple[str, ...]  # names, the baseline first
    whats: tuple[str, ...]  # what each one is: a digest or an address
    weights: tuple[str, ...] = Field(default=(), exclude_if=lambda weights: not any(weights))
    """Digest of the bytes that each one ran; "" where only an address is known."""
    seed: int
    blocks: int
    objectives: tuple[Objective, ...]
    alpha: float = Field(default=ALPHA, exclude_if=lambda alpha: alpha == ALPHA)
    """What the intervals of all limits together may err by, since the best limit counts."""
    asked: tuple[Asked, ...]  # the asked rate first
    results: tuple[ArmResult, ...]
    pairs: tuple[PairResult, ...] = ()
    knees: dict[str, Knee] = {}
    policies: tuple[Policy, ...] = ()
    partial: str = Field(default="", exclude_if=lambda partial: not partial)
    """Why it is not whole; then nothing is decided on it."""
    verdict: Verdict | None  # of the last arm at the asked rate; None: nothing was asked for
    sentence: str
    notes: tuple[str, ...] = ()


def result_of(plan: Plan, done: Mapping[Cell, Run], partial: str) -> LoadResult:
    """``done`` may lack stretches, which ``partial`` says."""
    groups: dict[tuple[int, int, int], list[Run]] = {}
    for cell, run in sorted(done.items()):
        groups.setdefault((cell.schedule, cell.limit, cell.arm), []).append(run)
    results = tuple(
        ArmResult(
            arm=plan.arms[arm].name,
            rate=plan.schedules[at].rate,
            limit=plan.limits[limit],
            measured=measure(runs, plan.objectives, partial=partial, alpha=plan.alpha / len(plan.limits)),
        )
        for (at, limit, arm), runs in sorted(groups.items())
        if any(run.timed for run in runs)
    )
    verdict, sentence = _verdict(plan, results, partial)
    return LoadResult(
        plan=plan.digest,
        arms=tuple(one.name for one in plan.arms),
        whats=tuple(one.what for one in plan.arms),
        weights=tuple(one.weights for one in plan.arms) if any(one.weights for one in plan.arms) else (),
        alpha=plan.alpha,
        seed=plan.seed,
        blocks=plan.blocks,
        objectives=plan.objectives,
        asked=tuple(
            Asked(law=one.law, rate=one.rate, seconds=one.seconds, burstiness=one.burstiness,
                  requests=len(one.times), fitted=fitted)
            for one, fitted in zip(plan.schedules, plan.fitted, strict=True)
        ),
        results=results,
        pairs=tuple(_pairs(plan, done)) if len(plan.arms) == 2 else (),
        knees={arm.name: _knee(plan, results, arm.name) for arm in plan.arms} if len(plan.schedules) > 1 else {},
        policies=tuple(_policies(plan, results)),
        partial=partial,
        verdict=verdict,
        sentence=sentence,
        notes=tuple(_notes(plan, results)),
    )  # fmt: skip


def _pairs(plan: Plan, done: Mapping[Cell, Run]) -> list[PairResult]:
    """Of every stretch that both arms went through to its end: each request counts in both arms or in neither."""
    found = []
    for at, schedule in enumerate(plan.schedules):
        for limit, most in enumerate(plan.limits):
            blocks = [
                (done[cell], done[cell._replace(arm=1)])
                for cell in sorted(done)
                if (cell.schedule, cell.limit, cell.arm) == (at, limit, 0) and cell._replace(arm=1) in done
            ]
            for latency in LATENCIES:
                values = [_paired(*both, latency) for both in blocks]
                if any(base for base, _ in values):
                    ratios = tuple(ratio_of_quantiles(values, q, seed=plan.seed) for q in RATIOS)
                    found.append(PairResult(rate=schedule.rate, limit=most, latency=latency, ratios=ratios))
    return found


def _paired(base: Run, other: Run, latency: Latency) -> tuple[list[float], list[float]]:
    beside = {one.at: one for one in other.timed}
    values: tuple[list[float], list[float]] = ([], [])
    for one in base.timed:
        twin = beside.get(one.at)
        if twin is None:
            continue
        both = [math.inf if each.lost else latency_of(each, latency) for each in (one, twin)]
        if both[0] is not None and both[1] is not None:
            values[0].append(both[0])
            values[1].append(both[1])
    return values


def watched(objectives: Sequence[Objective]) -> tuple[Latency, float]:
    """What curves are drawn of: the first objective, else the end of 95 % of all requests."""
    return (objectives[0].latency, objectives[0].q) if objectives else ("e2e", 0.95)


def kept_of(measured: Measured) -> Literal["pass", "fail", "inconclusive", "none"]:
    """Of all objectives together: one that fails fails them, and all must pass."""
    verdicts = {one.verdict for one in measured.kept}
    if not verdicts:
        return "none"
    return "fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "inconclusive"


def _knee(plan: Plan, results: Sequence[ArmResult], arm: str) -> Knee:
    own = [one for one in results if one.arm == arm and one.limit == plan.limits[0]]
    return knee_among(own, plan.objectives)


def knee_among(own: Sequence[ArmResult], objectives: Sequence[Objective]) -> Knee:
    """Of one arm at several rates under one limit, watched by the first objective."""
    latency, q = watched(objectives)
    points = []
    for one in own:
        found = one.measured.at(latency, q)
        points.append(
            RatePoint(
                rate=one.rate,
                keeps_up=one.measured.keeps_up,
                latency_s=found.value if found else None,
                kept=kept_of(one.measured),
                valid=one.measured.validity.valid,
            )
        )
    return knee_of(points, f"{latency} p{100 * q:g}")


def _policies(plan: Plan, results: Sequence[ArmResult]) -> list[Policy]:
    if len([one for one in plan.limits if one is not None]) < 1 or not plan.objectives:
        return []
    latency, q = watched(plan.objectives)
    found = []
    for arm in plan.arms:
        points = []
        for one in results:
            if one.arm == arm.name and one.limit is not None and one.rate == plan.schedules[0].rate:
                value = one.measured.at(latency, q)
                points.append(
                    LimitPoint(limit=one.limit, kept=kept_of(one.measured), latency_s=value.value if value else None)
                )
        if points:
            found.append(policy_of(arm.name, points, f"{latency} p{100 * q:g}"))
    return found


def _verdict(plan: Plan, results: Sequence[ArmResult], partial: str) -> tuple[Verdict | None, str]:
    """Of the last arm at the asked rate; under several limits, the best of them counts."""
    arm, rate = plan.arms[-1].name, plan.schedules[0].rate
    own = [one for one in results if one.arm == arm and one.rate == rate]
    place = f"{arm} at {rate:g} requests/s"
    if partial:
        return ("inconclusive" if plan.objectives else None), f"{place}: partial, {partial}; nothing is decided on it"
    doubts = [one.measured.validity.because for one in own if not one.measured.validity.valid]
    if doubts and len(doubts) == len(own):
        return ("inconclusive" if plan.objectives else None), f"{place}: not a valid run, {doubts[0]}"
    if not plan.objectives:
        return None, f"{place}: measured; name objectives such as --ttft-p95 300ms to have it judged"
    found = [kept_of(one.measured) for one in own]
    verdict: Verdict = "pass" if "pass" in found else "fail" if set(found) == {"fail"} else "inconclusive"
    best = own[found.index(verdict)] if verdict in found else own[0]
    rows = [f"{one.objective.label}: {one.verdict}, {one.because}" for one in best.measured.kept]
    under = "" if best.limit is None else f" with at most {best.limit} in flight"
    return verdict, f"{place}{under}: {'; '.join(rows)}"


def _notes(plan: Plan, results: Sequence[ArmResult]) -> list[str]:
    """What a reader must know to read the numbers."""
    silent = {one.arm for one in results if one.measured.answered and one.measured.token_rate is None}
    found = [f"{arm} sends no usage: its tokens are not counted, so tokens/s and TPOT are unknown" for arm in silent]
    for one in results:
        if not one.measured.validity.valid and len(results) > 1:  # of one result the sentence says it
            under = "" if one.limit is None else f", limit {one.limit}"
            found.append(f"{one.arm} at {one.rate:g}/s{under}: not valid, {one.measured.validity.because}")
    found += _short(plan, results)
    for schedule, fitted in zip(plan.schedules, plan.fitted, strict=True):
        if fitted.cut:
            found.append(
                f"at {schedule.rate:g}/s: {fitted.cut} of {fitted.made} prompts were shortened to the model's context"
            )
    return found


def _short(plan: Plan, results: Sequence[ArmResult]) -> list[str]:
    """Rates whose stretches end before a queue can be seen: each begins with an empty one."""
    found = []
    for schedule in plan.schedules if plan.blocks > 1 else ():
        stretch = schedule.seconds / plan.blocks
        medians = [one.measured.validity.median_s for one in results if one.rate == schedule.rate]
        slowest = max((one for one in medians if one is not None), default=0.0)
        if stretch < LONG * slowest:
            found.append(
                f"at {schedule.rate:g}/s: stretches of {shown(stretch)} are short beside a median latency of "
                f"{shown(slowest)}, and each begins without a queue; take a longer --duration, or fewer --blocks"
            )
    return found
