"""Graded values in [0, 1], 1 is bad: evidence that the trial's mean is above, or not much above, the control's.

A unit goes to the trial (L = 1) with known odds f, else to the control (L = 0), before its value x is known. Weighing
by the inverse of the odds, x L / f - x (1 - L) / (1 - f) has the difference of the two means as its mean; times
f (1 - f), and for any fixed centre c since L - f has mean 0,

    z = (x - c) (L - f) - f (1 - f) delta,    E[z] = f (1 - f) (mean_trial - mean_control - delta)

So under "the trial's mean is at most delta above the control's" E[z] <= 0 whatever the means are at that moment, and
for every lambda > 0 with 1 + lambda z >= 0 the product of 1 + lambda z is a non-negative supermartingale; so is a mean
over a grid of lambdas and centres. lambda is cut where the least z, for any delta in [-1, 1], would use up the stake: a
cut that depends on f alone, which is known before the draw. The centre 0 suits values that are mostly 0, 1 those mostly
1.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024 (arXiv
2010.09686), section 4; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid off-policy inference",
ACM/IMS J. Data Science 2024 (arXiv 2210.10768), section 2, for the weighing by inverse odds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import DataError
from quantgate.stats.renewal import decided_at, log_mix
from quantgate.stats.search import turning_point

Counts = dict[tuple[float, int], list[int]]
"""(odds of the trial as drawn, value in 64ths) -> [units of the control, units of the trial]."""

STEPS = 64
CENTRES = (0.0, 0.5, 1.0)
BETS = (0.25, 0.5, 1.0, 2.0, 4.0)  # lambda, before it is cut
MOST = 0.9  # of the stake that one unit may take
WITHIN = 1e-6  # of a difference, its ends are found

Array = NDArray[np.float64]


def quantized(value: float) -> int:
    """A value in [0, 1] in 64ths, to the nearest.

    >>> quantized(0.5), quantized(1.0)
    (32, 64)

    Raises DataError outside.
    """
    if not 0.0 <= value <= 1.0:
        raise DataError(f"graded value {value} lies outside 0..1; mend the signal that gave it")
    return math.floor(value * STEPS + 0.5)


def log_worse(counts: Mapping[tuple[float, int], Sequence[int]], delta: float = 0.0) -> float:
    """log E against "the trial's mean is at most ``delta`` above the control's"; it falls as ``delta`` rises."""
    return _log_e(_table(counts), delta)


def log_better(counts: Mapping[tuple[float, int], Sequence[int]], margin: float) -> float:
    """log E against "the trial's mean is at least ``margin`` above the control's"; it rises with ``margin``."""
    return _log_e(_table(mirrored(counts)), -margin)


def interval(counts: Mapping[tuple[float, int], Sequence[int]], alpha: float) -> tuple[float, float]:
    """Confidence sequence of mean_trial - mean_control, in [-1, 1], both sides together at ``alpha``.

    ``low >= 0`` just when ``log_worse`` has crossed log(2 / alpha), ``high <= 0`` when ``log_better(counts, 0)`` has.
    Every difference is rejected, and so ``low > high``, where units cannot have been drawn with those odds.
    """
    enough, table, other = decided_at(alpha / 2.0), _table(counts), _table(mirrored(counts))

    def above(delta: float) -> bool:
        return _log_e(table, delta) >= enough

    def not_below(delta: float) -> bool:
        return _log_e(other, -delta) < enough

    low = turning_point(above, *((0.0, 1.0) if above(0.0) else (-1.0, 0.0)), within=WITHIN)[0]
    high = turning_point(not_below, *((0.0, 1.0) if not_below(0.0) else (-1.0, 0.0)), within=WITHIN)[1]
    return low, high


def estimate(counts: Mapping[tuple[float, int], Sequence[int]]) -> float | None:
    """Difference of the means seen, odds by odds, each weighed by its units of both sides; None where a side has none.

    A weight is 1 / (1/n_trial + 1/n_control): the inverse of the difference's variance where values vary alike.
    """
    weighed, total = list[float](), list[float]()
    for odds in sorted({odds for odds, _ in counts}):
        rows = [(value / STEPS, *counts[at, value]) for at, value in sorted(counts) if at == odds]
        control, trial = sum(row[1] for row in rows), sum(row[2] for row in rows)
        if control and trial:
            weight = control * trial / (control + trial)
            means = (math.fsum(row[0] * row[side] for row in rows) / n for side, n in ((1, control), (2, trial)))
            before, after = means
            weighed.append(weight * (after - before))
            total.append(weight)
    return math.fsum(weighed) / math.fsum(total) if total else None


def mirrored(counts: Mapping[tuple[float, int], Sequence[int]]) -> Counts:
    """The same units with the roles exchanged.

    >>> mirrored({(0.25, 32): [10, 3]})
    {(0.75, 32): [3, 10]}
    """
    other: Counts = {}
    for (odds, value), (control, trial) in counts.items():
        row = other.setdefault((1.0 - odds, value), [0, 0])  # odds that differ by a rounding may meet here
        row[0] += trial
        row[1] += control
    return other


def _log_e(table: Array, delta: float) -> float:
    odds, values, control, trial = table.T
    spread = odds * (1.0 - odds)
    logs = list[float]()
    for centre in CENTRES:
        least = np.maximum((1.0 - centre) * odds, centre * (1.0 - odds))  # the control's x = 1, the trial's x = 0
        bets = np.minimum.outer(np.asarray(BETS), MOST / (least + spread))  # [bets, rows]
        gain, loss = (values - centre) * (1.0 - odds), -(values - centre) * odds
        logs += (
            np.log1p(bets * (gain - spread * delta)) @ trial + np.log1p(bets * (loss - spread * delta)) @ control
        ).tolist()
    return log_mix((1.0 / len(logs), one) for one in logs)


def _table(counts: Mapping[tuple[float, int], Sequence[int]]) -> Array:
    """[rows, 4]: odds, value, units of the control, of the trial; in one order, so that sums round alike."""
    rows = [(odds, value / STEPS, *counts[odds, value]) for odds, value in sorted(counts) if 0.0 < odds < 1.0]
    return np.asarray(rows, float).reshape(-1, 4)


__all__ = ["Counts", "estimate", "interval", "log_better", "log_worse", "mirrored", "quantized"]
