"""Paired binary scores, number of cases fixed beforehand: Tango's score test, the exact unconditional test, McNemar.

With n pairs, g gains (0 -> 1) and l losses (1 -> 0), the change is delta = (g - l) / n. Non-inferiority within a margin m
tests H0: delta <= -m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import binom, norm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedCounts:
    n: int
    gains: int
    losses: int

    @property
    def change(self) -> float:
        return (self.gains - self.losses) / self.n


def tango_z(n: int, gains: Array | float, losses: Array | float, change: float) -> Array:
    """Tango's score statistic for H0: delta = ``change`` (Tango, Statistics in Medicine 17, 1998, eq. 3).

    Vectorized over gains and losses; ``change`` in (-1, 1). Symmetric: a positive change swaps gains and losses.
    """
    g, l = np.asarray(gains, float), np.asarray(losses, float)
    if change < 0:
        return -tango_z(n, l, g, -change)
    a = 2.0 * n
    b = -g - l + (2.0 * n - g + l) * change
    c = -l * change * (1.0 - change)
    q = (np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = n * (2.0 * q + change * (1.0 - change))
    numerator = g - l - n * change
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, numerator / np.sqrt(variance), np.sign(numerator) * np.inf)


def tango_p(counts: PairedCounts, margin: float) -> float:
    """One-sided p-value of H0: delta <= -margin."""
    return float(norm.sf(tango_z(counts.n, counts.gains, counts.losses, -margin)))


def tango_limits(counts: PairedCounts, alpha: float) -> tuple[float, float]:
    """Limits of delta, each one-sided at ``alpha`` (use alpha / 2 for a two-sided interval)."""
    z = float(norm.isf(alpha))

    def at(change: float) -> float:
        return float(tango_z(counts.n, counts.gains, counts.losses, change))

    edge = 1 - 1e-9
    low = brentq(lambda change: at(change) - z, -edge, counts.change) if at(-edge) > z else -1.0
    high = brentq(lambda change: at(change) + z, counts.change, edge) if at(edge) < -z else 1.0
    return float(low), float(high)


@lru_cache(maxsize=32)
def _triangle(n: int) -> tuple[Array, Array, Array]:
    """All (gains, losses) with gains + losses <= n, and the log of their multinomial coefficient."""
    g, l = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
    keep = g + l <= n
    g, l = g[keep], l[keep]
    return g, l, gammaln(n + 1) - gammaln(g + 1) - gammaln(l + 1) - gammaln(n - g - l + 1)


def boundary_tail(n: int, rejected: NDArray[np.bool_], margin: float, points: Array) -> float:
    """The largest probability of the outcomes ``rejected`` (a mask over the triangle) on the edge of H0.

    On the edge the loss rate is the gain rate plus the margin; ``points`` in [0, 1] spread the gain rate over its range.
    """
    g, l, coefficient = _triangle(n)
    g, l, coefficient = g[rejected], l[rejected], coefficient[rejected]
    worst = 0.0
    for point in points:
        gain = point * (1.0 - margin) / 2.0
        loss = gain + margin
        rest = max(1.0 - gain - loss, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = coefficient + _times(g, np.log(gain)) + _times(l, np.log(loss)) + _times(n - g - l, np.log(rest))
        worst = max(worst, float(np.exp(logs).sum()))
    return min(worst, 1.0)


def _times(count: Array, log: float) -> Array:
    """count * log with 0 * -inf = 0."""
    return np.where(count > 0, count * log, 0.0)


def exact_p(counts: PairedCounts, margin: float, points: int = 400) -> float:
    """Exact unconditional p-value of H0: delta <= -margin: the worst chance, over all flip rates on the edge of H0, of a
    score statistic at least as large as the one seen (Barnard's principle with Tango's Z; Chan, Stat. Med. 17, 1998)."""
    g, l, _ = _triangle(counts.n)
    seen = float(tango_z(counts.n, counts.gains, counts.losses, -margin))
    as_large = tango_z(counts.n, g, l, -margin) >= seen - 1e-9
    return boundary_tail(counts.n, as_large, margin, np.linspace(0.0, 1.0, points))


def newcombe_limits(counts: PairedCounts, both_right: int, alpha: float) -> tuple[float, float]:
    """Newcombe's hybrid score interval with correlation correction (method 10, Stat. Med. 17, 1998), two-sided."""
    n, g, l = counts.n, counts.gains, counts.losses
    both_wrong = n - g - l - both_right
    first, second = both_right + g, both_right + l
    l1, u1 = wilson(first, n, alpha)
    l2, u2 = wilson(second, n, alpha)
    p1, p2 = first / n, second / n
    product = first * (n - first) * second * (n - second)
    cross = both_right * both_wrong - g * l
    if cross > n / 2:
        cross -= n // 2 if n % 2 == 0 else n / 2
    elif cross >= 0:
        cross = 0
    phi = 0.0 if product == 0 else cross / product**0.5
    low = ((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2) ** 0.5
    high = ((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2) ** 0.5
    return counts.change - low, counts.change + high


def wilson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, two-sided (Wilson, JASA 22, 1927)."""
    z = float(norm.isf(alpha / 2))
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return middle - half, middle + half


def mcnemar_p(counts: PairedCounts, *, mid: bool = False) -> float:
    """Two-sided exact McNemar p-value of "no change"; ``mid`` takes half of the observed point's probability."""
    flips, fewer = counts.gains + counts.losses, min(counts.gains, counts.losses)
    if flips == 0:
        return 1.0
    p = min(1.0, 2.0 * float(binom.cdf(fewer, flips, 0.5)))
    return p - float(binom.pmf(fewer, flips, 0.5)) if mid else p
