"""The walk down the frontier of sizes: variants are asked from the largest on, while any sequence can still use them.

In a fixed sequence nothing below the first variant that does not pass can be chosen (Maurer, Hothorn, Lehmacher 1995),
so it need not be asked either. Every target has a sequence of its own, of the variants that can run and fit there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantgate import decide
from quantgate.decide import Candidate
from quantgate.decide.findings import findings, sequence
from quantgate.decide.known import Finding, Known
from quantgate.decide.planning import Plan
from quantgate.decide.rules import TargetRules
from quantgate.decide.targets import proven
from quantgate.evaluate.evidence import Evidence, Gate

RELEASE = ""  # the sequence of a release without targets; no target has this name


@dataclass(frozen=True)
class Walk:
    """What decides whether a variant still has to be asked: the release's own sequence, or those of its targets."""

    gates: Sequence[Gate]
    rules: Sequence[TargetRules]
    plan: Plan | None

    def down(self, candidates: Sequence[Candidate], ask: Callable[[int], Evidence]) -> list[Evidence]:
        """Evidence of the variants that had to be asked, largest first; ``ask`` takes a place in ``candidates``."""
        found, ended = list[Evidence](), set[str]()
        for at in sorted(range(len(candidates)), key=lambda at: (-candidates[at].stored_bytes, candidates[at].name)):
            candidate = candidates[at]
            waiting = [one for one in self.rules if one.name not in ended and sequence(self._of(one, candidate, None))]
            if not (waiting if self.rules else RELEASE not in ended):
                continue
            evidence = ask(at)
            found.append(evidence)
            ended |= {one.name for one in waiting if not proven(self._of(one, candidate, evidence))}
            if decide.judge_variant(self.gates, candidate, evidence, blocked=False).verdict != "pass":
                ended.add(RELEASE)
        return found

    def _of(self, rules: TargetRules, candidate: Candidate, evidence: Evidence | None) -> tuple[Finding, ...]:
        rows = self.plan.of(rules.name) if self.plan else ()
        row = next((row for row in rows if row.variant == candidate.name), None)
        return findings(Known(rules=rules, candidate=candidate, evidence=evidence, row=row, load=None))
