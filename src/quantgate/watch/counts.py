"""Counts of one process and what they are worth: the same questions of events, levels of quantities, and grades.

Direction ``less`` is ``more`` with the roles of the two sides exchanged; of quantities it looks at low quantiles. The
ratio is that of the risks, trial over control, in either direction. Of graded values it is a difference of means
instead, and a margin of 1.25 is a difference of 0.05: (margin - 1) / 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, Self

from quantgate.stats import attribution, exceedance, graded

Direction = Literal["more", "less"]
Limits = tuple[float | None, float | None]
OF_A_MARGIN = 0.2  # of what a margin is above 1: that difference of means


class Evidence(Protocol):
    """Counts since some start. ``plus`` of several is what was counted since the earliest of them."""

    def events(self) -> int:
        """That it rests on."""
        ...

    def log_worse(self, ratio: float) -> float: ...

    def log_better(self, margin: float) -> float: ...

    def interval(self, alpha: float) -> Limits: ...

    def estimate(self) -> float | None: ...

    def plus(self, other: Any) -> Self: ...

    def state(self) -> list[Any]: ...


class Events:
    """Bad events by the odds of their unit; pairs are events at odds 1/2."""

    def __init__(self, direction: Direction, rows: Iterable[Sequence[Any]] = ()) -> None:
        self.direction = direction
        self.counts: attribution.Counts = {odds: [bad, trial] for odds, bad, trial in rows}

    def add(self, odds: float, trial: bool) -> None:
        row = self.counts.setdefault(odds, [0, 0])
        row[0] += 1
        row[1] += trial

    def events(self) -> int:
        return sum(row[0] for row in self.counts.values())

    def log_worse(self, ratio: float) -> float:
        return attribution.log_worse(self._seen(), ratio)

    def log_better(self, margin: float) -> float:
        return attribution.log_better(self._seen(), margin)

    def interval(self, alpha: float) -> Limits:
        return attribution.interval(self.counts, alpha)

    def estimate(self) -> float | None:
        return attribution.estimate(self.counts)

    def _seen(self) -> attribution.Counts:
        return self.counts if self.direction == "more" else attribution.mirrored(self.counts)

    def plus(self, other: Events) -> Events:
        total = Events(self.direction, self.state())
        for odds, bad, trial in other.state():
            row = total.counts.setdefault(odds, [0, 0])
            row[0] += bad
            row[1] += trial
        return total

    def state(self) -> list[Any]:
        return [[odds, *row] for odds, row in self.counts.items()]


class Levels:
    """Of each of five frozen quantiles of the control's: the values beyond it, as events."""

    def __init__(self, direction: Direction, levels: Iterable[Iterable[Sequence[Any]]] = ()) -> None:
        self.direction = direction
        rows = list(levels) or [()] * len(exceedance.LEVELS)
        self.levels = [Events("more", one) for one in rows]  # beyond is beyond, whatever lies there

    def add(self, odds: float, trial: bool, beyond: Sequence[bool]) -> None:
        for level, one in zip(self.levels, beyond, strict=True):
            if one:
                level.add(odds, trial)

    def events(self) -> int:
        return self.levels[0].events()

    def log_worse(self, ratio: float) -> float:
        return exceedance.log_worse(self._counts(), ratio)

    def log_better(self, margin: float) -> float:
        return exceedance.log_better(self._counts(), margin)

    def interval(self, alpha: float) -> Limits:
        return exceedance.interval(self._counts(), alpha)

    def estimate(self) -> float | None:
        return exceedance.estimate(self._counts())

    def _counts(self) -> list[attribution.Counts]:
        return [one.counts for one in self.levels]

    def plus(self, other: Levels) -> Levels:
        total = Levels(self.direction)
        total.levels = [mine.plus(its) for mine, its in zip(self.levels, other.levels, strict=True)]
        return total

    def state(self) -> list[Any]:
        return [one.state() for one in self.levels]


class Grades:
    """Values in [0, 1], in 64ths, by the odds of their unit."""

    def __init__(self, direction: Direction, rows: Iterable[Sequence[Any]] = ()) -> None:
        self.direction = direction
        self.counts: graded.Counts = {(odds, value): [control, trial] for odds, value, control, trial in rows}

    def add(self, odds: float, trial: bool, value: float) -> None:
        self.counts.setdefault((odds, graded.quantized(value)), [0, 0])[trial] += 1

    def events(self) -> int:
        return sum(sum(row) for row in self.counts.values())

    def log_worse(self, ratio: float) -> float:
        return graded.log_worse(self._seen(), (ratio - 1.0) * OF_A_MARGIN)

    def log_better(self, margin: float) -> float:
        return graded.log_better(self._seen(), (margin - 1.0) * OF_A_MARGIN)

    def interval(self, alpha: float) -> Limits:
        return graded.interval(self.counts, alpha)

    def estimate(self) -> float | None:
        return graded.estimate(self.counts)

    def _seen(self) -> graded.Counts:
        return self.counts if self.direction == "more" else graded.mirrored(self.counts)

    def plus(self, other: Grades) -> Grades:
        total = Grades(self.direction, self.state())
        for odds, value, control, trial in other.state():
            row = total.counts.setdefault((odds, value), [0, 0])
            row[0] += control
            row[1] += trial
        return total

    def state(self) -> list[Any]:
        return [[odds, value, *row] for (odds, value), row in self.counts.items()]


KINDS: dict[str, type[Events] | type[Levels] | type[Grades]] = {
    "event": Events,
    "pair": Events,
    "quantity": Levels,
    "graded": Grades,
}
