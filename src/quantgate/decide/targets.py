"""The choice for every target: the smallest variant that keeps all of its rules, or the cheapest by the user's word.

Smallest is what takes the least memory there: a file that is decoded when it is opened saves a disk and nothing else.
A variant is accepted when every finding passes, an intersection-union test over the target's gates; the places of a
target (what runs, what fits) are no tests and cost no alpha. Each target's own decision errs with at most ``alpha``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from quantgate.decide import Candidate, Order, Verdict
from quantgate.decide.findings import findings, sequence
from quantgate.decide.known import Finding, Known
from quantgate.decide.planning import Plan
from quantgate.decide.rules import LoadEvidence, TargetRules
from quantgate.decide.sentences import count, listing
from quantgate.decide.speed import cost_of, spared
from quantgate.evaluate.evidence import Evidence
from quantgate.records import Record

NOBODY = "none"  # the engine of a variant that was not asked
NOT_LOADED = "not load-tested"


class TargetVerdict(Record):
    """One variant on one target."""

    variant: str
    artifact: str  # digest
    engine: str  # digest of what answered, or NOBODY
    verdict: Verdict
    eligible: bool  # passed, and not behind a failure in a fixed sequence
    sentence: str
    findings: tuple[Finding, ...]
    stored_bytes: int
    resident_bytes: int | None = Field(default=None, exclude_if=lambda size: size is None)
    """Of its weights, in the memory of one device there; None where it does not run."""
    cost: float | None = None  # of a million answer tokens, at best, unless measured
    cost_measured: bool = Field(default=False, exclude_if=lambda measured: not measured)
    load_test: str = Field(default="", exclude_if=lambda told: not told)  # digest of the load test

    @property
    def size(self) -> int:
        """Bytes that the choice goes by: what its weights take there, more than on disk where they are decoded."""
        return self.stored_bytes if self.resident_bytes is None else self.resident_bytes


class TargetDecision(Record):
    """Which variant one target gets, and why the others do not."""

    target: str
    rules: TargetRules
    order: Order
    alpha: float
    baseline: str  # digest
    chosen: str | None
    sentence: str
    verdicts: tuple[TargetVerdict, ...]  # largest first

    def of(self, variant: str) -> TargetVerdict | None:
        return next((one for one in self.verdicts if one.variant == variant), None)


def decide_target(
    rules: TargetRules,
    candidates: Sequence[Candidate],
    evidence: Sequence[Evidence],
    plan: Plan | None,
    loads: Sequence[LoadEvidence],
    *,
    alpha: float,
    order: Order,
) -> TargetDecision:
    """The decision over all variants on one target; evidence and load tests of other bytes are not heard."""
    by_name = {one.variant: one for one in evidence}
    rows = {row.variant: row for row in plan.of(rules.name)} if plan else {}
    left_out = plan.left_out if plan else ()
    verdicts, blocked, behind = list[TargetVerdict](), "", dict[str, str]()
    for candidate in sorted(candidates, key=lambda one: (-one.stored_bytes, one.name)):
        own = by_name.get(candidate.name)
        known = Known(
            rules=rules,
            candidate=candidate,
            evidence=own if own is not None and own.artifact == candidate.artifact else None,
            row=rows.get(candidate.name),
            load=next((one for one in loads if (one.target, one.variant) == (rules.name, candidate.name)), None),
            unplanned=next((one for one in left_out if one.startswith(f"{candidate.name}: ")), ""),
        )
        found, behind[candidate.name] = findings(known), blocked
        verdicts.append(_verdict(known, found, blocked))
        if order == "fixed-sequence" and not blocked and sequence(found) and not proven(found):
            blocked = candidate.name
    chosen = _chosen(rules, verdicts)
    told = _without_spared(rules, chosen, verdicts, behind)
    return TargetDecision(
        target=rules.name,
        rules=rules,
        order=order,
        alpha=alpha,
        baseline=evidence[0].baseline if evidence else "none",
        chosen=chosen,
        sentence=_chosen_sentence(rules, chosen, told) + how_to_run(rules, chosen, loads),
        verdicts=tuple(told),
    )


def how_to_run(rules: TargetRules, chosen: str | None, loads: Sequence[LoadEvidence]) -> str:
    """What the load test of the chosen variant says about requests in flight; empty without one."""
    own = next((one for one in loads if (one.target, one.variant) == (rules.name, chosen)), None)
    return f"; {own.policy}" if own is not None and own.policy and not own.doubt else ""


def _without_spared(
    rules: TargetRules, chosen: str | None, verdicts: Sequence[TargetVerdict], behind: Mapping[str, str]
) -> list[TargetVerdict]:
    """Who was chosen by a load test spares the others theirs; ``behind``: which one ended the sequence before each."""
    first = next((one for one in verdicts if one.variant == chosen and one.load_test), None)
    if first is None:
        return list(verdicts)
    why = f"{first.variant}, which is {'cheaper' if rules.prefer == 'cost' else 'smaller'}, passed"
    return [
        _spare(one, why, behind[one.variant])
        if not one.load_test and preference(rules, first) <= preference(rules, one)
        else one
        for one in verdicts
    ]


def _spare(one: TargetVerdict, why: str, blocked: str) -> TargetVerdict:
    """Its sentence tells what else is open; where that is nothing, why it was not load-tested."""
    found = spared(one.findings, why)
    rest = [new for old, new in zip(one.findings, found, strict=True) if old == new]
    sentence = _sentence(_of(rest), rest, blocked, asked=one.engine != NOBODY)
    if not blocked and _of(rest) == "pass" and len(rest) < len(found):
        sentence = f"{NOT_LOADED}: {why}"
    return one.model_copy(update={"findings": found, "sentence": sentence})


def _of(found: Sequence[Finding]) -> Verdict:
    kinds = {one.verdict for one in found}
    return "fail" if "fail" in kinds else "pass" if kinds == {"pass"} else "inconclusive"


def proven(found: Sequence[Finding]) -> bool:
    """Whether the tests of a variant passed: the only findings that a fixed sequence goes by."""
    return all(one.verdict == "pass" for one in found if one.about == "capability")


def _verdict(known: Known, found: tuple[Finding, ...], blocked: str) -> TargetVerdict:
    verdict, cost = _of(found), cost_of(known)
    return TargetVerdict(
        variant=known.candidate.name,
        artifact=known.candidate.artifact,
        engine=known.evidence.engine if known.evidence else NOBODY,
        verdict=verdict,
        eligible=verdict == "pass" and not blocked,
        sentence=_sentence(verdict, found, blocked, asked=known.evidence is not None),
        findings=found,
        stored_bytes=known.candidate.stored_bytes,
        resident_bytes=known.row.estimate.memory.weights if known.row and known.row.estimate else None,
        cost=cost.money if cost else None,
        cost_measured=cost is not None and cost.measured,
        load_test=known.load.result if known.load else "",
    )


def _sentence(verdict: Verdict, found: Sequence[Finding], blocked: str, *, asked: bool) -> str:
    open_ = [one.rule for one in found if one.verdict == "inconclusive"]
    if verdict == "fail":
        return listing(_broken(found)) + (f"; {listing(open_)} not decided" if open_ else "")
    if verdict == "inconclusive" and blocked and not asked:
        return f"not asked: {blocked}, which is larger, did not pass before it, so it could not be chosen"
    if verdict == "inconclusive":
        behind = f"; {blocked} did not pass before it" if blocked else ""
        return f"not decided: {listing(open_)}{behind}"
    if blocked:
        return f"keeps every rule, but {blocked}, which is larger, did not pass before it in the fixed sequence"
    return f"keeps {'its one rule' if len(found) == 1 else f'all {len(found)} rules'}"


def _broken(found: Sequence[Finding]) -> list[str]:
    """
    >>> bad = {"verdict": "fail", "sentence": "", "by": "none"}
    >>> rows = (("runtime", "runs in vllm on l4"), ("memory", "memory"), ("latency", "ttft p95 <= 1 s"))
    >>> _broken([Finding.model_validate({"about": about, "rule": rule} | bad) for about, rule in rows])
    ['does not run in vllm on l4', 'does not fit', 'breaks ttft p95 <= 1 s']
    """
    failed = [one for one in found if one.verdict == "fail"]
    told = [f"does not {one.rule.replace('runs', 'run', 1)}" for one in failed if one.about == "runtime"]
    told += ["does not fit" for one in failed if one.about == "memory"]
    rest = [one.rule for one in failed if one.about not in ("runtime", "memory")]
    return told + ([f"breaks {listing(rest)}"] if rest else [])


def _chosen(rules: TargetRules, verdicts: Sequence[TargetVerdict]) -> str | None:
    safe = [one for one in verdicts if one.eligible]
    return min(safe, key=lambda one: preference(rules, one)).variant if safe else None


def preference(rules: TargetRules, one: TargetVerdict) -> tuple[float, int, int, str]:
    """What is least of the variant that is chosen: its cost where that is asked for, then its bytes."""
    cost = one.cost if rules.prefer == "cost" and one.cost is not None else float("inf")
    return (cost, one.size, one.stored_bytes, one.variant)


def _chosen_sentence(rules: TargetRules, chosen: str | None, verdicts: Sequence[TargetVerdict]) -> str:
    if chosen is None:
        open_ = [one.variant for one in verdicts if one.verdict == "inconclusive"]
        rest = f"; {listing(open_)} not decided" if open_ else ""
        return f"{rules.name}: none of {count(len(verdicts), 'variant')} keeps every rule{rest}: keep the baseline"
    safe = [one for one in verdicts if one.eligible]
    word = "cheapest" if rules.prefer == "cost" and all(one.cost is not None for one in safe) else "smallest"
    if untested := [one.variant for one in verdicts if one.sentence.startswith(NOT_LOADED)]:
        more = "larger there" if word == "smallest" else "dearer"
        return f"{rules.name}: {chosen} keeps every rule; {listing(untested)}, {more}, needed no load test"
    if len(safe) == 1:
        return f"{rules.name}: {chosen} is the only variant that keeps every rule"
    return f"{rules.name}: {chosen} is the {word} of the {len(safe)} that keep every rule"
