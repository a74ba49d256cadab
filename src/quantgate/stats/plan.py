"""Planning: how many cases a margin needs before anything is spent."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from quantgate.stats.paired import PairedCounts, exact_p, tango_p
from quantgate.stats.sequential import log_e

LIMIT = 200_000  # more cases than anybody has


def power_cases(flip_rate: float, margin: float, *, alpha: float = 0.05, power: float = 0.80, change: float = 0.0) -> int:
    """Cases for a fixed-n test to pass with probability ``power`` when a share ``flip_rate`` of answers flips.

    n = (z_alpha + z_power)^2 (flip_rate - change^2) / (margin + change)^2, the normal approximation.
    """
    z = float(norm.isf(alpha) + norm.isf(1 - power))
    return math.ceil(z * z * (flip_rate - change * change) / (margin + change) ** 2)


def fewest_cases(margin: float, *, test: str = "eprocess", alpha: float = 0.05, relative: bool = False, baseline: float = 1.0) -> int:
    """The fewest cases with which a margin can be proven at all: no answer may flip.

    For the e-process, ``relative`` margins depend on the baseline's score: cases that both get wrong prove nothing.
    """
    if test == "eprocess":
        return smallest(lambda n: _e_pass_without_flips(n, margin, relative, baseline) >= math.log(1 / alpha))
    p_value = exact_p if test == "exact" else tango_p
    return smallest(lambda n: p_value(PairedCounts(n, 0, 0), margin) <= alpha)


def _e_pass_without_flips(n: int, margin: float, relative: bool, baseline: float) -> float:
    right = round(n * baseline)
    if relative:
        return log_e([(margin, right), (0.0, n - right)], 0.0, -(1.0 - margin), 1.0)[0]
    return log_e([(0.0, n)], -margin, -1.0, 1.0)[0]


def needed_cases(
    values: list[tuple[float, int]], c: float, low: float, high: float, *, pass_alpha: float, fail_alpha: float
) -> int | None:
    """Cases after which the e-process would decide if answers went on as in ``values`` (value, count).

    Its logarithm grows by about the same amount per case, so the values seen are scaled up until one side crosses. None
    when the change seen lies on the margin itself, where no number of cases decides.
    """
    n = sum(count for _, count in values)
    if n == 0:
        return None

    def decided(total: int) -> bool:
        scaled = [(value, count * total / n) for value, count in values]
        passing, failing = log_e(scaled, c, low, high)  # type: ignore[arg-type]
        return passing >= math.log(1 / pass_alpha) or failing >= math.log(1 / fail_alpha)

    return smallest(decided, start=n) if decided(LIMIT) else None


def smallest(enough: object, start: int = 1) -> int:
    """The smallest n >= start for which ``enough(n)``, which stays true once it is; by doubling, then halving."""
    assert callable(enough)
    high = start
    while not enough(high):
        high *= 2
        if high > 2 * LIMIT:
            return high
    low = max(start, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def flips_allowed(n: int, margin: float, *, alpha: float = 0.05) -> int:
    """How many losses without a single gain still pass an absolute margin after ``n`` cases (-1: not even none)."""
    losses = -1
    for candidate in range(n + 1):
        if log_e([(0.0, n - candidate), (-1.0, candidate)], -margin, -1.0, 1.0)[0] < np.log(1 / alpha):
            break
        losses = candidate
    return losses
