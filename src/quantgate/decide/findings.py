"""The rules of a target, one by one: what is found of a variant, and what it would take where it is not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from quantgate.decide import judge_capability
from quantgate.decide.drift_limits import beyond
from quantgate.decide.known import Finding, Known
from quantgate.decide.sentences import count, margin_of, percent
from quantgate.decide.speed import costs, latencies, rates
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.hardware.quantities import told_bytes
from quantgate.stats import Verdict

RUNTIMES = {"torch": ("torch", "transformers"), "llamacpp": ("llama.cpp",)}  # engine -> runtimes that it is
FAR = 10  # times the suite: more cases than that are nobody's advice


def findings(known: Known) -> tuple[Finding, ...]:
    """Of every rule of the target; what cannot run or fit there has no speed and no price."""
    of_place = [one for rule in PLACES for one in rule(known)]
    rules = ANSWERS if any(one.verdict == "fail" for one in of_place) else (*ANSWERS, *SPEEDS)
    return (*of_place, *(one for rule in rules for one in rule(known)))


def sequence(found: Sequence[Finding]) -> bool:
    """Whether the variant stands in a fixed sequence: what cannot run or fit there is no candidate to begin with."""
    return not any(one.about in ("runtime", "memory") and one.verdict == "fail" for one in found)


def _runtime(known: Known) -> Iterator[Finding]:
    place = known.rules.place
    rule = f"runs in {place.runtime} on {place.hardware}"
    if known.row is None:
        why = known.unplanned or "nothing is known of it there"
        yield Finding(about="runtime", rule=rule, verdict="inconclusive", sentence=f"{rule}: {why}", by="none")
        return
    found = known.row.support
    source = f"[{found.status}: {found.source}, {found.date}]"
    if found.problems:
        needs = (f"{place.runtime}: {found.needs}" if found.needs else "a format that this runtime has a kernel for",)
        sentence = f"does not run in {place.runtime} on {place.hardware}: {'; '.join(found.problems)} {source}"
        yield Finding(about="runtime", rule=rule, verdict="fail", sentence=sentence, by=_by(found.status), needs=needs)
        return
    fallback = f", as a fallback: {found.fallback}" if found.fallback else ""
    sentence = f"runs in {place.runtime} by {found.kernel or 'its own kernels'}{fallback} {source}"
    yield Finding(about="runtime", rule=rule, verdict="pass", sentence=sentence, by=_by(found.status))


def _by(status: str) -> Literal["measured", "documented"]:
    return "measured" if status == "verified" else "documented"


def _memory(known: Known) -> Iterator[Finding]:
    estimate = known.row.estimate if known.row else None
    if estimate is None:
        return
    memory, place = estimate.memory, known.rules.place
    takes = f"{place.concurrency} at once with {place.tokens} tokens each take {told_bytes(memory.needed)}"
    if memory.available is None:
        sentence = f"{takes}; nobody says how much memory {place.hardware} has"
        needs = ("write 'memory' into the target",)
        yield Finding(about="memory", rule="memory", verdict="inconclusive", sentence=sentence, by="none", needs=needs)
        return
    there = f"{told_bytes(memory.available)} are there"
    if estimate.fits:
        yield Finding(about="memory", rule="memory", verdict="pass", sentence=f"{takes}, {there}", by="foretold")
        return
    room = estimate.largest_batch or 0
    needs = (f"at most {room} at once",) if room else (f"{told_bytes(memory.needed - memory.available)} more memory",)
    yield Finding(
        about="memory", rule="memory", verdict="fail", sentence=f"{takes}, only {there}", by="foretold", needs=needs
    )


def _stack(known: Known) -> Iterator[Finding]:
    if known.evidence is None:
        return
    place = known.rules.place
    engine = next((one.removeprefix("engine=") for one in known.evidence.runtime if one.startswith("engine=")), "")
    rule = f"judged in {place.runtime}"
    if known.evidence.declared or place.runtime in RUNTIMES.get(engine, ()):
        word = ", by its operator's word" if known.evidence.declared else ""
        yield Finding(
            about="stack", rule=rule, verdict="pass", sentence=f"its answers are those of {engine}{word}", by="proven"
        )
        return
    told = f"its answers are those of {engine or 'another runtime'}, and {place.runtime} will ship"
    if known.rules.stack == "any":
        sentence = f"{told}; the target takes them (stack: any), so its kernels are not proven"
        yield Finding(about="stack", rule=rule, verdict="pass", sentence=sentence, by="documented")
        return
    needs = (
        f"judge it in {place.runtime} (the variant's 'engine' and 'endpoint'), or write 'stack: any' into the target "
        "to take answers of another runtime",
    )
    yield Finding(about="stack", rule=rule, verdict="inconclusive", sentence=told, by="none", needs=needs)


def _capabilities(known: Known) -> Iterator[Finding]:
    for gate in known.rules.gates:
        found = comparison_of(known.evidence, gate)
        screened = known.evidence.screened if known.evidence else ""
        rule = f"{gate.capability} within {margin_of(gate)}"
        if screened:
            sentence = f"{gate.capability}: {screened}"
            yield Finding(about="capability", rule=rule, verdict="inconclusive", sentence=sentence, by="none")
            continue
        judged = judge_capability(gate, found)
        yield Finding(
            about="capability",
            rule=rule,
            verdict=judged.verdict,
            sentence=judged.sentence,
            by="proven" if judged.verdict != "inconclusive" else "none",
            needs=tuple(to_keep(known.candidate.name, gate, found, judged.verdict)),
        )


def comparison_of(evidence: Evidence | None, gate: Gate) -> Comparison | None:
    """Evidence for just this gate, margin and slices included."""
    rows = (*evidence.comparisons, *evidence.for_targets) if evidence else ()
    return next((one for one in rows if one.gate == gate), None)


def to_keep(variant: str, gate: Gate, found: Comparison | None, verdict: Verdict) -> Iterator[str]:
    """What it would take for a capability to pass."""
    if verdict == "pass":
        return
    if found is None or not found.n:
        yield f"{gate.capability}: cases that can be scored, asked of {variant}"
        return
    low = found.finding.low
    if verdict == "fail":
        if low is not None:
            yield f"{gate.capability}: a margin of {percent(-low)} or more in a new run, as the loss may be that large"
        yield f"{gate.capability}: better bits where it hurts: quantgate repair {variant}"
    elif found.blind:
        yield f"{gate.capability}: harder cases, or a baseline that solves more of them"
    elif found.finding.needed and found.finding.needed <= FAR * found.available:
        yield f"{gate.capability}: about {count(found.finding.needed, 'case')} in all, if no larger share is lost"
    elif low is not None:
        yield f"{gate.capability}: less lost, since what was lost is about what is allowed: quantgate repair {variant}"
        yield f"{gate.capability}: or more than {found.available} cases, or a margin above {percent(-low)} in a new run"


def _ledger(known: Known) -> Iterator[Finding]:
    for event, allowed in known.rules.ledger.items():
        lines = known.candidate.ledger.get(event, 0)
        kept = lines <= allowed
        yield Finding(
            about="ledger",
            rule=f"at most {count(allowed, 'line')} of {event}",
            verdict="pass" if kept else "fail",
            sentence=f"{count(lines, 'line')} of {event} in its ledger, {allowed} allowed",
            by="recorded",
            needs=() if kept else (f"a recipe that leaves no more than {count(allowed, 'line')} of {event}",),
        )


def _drift(known: Known) -> Iterator[Finding]:
    limits = known.rules.drift
    if limits is None:
        return
    drift = known.evidence.drift if known.evidence else None
    if drift is None:
        why = known.evidence.no_drift if known.evidence else "it was not measured"
        yield Finding(about="drift", rule="drift", verdict="inconclusive", sentence=f"drift: {why}", by="none")
        return
    broken = beyond(drift, limits)
    sentence = f"drift: {' and '.join(broken)}" if broken else f"drift: mean KL {drift.kl_mean:.3g}, within its limits"
    needs = ("a gentler format, or a wider limit",) if broken else ()
    verdict: Verdict = "fail" if broken else "pass"
    yield Finding(about="drift", rule="drift", verdict=verdict, sentence=sentence, by="measured", needs=needs)


Rule = Callable[[Known], Iterator[Finding]]
PLACES: Sequence[Rule] = (_runtime, _memory)
ANSWERS: Sequence[Rule] = (_stack, _capabilities, _ledger, _drift)
SPEEDS: Sequence[Rule] = (latencies, rates, costs)
