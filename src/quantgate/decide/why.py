"""Why a variant was chosen or not, in plain sentences, and what it would take."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.decide import Decision, VariantVerdict
from quantgate.decide.findings import to_keep
from quantgate.decide.known import Finding
from quantgate.decide.sentences import margin_of
from quantgate.decide.targets import TargetDecision, TargetVerdict
from quantgate.evaluate.evidence import Evidence, Flip, Gate
from quantgate.hardware.quantities import told_bytes
from quantgate.records import Record

EXAMPLES = 2  # answers shown of a capability that did not pass


class Reason(Record):
    """One rule and what was found, with answers that show it."""

    rule: str
    verdict: str
    sentence: str
    examples: tuple[Flip, ...] = ()
    needs: tuple[str, ...] = ()


class Why(Record):
    """One variant in one decision."""

    variant: str
    target: str  # empty: the release itself
    verdict: str
    chosen: bool
    sentence: str
    reasons: tuple[Reason, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """What it would take for the variant to pass, each thing once."""
        return tuple(dict.fromkeys(need for one in self.reasons for need in one.needs))


def of_target(decision: TargetDecision, variant: str, evidence: Evidence | None) -> Why | None:
    """Of one target; None where it has no such variant."""
    found = decision.of(variant)
    if found is None:
        return None
    return Why(
        variant=variant,
        target=decision.target,
        verdict=found.verdict,
        chosen=decision.chosen == variant,
        sentence=_of_target(decision, found),
        reasons=tuple(_reason(one, evidence) for one in found.findings),
    )


def _of_target(decision: TargetDecision, found: TargetVerdict) -> str:
    name, word = found.variant, "cheapest" if decision.rules.prefer == "cost" else "smallest"
    if decision.chosen == name:
        return f"{name} is chosen for {decision.target}: it {_third(found.sentence)}, and it is the {word} that does"
    if not found.eligible:
        return f"{name} is not chosen for {decision.target}: it {_third(found.sentence)}"
    best = decision.of(decision.chosen or "")
    assert best is not None  # something eligible was chosen
    better = f"{best.variant} does as well and is {_than(best, found, decision)}"
    return f"{name} is not chosen for {decision.target}: it {_third(found.sentence)}, and {better}"


def _than(best: TargetVerdict, found: TargetVerdict, decision: TargetDecision) -> str:
    if decision.rules.prefer == "cost" and best.cost is not None and found.cost is not None and best.cost < found.cost:
        return f"cheaper ({best.cost:.2f} against {found.cost:.2f} for a million answer tokens)"
    sizes = f"{told_bytes(best.size)} against {told_bytes(found.size)}"
    if best.size != found.size:
        return f"smaller there ({sizes} in memory)"
    sizes = f"{told_bytes(best.stored_bytes)} against {told_bytes(found.stored_bytes)}"
    return f"smaller on disk ({sizes})" if best.stored_bytes < found.stored_bytes else f"first by name ({sizes})"


def _third(sentence: str) -> str:
    """
    >>> _third("not decided: memory"), _third("breaks memory"), _third("not asked: W4A16 did not pass")
    ('is not decided: memory', 'breaks memory', 'was not asked: W4A16 did not pass')
    """
    if sentence.startswith(("not asked", "not load-tested")):
        return f"was {sentence}"
    return f"is {sentence}" if sentence.startswith("not ") else sentence


def _reason(one: Finding, evidence: Evidence | None) -> Reason:
    examples: Sequence[Flip] = ()
    if one.about == "capability" and one.verdict != "pass" and evidence is not None:
        name = one.rule.rpartition(" within ")[0]
        rows = (*evidence.comparisons, *evidence.for_targets)
        found = next((row for row in rows if row.gate.capability == name), None)
        examples = _lost(found.flips) if found else ()
    return Reason(rule=one.rule, verdict=one.verdict, sentence=one.sentence, examples=tuple(examples), needs=one.needs)


def _lost(flips: Sequence[Flip]) -> Sequence[Flip]:
    return [one for one in flips if one.variant_score < one.baseline_score][:EXAMPLES]


def of_release(decision: Decision, gates: Sequence[Gate], variant: str, evidence: Evidence | None) -> Why | None:
    """Of a release without targets."""
    found = next((one for one in decision.verdicts if one.variant == variant), None)
    if found is None:
        return None
    rows = {row.gate.capability: row for row in evidence.comparisons} if evidence else {}
    by_name = {gate.capability: gate for gate in gates}
    return Why(
        variant=variant,
        target="",
        verdict=found.verdict,
        chosen=decision.chosen == variant,
        sentence=_of_release(decision, found),
        reasons=tuple(
            Reason(
                rule=f"{one.capability} within {margin_of(by_name[one.capability])}",
                verdict=one.verdict,
                sentence=one.sentence,
                examples=tuple(_lost(rows[one.capability].flips))
                if one.verdict != "pass" and one.capability in rows
                else (),
                needs=tuple(to_keep(variant, by_name[one.capability], rows.get(one.capability), one.verdict)),
            )
            for one in found.capabilities
        ),
    )


def _of_release(decision: Decision, found: VariantVerdict) -> str:
    if decision.chosen == found.variant:
        return f"{found.variant} is chosen: it {_third(found.sentence)}, and it is the smallest that does"
    if found.eligible:
        smaller = f"{decision.chosen} does as well and is smaller"
        return f"{found.variant} is not chosen: it {_third(found.sentence)}, and {smaller}"
    return f"{found.variant} is not chosen: it {_third(found.sentence)}"
