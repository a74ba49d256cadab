"""Gate rules + evidence -> a verdict for every variant, and the smallest variant that is proven safe.

A release needs every capability to pass (an intersection-union test, Berger 1982: no correction for the number of
capabilities). Choosing among variants does need one, and it is registered before the run:

* ``e-bonferroni``: with V variants a capability passes at alpha / V; every variant is judged.
* ``fixed-sequence``: largest variant first, each at alpha, and nothing below the first one that did not pass can be
  chosen; free of correction, but one unlucky large variant blocks all the smaller ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from quantgate.decide.preflight import fewest_cases, likely_cases, refuse_hopeless, short_sentence
from quantgate.decide.sentences import (
    blind_sentence,
    capability_sentence,
    chosen_sentence,
    ledger_sentence,
    relation_sentence,
    report_only_sentence,
    slices_sentence,
    verdict_sentence,
)
from quantgate.errors import UsageError
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.records import Record

Verdict = Literal["pass", "fail", "inconclusive"]
DECLARED = "; that the server ran these very bytes is its operator's word"
NOT_ASKED = "not asked: a larger variant did not pass before it, so it could not be chosen"
Order = Literal["e-bonferroni", "fixed-sequence"]


class Candidate(Record):
    """A variant as the decision needs it."""

    name: str
    artifact: str  # digest
    stored_bytes: int  # of all weights on disk, scales included
    bits_per_weight: float
    ledger: dict[str, int] = {}  # event -> lines of the manifest's ledger
    relation: str = Field(default="", exclude_if=lambda relation: not relation)
    """Of a model of its own to the baseline: student, fine-tune, other model; empty: made of the baseline's weights."""
    parameters: int | None = Field(default=None, exclude_if=lambda parameters: parameters is None)
    """Of a model of its own."""


class SliceVerdict(Record):
    """Of a slice that was declared up front."""

    name: str
    verdict: Literal["pass", "fail", "inconclusive", "report only"]
    sentence: str


class CapabilityVerdict(Record):
    capability: str
    verdict: Verdict
    sentence: str  # what was lost, the interval, how many cases, how many would have been needed
    slices: tuple[SliceVerdict, ...] = Field(default=(), exclude_if=lambda slices: not slices)


class VariantVerdict(Record):
    variant: str
    artifact: str  # digest of the exact bytes that were judged
    engine: str  # digest of runtime, kernels, settings
    verdict: Verdict
    eligible: bool  # may be chosen: passed, within the ledger's rules, not behind a failure in a fixed sequence
    sentence: str
    capabilities: tuple[CapabilityVerdict, ...]
    screened: str = Field(default="", exclude_if=lambda screened: not screened)
    """Why it was not judged: its drift alone was beyond what the release allows."""


class Decision(Record):
    """Which variant may ship, and why the others may not."""

    order: Order
    alpha: float
    baseline: str  # digest
    chosen: str | None
    sentence: str
    verdicts: tuple[VariantVerdict, ...]  # largest first


def pass_alpha(alpha: float, variants: int, order: Order) -> float:
    """The level at which one capability of one variant passes."""
    return alpha / max(variants, 1) if order == "e-bonferroni" else alpha


def decide(
    gates: Sequence[Gate],
    candidates: Sequence[Candidate],
    evidence: Sequence[Evidence],
    *,
    alpha: float,
    order: Order,
    ledger: Mapping[str, int] = {},
) -> Decision:
    """The decision over all variants; ``ledger`` says how many lines of an event a chosen one may have.

    Raises UsageError when there is nothing to decide on, or when evidence could be picked from: two variants, gates or
    comparisons of one name, two baselines.
    """
    if not gates or not candidates:
        raise UsageError("nothing to decide: name at least one capability and one variant besides the baseline")
    _refuse_choice(gates, candidates, evidence)
    by_name = {one.variant: one for one in evidence}
    largest_first = sorted(candidates, key=lambda one: (-one.stored_bytes, one.name))
    verdicts: list[VariantVerdict] = []
    blocked = False
    for candidate in largest_first:
        verdict = judge_variant(gates, candidate, by_name.get(candidate.name), blocked=blocked, ledger=ledger)
        verdicts.append(verdict)
        blocked = order == "fixed-sequence" and (blocked or verdict.verdict != "pass")
    eligible = {one.variant for one in verdicts if one.eligible}
    safe = [one for one in largest_first if one.name in eligible]
    chosen = min(safe, key=lambda one: (one.stored_bytes, one.name)).name if safe else None
    return Decision(
        order=order,
        alpha=alpha,
        baseline=evidence[0].baseline if evidence else "none",
        chosen=chosen,
        sentence=chosen_sentence(chosen, len(candidates)),
        verdicts=tuple(verdicts),
    )


