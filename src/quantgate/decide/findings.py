"""The rules of a target, one by one: what is found of a variant, and what it would take where it is not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from quantgate.decide import Candidate, judge_capability
from quantgate.decide.drift_limits import beyond
from quantgate.decide.planning import PlanRow, least_of
from quantgate.decide.rules import LoadEvidence, TargetRules
from quantgate.decide.sentences import count, margin_of, percent
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.hardware.quantities import told_bytes, told_seconds
from quantgate.loadtest.objectives import Objective, judge
from quantgate.records import Record
from quantgate.stats import Verdict

Kind = Literal["runtime", "memory", "stack", "capability", "ledger", "drift", "latency", "rate", "cost"]
RUNTIMES = {"torch": ("torch", "transformers"), "llamacpp": ("llama.cpp",)}  # engine -> runtimes that it is
FAR = 10  # times the suite: more cases than that are nobody's advice
AT_LEAST = 0.999  # of the asked rate that a load test must have been made at


class Finding(Record):
    """One rule and what is known of it."""

    about: Kind
    rule: str  # "math within 3 %", "memory", "ttft p95 <= 300 ms"
    verdict: Verdict
    sentence: str
    by: Literal["proven", "measured", "foretold", "documented", "recorded", "none"]  # what it rests on
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


def _latency(known: Known) -> Iterator[Finding]:
    for objective in known.rules.objectives:
        yield _objective(known, objective)


def _objective(known: Known, objective: Objective) -> Finding:
    """By the load test at the asked rate; what even a roofline misses needs none."""
    estimate = known.row.estimate if known.row else None
    least = None if estimate is None else least_of(known.rules.place, estimate, objective.latency)

    def say(verdict: Verdict, sentence: str, by: Literal["measured", "foretold", "none"], *needs: str) -> Finding:
        told = f"{objective.label}: {sentence}"
        return Finding(about="latency", rule=objective.label, verdict=verdict, sentence=told, by=by, needs=needs)

    load = known.load
    if load is not None and not (doubt := _doubt(known, load)):
        found = next((one for one in load.measured.kept if one.objective == objective), None)
        if found is None:
            found = judge(objective, load.measured.at(objective.latency, objective.q), load.doubt)
        needs = () if found.verdict == "pass" else tuple(_to_be_faster(known, load, found.verdict))
        word = " (that the server ran these bytes is its operator's word)" if load.declared else ""
        return say(found.verdict, f"{found.because} at {load.rate:g} requests/s{word}", "measured", *needs)
    if least is not None and least > objective.most_s:
        return say(
            "fail",
            f"out of reach, at best it takes {told_seconds(least)}",
            "foretold",
            "a faster device, or fewer bytes",
        )
    if load is not None:
        return say("inconclusive", f"the load test decides nothing: {doubt}", "none", to_measure(known))
    if known.rules.speed == "planned" and known.row is not None and known.row.support.fallback:
        sentence = "it runs as a fallback there, whose speed no roofline foretells"
        return say("inconclusive", sentence, "none", to_measure(known))
    if known.rules.speed == "planned" and least is not None:
        return say(
            "pass", f"possible, at best it takes {told_seconds(least)}; not measured (speed: planned)", "foretold"
        )
    return say("inconclusive", "not measured there", "none", to_measure(known))


def _doubt(known: Known, load: LoadEvidence) -> str:
    """Why a load test does not decide here: partial, not valid, of other bytes, or at too low a rate."""
    rate = known.rules.place.rate
    if load.artifact != known.candidate.artifact:
        return f"it is of other bytes ({load.artifact[:19]})"
    if rate is not None and load.rate < AT_LEAST * rate:
        return f"it was made at {load.rate:g} requests/s, and {rate:g} are asked for"
    return load.doubt


def to_measure(known: Known) -> str:
    place, name = known.rules.place, known.rules.name
    rate = f" --rate {place.rate:g}/s" if place.rate else ""
    return (
        f"quantgate loadtest URL{rate} --out runs/load-{name}-{known.candidate.name} where it will run, "
        f"then quantgate decide --load {name}:{known.candidate.name}=runs/load-{name}-{known.candidate.name}/load.json"
    )


def _to_be_faster(known: Known, load: LoadEvidence, verdict: Verdict) -> Iterator[str]:
    if verdict == "inconclusive":
        yield "a longer load test"
        return
    if load.safe is not None:
        yield f"at most {load.safe:g} requests/s, up to which every objective is proven"
    if load.policy:
        yield load.policy
    yield "more devices, or fewer requests each"


def _rate(known: Known) -> Iterator[Finding]:
    asked = known.rules.place.rate
    if asked is None:
        return
    rule, load = f"{asked:g} requests/s", known.load
    estimate = known.row.estimate if known.row else None
    most = estimate.requests_per_s if estimate else None
    if load is not None and not _doubt(known, load):
        up = load.measured.keeps_up
        told = {True: "answers as fast as they come", False: "falls behind", None: "whether it keeps up is not known"}
        verdict: Verdict = "inconclusive" if up is None else "pass" if up else "fail"
        needs: tuple[str, ...] = (
            () if up else ("a longer load test",) if up is None else ("more devices, or a lower rate",)
        )
        yield Finding(
            about="rate", rule=rule, verdict=verdict, sentence=f"{rule}: {told[up]}", by="measured", needs=needs
        )
    elif most is not None and most < asked:
        needs = ("more concurrency or devices", f"a rate of {most:.2g}/s")
        sentence = f"{rule}: out of reach, at best {most:.2g}/s with {known.rules.place.concurrency} at once"
        yield Finding(about="rate", rule=rule, verdict="fail", sentence=sentence, by="foretold", needs=needs)
    elif known.rules.speed == "planned" and most is not None and known.row and not known.row.support.fallback:
        sentence = f"{rule}: possible, at best {most:.3g}/s; not measured (speed: planned)"
        yield Finding(about="rate", rule=rule, verdict="pass", sentence=sentence, by="foretold")
    else:
        sentence = f"{rule}: not measured there"
        yield Finding(
            about="rate", rule=rule, verdict="inconclusive", sentence=sentence, by="none", needs=(to_measure(known),)
        )


def _cost(known: Known) -> Iterator[Finding]:
    most = known.rules.cost
    if most is None:
        return
    rule, cost = f"at most {most:g} for a million answer tokens", cost_of(known.row)
    if cost is None:
        needs: tuple[str, ...] = ("write 'price' into the target, such as 2.50/h",)
        sentence = "what a million answer tokens cost is not known"
        yield Finding(about="cost", rule=rule, verdict="inconclusive", sentence=sentence, by="none", needs=needs)
        return
    kept = cost <= most
    needs = () if kept else ("a cheaper device, or more requests at once",)
    sentence = f"a million answer tokens cost {cost:.2f} at best, {most:g} allowed"
    yield Finding(
        about="cost", rule=rule, verdict="pass" if kept else "fail", sentence=sentence, by="foretold", needs=needs
    )


def cost_of(row: PlanRow | None) -> float | None:
    """Of a million answer tokens at the device's full use; None where no price or rate is known."""
    return row.estimate.cost_per_million if row is not None and row.estimate is not None else None


Rule = Callable[[Known], Iterator[Finding]]
PLACES: Sequence[Rule] = (_runtime, _memory)
ANSWERS: Sequence[Rule] = (_stack, _capabilities, _ledger, _drift)
SPEEDS: Sequence[Rule] = (_latency, _rate, _cost)
