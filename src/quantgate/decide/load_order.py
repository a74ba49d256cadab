"""Which variant is load-tested next: none that another rule stops, and no more of them than the answer needs."""

from __future__ import annotations

from collections.abc import Collection

from quantgate.decide.findings import sequence
from quantgate.decide.targets import TargetDecision, TargetVerdict, preference


def next_to_load(decision: TargetDecision, tried: Collection[str]) -> str | None:
    """The variant that would be preferred of those that nothing but a missing load test keeps from being chosen.

    None when there is none, or when what is chosen already is preferred to it: costs that are not measured are those of
    a roofline, and nothing gets cheaper than that.
    """
    waiting = [one for one in _before_a_failure(decision) if one.variant not in tried and _awaits_load(one)]
    if not waiting:
        return None
    best = min(waiting, key=lambda one: preference(decision.rules, one))
    chosen = decision.of(decision.chosen) if decision.chosen else None
    if chosen is not None and preference(decision.rules, chosen) <= preference(decision.rules, best):
        return None
    return best.variant


def _awaits_load(one: TargetVerdict) -> bool:
    open_ = [finding for finding in one.findings if finding.verdict != "pass"]
    return bool(open_) and all(
        finding.about in ("latency", "rate") and finding.verdict == "inconclusive" for finding in open_
    )


def _before_a_failure(decision: TargetDecision) -> list[TargetVerdict]:
    """All of them; in a fixed sequence those that no larger one stands in the way of."""
    found = []
    for one in decision.verdicts:
        found.append(one)
        tests = [finding.verdict for finding in one.findings if finding.about == "capability"]
        if decision.order == "fixed-sequence" and sequence(one.findings) and set(tests) - {"pass"}:
            break
    return found
