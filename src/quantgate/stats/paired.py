"""Paired binary scores, number of cases fixed beforehand: the score test, the exact unconditional test, McNemar.

With n pairs, g gains (0 -> 1) and l losses (1 -> 0), the absolute change is (g - l) / n. "Lost exactly the margin m" is
the edge ``loss rate = m + keep * gain rate`` with keep = 1. For a relative change, cases that both sides get wrong say
nothing about the ratio of the scores: given their number, the other n cases have the edge with keep = 1 - m. So one
statistic and one enumeration serve both; ``relative`` counts leave those cases out of n (see ``informative``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import DataError
from quantgate.stats.search import WIDEST, side_of, turning_point

Array = NDArray[np.float64]
POINTS = np.sin(np.linspace(0.0, np.pi / 2, 200)) ** 2  # of the nuisance rate's range, evenly spread in standard errors
TIE = 1e-9  # statistics nearer than this are the same one, rounded
FINEST = 1e-5  # to which an exact limit is searched


@dataclass(frozen=True)
class PairedCounts:
    """Pairs, gains and losses; raises DataError when they cannot be."""

    n: int
    gains: int
    losses: int

    def __post_init__(self) -> None:
        if min(self.gains, self.losses) < 0 or self.gains + self.losses > self.n or self.n < 1:
            raise DataError(f"{self.n} pairs cannot hold {self.gains} gains and {self.losses} losses; count them again")

    @property
    def change(self) -> float:
        """The absolute change."""
        return (self.gains - self.losses) / self.n


def informative(baseline: Sequence[float], variant: Sequence[float], *, relative: bool) -> PairedCounts | None:
    """Counts of scores of 0 and 1; for a relative change without the cases both get wrong. None when none is left."""
    gains = sum(v > b for b, v in zip(baseline, variant, strict=True))
    losses = sum(v < b for b, v in zip(baseline, variant, strict=True))
    n = sum(b > 0 or v > 0 for b, v in zip(baseline, variant, strict=True)) if relative else len(baseline)
    return PairedCounts(n, gains, losses) if n else None


@dataclass(frozen=True)
class _Edge:
    """Where the change is exactly as supposed. A gain is the mirror image of a loss, with the two sides exchanged."""

    margin: float
    keep: float
    mirrored: bool

    @classmethod
    def at(cls, change: float, relative: bool) -> _Edge:
        if change <= 0:
            return cls(-change, 1.0 + change if relative else 1.0, False)
        return cls(change / (1.0 + change), 1.0 / (1.0 + change), True) if relative else cls(change, 1.0, True)

    def z(self, n: int, gains: Array | float, losses: Array | float) -> Array:
        """(n m + keep g - l) / sqrt(n Var), the variance at the edge's maximum-likelihood gain rate."""
        g, ls = np.asarray(gains, float), np.asarray(losses, float)
        m, keep = self.margin, self.keep
        a = n * keep * (1 + keep)
        b = (n - g - ls) * (1 + keep) * m - ls * keep * (1 - m) - g * (keep * (1 - m) - m * (1 + keep))
        c = -g * m * (1 - m)
        root = np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):  # of the two forms, the one that does not cancel
            rate = np.where(b > 0, -2 * c / (b + root), (root - b) / (2 * a))
        variance = n * ((keep * keep + keep) * rate + m * (1 - m))
        distance = n * m + keep * g - ls
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                variance > 0, distance / np.sqrt(variance), np.where(distance == 0, 0.0, np.sign(distance) * np.inf)
            )


def score_z(n: int, gains: Array | float, losses: Array | float, change: float, *, relative: bool = False) -> Array:
    """The score statistic for "the change is exactly ``change``"; vectorized over gains and losses.

    Absolute changes in (-1, 1): Tango, Statistics in Medicine 17, 1998, eq. 3. Relative ones above -1: Nam and
    Blackwelder, Statistics in Medicine 21, 2002, which Tang, Tang and Chan (2003) recommend.
    """
    edge = _Edge.at(change, relative)
    return -edge.z(n, losses, gains) if edge.mirrored else edge.z(n, gains, losses)


def score_p(counts: PairedCounts, change: float, *, relative: bool = False, at_least: bool = False) -> float:
    """One-sided p-value of "changed to at most ``change``", which a pass refutes; ``at_least``: what a fail refutes."""
    from scipy.stats import norm

    z = float(score_z(counts.n, counts.gains, counts.losses, change, relative=relative))
    return float(norm.cdf(z) if at_least else norm.sf(z))


