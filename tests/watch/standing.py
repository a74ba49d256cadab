"""A trial's verdicts, points and alarms as the watcher would have left them, in a real store."""

from __future__ import annotations

from typing import Any

from quantgate.release import Live, Variant
from quantgate.watch import Alarm, Finding, Point, Tally, Trial, Verdict
from quantgate.watch.store import Evidence, Step, Store

BASE = Variant(name="BF16", artifact="sha256:" + "b" * 64, engine="none", is_baseline=True)
CANARY = Variant(name="W3A16", artifact="sha256:" + "c" * 64, engine="none")
STABLE = Variant(name="W8A8", artifact="sha256:" + "5" * 64, engine="none")
NOW = 1_790_000_000.0


def live(revision: int = 4, *, canary: Variant | None = CANARY, stable: Variant = BASE, **more: Any) -> Live:
    given = {"target": "laptop", "revision": revision, "baseline": BASE, "stable": stable, "canary": canary}
    return Live.model_validate(given | {"share": 0.1 if canary else 0.0} | more)


def trial_of(variant: Variant = CANARY) -> Trial:
    return Trial(
        target="laptop",
        variant=variant.name,
        artifact=variant.artifact,
        control=BASE.name,
        control_artifact=BASE.artifact,
    )


def finding(signal: str = "validation_failure", **changed: Any) -> Finding:
    given = {
        "signal": signal,
        "direction": "more",
        "trial": Tally(units=1204, bad=41),
        "control": Tally(units=10920, bad=96),
        "log_e": 13.14,
        "log_threshold": 9.21,
        "ratio": 3.9,
        "low": 2.6,
        "high": None,
        "weight": 0.4,
        "examples": ("req_1", "req_2"),
        "sentence": "validation failures: 41 of 1,204 sessions of W3A16 against 96 of 10,920 of BF16",
    }
    return Finding.model_validate(given | changed)


def verdict(action: str = "rollback", *, variant: Variant = CANARY, **changed: Any) -> Verdict:
    calm: dict[str, Any] = {"log_e": 0.4, "low": 0.8} if action != "rollback" else {}
    other = finding("refusal", log_e=-1.2, ratio=None, low=None, weight=0.1, trial=Tally(units=1200, bad=0))
    given = {
        "trial": trial_of(variant),
        "action": action,
        "because": f"{action}, because of validation failures",
        "at": NOW,
        "number": 700,
        "revision": 4,
        "share": 0.1,
        "findings": (finding(**calm), other),
        "signal": "validation_failure" if action == "rollback" else "",
        "log_e": 11.2 if action == "rollback" else 0.1,
    }
    return Verdict.model_validate(given | changed)


def alarm(found: Verdict, id: str = "a1", **changed: Any) -> Alarm:
    given = {"id": id, "verdict": found, "done": "moved", "told": "revision 5", "decided_at": NOW, "done_at": NOW}
    return Alarm.model_validate(given | changed)


def leave(store: Store, found: Verdict | None = None, *alarms: Alarm, points: tuple[Point, ...] = ()) -> None:
    """As a leader saves it."""
    fence = store.claim("laptop", "test")
    trial = found.trial if found is not None else trial_of()
    evidence = Evidence(found.number if found else 0, {}, trial.digest)
    store.save("laptop", fence, Step(evidence, found, points, alarms))


def point(at: float, signal: str = "validation_failure") -> Point:
    tally = Tally(units=10, bad=1)
    return Point(at=at, signal=signal, direction="more", log_e=1.0, log_threshold=9.2, trial=tally, control=tally)
