"""Quantiles with intervals that assume no distribution, and the ratio of two arms' quantiles by resampled blocks.

A request that never answered took longer than all that did, however long the others took: it is counted ``beyond`` the
largest value. A quantile that falls among such requests has no value, which is not the same as a large one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy.stats import binom, norm
from scipy.stats import t as student

from quantgate.errors import DataError
from quantgate.records import Record

ROUNDS = 2000  # resamples of the bootstrap


class Quantile(Record):
    """The ``q`` quantile of ``n`` values, ``beyond`` of which never came."""

    q: float
    n: int
    beyond: int = 0
    dependence: float = Field(
        default=1.0, exclude_if=lambda one: one == 1.0
    )  # values that count as one independent one
    value: float | None  # the ceil(n q)-th smallest; None where that one never came
    low: float | None  # two-sided limits of the true quantile; None where the values bound it on that side by nothing
    high: float | None


def quantile(
    values: Sequence[float], q: float, *, beyond: int = 0, alpha: float = 0.05, dependence: float = 1.0
) -> Quantile:
    """The quantile and its exact interval at 1 - ``alpha`` from order statistics.

    The number of values at or below the true quantile is Binomial(n, q), so the l-th and u-th smallest enclose it with
    at least 1 - alpha where P(X < l) and P(X >= u) are at most alpha / 2 each (David and Nagaraja, Order Statistics,
    section 7.1). Holds for independent values of any continuous law; with ``dependence`` d, n values count as n / d
    independent ones. Raises DataError without values.

    >>> found = quantile([float(one) for one in range(1, 101)], 0.5)
    >>> found.value, found.low, found.high
    (50.0, 40.0, 61.0)
    """
    n = len(values) + beyond
    if not n or not 0 < q < 1:
        raise DataError(f"a quantile q={q:g} of {n} values: expected 0 < q < 1 and at least 1 value")
    ordered = sorted(values)
    low, high = ranks(n, q, alpha, dependence)

    def at(rank: int) -> float | None:
        return ordered[rank - 1] if 1 <= rank <= len(ordered) else None

    return Quantile(
        q=q,
        n=n,
        beyond=beyond,
        dependence=max(1.0, dependence),
        value=at(max(1, math.ceil(n * q - 1e-9))),
        low=at(low),
        high=at(high),
    )


def ranks(n: int, q: float, alpha: float, dependence: float = 1.0) -> tuple[int, int]:
    """Ranks l and u (from 1) of the order statistics that enclose the quantile; 0 and n + 1 are no limit.

    >>> ranks(100, 0.5, 0.05), ranks(50, 0.99, 0.05), ranks(400, 0.5, 0.05, dependence=4.0)
    ((40, 61), (48, 51), (160, 244))
    """
    fewer = max(1, int(n / max(1.0, dependence)))
    if fewer < n:
        (low, high), alone = ranks(fewer, q, alpha), ranks(n, q, alpha)
        high = n + 1 if high > fewer else -(-high * n // fewer)
        return min(low * n // fewer, alone[0]), max(high, alone[1])  # of very few values, rounding may narrow
    below = binom.cdf(np.arange(-1, n + 1), n, q)  # below[l] = P(X <= l - 1)
    low = int(np.searchsorted(below[: n + 1], alpha / 2, side="right")) - 1
    high = int(np.searchsorted(below[: n + 1], 1 - alpha / 2, side="left"))
    return low, high if high <= n else n + 1


def fewest(q: float, alpha: float = 0.05) -> int:
    """Independent values that bound the ``q`` quantile from above at all: the largest of n is beyond it with 1 - q^n.

    >>> fewest(0.5), fewest(0.95), fewest(0.99)
    (6, 72, 368)
    """
    return math.ceil(math.log(alpha / 2) / math.log(q))


def dependence(above: Sequence[bool], group: int = 0) -> float:
    """How many values of a series count as one independent value, for a quantile; at least 1.

    ``above`` says of each value, in the order of time, whether it lies above the quantile. In a queue neighbours wait
    alike. The variance of the means of whole groups, over what it would be without dependence (batch means; Law,
    Simulation Modeling and Analysis, section 9.5.3), widened by Student's t for being read off few groups. ``group``
    0 takes n^0.6 values, which in simulated queues covers best. Fewer than 72 values are taken as independent: so few
    groups say nothing about it, and no p95 is bounded by them anyway.
    """
    n = len(above)
    share = sum(above) / n if n else 0.0
    size = group or int(n**0.6)
    if n < 72 or not 0 < share < 1:
        return 1.0
    count = n // size
    means = np.asarray(above[n - count * size :], float).reshape(count, size).mean(axis=1)
    few = float(student.ppf(0.975, count - 1) / norm.ppf(0.975)) ** 2
    return max(1.0, few * float(means.var(ddof=1)) * size / (share * (1 - share)))


class Ratio(Record):
    """A quantile of the variant over that of the baseline, each request asked of both."""

    q: float
    blocks: int
    value: float | None
    low: float | None  # limits at 1 - alpha; None where too few blocks, or lost requests, leave them open
    high: float | None


def ratio_of_quantiles(
    blocks: Sequence[tuple[Sequence[float], Sequence[float]]],
    q: float,
    *,
    seed: int,
    alpha: float = 0.05,
    least: int = 6,
    rounds: int = ROUNDS,
) -> Ratio:
    """Variant over baseline, with percentile limits from whole blocks drawn with replacement.

    ``blocks`` holds (baseline, variant) values of one stretch of the run; infinity stands for a request that never
    answered. A stretch keeps its two arms together, so what the machine did to both cancels, and neighbours in a queue
    are not taken for independent (Efron and Tibshirani, An Introduction to the Bootstrap, section 8). Fewer than
    ``least`` blocks give no limits: 2^-5 of all resamples would be one block's.
    """
    full = [(np.asarray(base, float), np.asarray(other, float)) for base, other in blocks if len(base) and len(other)]
    value = _ratio(full, q) if full else None
    limits: tuple[float | None, float | None] = (None, None)
    if len(full) >= least:
        chance = np.random.default_rng([seed, round(q * 1e6)])
        drawn = [_ratio([full[at] for at in row], q) for row in chance.integers(0, len(full), size=(rounds, len(full)))]
        known = [one for one in drawn if one is not None]
        if len(known) == rounds:
            low, high = np.quantile(known, [alpha / 2, 1 - alpha / 2])
            limits = float(low), float(high)
    return Ratio(q=q, blocks=len(full), value=value, low=limits[0], high=limits[1])


def _ratio(blocks: Sequence[tuple[np.ndarray, np.ndarray]], q: float) -> float | None:
    base, other = (_inverse(np.concatenate([pair[arm] for pair in blocks]), q) for arm in (0, 1))
    return float(other / base) if 0 < base < math.inf and other < math.inf else None


def _inverse(values: np.ndarray, q: float) -> float:
    """The ceil(n q)-th smallest."""
    rank = max(1, math.ceil(len(values) * q - 1e-9))
    return float(np.partition(values, rank - 1)[rank - 1])
