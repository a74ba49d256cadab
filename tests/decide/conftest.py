"""Comparisons with chosen counts, as evaluate would leave them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from quantgate import stats
from quantgate.decide import Candidate
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.records import digest_of


def gate_of(capability: str = "math", **rules: object) -> Gate:
    return Gate.model_validate({"capability": capability, "suite": capability, "margin": 0.05} | rules)


def comparison_of(
    gate: Gate, n: int, lost: int = 0, gained: int = 0, *, wrong: int = 0, unscored: Sequence[str] = (), void: int = 0
) -> Comparison:
    """``n`` judged pairs: ``wrong`` are wrong on both sides, the rest right on both but for the flips."""
    base = [1.0] * lost + [0.0] * gained + [0.0] * wrong + [1.0] * (n - lost - gained - wrong)
    other = [0.0] * lost + [1.0] * gained + [0.0] * wrong + [1.0] * (n - lost - gained - wrong)
    finding = stats.judge(
        base, other, gate.margin, relative=gate.relative, test=gate.test, alpha=gate.alpha, pass_alpha=gate.pass_alpha
    )
    return Comparison(
        gate=gate,
        suite_digest=digest_of("cases"),
        n=n,
        asked=n + void,
        available=400,
        unscored=tuple(unscored),
        baseline_score=sum(base) / n if n else None,
        variant_score=sum(other) / n if n else None,
        finding=finding,
        slices=(),
        flips=(),
    )


def candidate_of(name: str, stored_bytes: int) -> Candidate:
    return Candidate(name=name, artifact=digest_of(name), stored_bytes=stored_bytes, bits_per_weight=4.0)


def evidence_of(name: str, *comparisons: Comparison, artifact: str | None = None, baseline: str = "base") -> Evidence:
    return Evidence(
        variant=name,
        artifact=artifact or digest_of(name),
        baseline=digest_of(baseline),
        engine=digest_of("engine"),
        baseline_engine=digest_of("baseline engine"),
        kernels=(),
        comparisons=comparisons,
        drift=None,
    )


class Make:
    gate = staticmethod(gate_of)
    comparison = staticmethod(comparison_of)
    candidate = staticmethod(candidate_of)
    evidence = staticmethod(evidence_of)

    @staticmethod
    def run(gate: Gate, **counts: tuple[int, int, int]) -> tuple[list[Candidate], list[Evidence]]:
        """``name=(bytes, cases, lost)`` for every variant, judged by one gate."""
        candidates = [candidate_of(name, size) for name, (size, _, _) in counts.items()]
        evidence = [evidence_of(name, comparison_of(gate, n, lost)) for name, (_, n, lost) in counts.items()]
        return candidates, evidence


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make
