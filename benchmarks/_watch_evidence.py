"""What ``quantgate.stats`` says of counts, for many runs and every minute at once; tests hold the two to be equal."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from benchmarks._watch_traffic import Array, Seen
from quantgate.stats import attribution, exceedance

FACTORS, LOG_WEIGHTS = np.asarray(attribution.FACTORS), np.log(attribution.WEIGHTS)
LOG_WEIGHTS_BETTER = np.log(attribution.WEIGHTS_BETTER)


def worse(seen: Seen, ratio: float = 1.0) -> Array:
    """log E of ``attribution.log_worse`` after every minute."""
    return attributed(seen.bad, seen.trial_bad, seen.odds, ratio)


def better(seen: Seen, margin: float) -> Array:
    """log E of ``attribution.log_better`` after every minute."""
    return mixed(np.cumsum(gains(seen.bad, seen.trial_bad, seen.odds, margin, 1 / FACTORS), axis=1), LOG_WEIGHTS_BETTER)


def gains(bad: Array, trial_bad: Array, odds: float | Array, ratio: float, factors: Array) -> Array:
    """What the bad events of a minute add to the log E of each factor, [..., factors]."""
    known = np.asarray(odds)[..., None]
    change = np.log1p(known * (ratio - 1)) - np.log1p(known * (ratio * factors - 1))
    added: Array = trial_bad[..., None] * np.log(factors) + bad[..., None] * change
    return added


def mixed(logs: Array, log_weights: Array = LOG_WEIGHTS) -> Array:
    summed: Array = logsumexp(logs + log_weights, axis=-1)
    return summed


def attributed(bad: Array, trial_bad: Array, odds: Array, ratio: float) -> Array:
    return mixed(np.cumsum(gains(bad, trial_bad, odds, ratio, FACTORS), axis=1))


def slower(beyond: Array, trial_beyond: Array, odds: Array) -> Array:
    """log E of ``exceedance.log_worse`` after every minute; counts are [runs, minutes, levels]."""
    five = len(exceedance.LEVELS) - 1
    share = np.log((1 - exceedance.RANKED) / five)
    total: Array = _ranks(beyond, trial_beyond, odds) + np.log(exceedance.RANKED)
    for level in range(1, five + 1):
        one = attributed(beyond[..., level], trial_beyond[..., level], odds, 1.0)
        total = np.logaddexp(total, one + share)
    return total


def _ranks(beyond: Array, trial_beyond: Array, odds: Array) -> Array:
    ranks, bets = np.asarray(exceedance.RANKS) - 0.5, np.asarray(exceedance.BETS)
    known = odds[:, None, None]  # [minutes, bets, ranks]
    bet = np.minimum(bets[:, None], exceedance.MOST / np.maximum(ranks[-1] * known, -ranks[0] * (1 - known)))
    within, ours = (-np.diff(one, axis=2, append=0.0) for one in (beyond, trial_beyond))
    won, lost = np.log1p(bet * ranks * (1 - known)), np.log1p(-bet * ranks * known)
    logs = np.einsum("rmk,mbk->rmb", ours, won) + np.einsum("rmk,mbk->rmb", within - ours, lost)
    mean: Array = logsumexp(np.cumsum(logs, axis=1), axis=2) - np.log(len(bets))
    return mean


def first(over: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Array:
    """The minute, from 1, at which each run is over it for the first time; inf where it never is."""
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, np.inf)
