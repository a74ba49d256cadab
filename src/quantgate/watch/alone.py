"""A released variant that nothing is compared with: its rates of bad events against what was stated (e-detectors).

Weaker than a trial: an alarm will come one day, after 100 million sessions on average where the rates are what was
stated, and a swing of the day counts against the variant. A holdback is better; this is for where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantgate.errors import UsageError
from quantgate.serve import Exchange
from quantgate.stats.detectors import Detector
from quantgate.watch.processes import Rule
from quantgate.watch.signals import Signal
from quantgate.watch.units import Seen, key_of
from quantgate.watch_config import WatchConfig

MEAN_UNITS = 1e8  # between alarms while nothing is wrong


def stated(config: WatchConfig, on: Sequence[Rule]) -> dict[str, float]:
    """``bounds`` of the configuration. Raises UsageError for one that nothing can be counted against."""
    events = {one.signal.name for one in on if one.signal.kind == "event"}
    for name in config.bounds:
        if name not in events:
            choose = ", ".join(sorted(events)) or "none"
            raise UsageError(f"watch: bounds: '{name}' is no event that is counted here; choose from {choose}")
    return config.bounds


class Alone:
    """Detectors of the signals that have a stated rate, over the first exchange of each session, of one variant."""

    def __init__(self, bounds: Mapping[str, float]) -> None:
        """``bounds``: signal -> the rate of sessions with a bad event that is allowed."""
        self.bounds = dict(bounds)
        self.artifact = ""
        self._begin("")

    def _begin(self, artifact: str) -> None:
        self.artifact = artifact
        self.detectors = {name: Detector(bound) for name, bound in self.bounds.items()}
        self._seen = Seen()

    def add(self, exchange: Exchange, read: Callable[[Signal], float | None], signals: Mapping[str, Signal]) -> None:
        if not self.bounds:
            return
        if exchange.artifact != self.artifact:
            self._begin(exchange.artifact)
        if exchange.told_session and not self._seen.meet(key_of(exchange.session))[0]:
            return
        for name, detector in self.detectors.items():
            signal = signals.get(name)
            if signal is not None and signal.kind == "event" and (value := read(signal)) is not None:
                detector.add(value == 1.0)

    def alarm(self) -> tuple[str, Detector] | None:
        """The signal that is furthest beyond what was stated."""
        beyond = [(one.log_m, name) for name, one in self.detectors.items() if one.log_m >= math.log(MEAN_UNITS)]
        return (max(beyond)[1], self.detectors[max(beyond)[1]]) if beyond else None

    def state(self) -> dict[str, Any] | None:
        if not self.bounds:
            return None
        return {
            "artifact": self.artifact,
            "detectors": {name: one.state() for name, one in self.detectors.items()},
            "seen": self._seen.state(),
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """A signal whose bound is another by now begins from nothing."""
        if state is None or not self.bounds:
            return
        self.artifact, self._seen = state["artifact"], Seen.of(state["seen"])
        for name, told in state["detectors"].items():
            if told["bound"] == self.bounds.get(name):
                self.detectors[name] = Detector.of(told)
