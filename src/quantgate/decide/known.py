"""What is known of one variant on one target, and what a rule finds in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantgate.decide import Candidate
from quantgate.decide.planning import PlanRow
from quantgate.decide.rules import LoadEvidence, TargetRules
from quantgate.evaluate.evidence import Evidence
from quantgate.records import Record
from quantgate.stats import Verdict

Kind = Literal["runtime", "memory", "stack", "capability", "ledger", "drift", "latency", "rate", "cost"]
By = Literal["proven", "measured", "foretold", "documented", "recorded", "none"]


class Finding(Record):
    """One rule and what is known of it."""

    about: Kind
    rule: str  # "math within 3 %", "memory", "ttft p95 <= 300 ms"
    verdict: Verdict
    sentence: str
    by: By  # what it rests on
    needs: tuple[str, ...] = ()  # what it would take, each a sentence; empty where the rule is kept


@dataclass(frozen=True)
class Known:
    """All that is known of one variant on one target."""

    rules: TargetRules
    candidate: Candidate
    evidence: Evidence | None  # None, or of these very bytes
    row: PlanRow | None  # None: it could not be planned
    load: LoadEvidence | None
    unplanned: str = ""  # why there is no row
