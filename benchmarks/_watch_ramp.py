"""How long evidence takes to carry a variant through the steps of a ramp, minute by minute, many runs at once."""

from __future__ import annotations

import math

import numpy as np

from benchmarks._watch_evidence import FACTORS, LOG_WEIGHTS_BETTER, gains, mixed
from benchmarks._watch_traffic import BASE, REQUESTS, Array
from quantgate.stats import rates
from quantgate.stats.exceedance import LEVELS
from quantgate.watch_config import WatchConfig

CONFIG = WatchConfig()
FLOOR = 0.005


def climb(
    rng: np.random.Generator,
    runs: int,
    *,
    ratio: float = 1.0,
    base: float = BASE,
    signals: int = 1,
    quantities: int = 0,
    minutes: int = 1440,
) -> Array:
    """[runs, steps]: the minute at which each step had proven what it must; inf where it had not at the end.

    A step needs every signal's margin excluded (or its rate below the floor), its least units and its stay. A variant
    ``ratio`` times as bad is so in every signal; quantities are of the control's own distribution.
    """
    steps, enough = CONFIG.steps, math.log(1 / CONFIG.beta)
    shares = np.asarray([min(one.share, 1 - CONFIG.holdback) for one in steps])
    margins = [one.margin for one in steps]
    least, stay = np.asarray([one.least for one in steps]), np.asarray([one.stay for one in steps])
    # The levels of a quantity are processes like any other, with rates that are known.
    bases = np.asarray([base] * signals + [1 - level for level in LEVELS[1:]] * quantities)
    ratios = np.asarray([ratio] * signals + [1.0] * (len(bases) - signals))
    logs = np.zeros((len(margins), runs, len(bases), len(FACTORS)))
    units, bad = np.zeros((runs, 2)), np.zeros((runs, len(bases)))
    at, since = np.zeros(runs, int), np.zeros(runs)
    done = np.full((runs, len(steps)), np.inf)
    for minute in range(1, minutes + 1):
        odds = shares[np.minimum(at, len(steps) - 1)]
        trial = rng.binomial(REQUESTS, odds)
        trial_bad = rng.binomial(trial[:, None], np.minimum(1, bases * ratios)).astype(float)
        all_bad: Array = trial_bad + rng.binomial((REQUESTS - trial)[:, None], bases)
        units += np.stack([trial, REQUESTS - trial], axis=1)
        bad += trial_bad
        for index, margin in enumerate(margins):
            logs[index] += gains(all_bad, trial_bad, odds[:, None], margin, 1 / FACTORS)
        here = np.minimum(at, len(steps) - 1)
        proven = mixed(logs[here, np.arange(runs)], LOG_WEIGHTS_BETTER) >= enough  # [runs, processes]
        proven |= _below(bad, units[:, :1], enough)
        stayed = (units.min(1) >= least[here]) & (minute - since >= stay[here] / 60)
        on = (at < len(steps)) & proven.all(1) & stayed
        done[on, at[on]] = minute
        since[on] = minute
        at[on] += 1
        if (at == len(steps)).all():
            break
    return done


def _below(bad: Array, units: Array, enough: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """``rates.log_below`` at the floor, for all runs."""
    odds = np.asarray(rates.BELOW)
    logs = bad[..., None] * np.log(odds) - units[..., None] * np.log1p((odds - 1) * FLOOR)
    top = logs.max(-1)
    over: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (
        top + np.log(np.exp(logs - top[..., None]).mean(-1)) >= enough
    )
    return over
