"""Quantiles with intervals that assume no distribution, and the ratio of two arms' quantiles by resampled blocks.

A request that never answered took longer than all that did, however long the others took: it is counted ``beyond`` the
largest value. A quantile that falls among such requests has no value, which is not the same as a large one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from quantgate.errors import DataError
from quantgate.records import Record

ROUNDS = 2000  # resamples of the bootstrap


class Quantile(Record):
    """The ``q`` quantile of ``n`` values, ``beyond`` of which never came."""

    q: float
    n: int
    beyond: int = 0
    value: float | None  # the ceil(n q)-th smallest; None where that one never came
    low: float | None  # two-sided limits of the true quantile; None where the values bound it on that side by nothing
    high: float | None


def quantile(values: Sequence[float], q: float, *, beyond: int = 0, alpha: float = 0.05) -> Quantile:
    """The quantile and its exact interval at 1 - ``alpha`` from order statistics.

    The number of values at or below the true quantile is Binomial(n, q), so the l-th and u-th smallest enclose it with
    at least 1 - alpha where P(X < l) and P(X >= u) are at most alpha / 2 each (David and Nagaraja, Order Statistics,
    section 7.1). Holds for independent values of any continuous law. Raises DataError without values.

    >>> found = quantile([float(one) for one in range(1, 101)], 0.5)
    >>> found.value, found.low, found.high
    (50.0, 40.0, 61.0)
    """
    n = len(values) + beyond
    if not n or not 0 < q < 1:
        raise DataError(f"a quantile q={q:g} of {n} values: expected 0 < q < 1 and at least 1 value")
    ordered = sorted(values)
    low, high = ranks(n, q, alpha)

    def at(rank: int) -> float | None:
        return ordered[rank - 1] if 1 <= rank <= len(ordered) else None

    return Quantile(q=q, n=n, beyond=beyond, value=at(max(1, math.ceil(n * q - 1e-9))), low=at(low), high=at(high))


def ranks(n: int, q: float, alpha: float) -> tuple[int, int]:
    """Ranks l and u (from 1) of the order statistics that enclose the quantile; 0 and n + 1 are no limit.

    >>> ranks(100, 0.5, 0.05), ranks(50, 0.99, 0.05)
    ((40, 61), (48, 51))
    """
    below = binom.cdf(np.arange(-1, n + 1), n, q)  # below[l] = P(X <= l - 1)
    low = int(np.searchsorted(below[: n + 1], alpha / 2, side="right")) - 1
    high = int(np.searchsorted(below[: n + 1], 1 - alpha / 2, side="left"))
    return low, high if high <= n else n + 1


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
