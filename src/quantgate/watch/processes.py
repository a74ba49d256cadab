"""One signal in one direction: counts of both sides, kept in segments so that evidence can be renewed, and its rules.

A segment begins when a copy of the evidence begins (``stats.renewal``); a copy counts all segments from its own on.
While a trial is a canary there is one. Error rates: a process decides at ln(1 / (alpha w)), and the weights w of all
sum to 1.

After a promotion a copy starts 720 times in a period, every hour of 30 days. To keep them all would be much work for
little: copy k is given up at the age of twice the highest power of two that divides k, and counts as 0 from then on. So
there are ten or so, whose ages double, and to whatever fault there is one that began soon after it and lives long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quantgate.errors import UsageError
from quantgate.stats import attribution, exceedance
from quantgate.stats.renewal import decided_at, log_mix, weights
from quantgate.watch import Tally, signals
from quantgate.watch.counts import KINDS, Direction, Evidence
from quantgate.watch.scales import HUGE, Scales
from quantgate.watch.signals import Signal
from quantgate.watch_config import WatchConfig

T = TypeVar("T")
STARTS = 720  # of copies of the evidence, in one period after a promotion
SHARES = weights(STARTS)
LEAP = math.log(max(attribution.FACTORS))  # what one more event adds to log e, at most; of grades and ranks ln 1.9
EXAMPLES = 5
P95 = exceedance.LEVELS.index(0.95)
MOST_SIGNALS = 64
LATELY = 1.05  # times as many events, at which limits are found anew
Estimate = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A signal as it is judged here: what its file says, and what the configuration says otherwise."""

    signal: Signal
    direction: Direction
    weight: float  # of all: they sum to 1
    log_threshold: float
    margin: float
    floor: float
    promotes: bool


def rules(config: WatchConfig, given: Sequence[Signal] | None = None) -> tuple[Rule, ...]:
    """Of every signal that is on, two where either direction is worse. Raises UsageError, UnknownName, MissingExtra."""
    if given is None:
        for name in config.signals:
            signals.get(name)
        given = [signals.get(name) for name in signals.names() if not _off(config, name)]
    on = [one for one in given if not _off(config, one.name)]
    if not 0 < len(on) <= MOST_SIGNALS:
        raise UsageError(f"watch: {len(on)} signals are on; keep 1 to {MOST_SIGNALS}, or set 'enabled: false'")
    asked = [_asked(config, one, "weight", one.weight) for one in on]
    total = math.fsum(asked)
    found = []
    for signal, weight in zip(on, asked, strict=True):
        sides: tuple[Direction, ...] = ("more", "less") if signal.worse == "either" else (signal.worse,)
        for direction in sides:
            share = weight / total / len(sides)
            found.append(
                Rule(
                    signal=signal,
                    direction=direction,
                    weight=share,
                    log_threshold=decided_at(config.alpha, share),
                    margin=_asked(config, signal, "margin", signal.margin),
                    floor=_asked(config, signal, "floor", signal.floor),
                    promotes=_asked(config, signal, "promotes", signal.promotes),
                )
            )
    return tuple(found)


def _off(config: WatchConfig, name: str) -> bool:
    return name in config.signals and config.signals[name].off


def _asked(config: WatchConfig, signal: Signal, key: str, default: Any) -> Any:
    said = getattr(config.signals.get(signal.name), key, None)
    return default if said is None else said


@dataclass(slots=True)
class Segment:
    evidence: Any  # Events, Levels or Grades
    control: list[Any] = field(default_factory=lambda: [0, 0, 0.0])  # units, bad, total
    trial: list[Any] = field(default_factory=lambda: [0, 0, 0.0])

    def plus(self, other: Segment) -> Segment:
        """Both together, as one that began when this one did."""
        control, trial = (
            [a + b for a, b in zip(mine, its, strict=True)]
            for mine, its in ((self.control, other.control), (self.trial, other.trial))
        )
        return Segment(self.evidence.plus(other.evidence), control, trial)

    def state(self) -> list[Any]:
        return [self.evidence.state(), self.control, self.trial]


def alive(start: int, now: int) -> bool:
    """Whether the copy that began as number ``start`` still counts when number ``now`` begins.

    >>> [start for start in range(21) if alive(start, 20)]
    [0, 8, 16, 18, 19, 20]
    """
    return start == 0 or now - start < 2 * (start & -start)


