"""The order-invariant grid-mixture e-process: a test that may be looked at after every case and keeps its error rate.

For scores x in [low, high] and H0: E[x] <= c, every lambda in (0, 1 / (c - low)) makes prod(1 + lambda (x - c)) a
non-negative supermartingale under H0, and so is the mean over a grid of lambdas. By Ville's inequality it ever reaches
1 / alpha with probability at most alpha, whatever the peeking. The product does not depend on the order of the cases.

    E_pass = (1/J) sum_j prod_i (1 + lambda_j (x_i - c)),  lambda_j = j / ((J + 1)(c - low))      against E[x] <= c
    E_fail = (1/J) sum_j prod_i (1 - mu_j (x_i - c)),      mu_j = j / ((J + 1)(high - c))         against E[x] >= c

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv
2010.09686), section 4; the uniform grid mixture keeps it order-invariant, where a predictable plug-in would not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

GRID = 20  # J


def log_e(counts: Iterable[tuple[float, int]], c: float, low: float, high: float, *, grid: int = GRID) -> tuple[float, float]:
    """(log E_pass, log E_fail) of values given as (value, count); every value lies in [low, high], c strictly inside."""
    steps = np.arange(1, grid + 1) / (grid + 1)
    above, below = np.zeros(grid), np.zeros(grid)
    for value, count in counts:
        above += count * np.log1p(steps * (value - c) / (c - low))
        below += count * np.log1p(-steps * (value - c) / (high - c))
    return _log_mean(above), _log_mean(below)


def _log_mean(logs: NDArray[np.float64]) -> float:
    top = float(logs.max())
    return top + float(np.log(np.exp(logs - top).mean()))


@dataclass
class Contrast:
    """Paired scores (baseline b, variant v) seen as v - keep * b: what is tested against 0.

    ``relative`` margin r tests v - (1 - r) b; an absolute margin m tests v - b against -m. The state is a count of
    distinct pairs, so it is small, order-invariant and the same however the cases arrived.
    """

    pairs: Counter[tuple[float, float]] = field(default_factory=Counter)

    def add(self, baseline: float, variant: float) -> None:
        self.pairs[baseline, variant] += 1

    def against(self, margin: float, *, relative: bool) -> tuple[list[tuple[float, int]], float, float, float]:
        """(values with counts, c, low, high) of the hypothesis "the loss is exactly the margin"."""
        if relative:
            keep = 1.0 - margin
            return [(v - keep * b, count) for (b, v), count in self.pairs.items()], 0.0, -keep, 1.0
        return [(v - b, count) for (b, v), count in self.pairs.items()], -margin, -1.0, 1.0

    def log_e(self, margin: float, *, relative: bool) -> tuple[float, float]:
        """(log E_pass, log E_fail) against "the loss is exactly the margin"; a negative margin is a gain."""
        return log_e(*self.against(margin, relative=relative))

    def limits(self, *, relative: bool, pass_alpha: float, fail_alpha: float) -> tuple[float, float]:
        """One-sided confidence limits of the change (negative: loss): the changes that are not rejected.

        Lower limit at ``pass_alpha``, upper at ``fail_alpha``; valid at any time. Clipped to [-1, 1].
        """
        low = self._bisect(lambda change: self.log_e(-change, relative=relative)[0] >= np.log(1 / pass_alpha), -1.0, 1.0)
        high = self._bisect(lambda change: self.log_e(-change, relative=relative)[1] < np.log(1 / fail_alpha), -1.0, 1.0)
        return low, high

    @staticmethod
    def _bisect(holds: object, low: float, high: float) -> float:
        """The largest change in (low, high) for which ``holds`` is true, where it is true below some point."""
        assert callable(holds)
        edge = 1e-6
        if not holds(low + edge):
            return low
        if holds(high - edge):
            return high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return (low + high) / 2
