"""targets/<name>.html: one self-contained page for each target, which variant it gets and why, finding by finding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, get_args

from quantgate.decide.known import Finding
from quantgate.decide.planning import PlanRow
from quantgate.decide.rules import LoadEvidence
from quantgate.decide.sentences import count
from quantgate.decide.targets import TargetDecision, TargetVerdict
from quantgate.evaluate.evidence import Evidence
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.records import digest_of
from quantgate.report import RunReport
from quantgate.report.bounds import baseline_cost, of_target, relation_of
from quantgate.report.load_target import load_plots, load_sentence
from quantgate.report.memory_chart import Taken, memory_bars
from quantgate.report.pages import rendered
from quantgate.report.target_facts import asked_rows, money, rate, speed_columns, speed_row

FOLDER = "targets"
WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "open"}
RESTS = {
    "proven": "by paired answers, at a known rate of error",
    "measured": "run, and timed or watched, where it counts",
    "recorded": "read in the ledger of what quantization did",
    "foretold": "computed from bytes and bandwidth, not run",
    "documented": "the word of a source, not run here",
    "none": "nothing is known yet",
}


@dataclass(frozen=True)
class View:
    """All that is shown of one variant on one target."""

    at: int
    verdict: TargetVerdict
    chosen: bool
    relation: str
    row: PlanRow | None
    load: LoadEvidence | None
    evidence: Evidence | None

    @property
    def id(self) -> str:
        return f"v{self.at}"

    @property
    def needs(self) -> list[str]:
        """What it would take, each thing once."""
        return list(dict.fromkeys(need for one in self.verdict.findings for need in one.needs))

    def of(self, rule: str) -> Finding | None:
        return next((one for one in self.verdict.findings if one.rule == rule), None)

    @property
    def rests(self) -> str:
        """How many of its rules rest on what: "3 proven, 2 foretold"."""
        kinds = Counter[str](one.by for one in self.verdict.findings)
        parts = [f"{kinds[kind]} {kind}" for kind in RESTS if kinds[kind] and kind != "none"]
        return ", ".join([*parts, *([f"{kinds['none']} not known"] if kinds["none"] else [])])

    @property
    def cost_rests(self) -> str:
        """What its cost rests on: a load test's rate, or the roofline's, which is the least that it can be."""
        return "measured" if getattr(self.verdict, "cost_measured", False) else "at best"

    @property
    def kept(self) -> int:
        return sum(one.verdict == "pass" for one in self.verdict.findings)


def page_files(targets: Sequence[str]) -> dict[str, str]:
    """For each target the path of its page in the run's folder: its name, with a digest where a file cannot bear it.

    >>> page_files(["fleet", "Fleet", "<b>"])
    {'fleet': 'targets/fleet.html', 'Fleet': 'targets/Fleet-b4134f8d.html', '<b>': 'targets/b-014ea60e.html'}
    """
    found: dict[str, str] = {}
    for name in targets:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
        taken = {PurePosixPath(one).stem.lower() for one in found.values()}
        own = plain if plain == name and plain.lower() not in taken else f"{plain}-{digest_of(name)[7:15]}"
        found[name] = f"{FOLDER}/{own.lstrip('-')}.html"
    return found


def said(decision: TargetDecision) -> str:
    """The decision's sentence without the target's name, where that stands above it anyhow."""
    return decision.sentence.removeprefix(f"{decision.target}: ")


def headline(decision: TargetDecision) -> str:
    return f"{decision.target} gets {decision.chosen}" if decision.chosen else f"{decision.target} keeps the baseline"


def views_of(report: RunReport, decision: TargetDecision) -> list[View]:
    """Largest first."""
    rows = {one.variant: one for one in (report.placed.of(decision.target) if report.placed else [])}
    loads = {one.variant: one for one in report.loads if one.target == decision.target}
    evidence = {one.variant: one for one in report.evidence}
    return [
        View(
            at=at,
            verdict=one,
            chosen=one.variant == decision.chosen,
            relation=relation_of(report, one.variant),
            row=rows.get(one.variant),
            load=loads.get(one.variant),
            evidence=evidence.get(one.variant),
        )
        for at, one in enumerate(decision.verdicts)
    ]


def nearest(views: Sequence[View]) -> View | None:
    """Of those that are not accepted the one that lacks least: the fewest rules broken, then the fewest open."""
    if not views:
        return None

    def key(view: View) -> tuple[int, int, int]:
        kinds = Counter(one.verdict for one in view.verdict.findings)
        return kinds["fail"], kinds["inconclusive"], view.verdict.stored_bytes

    return min(views, key=key)


def rules_in_order(views: Sequence[View]) -> list[str]:
    """Every rule that any variant was held to: the places first, as they are judged."""
    kinds = list(get_args(Finding.model_fields["about"].annotation))
    found = {one.rule: kinds.index(one.about) for view in views for one in view.verdict.findings}
    return sorted(found, key=lambda rule: found[rule])


def target_pages(report: RunReport) -> dict[str, str]:
    """Path in the run's folder -> page, one for each target."""
    files = page_files([one.target for one in report.targets])
    return {files[one.target]: target_page(report, one) for one in report.targets}


