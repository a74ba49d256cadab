"""Live evidence by simulation: how often it is wrong, how soon it is right, and beside it the rules that others use.

    python -m benchmarks watch [--quick] [--write]

Six hours, a look every minute, 600 requests a minute of which one in ten is the canary's, 2 % of them bad, alpha 1 %.
Everything is seeded. The e-values are those of ``quantgate.stats``, for all runs at once (``_watch_evidence``; tests
hold them equal). Signals and weights are those that ship; each is given the same 2 % and independent noise, so that
every one of them has its chance of a false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from benchmarks import _watch_evidence as evidence
from benchmarks import _watch_long as long
from benchmarks import _watch_peers as peers
from benchmarks import _watch_traffic as traffic
from benchmarks._watch_ramp import CONFIG, climb
from benchmarks._watch_traffic import Array
from benchmarks.tables import Table
from quantgate.stats.detectors import Form
from quantgate.watch import signals

ALPHA = 0.01
BAR = math.log(1 / ALPHA)
FOCUS, SLOW = "validation_failure", "end_to_end"
PAIRS = 60  # a minute, of which 4 % differ
FEW = 100  # runs of ADWIN, which sees answers one by one


@dataclass(frozen=True)
class Process:
    """One direction of one signal."""

    signal: str
    kind: str
    falling: bool
    weight: float  # of the error rate; all sum to 1

    @property
    def bar(self) -> float:
        return BAR - math.log(self.weight)


def run(*, quick: bool = False, threads: int = 2) -> list[Table]:
    """Three tables. ``threads`` is not used: everything is numpy in one thread."""
    runs = 100 if quick else 2000
    return [_goals(runs), _beside(max(20, runs // 4)), _long(max(20, runs // 10))]


def processes() -> list[Process]:
    """Of every signal that ships, its weight shared by its directions."""
    found = []
    for name in signals.names():
        one = signals.get(name)
        falls = (False, True) if one.worse == "either" else (one.worse == "less",)
        found += [Process(name, one.kind, falling, one.weight / len(falls)) for falling in falls]
    total = math.fsum(one.weight for one in found)
    return [Process(one.signal, one.kind, one.falling, one.weight / total) for one in found]


def crossing(
    rng: np.random.Generator,
    runs: int,
    one: Process,
    *,
    odds: Array,
    base: float | Array = traffic.BASE,
    ratio: float = 1.0,
    slower: float = 1.0,
    spread: float = 0.6,
) -> Array:
    """The minute at which one process of many decides, [runs]."""
    if one.kind == "quantity":
        seen = traffic.delays(rng, runs, slower=slower, spread=spread, odds=odds, falling=one.falling)
        return evidence.first(evidence.slower(*seen, odds) >= one.bar)
    if one.kind == "pair":
        pairs = traffic.events(rng, runs, ratio=ratio, base=0.04, odds=np.full(len(odds), 0.5), requests=PAIRS)
        return evidence.first(evidence.worse(pairs) >= one.bar)
    seen_events = traffic.events(rng, runs, ratio=ratio, base=base, odds=odds)
    if one.falling:
        bad, trial = seen_events.bad, seen_events.bad - seen_events.trial_bad
        return evidence.first(evidence.attributed(bad, trial, 1 - odds, 1.0) >= one.bar)
    return evidence.first(evidence.worse(seen_events) >= one.bar)


def any_crossing(
    seed: int,
    runs: int,
    *,
    odds: Array | None = None,
    base: float | Array = traffic.BASE,
    signal: str = "",
    ratio: float = 1.0,
    slower: float = 1.0,
) -> Array:
    """The minute at which the first of all signals decides; ``ratio`` or ``slower`` is the fault of one, ``signal``."""
    known = traffic.steady() if odds is None else odds
    rng, soonest = np.random.default_rng(seed), np.full(runs, np.inf)
    for one in processes():
        here = one.signal == signal and not one.falling
        found = crossing(
            rng, runs, one, odds=known, base=base, ratio=ratio if here else 1.0, slower=slower if here else 1.0
        )
        soonest = np.minimum(soonest, found)
    return soonest


def single(
    seed: int, runs: int, *, ratio: float = 1.0, base: float | Array = traffic.BASE, odds: Array | None = None
) -> Array:
    """The minute at which one signal with all of the error rate decides."""
    seen = traffic.events(np.random.default_rng(seed), runs, ratio=ratio, base=base, odds=odds)
    return evidence.first(evidence.worse(seen) >= BAR)


def slow(seed: int, runs: int, *, slower: float = 1.2, spread: float = 0.6, minutes: int = 120) -> Array:
    """Likewise, of a quantity."""
    only, odds = Process(SLOW, "quantity", False, 1.0), traffic.steady(minutes=minutes)
    return crossing(np.random.default_rng(seed), runs, only, odds=odds, slower=slower, spread=spread)


def _goals(runs: int) -> Table:
    few, short = max(20, runs // 2), traffic.steady(minutes=120)
    swing, ramp = traffic.swing(), traffic.ramp()
    by_session, by_request = traffic.sessions(np.random.default_rng(5), runs, icc=0.3)
    worse, _ = traffic.sessions(np.random.default_rng(6), few, icc=0.3, ratio=2.0)
    lightest = min((one for one in processes() if one.kind == "event" and not one.falling), key=lambda one: one.weight)
    focus, delay = (next(one.weight for one in processes() if one.signal == name) for name in (FOCUS, SLOW))
    rows = [
        _false("no fault, one signal", single(1, runs)),
        _false("no fault, bad rate swings 0.4 to 3.6 %", single(2, runs, base=swing)),
        _false("no fault, ramp 1, 5, 25, 50 %", single(3, runs, odds=ramp)),
        _false("no fault, sticky sessions of 5, correlation 0.3", evidence.first(evidence.worse(by_session) >= BAR)),
        _false("no fault, one quantity (delay)", slow(4, runs, slower=1.0, minutes=traffic.MINUTES)),
        _false("no fault, all signals", any_crossing(7, runs)),
        _false("no fault, all signals, swing and ramp", any_crossing(8, runs, odds=ramp, base=swing)),
        _false("the same sessions counted by request (why they are not)",
               evidence.first(evidence.worse(by_request) >= BAR), goal=False),
        _soon("2x, one signal", single(11, few, ratio=2.0), 15),
        _soon("3x, one signal", single(12, few, ratio=3.0), 5),
        _soon("20 % slower, one signal, spread 0.6", slow(13, few), 8),
        _soon(f"2x {FOCUS}, all signals", any_crossing(14, few, odds=short, signal=FOCUS, ratio=2.0), 15),
        _soon(f"3x {FOCUS}, all signals", any_crossing(15, few, odds=short, signal=FOCUS, ratio=3.0), 5),
        _soon(f"20 % slower {SLOW}, all signals", any_crossing(16, few, odds=short, signal=SLOW, slower=1.2), 8),
        _soon("20 % slower, one signal, spread 0.4", slow(17, few, spread=0.4)),
        _soon("20 % slower, one signal, spread 0.8", slow(18, few, spread=0.8)),
        _soon("10 % slower, one signal, spread 0.6", slow(19, few, slower=1.1)),
        _soon("2x, one signal, sticky sessions of 5", evidence.first(evidence.worse(worse) >= BAR)),
        _soon(f"2x {lightest.signal} (weight {lightest.weight:.3f}, the lightest), all signals",
              any_crossing(20, few, odds=short, signal=lightest.signal, ratio=2.0)),
    ]  # fmt: skip
    note = (
        f"{runs:,} runs where there is no fault, {few:,} with one; the median is of all runs. Spread is the standard "
        "deviation of the logarithm of delays. Of all signals only the one that is named has the fault, and of the "
        f"error rate {FOCUS} has {focus:.0%}, {SLOW} {delay:.0%}."
    )
    return Table(("six hours, a look a minute, alpha 1 %", "measured", "goal", ""), tuple(rows), "Evidence", (note,))


def _false(what: str, minutes: Array, *, goal: bool = True) -> tuple[str, str, str, str]:
    share = float(np.isfinite(minutes).mean())
    return (
        what,
        f"{share:.2%} rolled back",
        f"at most {ALPHA:.0%}" if goal else "",
        ("met" if share <= ALPHA else "missed") if goal else "",
    )


def _soon(what: str, minutes: Array, goal: int | None = None) -> tuple[str, str, str, str]:
    median, found = float(np.median(minutes)), float(np.isfinite(minutes).mean())
    told = f"median {median:g} min, {found:.1%} found"
    return what, told, f"{goal} min" if goal else "", "" if goal is None else "met" if median <= goal else "missed"


def _beside(runs: int) -> Table:
    """Every rule over the same traffic."""
    rules: dict[str, Callable[[traffic.Seen], Array | None]] = {
        "quantgate": lambda seen: evidence.first(evidence.worse(seen) >= BAR),
        "Flagger-style: 5 checks over 5 %": peers.flagger,
        "Argo-style: 5 min over 5 %": peers.argo,
        "Kayenta-style: Mann-Whitney": peers.kayenta,
        "z-test at 1 %, every minute": peers.z_test,
        "ADWIN (river), no control": lambda seen: peers.adwin(traffic.head(seen, FEW), np.random.default_rng(31)),
    }
    cases: dict[str, dict[str, Any]] = {
        "no fault": {}, "swing": {"base": traffic.swing()}, "ramp": {"odds": traffic.ramp()},
        "1.25x": {"ratio": 1.25}, "1.5x": {"ratio": 1.5}, "2x": {"ratio": 2.0}, "3x": {"ratio": 3.0},
    }  # fmt: skip
    drawn = {
        name: traffic.events(np.random.default_rng(40 + at), runs, **how)
        for at, (name, how) in enumerate(cases.items())
    }
    rows, missing = [], ""
    for rule, judge in rules.items():
        cells = [judge(seen) for seen in drawn.values()]
        if any(one is None for one in cells):
            missing = " The row of ADWIN is left out: river is not installed (pip install river)."
            continue
        rows.append((rule, *(_cell(one) for one in cells if one is not None)))
    note = (
        f"{runs} runs each (ADWIN {min(FEW, runs)}), everything else as above. The first three columns have no fault: "
        "there every alarm is false. Elsewhere: share found within six hours, median minute of those found."
        f"{missing}"
    )
    return Table(("rule", *cases), tuple(rows), "Beside the rules of others", (note,))


def _cell(minutes: Array) -> str:
    found = np.isfinite(minutes)
    share = f"{found.mean():.1%}"
    return f"{share}, {np.median(minutes[found]):g} min" if found.any() else share


def _long(runs: int) -> Table:
    """Ramps, late faults and detectors."""
    promoting = [signals.get(name) for name in signals.names() if signals.get(name).promotes]
    quantities = sum(one.kind == "quantity" for one in promoting)
    of_all = {"signals": len(promoting) - quantities, "quantities": quantities}
    rows = [
        _climbed("equal, one signal", climb(np.random.default_rng(51), runs)),
        _climbed(f"equal, all {len(promoting)} signals that promote", climb(np.random.default_rng(52), runs, **of_all)),
        _climbed("equal, one signal of 0.1 % (floor 0.5 %)", climb(np.random.default_rng(53), runs, base=0.001)),
        _climbed("1.25x worse, one signal", climb(np.random.default_rng(54), 5 * runs, ratio=1.25)),
        _climbed("3x worse, one signal (the margin at 1 %)", climb(np.random.default_rng(55), 5 * runs, ratio=3.0)),
    ]
    rows += _late(runs) + _alone(runs)
    steps = ", ".join(f"{one.share:.0%} until {one.margin:g}x is excluded" for one in CONFIG.steps)
    note = (
        f"{runs} runs, {5 * runs} of a ramp with a fault. Steps: {steps}; 200 units and 10 min each at least; error "
        f"rate of a step {CONFIG.beta:.0%}. Medians of all runs; a step that fewer than half passed shows how many did."
    )
    return Table(("what", "measured"), tuple(rows), "Ramps, late faults, no control", (note,))


def forever(_copy: int) -> float:
    return math.inf


def _late(runs: int) -> list[tuple[str, str]]:
    """Evidence begun once, eight times in 30 days, or every hour and given up as the watch does it."""
    ways = (("once", 1, forever, 1440), ("8 times", 8, forever, 4320), ("hourly", 720, long.doubling, 1440))
    rows = []
    for ratio in (1.0, 2.0, 3.0):
        what = f"{ratio:g}x after 14 good days, 2 % holdback" if ratio > 1 else "no fault for 15 days"
        for name, copies, life, horizon in ways:
            rng = np.random.default_rng(56)
            found = long.renewed(rng, runs // 2, ratio=ratio, copies=copies, life=life, horizon=horizon)
            rows.append((f"{what}, evidence begun {name}", _median(found)))
    return rows


def _alone(runs: int) -> list[tuple[str, str]]:
    rows, arl = [], 1e6
    for form in get_args(Form):
        for rate in (0.02, 0.04, 0.06):
            rng = np.random.default_rng(58)
            units = long.detected(rng, runs, form=form, rate=rate, bound=0.025, arl=arl, units=72_000)
            rows.append((f"no control, {form}, bound 2.5 %, ARL 1e6 units, rate {rate:.0%}", _median(units / 600)))
    return rows


def _climbed(what: str, done: Array) -> tuple[str, str]:
    parts = []
    for step, minutes in zip(CONFIG.steps, done.T, strict=True):
        share = float(np.isfinite(minutes).mean())
        middle = float(np.quantile(minutes, 0.5, method="higher")) if share > 0.5 else math.inf
        parts.append(f"{step.share:.0%}: {middle:g} min" if share > 0.5 else f"{step.share:.0%}: {share:.1%} passed")
    return f"ramp, {what}", "; ".join(parts)


def _median(minutes: Array) -> str:
    found = np.isfinite(minutes)
    if not found.any():
        return "never found"
    middle = float(np.quantile(minutes, 0.5, method="higher"))
    if math.isinf(middle):
        return f"{found.mean():.1%} found in the time simulated"
    return f"median {middle:,.{0 if middle >= 10 else 1}f} min, {found.mean():.1%} found"
