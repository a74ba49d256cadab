"""The rules that others roll back by, written from their sources for counts a minute: the minute of the alarm, or inf.

Flagger counts checks that failed, in all, and Argo measures windows, both against a fixed limit on the canary alone.
Kayenta compares the last hour's rates by Mann-Whitney every ten minutes. The z-test is what a careful person does who
looks every minute. ADWIN (river) sees the canary's answers one by one and has an hour of good ones before.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.special import ndtri

from benchmarks._watch_evidence import first
from benchmarks._watch_traffic import BASE, ODDS, REQUESTS, Array, Seen

LIMIT = 0.05  # of the canary's requests that may be bad
HOUR = 60


def flagger(seen: Seen, *, checks: int = 5) -> Array:
    """A check every minute; back when ``checks`` have failed since it began."""
    return first(np.cumsum(_rate(seen.trial_bad, seen.trial_units) > LIMIT, axis=1) >= checks)


def argo(seen: Seen, *, window: int = 5) -> Array:
    """A measurement every ``window`` minutes, none may fail."""
    bad, units = (
        one[:, : one.shape[1] // window * window].reshape(len(one), -1, window).sum(2)
        for one in (seen.trial_bad, seen.trial_units)
    )
    return first(_rate(bad, units) > LIMIT) * window


def kayenta(seen: Seen, *, every: int = 10, tolerance: float = 0.25, level: float = 0.98) -> Array:
    """High where the interval of the shift lies above ``tolerance`` of its estimate and the mean is not lower.

    NetflixACAJudge's Mann-Whitney: the interval and Hodges and Lehmann's estimate from all differences of two minutes.
    """
    ours = _rate(seen.trial_bad, seen.trial_units)
    theirs = _rate(seen.bad - seen.trial_bad, seen.units - seen.trial_units)
    looks = range(HOUR, ours.shape[1] + 1, every)
    rank = int(HOUR**2 / 2 + ndtri((1 - level) / 2) * np.sqrt(HOUR**2 * (2 * HOUR + 1) / 12))
    over = np.zeros((len(ours), len(looks)), bool)
    for at, end in enumerate(looks):
        a, b = ours[:, end - HOUR : end], theirs[:, end - HOUR : end]
        shifts = np.partition((a[:, :, None] - b[:, None, :]).reshape(len(a), -1), (rank, HOUR**2 // 2), axis=1)
        high = shifts[:, rank] > tolerance * np.abs(shifts[:, HOUR**2 // 2])
        over[:, at] = high & (a.mean(1) >= b.mean(1))
    found = first(over)
    return np.where(np.isfinite(found), HOUR + (found - 1) * every, np.inf)


def z_test(seen: Seen, *, alpha: float = 0.01) -> Array:
    """Two proportions, one-sided, everything since it began, every minute."""
    units, ours, bad, ours_bad = (
        np.cumsum(one, axis=1) for one in (seen.units, seen.trial_units, seen.bad, seen.trial_bad)
    )
    theirs, pooled = units - ours, bad / units
    with np.errstate(all="ignore"):
        z = (ours_bad / ours - (bad - ours_bad) / theirs) / np.sqrt(pooled * (1 - pooled) * (1 / ours + 1 / theirs))
    return first(np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0) > -ndtri(alpha))


def adwin(seen: Seen, rng: np.random.Generator) -> Array | None:
    """None where river is not installed. An alarm is a change for the worse; delta is river's 0.002."""
    if find_spec("river") is None:
        return None
    from river.drift import ADWIN

    found = np.full(len(seen.bad), np.inf)
    for run in range(len(found)):
        detector: Any = ADWIN()
        for bad in rng.random(int(REQUESTS * ODDS * HOUR)) < BASE:
            detector.update(float(bad))
        for minute, (units, bad) in enumerate(zip(seen.trial_units[run], seen.trial_bad[run], strict=True), 1):
            if _alarmed(detector, rng.permutation(int(units)) < bad):
                found[run] = minute
                break
    return found


def _alarmed(detector: Any, answers: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> bool:
    for bad in answers:
        before = detector.estimation
        detector.update(float(bad))
        if detector.drift_detected and detector.estimation > before:
            return True
    return False


def _rate(bad: Array, units: Array) -> Array:
    return np.divide(bad, units, out=np.zeros_like(bad), where=units > 0)
