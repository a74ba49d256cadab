"""What Prometheus reads of the watch: evidence, thresholds, ratios and counts of both sides, and what became of it.

A scrape touches no database: a thread reads the standings once a second and keeps what it found. While they cannot be
read, ``quantgate_watch_up`` is 0 and the last figures are shown no more, so that no alert rests on old ones.
``alerts.yml`` and ``grafana.json`` beside this file are made of these figures and the gateway's own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quantgate.errors import QuantgateError
from quantgate.watch import Action, Alarm, Finding, Standings, Tally, Verdict

log = logging.getLogger("quantgate.watch")
EVERY_S = 1.0
ACTIONS: tuple[Action, ...] = ("rollback", "hold", "promote")
SEEN = 1000  # alarms that are remembered as counted
OF = ("target", "signal", "direction")
FIGURES: Mapping[str, tuple[str, Callable[[Finding], float | None]]] = {
    "log_e": ("Evidence that the trial is worse, natural logarithm", lambda one: one.log_e),
    "log_threshold": ("Evidence at which it is rolled back, natural logarithm", lambda one: one.log_threshold),
    "log_better": ("Evidence that it is no worse than its margin, natural logarithm", lambda one: one.log_better),
    "ratio": ("Of the risks, trial over control; an estimate", lambda one: one.ratio),
    "ratio_low": ("Lower end of the ratio's confidence sequence", lambda one: one.low),
    "ratio_high": ("Upper end of the ratio's confidence sequence", lambda one: one.high),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the standings said last."""

    verdict: Verdict | None = None
    behind_s: float | None = None
    alarms: tuple[Alarm, ...] = ()
    up: bool = False


class Standing:
    """Reads the standings once a second, in a thread of its own. ``start``, ``close``."""

    def __init__(self, target: str, standings: Standings, *, every_s: float = EVERY_S) -> None:
        self.target, self._standings, self._every_s = target, standings, every_s
        self.now = Snapshot()
        self.counted: dict[Action, int] = dict.fromkeys(ACTIONS, 0)  # alarms since this process began
        self._seen: dict[str, None] | None = None
        self.trouble: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def read(self) -> None:
        """Once, now. Never raises."""
        where, target = self._standings, self.target
        try:
            verdict, behind_s = where.verdict(target), where.behind_s(target)
            alarms = tuple(where.alarms(target, limit=50))
        except QuantgateError as problem:
            if self.trouble is None:
                log.warning("%s: the evidence cannot be read (%s)", target, problem)
            self.trouble, self.now = f"the evidence cannot be read ({problem})", Snapshot()
            return
        self.trouble = None
        self._count(alarms)
        self.now = Snapshot(verdict, behind_s, alarms, up=True)

    def _count(self, alarms: Iterable[Alarm]) -> None:
        """Those that were there at the start are another process's."""
        first, seen = self._seen is None, self._seen or {}
        for one in alarms:
            if one.id not in seen and not first:
                self.counted[one.verdict.action] += 1
            seen[one.id] = None
        self._seen = dict.fromkeys([*seen][-SEEN:])

    def _run(self) -> None:
        while True:
            try:
                self.read()
            except Exception:
                log.exception("%s: the evidence cannot be read", self.target)
            if self._end.wait(self._every_s):
                return


class Gauges(Collector):
    """``prometheus_client``'s Collector: ``registry.register(Gauges(...))``."""

    def __init__(self, standing: Standing, counts: Mapping[str, tuple[str, Callable[[], float]]] | None = None) -> None:
        """``counts``: more figures that only grow, by name, such as texts that went unread."""
        self._standing, self._counts = standing, dict(counts or {})

    def collect(self) -> Iterator[Metric]:
        target, now = self._standing.target, self._standing.now
        yield _one("up", "1 while the evidence can be read", target, float(now.up))
        yield from self._counted(target)
        if now.behind_s is not None:
            yield _one("behind_seconds", "How far the evidence is behind the newest exchange", target, now.behind_s)
        yield _last(target, now.alarms)
        if now.verdict is not None:
            yield from _of_verdict(target, now.verdict)

    def describe(self) -> Iterable[Metric]:
        """No names are claimed before the first scrape."""
        return []

    def _counted(self, target: str) -> Iterator[Metric]:
        made = CounterMetricFamily(
            "quantgate_watch_alarms", "Verdicts that moved something", labels=("target", "action")
        )
        for action, count in self._standing.counted.items():
            made.add_metric((target, action), count)
        yield made
        for name, (about, value) in self._counts.items():
            counter = CounterMetricFamily(f"quantgate_watch_{name}", about, labels=("target",))
            counter.add_metric((target,), value())
            yield counter


def _of_verdict(target: str, verdict: Verdict) -> Iterator[Metric]:
    action = _family("action", "1 for what is to become of the trial now", ("target", "action"))
    for name in ACTIONS:
        action.add_metric((target, name), float(verdict.action == name))
    yield action
    trial = _family("trial", "1, with what is on trial", ("target", "variant", "control"))
    trial.add_metric((target, verdict.trial.variant, verdict.trial.control), 1.0)
    yield trial
    yield _one("evidence", "Weighted mean over all signals, natural logarithm", target, verdict.log_e)
    yield _one("share", "Of sessions that were the trial's at the newest verdict", target, verdict.share)
    for figure, (about, value) in FIGURES.items():
        made = _family(figure, about, OF)
        for one in verdict.findings:
            found = value(one)
            if found is not None:
                made.add_metric((target, one.signal, one.direction), found)
        yield made
    yield _sides("units", "Sessions that a signal could be read from", target, verdict, lambda tally: tally.units)
    yield _sides("bad", "Of them, those that it was bad in", target, verdict, lambda tally: tally.bad)


def _sides(name: str, about: str, target: str, verdict: Verdict, value: Callable[[Tally], float]) -> GaugeMetricFamily:
    """A gauge, not a counter: a new trial begins at nothing."""
    made = _family(name, about, (*OF, "side"))
    for one in verdict.findings:
        for side, tally in (("trial", one.trial), ("control", one.control)):
            made.add_metric((target, one.signal, one.direction, side), value(tally))
    return made


def _last(target: str, alarms: tuple[Alarm, ...]) -> GaugeMetricFamily:
    about = "When the newest of its kind was decided, seconds since 1970"
    made = _family("last_alarm_timestamp_seconds", about, ("target", "action", "done"))
    for action in ACTIONS:
        newest = next((one for one in alarms if one.verdict.action == action), None)
        if newest is not None:
            made.add_metric((target, action, newest.done), newest.decided_at)
    return made


def _family(name: str, about: str, labels: Iterable[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"quantgate_watch_{name}", about, labels=tuple(labels))


def _one(name: str, about: str, target: str, value: float) -> GaugeMetricFamily:
    made = _family(name, about, ("target",))
    made.add_metric((target,), value)
    return made


def alerts() -> str:
    """Rules for Prometheus."""
    return (files("quantgate.watch") / "alerts.yml").read_text("utf-8")


def grafana() -> str:
    """A dashboard for Grafana, as JSON."""
    return (files("quantgate.watch") / "grafana.json").read_text("utf-8")
