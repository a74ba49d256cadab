"""The rate of bad events of one side alone: evidence that it is below a floor or above a bound, and its limits.

For a bound c on the probability of a bad event and an alternative whose odds are a times as high, every unit multiplies

    E_a by  a / (1 + (a - 1) c)  if it is bad,  1 / (1 + (a - 1) c)  if it is not

    log E_a = bad log a - n log(1 + (a - 1) c)

a > 1 gives an e-process of "every unit's probability is at most c", a < 1 one of "at least c"; a mixture over a grid of
a is one too, and n and bad are all it needs, in whatever order they came. E_a is monotone in c, so the rates that are
not rejected form an interval. Where the rate changes over time it holds the null's units to c one by one.

Source: Waudby-Smith and Ramdas, JRSS B 2024 (arXiv 2010.09686), section 3; 1 + lambda (x - c), lambda = (a - 1) / (1 +
(a - 1) c), written in a so that one bet serves every c.
"""

from __future__ import annotations

import math

from quantgate.errors import DataError
from quantgate.stats.renewal import decided_at, log_mix
from quantgate.stats.search import turning_point

ABOVE = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)  # a
BELOW = (0.95, 0.9, 0.8, 2.0 / 3.0, 0.5, 1.0 / 3.0, 0.2, 0.02)


def log_above(bad: int, n: int, bound: float) -> float:
    """log E against "at most ``bound`` of the units are bad": the rate is above it."""
    return _log_e(bad, n, bound, ABOVE)


def log_below(bad: int, n: int, floor: float) -> float:
    """log E against "at least ``floor`` of the units are bad": the rate is below it."""
    return _log_e(bad, n, floor, BELOW)


def interval(bad: int, n: int, alpha: float) -> tuple[float, float]:
    """Confidence sequence of the rate, in [0, 1], both sides together at ``alpha``; rounded outwards."""
    enough = decided_at(alpha / 2.0)
    low = turning_point(lambda rate: log_above(bad, n, rate) >= enough, 0.0, 1.0)[0]
    high = turning_point(lambda rate: log_below(bad, n, rate) < enough, 0.0, 1.0)[1]
    return low, high


def _log_e(bad: int, n: int, bound: float, odds: tuple[float, ...]) -> float:
    if not 0 <= bad <= n:
        raise DataError(f"{bad} bad units of {n}; count every unit, and a bad one among them")
    if not 0.0 < bound < 1.0:
        return 0.0  # nothing is above 1 or below 0
    return log_mix((1.0 / len(odds), bad * math.log(a) - n * math.log1p((a - 1.0) * bound)) for a in odds)


__all__ = ["interval", "log_above", "log_below"]