def target_page(report: RunReport, decision: TargetDecision) -> str:
    """The page of one target as one HTML document."""
    views = views_of(report, decision)
    chosen = next((view for view in views if view.chosen), None)
    plot, unplaced = of_target(report, decision)
    estimates = [row for row in (report.placed.of(decision.target) if report.placed else []) if row.estimate]
    place = decision.rules.place
    return rendered(
        "target.html",
        {"size": told_bytes, "seconds": told_seconds, "money": money, "rate": rate},
        report=report,
        decision=decision,
        place=place,
        headline=headline(decision),
        sentence=said(decision),
        views=views,
        chosen=chosen,
        subject=chosen or nearest(views),
        smaller=_passed_over(decision, views, chosen),
        rules=rules_in_order(views),
        words=WORDS,
        rests=RESTS,
        plot=plot,
        unplaced=unplaced,
        plots=load_plots([view.load for view in views if view.load], decision.rules.objectives),
        load_sentences=[load_sentence(view.load) for view in views if view.load],
        memory=memory_bars([_taken(row, decision) for row in estimates]) if estimates else "",
        columns=speed_columns(decision, [view.load for view in views if view.load]),
        speed_row=speed_row,
        no_baseline=_why_no_baseline(report, decision),
        baseline_row=report.placed.of(decision.target)[0] if estimates and report.placed else None,
        baseline_cost=baseline_cost(report, decision.target),
        asked=asked_rows(decision),
        count=count,
    )


def _why_no_baseline(report: RunReport, decision: TargetDecision) -> str:
    """Why not even the baseline is possible there, by the plan; empty where it is, or where nobody planned."""
    rows = report.placed.of(decision.target) if report.placed else []
    return "; ".join((*rows[0].support.problems, *rows[0].unmet)) if rows else ""


def _taken(row: PlanRow, decision: TargetDecision) -> Taken:
    assert row.estimate is not None
    known = {one.variant for one in decision.verdicts}
    name = row.variant if row.variant in known else f"baseline, {row.variant}"
    return Taken(name, row.estimate.memory, row.variant == decision.chosen)


def _passed_over(decision: TargetDecision, views: Sequence[View], chosen: View | None) -> list[View]:
    """Variants that would be preferred to the chosen one, if they kept every rule."""
    if chosen is None:
        return []

    def key(view: View) -> tuple[float, int]:
        cost = view.verdict.cost if decision.rules.prefer == "cost" else None
        return (float("inf") if cost is None else cost, view.verdict.size)

    by_cost = decision.rules.prefer == "cost"
    return [
        view
        for view in views
        if view is not chosen and (key(view) < key(chosen) if by_cost else view.verdict.size < chosen.verdict.size)
    ]


def cards(report: RunReport) -> list[dict[str, Any]]:
    """What report.html says of each target at its top."""
    files = page_files([one.target for one in report.targets])
    return [
        {
            "decision": one,
            "file": files[one.target],
            "verdict": one.of(one.chosen) if one.chosen else None,
            "sentence": said(one),
            "words": Counter(WORDS[verdict.verdict] for verdict in one.verdicts),
        }
        for one in report.targets
    ]


def all_headlines(report: RunReport) -> str:
    """What every target gets, or how many get a variant where there are too many to read at once; empty for none."""
    if len(report.targets) <= 3:
        return ", ".join(headline(one) for one in report.targets)
    served = sum(one.chosen is not None for one in report.targets)
    return f"{served} of {len(report.targets)} targets get a variant, the others keep the baseline"