def exact_p(counts: PairedCounts, change: float, *, relative: bool = False, at_least: bool = False) -> float:
    """Exact unconditional p-value of "changed to at most ``change``", or ``at_least`` that.

    The worst chance, over all flip rates on the edge, of a score statistic as large (small) as the one seen or more so:
    Barnard's principle with the score statistic (Chan, Stat. Med. 17, 1998). The edge is the worst of its hypothesis
    because more gains or fewer losses never lower the statistic.
    """
    edge = _Edge.at(change, relative)
    n, gains, losses = counts.n, counts.gains, counts.losses
    if edge.mirrored:
        gains, losses, at_least = losses, gains, not at_least
    axis = np.arange(n + 1.0)
    z = edge.z(n, axis, axis[:, None])  # [losses, gains]
    z[axis[:, None] + axis > n] = np.nan  # more flips than pairs: never
    seen = z[losses, gains]
    if at_least:
        return _worst_chance(edge, n, (z <= seen + TIE).sum(axis=1) - 1, above=False)
    as_large = z >= seen - TIE
    fewest = np.where(as_large.any(axis=1), as_large.argmax(axis=1), n + 1)
    return _worst_chance(edge, n, fewest - 1, above=True)


def _worst_chance(edge: _Edge, n: int, last: NDArray[np.int_], *, above: bool) -> float:
    """The largest chance on the edge of "gains <= last[losses]", or ``above`` of "gains > last[losses]".

    The gain rate is searched on POINTS, then on a finer and finer grid around the worst of them.
    """
    from scipy.special import bdtr
    from scipy.stats import binom

    losses = np.flatnonzero(last < n - np.arange(n + 1) if above else last >= 0)
    last, others = last[losses], n - losses
    top = (1.0 - edge.margin) / (1.0 + edge.keep)

    def chance(rates: Array) -> Array:
        lost = edge.margin + edge.keep * rates[:, None]
        rest = np.maximum(1.0 - lost, 1e-300)
        low_side = np.where(last >= 0, bdtr(np.maximum(last, 0), others, np.minimum(rates[:, None] / rest, 1.0)), 0.0)
        return np.asarray(
            (binom.pmf(losses, n, np.minimum(lost, 1.0)) * (1 - low_side if above else low_side)).sum(axis=1)
        )

    rates = POINTS * top
    found = chance(rates)
    worst = float(found.max())
    for _ in range(2):
        best = int(found.argmax())
        rates = np.linspace(rates[max(best - 1, 0)], rates[min(best + 1, len(rates) - 1)], 11)
        found = chance(rates)
        worst = max(worst, float(found.max()))
    return min(worst, 1.0)


def limits(
    counts: PairedCounts,
    *,
    relative: bool = False,
    exact: bool = False,
    pass_alpha: float = 0.05,
    fail_alpha: float = 0.05,
    margin: float = 0.0,
) -> tuple[float, float | None]:
    """One-sided limits of the change: the ends of the changes that the test does not reject.

    Lower limit at ``pass_alpha``, upper at ``fail_alpha`` (half of each for a two-sided interval), rounded outwards,
    except that ``low >= -margin`` just when the test passes there, and ``high <= -margin`` when it fails. The upper
    limit is None when nothing bounds it, as with a relative change from a baseline of 0.
    """
    p_value, within = (exact_p, FINEST) if exact else (score_p, 1e-8)

    def above(change: float) -> bool:
        return p_value(counts, change, relative=relative) <= pass_alpha

    def not_below(change: float) -> bool:
        return p_value(counts, change, relative=relative, at_least=True) > fail_alpha

    low = turning_point(above, *side_of(above, -margin, bounded=not relative), within=within)[0]
    high = turning_point(not_below, *side_of(not_below, -margin, bounded=not relative), within=within)[1]
    return low, None if high >= WIDEST else high


def newcombe_limits(counts: PairedCounts, both_right: int, alpha: float) -> tuple[float, float]:
    """Newcombe's hybrid score interval with correlation correction (method 10, Stat. Med. 17, 1998), two-sided."""
    n, g, ls = counts.n, counts.gains, counts.losses
    first, second = both_right + g, both_right + ls
    (l1, u1), (l2, u2) = wilson(first, n, alpha), wilson(second, n, alpha)
    p1, p2 = first / n, second / n
    product = first * (n - first) * second * (n - second)
    cross = float(both_right * (n - g - ls - both_right) - g * ls)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / product**0.5 if product else 0.0
    low = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    high = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    return counts.change - low**0.5, counts.change + high**0.5


def wilson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, two-sided (Wilson, JASA 22, 1927)."""
    from scipy.stats import norm

    z = float(norm.isf(alpha / 2))
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return middle - half, middle + half


def mcnemar_p(counts: PairedCounts, *, mid: bool = False) -> float:
    """Two-sided exact McNemar p-value of "no change"; ``mid`` takes half of the observed point's probability.

    A large one is no evidence that nothing was lost; only a margin can be proven.
    """
    from scipy.stats import binom

    flips, fewer = counts.gains + counts.losses, min(counts.gains, counts.losses)
    if flips == 0:
        return 1.0
    tail, point = float(binom.cdf(fewer, flips, 0.5)), float(binom.pmf(fewer, flips, 0.5))
    return min(1.0, 2.0 * tail - point) if mid else min(1.0, 2.0 * tail)
