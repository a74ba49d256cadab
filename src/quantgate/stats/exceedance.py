"""Quantities (seconds, tokens): how often frozen quantiles are exceeded, and how far up the trial's values rank.

The control's p50, p75, p90, p95 and p99 are taken once from values of its past and then held still. "Beyond the
threshold" is an event of either side like any other, so each level has an e-process of ``attribution``; their average
is one of "at no level is the trial beyond it more than r times as often". It needs no shape of the distribution, and
shows a shift as well as a tail. Thresholds are no estimates here: any that were fixed before the events keep the error
rate. The first level, 0, is beyond nothing: it counts the units.

For r = 1 there is a sixth process with half of the weight. A unit's rank x is the middle of the two levels that its
value lies between. As levels rise x rises, so if at no level the trial is beyond it more often, the mean of its ranks
is not above the control's, and with known odds f (see ``graded``, here with the centre 1/2)

    prod 1 + lambda (x - 1/2) (L - f)

is an e-process. It sums up what all levels say of a shift: 20 % slower is found in two thirds of the time. A null with
r < 1 says more than that with r = 1, so it holds there too; for r > 1 it counts as 0, and so falls in r like the rest.

A promotion must exclude that *any* level is worse by the margin, so it waits for the least of the five.

Source: Lindon and Malek (arXiv 2011.03567) for each level; averages of e-processes of one filtration: Vovk and Wang,
"E-values: calibration, combination and applications", Ann. Stat. 2021 (arXiv 1912.06116); the least: Berger,
"Multiparameter hypothesis testing and acceptance sampling", Technometrics 1982.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from quantgate.errors import DataError
from quantgate.stats import attribution
from quantgate.stats.renewal import log_mix

LEVELS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99)
RANKS = tuple((low + high) / 2 for low, high in zip(LEVELS, (*LEVELS[1:], 1.0), strict=True))
RANKED = 0.5  # weight of the process of ranks
BETS = (0.5, 1.0, 2.0)  # lambda, before it is cut
MOST = 0.9  # of the stake that one unit may take
LEAST = 200  # values before thresholds are frozen: two beyond the p99
Worse = Literal["more", "less"]
Levels = Sequence[Mapping[float, Sequence[int]]]
"""For each of LEVELS, ``attribution.Counts`` of the values beyond its threshold."""


def frozen(values: Sequence[float], worse: Worse = "more", least: int = LEAST) -> tuple[float, ...] | None:
    """Thresholds from the control's values, one for each level; None while there are fewer than ``least``.

    For ``less`` they are the low quantiles, 1 - level: what lies below is beyond. Values that are not finite are left
    out. The first is so far out that every finite value is beyond it.

    >>> frozen(range(1, 1001))[1:]
    (500.0, 750.0, 900.0, 950.0, 990.0)
    >>> frozen(range(1, 1001), "less")[1:]
    (501.0, 251.0, 101.0, 51.0, 11.0)
    """
    ordered = sorted((float(one) for one in values if math.isfinite(one)), reverse=worse == "less")
    if len(ordered) < max(least, 1):
        return None
    furthest = -sys.float_info.max if worse == "more" else sys.float_info.max
    return furthest, *(ordered[math.ceil(round(level * len(ordered), 6)) - 1] for level in LEVELS[1:])


def exceed(value: float, thresholds: Sequence[float], worse: Worse = "more") -> tuple[bool, ...]:
    """Whether a value is beyond each threshold; one that equals it is not.

    >>> exceed(3.0, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0))
    (True, True, True, False, False, False)
    """
    return tuple(value > one if worse == "more" else value < one for one in thresholds)


def log_worse(levels: Levels, ratio: float = 1.0) -> float:
    """log E against "at every level the trial is beyond it at most ``ratio`` times as often as the control"."""
    _refuse(levels)
    return _log_worse(levels, _log_ranks(levels) if ratio <= 1.0 else -math.inf, ratio)


def log_better(levels: Levels, margin: float = 1.25) -> float:
    """log E against "at some level the trial is beyond it at least ``margin`` times as often": the least of all."""
    _refuse(levels)
    return min(attribution.log_better(counts, margin) for counts in levels[1:])


def interval(levels: Levels, alpha: float) -> tuple[float | None, float | None]:
    """Confidence sequence of the worst level's ratio of risks; as ``attribution.interval``."""
    _refuse(levels)
    ranks = _log_ranks(levels)

    def worse(ratio: float) -> float:
        return _log_worse(levels, ranks if ratio <= 1.0 else -math.inf, ratio)

    return attribution.inverted(worse, partial(log_better, levels), alpha)


def telling(levels: Levels) -> int:
    """Which of LEVELS has most to say: the one with the greatest evidence of "worse"."""
    _refuse(levels)
    return max(range(1, len(levels)), key=lambda at: attribution.log_worse(levels[at]))


def estimate(levels: Levels) -> float | None:
    """The likeliest ratio of risks at the level that is most telling."""
    return attribution.estimate(levels[telling(levels)])


def _log_worse(levels: Levels, ranks: float, ratio: float) -> float:
    each = (1.0 - RANKED) / (len(LEVELS) - 1)
    return log_mix([*((each, attribution.log_worse(counts, ratio)) for counts in levels[1:]), (RANKED, ranks)])


def _log_ranks(levels: Levels) -> float:
    """log E against "the mean rank of the trial is at most the control's"."""
    logs = np.zeros(len(BETS))
    ranks = np.asarray(RANKS) - 0.5
    for odds in sorted(one for one in levels[0] if 0.0 < one < 1.0):
        beyond = np.asarray([*(counts.get(odds, (0, 0)) for counts in levels), (0, 0)], float)
        within = beyond[:-1] - beyond[1:]  # [ranks, (both sides, of them the trial's)]
        most = MOST / max(ranks[-1] * odds, -ranks[0] * (1.0 - odds))
        bets = np.minimum(np.asarray(BETS), most)[:, None]
        logs += np.log1p(bets * ranks * (1.0 - odds)) @ within[:, 1]
        logs += np.log1p(-bets * ranks * odds) @ (within[:, 0] - within[:, 1])
    return log_mix((1.0 / len(BETS), one) for one in logs.tolist())


def _refuse(levels: Levels) -> None:
    if len(levels) != len(LEVELS):
        raise DataError(
            f"quantiles: counts of {len(levels)} levels, {len(LEVELS)} are expected, the first of them of all units; "
            "count what ``exceed`` says, in its order"
        )


__all__ = ["LEAST", "LEVELS", "estimate", "exceed", "frozen", "interval", "log_better", "log_worse", "telling"]
