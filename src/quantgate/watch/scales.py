"""The control's quantiles of a quantity, by stratum: frozen, and frozen anew at moments that the past alone decides.

Values are kept as counts of buckets 2 % wide, so a scale is small whatever the traffic. Thresholds are taken after 200
values of the control's, again after 400, 800 ... 6400, and then every 6400 from those that came since. Any threshold
that was fixed before a value keeps the error rate, so a swing of the day costs power at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from quantgate.stats import exceedance
from quantgate.watch.counts import Direction

LEAST, MOST = exceedance.LEAST, 6400
STRATA = 64  # of one signal; what comes after is one stratum
ELSE = "more strata"
TINY = 1e-6
STEP = math.log(1.02)
HUGE = 1e9


def bucket(value: float) -> int:
    """Of a finite value; the sign is kept.

    >>> bucket(0.0), bucket(-2.5) == -bucket(2.5), bucket(1.0) < bucket(1.03)
    (0, True, True)
    """
    size = abs(value)
    at = 0 if size < TINY else 1 + int(math.log(min(size, HUGE) / TINY) / STEP)
    return at if value >= 0 else -at


def middle(at: int) -> float:
    """Of a bucket's values."""
    return 0.0 if at == 0 else math.copysign(TINY * math.exp((abs(at) - 0.5) * STEP), at)


class Scale:
    """Of one stratum. ``thresholds`` is None until there are enough of the control's values."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.thresholds: tuple[float, ...] | None = None
        self._buckets: dict[int, int] = {}
        self._n, self._due = 0, LEAST

    def learn(self, value: float) -> None:
        """One of the control's, after it was judged by the thresholds so far."""
        at = bucket(value)
        self._buckets[at] = self._buckets.get(at, 0) + 1
        self._n += 1
        if self._n < self._due:
            return
        values = [one for at in sorted(self._buckets) for one in [middle(at)] * self._buckets[at]]
        self.thresholds = exceedance.frozen(values, self.direction)
        self._due = min(2 * self._due, MOST)
        if self._n >= MOST:
            self._buckets, self._n = {}, 0

    def state(self) -> list[Any]:
        pairs = [one for pair in sorted(self._buckets.items()) for one in pair]
        return [self.thresholds and list(self.thresholds), self._n, self._due, pairs]

    @classmethod
    def of(cls, direction: Direction, state: Sequence[Any]) -> Scale:
        made = cls(direction)
        thresholds, made._n, made._due, pairs = state
        made.thresholds = tuple(thresholds) if thresholds else None
        made._buckets = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return made


class Scales:
    """Of every stratum of one signal."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self._strata: dict[str, Scale] = {}

    def of(self, stratum: str) -> Scale:
        if stratum not in self._strata and len(self._strata) >= STRATA:
            stratum = ELSE
        return self._strata.setdefault(stratum, Scale(self.direction))

    def ready(self) -> bool:
        return any(one.thresholds for one in self._strata.values())

    def state(self) -> dict[str, Any]:
        return {name: one.state() for name, one in self._strata.items()}

    def load(self, state: dict[str, Any]) -> None:
        self._strata = {name: Scale.of(self.direction, one) for name, one in state.items()}
