"""Quantities (seconds, tokens): five event-attribution processes, of how often frozen quantiles are exceeded.

The control's p50, p75, p90, p95 and p99 are taken once from values of its past and then held still. "Beyond the
threshold" is an event of either side like any other, so each level has an e-process of ``attribution``; their average
is one of "at no level is the trial beyond it more than r times as often". It needs no shape of the distribution, and
shows a shift as well as a tail. Thresholds are no estimates here: any that were fixed before the events keep the error rate.

A promotion must exclude that *any* level is worse by the margin, so it waits for the least of the five.

Source: Lindon and Malek (arXiv 2011.03567) for each level; averages of e-processes of one filtration: Vovk and Wang,
"E-values: calibration, combination and applications", Ann. Stat. 2021 (arXiv 1912.06116); the least: Berger, 1982.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from quantgate.stats import attribution
from quantgate.stats.renewal import log_mix

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
LEAST = 200  # values before thresholds are frozen: two beyond the p99
Worse = Literal["more", "less"]
Levels = Sequence[Mapping[float, Sequence[int]]]
"""For each level, ``attribution.Counts`` of the values beyond its threshold."""


def frozen(values: Sequence[float], worse: Worse = "more", least: int = LEAST) -> tuple[float, ...] | None:
    """Thresholds from the control's values, one for each level; None while there are fewer than ``least``.

    For ``less`` they are the low quantiles, 1 - level: what lies below is beyond. Values that are not finite are left
    out.

    >>> frozen(range(1, 1001))
    (500, 750, 900, 950, 990)
    >>> frozen(range(1, 1001), "less")
    (501, 251, 101, 51, 11)
    """
    ordered = sorted((one for one in values if math.isfinite(one)), reverse=worse == "less")
    if len(ordered) < max(least, 1):
        return None
    return tuple(ordered[math.ceil(round(level * len(ordered), 6)) - 1] for level in LEVELS)


def exceed(value: float, thresholds: Sequence[float], worse: Worse = "more") -> tuple[bool, ...]:
    """Whether a value is beyond each threshold; one that equals it is not.

    >>> exceed(3.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    (True, True, False, False, False)
    """
    return tuple(value > one if worse == "more" else value < one for one in thresholds)


def log_worse(levels: Levels, ratio: float = 1.0) -> float:
    """log E against "at every level the trial is beyond it at most ``ratio`` times as often as the control"."""
    return log_mix((1.0 / len(levels), attribution.log_worse(counts, ratio)) for counts in levels)


def log_better(levels: Levels, margin: float = 1.25) -> float:
    """log E against "at some level the trial is beyond it at least ``margin`` times as often": the least of all."""
    return min(attribution.log_better(counts, margin) for counts in levels)


def interval(levels: Levels, alpha: float) -> tuple[float | None, float | None]:
    """Confidence sequence of the worst level's ratio of risks; as ``attribution.interval``."""
    return attribution.inverted(partial(log_worse, levels), partial(log_better, levels), alpha)


def telling(levels: Levels) -> int:
    """Which level has most to say, 0 to 4: the one with the greatest evidence of "worse"."""
    return max(range(len(levels)), key=lambda at: attribution.log_worse(levels[at]))


def estimate(levels: Levels) -> float | None:
    """The likeliest ratio of risks at the level that is most telling."""
    return attribution.estimate(levels[telling(levels)])


__all__ = ["LEAST", "LEVELS", "estimate", "exceed", "frozen", "interval", "log_better", "log_worse", "telling"]