class Process:
    """Its counts, and e-values of them. What was computed holds until the next bad event."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.scales = Scales(rule.direction) if rule.signal.kind == "quantity" else None
        self.examples: deque[str] = deque(maxlen=EXAMPLES)
        self.segments = [self._segment()]
        self.starts: list[int] | None = None  # numbers of the copies, one for each segment; None: not renewed
        self.missed = [0, 0, 0]  # sessions of the control, of the trial, and copies, before the signal was there
        self._safe = 0  # events that may still come before it could reach its threshold
        self._known: dict[tuple[Any, ...], Any] = {}
        self._kept: dict[tuple[int, float], tuple[int, Estimate]] = {}

    def _segment(self) -> Segment:
        return Segment(KINDS[self.rule.signal.kind](self.rule.direction))

    def unit(self, trial: bool) -> None:
        """One that may go bad: a session, or a request."""
        now = self.segments[-1]
        (now.trial if trial else now.control)[0] += 1

    def bad(self, trial: bool, odds: float, exchange: str) -> None:
        self._grown()
        now = self.segments[-1]
        (now.trial if trial else now.control)[1] += 1
        now.evidence.add(odds, trial)
        if trial and self.rule.direction == "more":
            self.examples.append(exchange)

    def pair(self, worse: bool, exchange: str) -> None:
        """A prompt that both answered, one of them worse: the trial, or the control."""
        self.unit(True)
        self.unit(False)
        self.bad(worse, 0.5, exchange)

    def value(self, trial: bool, odds: float, value: float, stratum: str, exchange: str) -> None:
        """Of a quantity, in the signal's unit, or a grade in [0, 1]."""
        self.unit(trial)
        now = self.segments[-1]
        side = now.trial if trial else now.control
        side[2] += min(max(value, -HUGE), HUGE)
        if self.scales is None:
            beyond = value >= 0.5
            self._grown()
            now.evidence.add(odds, trial, value)
        else:
            scale = self.scales.of(stratum)
            beyond = False
            if scale.thresholds is not None:
                levels = exceedance.exceed(value, scale.thresholds, self.rule.direction)
                beyond = levels[P95]
                if any(levels):
                    self._grown()
                    now.evidence.add(odds, trial, levels)
            if not trial:
                scale.learn(value)
        side[1] += beyond
        if beyond and trial:
            self.examples.append(exchange)

    def begin(self, *, renewed: bool) -> None:
        """From nothing, at a promotion or with a new period; thresholds of quantities stay."""
        self.segments, self.starts = [self._segment()], [0] if renewed else None
        self.missed = [0, 0, 0]
        self.examples.clear()
        self._forget()

    def copy(self, start: int) -> None:
        """Another copy of the evidence begins, and those that are too old for their number end."""
        if self.starts is None:
            return
        self.segments.append(self._segment())
        self.starts.append(start)
        for at in range(len(self.starts) - 1, 0, -1):
            if not alive(self.starts[at], start):
                self.segments[at - 1 : at + 1] = [self.segments[at - 1].plus(self.segments[at])]
                del self.starts[at]
        self._forget()

    def _forget(self) -> None:
        self._safe = 0
        self._known.clear()
        self._kept.clear()

    def _grown(self) -> None:
        """By one event."""
        self._safe -= 1
        self._known.clear()

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the copies that count, in the mean of all that ever start."""
        return (1.0,) if self.starts is None else tuple(SHARES[start] for start in self.starts)

    def since(self) -> list[Evidence]:
        """What each copy counts, the one that counts all first."""

        def sums() -> list[Evidence]:
            found = [self.segments[-1].evidence]
            for one in reversed(self.segments[:-1]):
                found.append(one.evidence.plus(found[-1]))
            return found[::-1]

        return self._once(("since",), sums)

    def tallies(self, copy: int = 0) -> tuple[Tally, Tally]:
        """Of the control and of the trial, since that copy began."""
        rows = [(one.control, one.trial) for one in self.segments[copy:]]
        control, trial = ([sum(row[side][at] for row in rows) for at in range(3)] for side in (0, 1))
        return tally(control), tally(trial)

    def log_e(self, ratio: float) -> float:
        """Of "worse, beyond ``ratio`` times"."""
        return self._once(("log_e", ratio), lambda: log_mix(self._mixed(ratio)))

    def _mixed(self, ratio: float) -> list[tuple[float, float]]:
        """(weight, log e) of each copy; those that ended are 0, those to come 1 (``log_mix`` takes them so)."""
        rows = list(zip(self.shares, self._logs(ratio), strict=True))
        if self.starts is not None:
            ended = math.fsum(SHARES[: self.starts[-1] + 1]) - math.fsum(self.shares)
            rows.append((max(ended, 0.0), -math.inf))
        return rows

    def crossed(self, ratio: float) -> bool:
        """Whether it has reached its threshold; not computed where the events since the last time cannot do it."""
        if self._safe > 0:
            return False
        left = self.rule.log_threshold - self.log_e(ratio)
        self._safe = math.floor(left / LEAP)
        return left <= 0.0

    def telling(self, ratio: float) -> int:
        """The copy with the greatest evidence."""
        return max(range(len(self.segments)), key=self._logs(ratio).__getitem__)

    def _logs(self, ratio: float) -> list[float]:
        return self._once(("logs", ratio), lambda: [one.log_worse(ratio) for one in self.since()])

    def log_better(self, margin: float) -> float:
        """Of "not ``margin`` times worse", over all copies."""
        return self._once(("better", margin), lambda: self.since()[0].log_better(margin))

    def limits(self, copy: int, alpha: float, *, lately: bool = False) -> Estimate:
        """Estimate, low and high of the ratio (of grades: of the difference of means).

        ``lately``: those of a moment ago will do, when there was hardly an event less: to find them takes a while.
        """
        evidence = self.since()[copy]
        events = evidence.events()
        kept = self._kept.get((copy, alpha))
        if kept is not None and lately and kept[0] <= events <= kept[0] * LATELY:
            return kept[1]

        def found() -> Estimate:
            return (evidence.estimate(), *evidence.interval(alpha)) if events else (None, None, None)

        made = self._once(("limits", copy, alpha), found)
        self._kept[copy, alpha] = (events, made)
        return made

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = make()
        made: T = self._known[key]
        return made

    def state(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "segments": [one.state() for one in self.segments],
            "starts": self.starts,
            "examples": list(self.examples),
            "missed": self.missed,
        }
        return told if self.scales is None else told | {"scales": self.scales.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        kind, direction = KINDS[self.rule.signal.kind], self.rule.direction
        self.segments = [Segment(kind(direction, rows), control, trial) for rows, control, trial in state["segments"]]
        self.starts = state["starts"]
        self.missed = state.get("missed", [0, 0, 0])
        self.examples.extend(state["examples"])
        if self.scales is not None:
            self.scales.load(state["scales"])
        self._forget()


def tally(side: Sequence[Any]) -> Tally:
    return Tally(units=side[0], bad=side[1], total=side[2])
