"""Late faults: after weeks beside a holdback, with renewed evidence and without; and where there is no holdback."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from benchmarks._watch_evidence import FACTORS, LOG_WEIGHTS, first, gains
from benchmarks._watch_traffic import BASE, REQUESTS, Array
from quantgate.stats import detectors, renewal

DAY = 1440


def renewed(
    rng: np.random.Generator, runs: int, *, ratio: float, days: int = 14, period: int = 30, holdback: float = 0.02
) -> tuple[Array, Array]:
    """(renewed daily, not renewed): minutes from a fault after ``days`` to log E = log(1 / 1 %); inf: not in a day."""
    odds, bar = 1 - holdback, math.log(100)
    good = _day(rng, runs, days, 1, odds, 1.0, DAY)[:, :, 0]  # [runs, days, factors]
    after = _day(rng, runs, 1, DAY, odds, ratio, 1)[:, 0]  # [runs, minutes, factors]
    since = np.flip(np.cumsum(np.flip(good, 1), 1), 1)  # what each copy gathered before the fault
    copies = np.concatenate([since, np.zeros((runs, 1, len(FACTORS)))], axis=1)  # the last starts with the fault's day
    weights = np.log(renewal.weights(period))
    gathered = np.cumsum(after, axis=1)
    parts = [math.log(max(1 - np.exp(weights[: days + 1]).sum(), 1e-300)) + np.zeros(gathered.shape[:2])]
    for copy in range(days + 1):
        parts.append(weights[copy] + logsumexp(copies[:, copy, None] + gathered + LOG_WEIGHTS, axis=2))
    with_copies = logsumexp(np.stack(parts), axis=0)
    without = logsumexp(copies[:, 0, None] + gathered + LOG_WEIGHTS, axis=2)
    return first(with_copies >= bar), first(without >= bar)


def _day(rng: np.random.Generator, runs: int, days: int, pieces: int, odds: float, ratio: float, minutes: int) -> Array:
    """[runs, days, pieces, factors]: what the events of a piece of a day add."""
    trial = rng.binomial(REQUESTS * minutes, odds, (runs, days, pieces))
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
