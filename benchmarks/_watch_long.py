"""Late faults: after weeks beside a holdback, with renewed evidence and without; and where there is no holdback."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from benchmarks._watch_evidence import FACTORS, LOG_WEIGHTS, first, gains
from benchmarks._watch_traffic import BASE, REQUESTS, Array
from quantgate.stats import detectors, renewal

DAY = 1440


def renewed(
    rng: np.random.Generator,
    runs: int,
    *,
    ratio: float,
    copies: int,
    life: Callable[[int], float] = lambda _copy: math.inf,
    days: int = 14,
    period: int = 30,
    holdback: float = 0.02,
    horizon: int = DAY,
) -> Array:
    """Minutes from a fault to log E = log(1 / 1 %); inf: not within ``horizon``.

    ``copies`` of the evidence begin at equal distances in a period, each counts for the ``life`` of its number, in such
    distances. The fault comes after so many good days, at any hour between the starts of two copies.
    """
    odds, apart = 1 - holdback, period * 24 // copies  # hours
    fault = days * 24 + rng.integers(0, apart, runs)
    good = _gains(rng, (runs, int(fault.max())), odds, 1.0, 60)  # by the hour
    gathered = np.concatenate([np.zeros((runs, 1, len(FACTORS))), np.cumsum(good, axis=1)], axis=1)
    after = np.cumsum(_gains(rng, (runs, horizon), odds, ratio, 1), axis=1)  # by the minute
    now = fault[:, None] + np.arange(1, horizon + 1) / 60  # hours, [runs, minutes]
    total, waiting = np.full((runs, horizon), -np.inf), np.ones((runs, horizon))
    for copy, weight in enumerate(renewal.weights(copies)):
        start = copy * apart
        if start >= now.max():
            break
        retired = start + life(copy) * apart if copy else math.inf
        begun = now > start
        waiting -= weight * begun
        if retired <= fault.min():
            continue
        before = gathered[np.arange(runs), fault] - gathered[np.arange(runs), np.minimum(start, fault)]
        late = np.clip((start - fault) * 60, 0, horizon)  # minutes from the fault to its start
        missed = np.where((late > 0)[:, None], after[np.arange(runs), late - 1], 0.0)
        logs = logsumexp(before[:, None] + after - missed[:, None] + LOG_WEIGHTS, axis=2)
        total = np.logaddexp(total, np.where(begun & (now <= retired), logs + math.log(weight), -np.inf))
    total = np.logaddexp(total, np.log(np.maximum(waiting, 1e-300)))
    return first(total >= math.log(100))


def doubling(copy: int) -> float:
    """As the watch gives copies up (``watch.processes.alive``): there are ten or so, whose ages double."""
    return 2.0 * (copy & -copy)


def _gains(rng: np.random.Generator, shape: tuple[int, int], odds: float, ratio: float, minutes: int) -> Array:
    """[runs, pieces, factors]: what the events of a piece of ``minutes`` add."""
    trial = rng.binomial(REQUESTS * minutes, odds, shape)
    trial_bad = rng.binomial(trial, BASE * ratio).astype(float)
    bad: Array = trial_bad + rng.binomial(REQUESTS * minutes - trial, BASE)
    return gains(bad, trial_bad, odds, 1.0, FACTORS)


def detected(
    rng: np.random.Generator, runs: int, *, form: detectors.Form, rate: float, bound: float, arl: float, units: int
) -> Array:
    """Units until the alarm of ``detectors.Detector``, from a start after a long good time; inf: none in ``units``."""
    factors = np.asarray(detectors.FACTORS)
    change = np.stack([-np.log1p((factors - 1) * bound), np.log(factors) - np.log1p((factors - 1) * bound)])
    logs, found = np.full((runs, len(factors)), -np.inf), np.full(runs, np.inf)
    for unit in range(1, units + 1):
        bad = (rng.random(runs) < rate).astype(int)
        logs = (np.maximum(0.0, logs) if form == "cusum" else np.logaddexp(0.0, logs)) + change[bad]
        if unit % 50 == 0 or unit == units:
            over = logsumexp(logs, axis=1) - math.log(len(factors)) >= math.log(arl)
            found[over & ~np.isfinite(found)] = unit
            if np.isfinite(found).all():
                break
    return found
