"""Verdicts, findings, points and alarms as a judge would make them."""

from __future__ import annotations

from typing import Any

from quantgate.watch import Alarm, Finding, Point, Tally, Trial, Verdict
from quantgate.watch.acting import alarm_of

TRIAL = Trial(target="fleet", variant="A", artifact="sha256:a", control="BF16", control_artifact="sha256:base")


def finding(**changed: Any) -> Finding:
    given = {
        "signal": "validation_failure", "direction": "more", "trial": Tally(units=1204, bad=41),
        "control": Tally(units=10920, bad=96), "log_e": 13.1, "log_threshold": 9.2, "ratio": 3.9, "low": 2.6,
        "weight": 0.4, "examples": ("req_7", "req_9"), "sentence": "validation failures: 3.9 times as often",
    }  # fmt: skip
    return Finding.model_validate(given | changed)


def verdict(action: str = "rollback", **changed: Any) -> Verdict:
    given = {
        "trial": TRIAL, "action": action, "because": "validation failures: 3.9 times as often", "at": 1000.0,
        "number": 7, "revision": 2, "share": 0.05, "signal": "validation_failure", "log_e": 12.0,
        "findings": (finding(),),
    }  # fmt: skip
    return Verdict.model_validate(given | changed)


def alarm(action: str = "rollback", *, now: float = 1000.0, **changed: Any) -> Alarm:
    return alarm_of(verdict(action, **changed), now)


def point(at: float, *, log_e: float = 0.0, signal: str = "validation_failure") -> Point:
    return Point(
        at=at, signal=signal, direction="more", log_e=log_e, log_threshold=9.2, trial=Tally(units=1), control=Tally()
    )
