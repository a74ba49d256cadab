"""report.html: one self-contained file, no network, no script that a reader must trust."""

from __future__ import annotations

from typing import Any

from quantgate.decide import CapabilityVerdict, VariantVerdict
from quantgate.evaluate.evidence import Comparison, SliceResult
from quantgate.report import RunReport, VariantSummary
from quantgate.report.bounds import overview
from quantgate.report.charts import Bar, intervals
from quantgate.report.drifts import drift_section
from quantgate.report.noise import noise_sentence, pace_sentence
from quantgate.report.overlaps import overlap_sentence
from quantgate.report.pages import rendered
from quantgate.report.target_facts import money
from quantgate.report.target_page import all_headlines, cards
from quantgate.report.trained import held_sentence, training_sentence, way_words
from quantgate.report.traps import traps

WORDS = {"pass": "proven safe", "fail": "damaged", "inconclusive": "not decided"}
FLIPS_SHOWN = 8  # per capability and variant


def html_page(report: RunReport) -> str:
    """The whole report as one HTML document."""
    views = [_view(report, verdict) for verdict in report.decision.verdicts]
    return rendered(
        "page.html",
        {"money": money},
        report=report,
        views=views,
        words=WORDS,
        chosen=next((view for view in views if view["verdict"].variant == report.decision.chosen), None),
        baseline_scores=_baseline_scores(report),
        traps=traps(report),
        noise_sentence=noise_sentence(report.noise) if report.noise else "",
        plot=overview(report),
        headline=all_headlines(report),
        cards=cards(report),
        drifting=drift_section({one.variant: one.drift for one in report.evidence if one.drift is not None}),
        asked=sum(row.asked + row.asked_for_slices for one in report.evidence for row in one.comparisons),
        available=sum(row.available for one in report.evidence for row in one.comparisons),
        seconds=sum(stage.seconds for stage in report.stages),
        flips_shown=FLIPS_SHOWN,
        overlap_sentence=overlap_sentence,
        training_held=held_sentence(report.training_overlaps),
    )


def _view(report: RunReport, verdict: VariantVerdict) -> dict[str, Any]:
    """Everything the page shows of one variant."""
    evidence = next((one for one in report.evidence if one.variant == verdict.variant), None)
    rows = {one.gate.capability: one for one in evidence.comparisons} if evidence else {}
    summary = _summary(report, verdict.variant)
    pairs = [(one, rows.get(one.capability)) for one in verdict.capabilities]
    return {
        "verdict": verdict,
        "candidate": next(one for one in report.candidates if one.name == verdict.variant),
        "summary": summary,
        "evidence": evidence,
        "way": way_words(report, summary),
        "training": [training_sentence(one) for one in summary.training],
        "pace": pace_sentence(report.paces.get(verdict.variant), evidence.runtime) if evidence else "",
        "drift": evidence.drift if evidence else None,
        "pairs": pairs,
        "word": "not judged" if verdict.screened else WORDS[verdict.verdict],
        "declared": {one.capability: {part.name: part.verdict for part in one.slices} for one, _ in pairs},
        "plot": intervals([_bar(one, row) for one, row in pairs if row is not None and row.n]),
        "slices": {one.capability: worst_slices(row) for one, row in pairs if row is not None},
    }


def _summary(report: RunReport, name: str) -> VariantSummary:
    return next(one for one in report.variants if one.name == name)


def _baseline_scores(report: RunReport) -> dict[str, float | None]:
    """The baseline's score on the most cases that any variant needed."""
    best: dict[str, Comparison] = {}
    for one in report.evidence:
        for row in one.comparisons:
            if row.gate.capability not in best or row.n > best[row.gate.capability].n:
                best[row.gate.capability] = row
    return {name: row.baseline_score for name, row in best.items()}


def _bar(verdict: CapabilityVerdict, row: Comparison) -> Bar:
    finding = row.finding
    return Bar(
        label=verdict.capability,
        verdict=verdict.verdict,
        effect=finding.effect or 0.0,
        low=-1.0 if finding.low is None else finding.low,
        high=1.0 if finding.high is None else finding.high,
        margin=row.gate.margin,
        title=verdict.sentence,
    )


def worst_slices(row: Comparison) -> list[SliceResult]:
    """All slices, those that lost most first; the slice of all cases stays on top."""
    rest = sorted(row.slices[1:], key=lambda one: (one.variant - one.baseline, one.name))
    return [*row.slices[:1], *rest]
