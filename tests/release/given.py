"""Variants and decisions with chosen verdicts, as a run would have left them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.report.targeted import rules_of

from quantgate.decide.targets import TargetDecision, TargetVerdict
from quantgate.records import digest_of
from quantgate.release import Variant
from quantgate.release.store import Registry

ENGINE = digest_of("an engine")
BASE = Variant(name="BF16", artifact=digest_of("weights"), engine=digest_of("base engine"), is_baseline=True)
WHY = {"pass": "keeps all 3 rules", "fail": "breaks json_tools", "inconclusive": "not decided: math"}


def variant_of(name: str, *, engine: str = ENGINE, location: str = "") -> Variant:
    return Variant(name=name, artifact=digest_of(name), engine=engine, location=location)


def verdict_of(variant: Variant, verdict: str = "pass", **told: Any) -> TargetVerdict:
    own = {"variant": variant.name, "artifact": variant.artifact, "engine": variant.engine, "verdict": verdict}
    rest = {"eligible": verdict == "pass", "sentence": WHY[verdict], "findings": (), "stored_bytes": 1000}
    return TargetVerdict.model_validate(own | rest | told)


def decision_of(target: str, *verdicts: TargetVerdict, baseline: str = BASE.artifact, say: str = "") -> TargetDecision:
    chosen = next((one.variant for one in verdicts if one.eligible), None)
    return TargetDecision(
        target=target,
        rules=rules_of(target),
        order="e-bonferroni",
        alpha=0.05,
        baseline=baseline,
        chosen=chosen,
        sentence=say or f"{target}: {chosen}",
        verdicts=verdicts,
    )


def register(registry: Registry, target: str = "fleet", **verdicts: str) -> list[Variant]:
    """Variants by name, each with its verdict: ``register(registry, A="pass", B="fail")``."""
    made = [variant_of(name) for name in verdicts]
    judged: Sequence[TargetVerdict] = [verdict_of(one, verdicts[one.name]) for one in made]
    registry.register(made, decided={target: decision_of(target, *judged)}, baseline=BASE)
    return made
