"""Published suites in a release: which capability asks one, its cases, and the rows beside them that may be seen."""

from __future__ import annotations

from pathlib import Path

from quantgate.calibrate import Turns
from quantgate.capability_config import CapabilityConfig
from quantgate.errors import UsageError
from quantgate.evaluate import overlap, published, suites
from quantgate.evaluate.compare import visiting_order
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.suites import Case
from quantgate.release_config import ReleaseConfig


def suite_name(name: str, wanted: CapabilityConfig) -> str | None:
    """The published suite that a capability asks: named under ``suite``, or by the capability itself."""
    suite = wanted.suite or (name if name not in suites.names() else "")
    return suite if suite in published.names() else None


def _path(wanted: CapabilityConfig) -> Path | None:
    return None if wanted.path is None else Path(wanted.path)


def cases_for(name: str, suite: str, wanted: CapabilityConfig, seed: int) -> list[Case]:
    """The cases that judge; of more than are wanted a seeded choice, with as many of each guard.

    Raises DataError, UsageError; Overlap where a worked example is also a case.
    """
    if wanted.hard:
        raise UsageError(f"capabilities: {name}: 'hard' is for built-in suites; {suite} has no harder cases")
    found = published.load(suite, _path(wanted), wanted.options, seed=seed)
    bare = [case.model_copy(update={"messages": case.messages[2 * len(found.shots) :]}) for case in found.cases]
    overlap.refuse(overlap.find([overlap.Sample(0, one) for one in found.shots], bare))
    return published.balanced(visiting_order(found.cases, seed), published.get(suite).guards, wanted.cases)


def training_cases(config: ReleaseConfig, side: published.Side) -> dict[str, list[Case]]:
    """What the release's published suites have for calibration or for drift: their training rows, by capability."""
    found = {}
    for name, wanted in config.capabilities.items():
        suite = suite_name(name, wanted)
        if suite is not None and published.get(suite).train is not None:
            found[name] = published.training(suite, _path(wanted), side, wanted.options)
    return {name: cases for name, cases in found.items() if cases}


def drift_each(config: ReleaseConfig) -> int:
    """Drift cases of every capability that has any: the built-in suites, and published ones with training rows."""
    built_in = [name for name, one in config.capabilities.items() if name in suites.names() and not one.suite]
    return max(1, config.drift_cases // max(1, len(built_in) + len(training_cases(config, "tune"))))


def tuning_cases(config: ReleaseConfig, name: str) -> list[Case]:
    """Training rows to choose layers by: of the half that is not for calibration, those behind the drift screen's."""
    found = visiting_order(training_cases(config, "tune").get(name, []), config.judge.seed)
    return found[drift_each(config) if config.drift_cases else 0 :]


def fresh_cases(name: str, suite: str, wanted: CapabilityConfig, gate: Gate, number: int, count: int) -> list[Case]:
    """At most ``count`` test cases for the ``number``-th repair, that neither the run nor an earlier one asks."""
    taken = cases_for(name, suite, wanted, gate.seed)
    left = visiting_order(published.load(suite, _path(wanted), wanted.options, seed=gate.seed).cases, gate.seed)
    for _ in range(number):
        asked = {case.id for case in taken}
        left = [case for case in left if case.id not in asked]
        taken = published.balanced(left, [one.name for one in gate.slices], count)
    return taken


def training_conversations(config: ReleaseConfig, count: int) -> list[Turns]:
    """At most ``count`` calibration conversations of every published suite, answers included."""
    return [
        (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
        for cases in training_cases(config, "calibrate").values()
        for case in visiting_order(cases, config.calibration.seed)[:count]
    ]