def _refuse_choice(gates: Sequence[Gate], candidates: Sequence[Candidate], evidence: Sequence[Evidence]) -> None:
    _once("capability", (gate.capability for gate in gates))
    _once("variant", (one.name for one in candidates))
    _once("evidence of", (one.variant for one in evidence))
    for one in evidence:
        _once(f"{one.variant}: comparison on", (row.gate.capability for row in one.comparisons))
    if len({one.baseline for one in evidence}) > 1:
        names = " and ".join(sorted({one.baseline[:19] for one in evidence}))
        raise UsageError(f"the variants were compared with different baselines ({names}); compare all of them with one")


def _once(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"{what} '{name}' is given {count} times; give each once, or the better could be picked")


def judge_variant(
    gates: Sequence[Gate],
    candidate: Candidate,
    evidence: Evidence | None,
    *,
    blocked: bool,
    ledger: Mapping[str, int] = {},
) -> VariantVerdict:
    """Every gate must pass; evidence for other bytes, or for no bytes, proves nothing.

    What was screened by its drift was not judged, whatever else is told of it: it is undecided, and cannot be chosen.
    """
    found = {one.gate.capability: one for one in evidence.comparisons} if evidence else {}
    screened = evidence.screened if evidence else ""
    if evidence and evidence.artifact != candidate.artifact:
        found, screened = {}, ""
    rows = tuple(
        CapabilityVerdict(capability=gate.capability, verdict="inconclusive", sentence=f"{gate.capability}: {screened}")
        if screened
        else judge_capability(gate, found.get(gate.capability))
        for gate in gates
    )
    kinds = [row.verdict for row in rows]
    verdict: Verdict = "fail" if "fail" in kinds else "pass" if set(kinds) == {"pass"} else "inconclusive"
    broken = {event: candidate.ledger.get(event, 0) for event in ledger}
    broken = {event: lines for event, lines in broken.items() if lines > ledger[event]}
    return VariantVerdict(
        variant=candidate.name,
        artifact=candidate.artifact,
        engine=evidence.engine if evidence else "none",
        verdict=verdict,
        eligible=verdict == "pass" and not blocked and not broken,
        sentence=(
            screened
            or (NOT_ASKED if evidence is None and blocked else "")
            or verdict_sentence(verdict, [(row.capability, row.verdict) for row in rows], blocked=blocked)
        )
        + ledger_sentence(broken, ledger)
        + relation_sentence(candidate.relation)
        + (DECLARED if evidence and evidence.declared else ""),
        capabilities=rows,
        screened=screened,
    )


def judge_capability(gate: Gate, comparison: Comparison | None) -> CapabilityVerdict:
    """Missing evidence is inconclusive, and so is evidence with too many unscored cases; a proven loss stays a loss.

    Every slice that is judged by itself must pass as well (an intersection-union test), and a gate that a degenerate
    model would not have failed either proves nothing.
    """
    whole = _judged(gate, comparison)
    slices = _judged_slices(gate, comparison if comparison is not None and comparison.gate == gate else None)
    kinds = {whole, *(one.verdict for one in slices)} - {"report only"}
    verdict: Verdict = "fail" if "fail" in kinds else "pass" if kinds == {"pass"} else "inconclusive"
    blind = comparison.blind if comparison is not None else ()
    if verdict == "pass" and blind:
        verdict = whole = "inconclusive"
    sentence = capability_sentence(gate, comparison, whole) + slices_sentence(
        [(one.name, one.verdict) for one in slices]
    )
    if blind and whole == "pass" and verdict == "inconclusive":
        sentence += f"; {blind_sentence(blind)}"
    return CapabilityVerdict(capability=gate.capability, verdict=verdict, sentence=sentence, slices=slices)


def _judged(gate: Gate, comparison: Comparison | None) -> Verdict:
    if comparison is None or comparison.gate != gate or not comparison.n:
        return "inconclusive"
    verdict = comparison.finding.verdict
    return "inconclusive" if verdict == "pass" and comparison.gaps else verdict


def _judged_slices(gate: Gate, comparison: Comparison | None) -> tuple[SliceVerdict, ...]:
    found = {one.gate.capability: one for one in comparison.judged} if comparison else {}
    verdicts = []
    for one in gate.slices:
        own = gate.of_slice(one)
        if one.judged:
            mine = found.get(own.capability)
            verdict = _judged(own, mine)
            sentence = capability_sentence(own, mine, verdict)
            verdicts.append(SliceVerdict(name=one.name, verdict=verdict, sentence=sentence))
        else:
            sentence = report_only_sentence(own, one)
            verdicts.append(SliceVerdict(name=one.name, verdict="report only", sentence=sentence))
    return tuple(verdicts)


__all__ = [
    "Candidate",
    "CapabilityVerdict",
    "Decision",
    "Order",
    "SliceVerdict",
    "VariantVerdict",
    "Verdict",
    "decide",
    "fewest_cases",
    "judge_capability",
    "judge_variant",
    "likely_cases",
    "pass_alpha",
    "refuse_hopeless",
    "short_sentence",
]
