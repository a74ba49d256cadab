"""What averages hide: a perplexity that hardly moved beside a capability that provably broke."""

from __future__ import annotations

from typing import Any

from quantgate.evaluate.evidence import Comparison, Evidence
from quantgate.report import RunReport


def relative_loss(row: Comparison) -> float:
    """Observed loss as a fraction of the baseline's score; 0 when nothing was lost."""
    if not row.baseline_score or row.variant_score is None:
        return 0.0
    return max(0.0, 1 - row.variant_score / row.baseline_score)


def traps(report: RunReport, calm: float = 1.10) -> list[dict[str, Any]]:
    """Variants whose perplexity hardly moved while a capability provably broke: what averages hide."""
    found = []
    for one in report.evidence:
        failed = [row for row in one.comparisons if row.finding.verdict == "fail"]
        if one.drift is not None and one.drift.ppl_ratio <= calm and failed:
            worst = max(failed, key=relative_loss)
            found.append({"evidence": one, "worst": worst, "loss": relative_loss(worst), "calm": _calm(one, worst)})
    return found


def _calm(evidence: Evidence, worst: Comparison) -> list[str]:
    """Capabilities that passed although another one broke."""
    return [row.gate.capability for row in evidence.comparisons if row.finding.verdict == "pass" and row is not worst]
