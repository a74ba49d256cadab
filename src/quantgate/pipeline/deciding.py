"""From release.yaml and evidence to the decision of every target."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.decide import Candidate
from quantgate.decide.load_evidence import read_load
from quantgate.decide.planning import Plan
from quantgate.decide.rules import DriftLimits, LoadEvidence, TargetRules
from quantgate.decide.targets import TargetDecision, decide_target
from quantgate.decide.why import Why, of_release, of_target
from quantgate.errors import UnknownName, UsageError
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.release_config import ReleaseConfig
from quantgate.report import RunReport
from quantgate.target_config import TargetConfig


def rules_of(config: ReleaseConfig, gates: dict[str, tuple[Gate, ...]]) -> list[TargetRules]:
    """The rules of every target; ``gates`` are those that each one needs."""
    return [_rules(name, target, config, gates[name]) for name, target in config.targets.items()]


def _rules(name: str, target: TargetConfig, config: ReleaseConfig, gates: tuple[Gate, ...]) -> TargetRules:
    return TargetRules(
        name=name,
        place=target.place,
        profile=target.profile or "",
        gates=gates,
        ledger={**config.judge.ledger, **target.ledger},
        drift=DriftLimits.model_validate(target.screen.model_dump()) if target.screen else None,
        cost=target.cost,
        prefer=target.prefer,
        speed=target.speed,
        stack=target.stack,
    )


def decide_targets(
    rules: Sequence[TargetRules],
    candidates: Sequence[Candidate],
    evidence: Sequence[Evidence],
    plan: Plan | None,
    loads: Sequence[LoadEvidence],
    config: ReleaseConfig,
) -> tuple[TargetDecision, ...]:
    """One decision for each target."""
    judge = config.judge
    return tuple(
        decide_target(one, candidates, evidence, plan, loads, alpha=judge.alpha, order=judge.order) for one in rules
    )


def again(report: RunReport, loads: Sequence[LoadEvidence]) -> RunReport:
    """The decisions of a finished run by the same rules, with further load tests: the latest of a variant counts."""
    late = {(one.target, one.variant) for one in loads}
    held = (*(one for one in report.loads if (one.target, one.variant) not in late), *loads)
    decided = tuple(
        decide_target(
            one.rules, report.candidates, report.evidence, report.placed, held, alpha=one.alpha, order=one.order
        )
        for one in report.targets
    )
    return report.model_copy(update={"loads": held, "targets": decided})


def with_loads(report: RunReport, told: Sequence[str]) -> RunReport:
    """``again``, with load tests as they are named on the command line. Raises UsageError, UnknownName, RecordError."""
    if not report.targets:
        raise UsageError(
            "--load: the run has no targets, so no rule goes by a load test; write 'targets' and run it again"
        )
    rules = [one.rules for one in report.targets]
    return again(report, [read_load(one, rules, report.candidates, report.evidence) for one in told])


def of_repair(before: RunReport, report: RunReport) -> RunReport:
    """A repaired variant on every target, by its fresh gates; load tests of other bytes are not heard."""
    fresh = {gate.capability: gate for gate in report.gates}

    def anew(gate: Gate) -> Gate:
        return fresh[gate.capability].model_copy(update={"margin": gate.margin, "slices": gate.slices})

    decided = []
    for one in before.targets:
        gates = tuple(anew(gate) for gate in one.rules.gates if gate.capability in fresh)
        rules = one.rules.model_copy(update={"gates": gates})
        found = decide_target(
            rules, report.candidates, report.evidence, report.placed, (), alpha=one.alpha, order=one.order
        )
        decided.append(found)
    return report.model_copy(update={"targets": tuple(decided)})


def only(report: RunReport, names: Sequence[str]) -> RunReport:
    """The report with these targets alone; all where none is named. Raises UnknownName."""
    known = [one.target for one in report.targets]
    for name in names:
        if name not in known:
            raise UnknownName("target", name, known)
    return report.model_copy(
        update={"targets": tuple(one for one in report.targets if not names or one.target in names)}
    )


def why(report: RunReport, variant: str) -> list[Why]:
    """Of every target, or of the release where it has none. Raises UnknownName."""
    evidence = next((one for one in report.evidence if one.variant == variant), None)
    found = [of_target(one, variant, evidence) for one in report.targets]
    if not report.targets:
        found = [of_release(report.decision, report.gates, variant, evidence)]
    told = [one for one in found if one is not None]
    if not told:
        raise UnknownName("variant", variant, [one.name for one in report.candidates])
    return told
