"""From release.yaml and evidence to the decision of every target."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.decide import Candidate
from quantgate.decide.planning import Plan
from quantgate.decide.rules import DriftLimits, LoadEvidence, TargetRules
from quantgate.decide.targets import TargetDecision, decide_target
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.release_config import ReleaseConfig
from quantgate.target_config import TargetConfig


def rules_of(config: ReleaseConfig, gates: dict[str, tuple[Gate, ...]]) -> list[TargetRules]:
    """The rules of every target; ``gates`` are those that each one needs."""
    return [_rules(name, target, config, gates[name]) for name, target in config.targets.items()]


def _rules(name: str, target: TargetConfig, config: ReleaseConfig, gates: tuple[Gate, ...]) -> TargetRules:
    return TargetRules(
        name=name,
        place=target.place,
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
