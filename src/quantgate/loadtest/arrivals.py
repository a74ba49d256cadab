"""When requests arrive: drawn from a seed, or read from a trace, and fixed before the first one is sent.

A law draws unit intervals from the seed and divides them by the rate, so runs at two rates see the same pattern at two
speeds, and what differs between them is the rate alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.loadtest.traces import TraceRow
from quantgate.records import Record

Law = Literal["poisson", "constant", "bursts", "trace"]
LAWS: tuple[Law, ...] = ("poisson", "constant", "bursts", "trace")
MOST = 5_000_000  # arrivals of one schedule


class Schedule(Record):
    """Every arrival of a run. ``times`` and the two counts are of one length."""

    law: Law
    rate: float  # requests a second that were asked for
    seconds: float  # the window that arrivals fall in
    seed: int
    burstiness: float = 1.0  # shape of the gamma law: 1 is Poisson, 0.1 comes in bursts
    times: tuple[float, ...]  # seconds from the beginning, ascending
    prompt_tokens: tuple[int | None, ...]  # None: the prompt is sent as it is
    output_tokens: tuple[int | None, ...]  # None: the prompt's own budget

    @property
    def drawn_rate(self) -> float:
        """Requests a second over the window, as they were drawn."""
        return len(self.times) / self.seconds


def draw(law: str, rate: float, seconds: float, seed: int, burstiness: float = 0.25) -> Schedule:
    """Arrivals by a law. Raises UnknownName, UsageError for numbers that make no schedule."""
    if law not in LAWS[:3]:
        raise UnknownName("arrival law", law, LAWS[:3])
    _check(rate, seconds)
    if not 0 < burstiness < math.inf:
        raise UsageError(f"burstiness {burstiness:g}: expected more than 0; 1 is Poisson, less comes in bursts")
    shape = {"poisson": 1.0, "constant": math.inf, "bursts": burstiness}[law]
    times = _constant(rate, seconds) if law == "constant" else _renewal(rate, seconds, seed, shape)
    empty = (None,) * len(times)
    kept = shape if law == "bursts" else 1.0
    return Schedule(
        law=law, rate=rate, seconds=seconds, seed=seed, burstiness=kept, times=times,
        prompt_tokens=empty, output_tokens=empty,
    )  # fmt: skip


def _check(rate: float, seconds: float) -> None:
    if not 0 < rate < math.inf:
        raise UsageError(f"rate {rate:g}: expected more than 0 requests a second; write such as 8/s")
    if not 0 < seconds < math.inf:
        raise UsageError(f"duration {seconds:g} s: expected more than 0; write such as 60s")
    if rate * seconds > MOST:
        raise UsageError(f"{rate:g}/s for {seconds:g} s are over {MOST:,} requests; shorten the duration")


def _constant(rate: float, seconds: float) -> tuple[float, ...]:
    return tuple((np.arange(max(1, round(rate * seconds))) / rate).tolist())


def _renewal(rate: float, seconds: float, seed: int, shape: float) -> tuple[float, ...]:
    """Intervals Gamma(shape, 1 / (shape rate)), of mean 1 / rate and variance 1 / (shape rate^2)."""
    chance, found, at = np.random.default_rng([seed, round(1000 * shape)]), list[float](), 0.0
    while True:
        intervals = chance.gamma(shape, 1 / shape, size=1024)
        times = at + np.cumsum(intervals) / rate
        inside = times[times < seconds]
        found += inside.tolist()
        if len(inside) < len(times):
            return tuple(found) or (0.0,)  # a window that nobody came in asks one request all the same
        at = float(times[-1])


def replay(
    rows: Sequence[TraceRow], *, rate: float | None = None, seconds: float | None = None, seed: int = 0
) -> Schedule:
    """A trace's own arrivals from its first one on, for ``seconds``; ``rate`` plays what is taken faster or slower.

    With a rate, ``rate * seconds`` rows are taken and their span is scaled, so their pattern stays and the rate is met
    over the rows that are played. Raises DataError for rows that are all of one time, UsageError as ``draw`` does.
    """
    own = [row.at_s - rows[0].at_s for row in rows]
    if rate is None:
        count = len(own) if seconds is None else int(np.searchsorted(own, seconds, side="left"))
    else:
        _check(rate, 1.0 if seconds is None else seconds)
        count = len(own) if seconds is None else min(len(own), max(2, round(rate * seconds)))
    if count < 2 or own[count - 1] <= 0:
        raise DataError(f"of the trace, {count} requests would be played, at one time; ask for a longer duration")
    natural = (count - 1) / own[count - 1]
    speed = 1.0 if rate is None else rate / natural
    window = count / (natural * speed) if rate is not None or seconds is None else seconds
    _check(natural * speed, window)
    return Schedule(
        law="trace",
        rate=natural if rate is None else rate,
        seconds=window,
        seed=seed,
        times=tuple(one / speed for one in own[:count]),
        prompt_tokens=tuple(row.prompt_tokens for row in rows[:count]),
        output_tokens=tuple(row.output_tokens for row in rows[:count]),
    )
