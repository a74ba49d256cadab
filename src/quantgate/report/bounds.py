"""From a run's records to its frontiers: of the release by its own gates, and of each target by the target's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from quantgate.decide.findings import comparison_of
from quantgate.decide.targets import TargetDecision
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.report import RunReport
from quantgate.report.frontier import Axis, Point, Worst, frontier, size_axis
from quantgate.report.trained import ways_of


def worst_of(evidence: Evidence | None, gates: Sequence[Gate]) -> Worst:
    """Over all gates; with one of them unknown, the worst is not known either."""
    found = list[tuple[float, float | None, str]]()
    for gate in gates:
        row = comparison_of(evidence, gate)
        if row is None or row.finding.low is None:
            told = evidence.screened if evidence is not None and evidence.screened else "nothing bounds the change"
            return Worst(None, None, f"{gate.capability}: {told}")
        found += _bounds(row)
    if not found:
        return Worst(None, None, "no capability is asked for")
    bound, seen, about = min(found, key=lambda one: one[0])
    return Worst(bound, seen, about)


def _bounds(row: Comparison) -> Iterator[tuple[float, float | None, str]]:
    for one in (row, *row.judged):
        finding = one.finding
        if finding.low is not None:
            seen = None if finding.effect is None else finding.effect / one.gate.margin
            yield finding.low / one.gate.margin, seen, one.gate.capability


def overview(report: RunReport) -> Markup:
    """Every variant by the release's gates; ringed is what the targets get, or the release's choice without any."""
    axis, scale = size_axis(report.baseline_bytes, [one.stored_bytes for one in report.candidates])
    sizes = {one.name: one.stored_bytes / scale for one in report.candidates}
    points = [
        Point(
            name=one.variant,
            across=sizes[one.variant],
            worst=worst_of(_evidence(report, one.variant), report.gates),
            verdict=one.verdict,
            chosen=_chosen_for(report, one.variant),
            other_model=relation_of(report, one.variant),
            trained=ways_of(report, one.variant),
        )
        for one in report.decision.verdicts
    ]
    return frontier(points, axis)


def of_target(report: RunReport, decision: TargetDecision) -> tuple[Markup, list[str]]:
    """Every variant by the rules of one target, across its cost where the target goes by cost; and the names of those
    whose cost is not known, which therefore stand nowhere.
    """
    costs = {one.variant: one.cost for one in decision.verdicts}
    by_cost = decision.rules.prefer == "cost" and any(cost is not None for cost in costs.values())
    if by_cost:
        axis = Axis("cost of a million answer tokens", "in your money", baseline_cost(report, decision.target))
        across = costs
    else:
        axis, scale = size_axis(report.baseline_bytes, [one.stored_bytes for one in decision.verdicts])
        across = {one.variant: one.stored_bytes / scale for one in decision.verdicts}
    points = [
        Point(
            name=one.variant,
            across=across[one.variant],
            worst=worst_of(_evidence(report, one.variant), decision.rules.gates),
            verdict=one.verdict,
            chosen=("",) if one.variant == decision.chosen else (),
            other_model=relation_of(report, one.variant),
            trained=ways_of(report, one.variant),
        )
        for one in decision.verdicts
    ]
    return frontier(points, axis), [one.name for one in points if one.across is None]


def baseline_cost(report: RunReport, target: str) -> float | None:
    """Of a million answer tokens of the baseline on a target, by its roofline; its row is the plan's first."""
    rows = report.placed.of(target) if report.placed else []
    estimate = rows[0].estimate if rows else None
    return None if estimate is None else estimate.cost_per_million


def relation_of(report: RunReport, variant: str) -> str:
    """What a model of its own is to the baseline, such as a student; empty for what was made of its weights."""
    candidate = next((one for one in report.candidates if one.name == variant), None)
    return str(getattr(candidate, "relation", ""))


def _chosen_for(report: RunReport, variant: str) -> tuple[str, ...]:
    if report.targets:
        return tuple(one.target for one in report.targets if one.chosen == variant)
    return ("",) if report.decision.chosen == variant else ()


def _evidence(report: RunReport, variant: str) -> Evidence | None:
    return next((one for one in report.evidence if one.variant == variant), None)
