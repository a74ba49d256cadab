"""Event attribution: whose are the bad events? Evidence that a trial has more, or no more, of them than its control.

Every unit (a session, a request) goes to the trial with known odds f, else to the control. Whatever the rate of bad
events is at that moment, if the trial's is r times the control's, a bad event is the trial's with probability

    g(f, r) = f r / (f r + 1 - f)

and if it is at most r times, with at most that. For alternatives a r, a > 1, with weights w, a bad event multiplies

    E = sum_a w_a prod g(f, a r) / g(f, r)  if it is the trial's,  (1 - g(f, a r)) / (1 - g(f, r))  if the control's

    log E_a = x log a + sum_f n_f (log D_f(r) - log D_f(a r)),    D_f(r) = f r + 1 - f

n_f bad events at odds f, x of all of them the trial's. E is an e-process of "at most r times as many": it ever reaches
1 / alpha with probability at most alpha, whatever the traffic, the swing of the day, the ramp or the peeking. It falls
in r for every a, so that inverting it gives a confidence sequence of the ratio. It needs no units that went well.

"At least r times as many" is the same with alternatives r / a. A pair of answers to one prompt (shadow) of which one
is worse is a bad event at odds 1/2.

Source: Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022 (arXiv 2011.03567),
section 4; the mixture over a grid instead of a Beta prior, so that any odds share one alternative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from quantgate.stats.renewal import decided_at, log_mix
from quantgate.stats.search import turning_point

Counts = dict[float, list[int]]
"""Odds -> [bad events, of them the trial's]. Odds are those of the trial, as drawn; 0 and 1 tell nothing."""

FACTORS = (1.1, 1.25, 1.5, 2.0, 2.5, 5.0)  # a: how many times beyond the ratio
WEIGHTS = (0.02, 0.05, 0.13, 0.3, 0.4, 0.1)  # of "worse": tuned for 2 and 3 times as many, benchmarks/watch.py
WEIGHTS_BETTER = (0.05, 0.4, 0.25, 0.15, 0.1, 0.05)  # of "better": for equals beside margins of 1.25, 1.5, 2 and 3
INVERSE = tuple(1.0 / a for a in FACTORS)
WIDEST = 1e4  # ratios beyond this, or below its inverse, are called not bounded
WITHIN = 1e-6  # of a ratio, its ends are found

Seen = tuple[list[tuple[float, int]], int]
"""(odds, bad events) in one order, so that sums round alike; and how many of all are the trial's."""


def log_worse(counts: Mapping[float, Sequence[int]], ratio: float = 1.0) -> float:
    """log E against "the trial's risk is at most ``ratio`` times the control's"; it falls as ``ratio`` rises."""
    return _log_worse(_seen(counts), ratio)


def log_better(counts: Mapping[float, Sequence[int]], margin: float = 1.25) -> float:
    """log E against "the trial's risk is at least ``margin`` times the control's"; it rises with ``margin``."""
    return _log_better(_seen(counts), margin)


def interval(counts: Mapping[float, Sequence[int]], alpha: float) -> tuple[float | None, float | None]:
    """Confidence sequence of the ratio of risks, both sides together at ``alpha``; None where it is not bounded.

    The ends of the ratios that neither test rejects at alpha / 2, so ``low >= 1`` just when ``log_worse`` has crossed
    log(2 / alpha) and ``high <= 1`` just when ``log_better(counts, 1)`` has.
    """
    seen = _seen(counts)
    return inverted(partial(_log_worse, seen), partial(_log_better, seen), alpha)


def estimate(counts: Mapping[float, Sequence[int]]) -> float | None:
    """The likeliest ratio of risks; None where there is no event, or none of the control's."""
    rows, trial = _seen(counts)
    events = sum(bad for _, bad in rows)
    if not events or trial == events:
        return None
    if not trial:
        return 0.0

    def too_low(log_ratio: float) -> bool:
        ratio = math.exp(log_ratio)
        return math.fsum(bad * odds * ratio / (odds * ratio + 1.0 - odds) for odds, bad in rows) < trial

    return math.exp(sum(turning_point(too_low, -50.0, 50.0)) / 2.0)


def mirrored(counts: Mapping[float, Sequence[int]]) -> Counts:
    """The same events with the roles exchanged: for signals of which fewer are worse.

    >>> mirrored({0.25: [10, 3]})
    {0.75: [10, 7]}
    """
    other: Counts = {}
    for odds, (events, trial) in counts.items():
        row = other.setdefault(1.0 - odds, [0, 0])  # odds that differ by a rounding may meet here
        row[0] += events
        row[1] += events - trial
    return other


def inverted(
    worse: Callable[[float], float], better: Callable[[float], float], alpha: float
) -> tuple[float | None, float | None]:
    """(low, high): the ends of the ratios at which neither log e has reached log(2 / alpha); both are cut at 1.

    ``worse`` falls and ``better`` rises as the ratio does.
    """
    enough, widest = decided_at(alpha / 2.0), math.log(WIDEST)

    def above(log_ratio: float) -> bool:
        return worse(math.exp(log_ratio)) >= enough

    def not_below(log_ratio: float) -> bool:
        return better(math.exp(log_ratio)) < enough

    low = turning_point(above, *((0.0, widest) if above(0.0) else (-widest, 0.0)), within=WITHIN)[0]
    high = turning_point(not_below, *((0.0, widest) if not_below(0.0) else (-widest, 0.0)), within=WITHIN)[1]
    return None if low <= -widest else math.exp(low), None if high >= widest else math.exp(high)


def _log_worse(seen: Seen, ratio: float) -> float:
    return log_mix(zip(WEIGHTS, _logs(seen, ratio, FACTORS), strict=True))


def _log_better(seen: Seen, margin: float) -> float:
    return log_mix(zip(WEIGHTS_BETTER, _logs(seen, margin, INVERSE), strict=True))


def _logs(seen: Seen, ratio: float, factors: Sequence[float]) -> list[float]:
    """log E_a of every factor a."""
    rows, trial = seen
    here = math.fsum(bad * math.log1p(odds * (ratio - 1.0)) for odds, bad in rows)
    there = (math.fsum(bad * math.log1p(odds * (ratio * a - 1.0)) for odds, bad in rows) for a in factors)
    return [trial * math.log(a) + here - one for a, one in zip(factors, there, strict=True)]


def _seen(counts: Mapping[float, Sequence[int]]) -> Seen:
    return (
        [(odds, counts[odds][0]) for odds in sorted(counts) if 0.0 < odds < 1.0],
        sum(trial for odds, (_, trial) in counts.items() if 0.0 < odds < 1.0),
    )


__all__ = [
    "FACTORS",
    "WEIGHTS",
    "WEIGHTS_BETTER",
    "Counts",
    "estimate",
    "interval",
    "inverted",
    "log_better",
    "log_worse",
    "mirrored",
]
