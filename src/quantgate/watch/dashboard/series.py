"""Points over time -> the columns that a chart draws, and the same as a table for who reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from quantgate.stats import rates
from quantgate.watch import Point, Tally
from quantgate.watch.dashboard import words
from quantgate.watch.dashboard.rows import figure, known
from quantgate.watch.signals import Signal

MOST = 160  # moments of a chart: what a screen shows
SHOWN = 24  # of them in the table beside it
ALPHA = 0.05  # of the confidence sequence of one side's rate
TEN = math.log(10.0)


def thinned(points: Sequence[Point], most: int = MOST) -> list[Point]:
    """In order of time, one for each moment, the newest among them, at most ``most``."""
    found: list[Point] = []
    for one in points:
        if not found or one.at > found[-1].at:
            found.append(one)
    if len(found) <= most:
        return found
    step = (len(found) - 1) / (most - 1)
    return [found[round(at * step)] for at in range(most)]


def columns(points: Sequence[Point]) -> dict[str, Any]:
    """Of one process: lists of one length, null where nothing is known. Evidence in powers of ten."""
    kept = thinned(points)
    signal = known(kept[0].signal) if kept else None
    trial, control = [_side(one.trial, signal) for one in kept], [_side(one.control, signal) for one in kept]
    return {
        "at": [one.at for one in kept],
        "trial": [one[0] for one in trial],
        "trial_low": [one[1] for one in trial],
        "trial_high": [one[2] for one in trial],
        "control": [one[0] for one in control],
        "control_low": [one[1] for one in control],
        "control_high": [one[2] for one in control],
        "ratio": [_number(one.ratio) for one in kept],
        "low": [_number(one.low) for one in kept],
        "high": [_number(one.high) for one in kept],
        "evidence": [_number(one.log_e / TEN) for one in kept],
        "threshold": [_number(one.log_threshold / TEN) for one in kept],
        "share": [one.share for one in kept],
        "unit": signal.unit if signal is not None and signal.kind == "quantity" else "share",
    }


def table(points: Sequence[Point]) -> list[dict[str, str | float]]:
    """The newest first."""
    kept = thinned(points, SHOWN)
    signal = known(kept[0].signal) if kept else None
    return [
        {
            "at": one.at,
            "trial": figure(one.trial, signal),
            "control": figure(one.control, signal),
            "ratio": words.times(one.ratio),
            "low": words.times(one.low),
            "high": words.times(one.high),
            "evidence": words.odds(one.log_e),
            "share": words.share(one.share),
        }
        for one in reversed(kept)
    ]


def _side(tally: Tally, signal: Signal | None) -> tuple[float | None, float | None, float | None]:
    """Rate and its confidence sequence; of a quantity its mean alone."""
    if not tally.units:
        return None, None, None
    if signal is not None and signal.kind in ("quantity", "graded"):
        return _number(tally.total / tally.units), None, None
    return tally.bad / tally.units, *_interval(min(tally.bad, tally.units), tally.units)


@lru_cache(8192)
def _interval(bad: int, units: int) -> tuple[float, float]:
    """Milliseconds each, and a chart that grows asks for the same ones again."""
    return rates.interval(bad, units, ALPHA)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
