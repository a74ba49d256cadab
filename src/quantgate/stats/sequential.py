"""The order-invariant grid-mixture e-process: a test that may be looked at after every case and keeps its error rate.

For scores x in [low, high] and H0: E[x] <= c, every lambda in (0, 1 / (c - low)) makes prod(1 + lambda (x - c)) a
non-negative supermartingale under H0, and so is the mean over a grid of lambdas. By Ville's inequality it ever reaches
1 / alpha with probability at most alpha, whatever the peeking. The product does not depend on the order of the cases.

    E_pass = (1/J) sum_j prod_i (1 + lambda_j (x_i - c)),  lambda_j = j / ((J + 1)(c - low))      against E[x] <= c
    E_fail = (1/J) sum_j prod_i (1 - mu_j (x_i - c)),      mu_j = j / ((J + 1)(high - c))         against E[x] >= c

Both never exceed 1 at once: by Jensen's inequality each needs the mean seen on its own side of c.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv
2010.09686), section 4; the uniform grid mixture keeps it order-invariant, where a predictable plug-in would not be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantgate.stats.search import WIDEST, side_of, turning_point

GRID = 20  # J
STEPS = np.arange(1, GRID + 1) / (GRID + 1)

Array = NDArray[np.float64]


def log_e(counts: Iterable[tuple[float, float]], c: float, low: float, high: float) -> tuple[float, float]:
    """(log E_pass, log E_fail) of (value, count) rows; every value lies in [low, high], c strictly inside."""
    table = np.asarray(list(counts), float).reshape(-1, 2)
    return _log_pass(table[:, 0], table[:, 1], c, low), _log_fail(table[:, 0], table[:, 1], c, high)


def _log_pass(values: Array, counts: Array, c: float, low: float) -> float:
    return _log_mean(np.log1p(np.multiply.outer(STEPS, (values - c) / (c - low))) @ counts)


def _log_fail(values: Array, counts: Array, c: float, high: float) -> float:
    return _log_mean(np.log1p(np.multiply.outer(STEPS, (c - values) / (high - c))) @ counts)


def _log_mean(logs: Array) -> float:
    """log(mean(exp(logs))) without overflow."""
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


@dataclass
class Contrast:
    """Paired scores (baseline b, variant v) in [0, 1], seen as v - keep * b: what is tested against 0.

    ``relative`` margin r tests v - (1 - r) b; an absolute margin m tests v - b against -m. The state is a count of
    distinct pairs, so it is small, order-invariant and the same however the cases arrived.
    """

    pairs: Counter[tuple[float, float]] = field(default_factory=Counter)

    def add(self, baseline: float, variant: float) -> None:
        self.pairs[baseline, variant] += 1

    @property
    def n(self) -> int:
        return self.pairs.total()

    def log_e(self, margin: float, *, relative: bool, scale: float = 1.0) -> tuple[float, float]:
        """(log E_pass, log E_fail) against "the loss is exactly the margin", below 1; a negative margin is a gain.

        ``scale`` counts every pair that many times, to look ahead.
        """
        b, v, counts = self._arrays()
        counts = counts * scale
        return _pass_at(b, v, counts, -margin, relative), _fail_at(b, v, counts, -margin, relative)

    def limits(
        self, *, relative: bool, pass_alpha: float, fail_alpha: float, margin: float = 0.0
    ) -> tuple[float, float | None]:
        """One-sided confidence limits of the change (negative: loss): the ends of the changes that are not rejected.

        Lower limit at ``pass_alpha``, upper at ``fail_alpha``; valid at any time. Absolute changes lie in [-1, 1];
        relative ones in [-1, inf), where the upper limit is None when nothing bounds it (a baseline of 0). Rounded
        outwards, except that ``low >= -margin`` just when E_pass has crossed there, and ``high <= -margin`` likewise.
        """
        b, v, counts = self._arrays()
        enough, too_much = math.log(1 / pass_alpha), math.log(1 / fail_alpha)

        def above(change: float) -> bool:
            return _pass_at(b, v, counts, change, relative) >= enough

        def not_below(change: float) -> bool:
            return _fail_at(b, v, counts, change, relative) < too_much

        low = turning_point(above, *side_of(above, -margin, bounded=not relative))[0]
        high = turning_point(not_below, *side_of(not_below, -margin, bounded=not relative))[1]
        return low, None if high >= WIDEST else high

    def _arrays(self) -> tuple[Array, Array, Array]:
        """Baseline, variant and count of every distinct pair, in one order, so that sums round alike."""
        rows = [(b, v, float(count)) for (b, v), count in sorted(self.pairs.items())]
        table = np.asarray(rows, float).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2]


def _pass_at(b: Array, v: Array, counts: Array, change: float, relative: bool) -> float:
    if relative:  # x = v - keep * b in [-keep, 1], against 0
        return _log_pass(v - (1.0 + change) * b, counts, 0.0, -(1.0 + change))
    return _log_pass(v - b, counts, change, -1.0)


def _fail_at(b: Array, v: Array, counts: Array, change: float, relative: bool) -> float:
    if relative:
        return _log_fail(v - (1.0 + change) * b, counts, 0.0, 1.0)
    return _log_fail(v - b, counts, change, 1.0)
