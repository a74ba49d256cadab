"""Simulated traffic of a canary beside its baseline: counts a minute, many runs at once, seeded.

Arrays are [runs, minutes] unless said otherwise. Every unit is the canary's with the odds of its minute, by a draw of
its own, as at the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from quantgate.stats.exceedance import LEAST, LEVELS

MINUTES, REQUESTS, ODDS, BASE = 360, 600, 0.1, 0.02  # six hours; a minute; the canary's share; bad events
RAMP = (0.01, 0.05, 0.25, 0.5)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Units and bad events of both sides, by the minute."""

    odds: Array  # [minutes]
    units: Array
    trial_units: Array
    bad: Array
    trial_bad: Array


def steady(odds: float = ODDS, minutes: int = MINUTES) -> Array:
    return np.full(minutes, odds)


def ramp(minutes: int = MINUTES) -> Array:
    """1, 5, 25, 50 %, each for a quarter of the time."""
    return np.repeat(RAMP, -(-minutes // len(RAMP)))[:minutes]


def swing(minutes: int = MINUTES, base: float = BASE) -> Array:
    """A bad rate that goes from 0.2 to 1.8 times the base and back in these six hours, twice."""
    return base * (1 + 0.8 * np.sin(np.arange(minutes) * 4 * np.pi / minutes))


def events(
    rng: np.random.Generator,
    runs: int,
    *,
    ratio: float = 1.0,
    base: float | Array = BASE,
    odds: Array | None = None,
    requests: int = REQUESTS,
) -> Seen:
    """Independent requests; the canary's are bad ``ratio`` times as often."""
    known = steady() if odds is None else odds
    shape = (runs, len(known))
    trial = rng.binomial(requests, known, shape)
    trial_bad = rng.binomial(trial, np.minimum(1.0, base * ratio))
    bad = trial_bad + rng.binomial(requests - trial, base)
    return Seen(known, *(np.asarray(one, float) for one in (np.full(shape, requests), trial, bad, trial_bad)))


def sessions(
    rng: np.random.Generator, runs: int, *, icc: float, ratio: float = 1.0, each: int = 5, minutes: int = MINUTES
) -> tuple[Seen, Seen]:
    """(by session, by request): sticky sessions of ``each`` requests, one a minute, with a bad rate of their own.

    The rates of sessions follow a beta distribution with the given intra-session correlation. By session its first bad
    answer counts, at its minute.
    """
    arriving, known = REQUESTS // each, steady(minutes=minutes)
    by_session, by_request = (np.zeros((4, runs, minutes)) for _ in range(2))
    for run in range(runs):
        ours = rng.random((minutes, arriving)) < ODDS
        mean = np.where(ours, BASE * ratio, BASE)
        rates = rng.beta(mean * (1 - icc) / icc, (1 - mean) * (1 - icc) / icc)
        bad = rng.random((each, minutes, arriving)) < rates
        first = bad & (np.cumsum(bad, axis=0) == 1)
        by_session[0, run], by_session[1, run] = arriving, ours.sum(1)
        for late in range(each):
            until = minutes - late
            by_request[0, run, late:] += arriving
            by_request[1, run, late:] += ours.sum(1)[:until]
            for table, what in ((by_session, first), (by_request, bad)):
                table[2, run, late:] += what[late].sum(1)[:until]
                table[3, run, late:] += (what[late] & ours).sum(1)[:until]
    return Seen(known, *by_session), Seen(known, *by_request)


def delays(
    rng: np.random.Generator,
    runs: int,
    *,
    slower: float = 1.0,
    spread: float = 0.6,
    odds: Array | None = None,
    requests: int = REQUESTS,
    falling: bool = False,
) -> tuple[Array, Array]:
    """(both sides, the canary's) beyond each threshold, [runs, minutes, levels]: log-normal times, ``slower`` times.

    Thresholds are frozen quantiles of as few values of the control as are allowed, drawn anew in every run; ``falling``
    counts what is below the low ones instead.
    """
    known = steady() if odds is None else odds
    at = np.ceil(np.round(np.asarray(LEVELS[1:]) * LEAST, 6)).astype(int) - 1
    drawn = np.sort(rng.random((runs, LEAST)), axis=1)[:, at]  # [runs, 5], of the control's distribution
    cuts = np.concatenate([np.full((runs, 1), -np.inf), ndtri(drawn), np.full((runs, 1), np.inf)], axis=1)
    shift = np.log(slower) / spread * (-1 if falling else 1)
    trial = rng.binomial(requests, known, (runs, len(known)))
    theirs = rng.multinomial(requests - trial, np.diff(ndtr(cuts))[:, None, :])
    ours = rng.multinomial(trial, np.diff(ndtr(cuts - shift))[:, None, :])
    beyond, ours_beyond = (np.cumsum(one[..., ::-1], axis=2)[..., ::-1] for one in (ours + theirs, ours))
    return beyond.astype(float), ours_beyond.astype(float)


def head(seen: Seen, runs: int) -> Seen:
    """The first ``runs`` of them."""
    return Seen(seen.odds, *(one[:runs] for one in (seen.units, seen.trial_units, seen.bad, seen.trial_bad)))
