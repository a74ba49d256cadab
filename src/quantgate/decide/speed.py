"""Latencies, rate and cost of a variant on a target: by its load test, else by what a roofline allows.

A load test decides only if it is whole, valid, of these very bytes, at the asked rate, and not lighter than what the
target says of its prompts and answers. What is not measured is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantgate.decide.known import By, Finding, Known
from quantgate.decide.planning import PlanRow, least_of
from quantgate.decide.rules import LoadEvidence
from quantgate.hardware.profiles import HERE, normal
from quantgate.hardware.quantities import told_seconds
from quantgate.hardware.targets import Place
from quantgate.loadtest.objectives import Kept, Objective, judge
from quantgate.stats import Verdict
from quantgate.stats.quantiles import fewest

SAME_RATE = 1e-3  # of the asked rate that a load test's may differ by
CLOSE = 1.5  # the roofline and what was measured differ by no more (docs/BENCHMARKS.md); here the load test decides
UNMEASURED = "not measured there"
QUIET = "nothing says how many requests come: write 'rate' into the target"


def latencies(known: Known) -> Iterator[Finding]:
    for objective in known.rules.objectives:
        yield _objective(known, objective)


def _objective(known: Known, objective: Objective) -> Finding:
    """By the load test at the asked rate; what even a roofline misses needs none."""
    estimate = known.row.estimate if known.row else None
    least = None if estimate is None else least_of(known.rules.place, estimate, objective.latency)
    load = known.load

    def say(verdict: Verdict, sentence: str, by: By, *needs: str) -> Finding:
        told = f"{objective.label}: {sentence}"
        return Finding(about="latency", rule=objective.label, verdict=verdict, sentence=told, by=by, needs=needs)

    if load is not None and not doubt_of(known, load):
        return _measured(known, load, objective)
    if least is not None and least > _slack(known.rules.place, known.rules.speed) * objective.most_s:
        return say(
            "fail",
            f"out of reach, at best it takes {told_seconds(least)}",
            "foretold",
            "a faster device, or fewer bytes",
        )
    if load is not None:
        told = f"the load test decides nothing: {doubt_of(known, load)}"
        return say("inconclusive", told, "none", to_measure(known))
    if known.rules.speed == "planned" and known.row is not None and known.row.support.fallback:
        sentence = "it runs as a fallback there, whose speed no roofline foretells"
        return say("inconclusive", sentence, "none", to_measure(known))
    if known.rules.speed == "planned" and least is not None:
        return say(
            "pass", f"possible, at best it takes {told_seconds(least)}; not measured (speed: planned)", "foretold"
        )
    return say("inconclusive", UNMEASURED, "none", to_measure(known))


def _slack(place: Place, speed: str) -> float:
    """How far beyond a promise a roofline must be to break it alone."""
    return CLOSE if normal(place.hardware) == HERE and speed == "measured" else 1.0


def _measured(known: Known, load: LoadEvidence, objective: Objective) -> Finding:
    kept = kept_of(load, objective)
    verdict, told = kept.verdict, f"{kept.because} at {load.rate:g} requests/s{_word(load)}"
    needs = () if verdict == "pass" else tuple(_to_be_faster(known, load, kept))
    by: By = "measured"
    if verdict == "pass" and load.lighter:
        verdict, by = "inconclusive", "none"
        told, needs = f"{told}, but {load.lighter}", (to_measure(known),)
    elif verdict == "fail" and known.rules.place.rate is None and load.measured.keeps_up is not True:
        verdict, by = "inconclusive", "none"
        told, needs = f"{told}, where it falls behind; nobody asked for that rate", (QUIET,)
    sentence = f"{objective.label}: {told}"
    return Finding(about="latency", rule=objective.label, verdict=verdict, sentence=sentence, by=by, needs=needs)


def kept_of(load: LoadEvidence, objective: Objective) -> Kept:
    """What the load test says of one objective."""
    found = next((one for one in load.measured.kept if one.objective == objective), None)
    return found or judge(objective, load.measured.at(objective.latency, objective.q), load.doubt)


def _word(load: LoadEvidence) -> str:
    under = "" if load.limit is None else f" with at most {load.limit} in flight"
    return under + (" (that the server ran these bytes is its operator's word)" if load.declared else "")


def doubt_of(known: Known, load: LoadEvidence) -> str:
    """Why a load test does not decide here: of other bytes, at another rate, partial or not valid."""
    rate = known.rules.place.rate
    if load.artifact != known.candidate.artifact:
        return f"it is of other bytes ({load.artifact[:19]})"
    if rate is not None and abs(load.rate - rate) > SAME_RATE * rate:
        return f"it was made at {load.rate:g} requests/s, and {rate:g} are asked for"
    return load.doubt


def spared(found: Sequence[Finding], why: str) -> tuple[Finding, ...]:
    """Findings of a variant that needed no load test, because another one was chosen by its own."""
    told = f"not measured: {why}"
    return tuple(
        one.model_copy(update={"sentence": one.sentence.removesuffix(UNMEASURED) + told, "needs": ()})
        if one.sentence.endswith(UNMEASURED)
        else one
        for one in found
    )


def to_measure(known: Known) -> str:
    """The commands that measure it where it will run, at the target's rate and lengths."""
    place, name, variant = known.rules.place, known.rules.name, known.candidate.name
    out = f"runs/load-{name}-{variant}"
    rate = f" --rate {place.rate:g}/s" if place.rate else ""
    asked = f"{rate} --prompt {place.prompt} --answer {place.answer} --limit {place.concurrency}"
    return (
        f"quantgate loadtest URL{asked} --out {out} where it will run, "
        f"then quantgate decide --load {name}:{variant}={out}/load.json"
    )


def _to_be_faster(known: Known, load: LoadEvidence, kept: Kept) -> Iterator[str]:
    """The rate or the limit at which it is known to pass, and what else would help."""
    found = kept.found
    if kept.verdict == "inconclusive":
        if found is None:
            yield "an engine that reports it"
        elif found.high is None and not found.beyond:
            yield f"about {round(fewest(found.q) * found.dependence * 2)} requests, {found.n} were asked"
        else:
            yield f"a longer load test: {4 * found.n} requests would halve the interval"
    if load.safe is not None and load.safe < load.rate:
        yield f"at most {load.safe:g} requests/s, up to which every promise is proven"
    if load.at_most is not None and load.at_most != load.limit:
        yield f"at most {load.at_most} in flight, with which every promise is proven"
    if kept.verdict == "fail":
        if load.safe is None:
            yield _lower(known, load)
        yield "more devices, or fewer requests each"


def _lower(known: Known, load: LoadEvidence) -> str:
    rates = [one for one in load.rates if one < load.rate]
    lowest = min(rates, default=load.rate)
    told = f"{lowest / 2:.3g}/s, {lowest / 4:.3g}/s"
    where = f"load_test: {{sweep: [{told}]}}" if normal(known.rules.place.hardware) == HERE else f"--sweep {told}"
    beside = f"; at {', '.join(f'{one:g}' for one in sorted(rates))} it is not proven either" if rates else ""
    return f"a lower rate, which a sweep would find ({where}){beside}"


def rates(known: Known) -> Iterator[Finding]:
    asked = known.rules.place.rate
    if asked is None:
        return
    rule, load = f"{asked:g} requests/s", known.load
    estimate = known.row.estimate if known.row else None
    most = estimate.requests_per_s if estimate else None

    def say(verdict: Verdict, sentence: str, by: By, *needs: str) -> Finding:
        return Finding(about="rate", rule=rule, verdict=verdict, sentence=f"{rule}: {sentence}", by=by, needs=needs)

    if load is not None and not doubt_of(known, load):
        yield _keeps_up(known, load, rule)
    elif most is not None and most * _slack(known.rules.place, known.rules.speed) < asked:
        sentence = f"out of reach, at best {most:.2g}/s with {known.rules.place.concurrency} at once"
        yield say("fail", sentence, "foretold", "more concurrency or devices", f"a rate of {most:.2g}/s")
    elif load is not None:
        told = f"the load test decides nothing: {doubt_of(known, load)}"
        yield say("inconclusive", told, "none", to_measure(known))
    elif known.rules.speed == "planned" and most is not None and known.row and not known.row.support.fallback:
        yield say("pass", f"possible, at best {most:.3g}/s; not measured (speed: planned)", "foretold")
    else:
        yield say("inconclusive", UNMEASURED, "none", to_measure(known))


def _keeps_up(known: Known, load: LoadEvidence, rule: str) -> Finding:
    up, lost = load.measured.keeps_up, load.measured.lost
    told = {True: "answers as fast as they come", False: "falls behind", None: "whether it keeps up is not known"}[up]
    verdict: Verdict = "inconclusive" if up is None else "pass" if up else "fail"
    needs: tuple[str, ...] = ()
    if up is None:
        needs = ("a longer load test",)
    elif not up:
        slower = (f"at most {load.keeps_up_to:g} requests/s, with which it keeps up",) if load.keeps_up_to else ()
        needs = (*slower, "more devices, or a lower rate")
    elif load.lighter:
        verdict, told, needs = "inconclusive", f"{told}, but {load.lighter}", (to_measure(known),)
    told += f"; {lost} of {load.measured.sent} were lost" if lost else ""
    by: By = "none" if verdict == "inconclusive" else "measured"
    return Finding(
        about="rate", rule=rule, verdict=verdict, sentence=f"{rule}: {told}{_word(load)}", by=by, needs=needs
    )


@dataclass(frozen=True)
class Cost:
    """Money for a million answer tokens."""

    money: float
    rate: float | None = None  # requests a second, proven, that it is reckoned with; None: the roofline's

    @property
    def measured(self) -> bool:
        return self.rate is not None


def cost_of(known: Known) -> Cost | None:
    """At the rate up to which every promise is proven, where a sweep found one; else at the device's full use.

    None where no price or rate is known.
    """
    place, load = known.rules.place, known.load
    whole = load is not None and not doubt_of(known, load) and not load.lighter
    if load is not None and whole and load.safe and place.price is not None:
        tokens = load.answer_tokens or place.answer
        money = place.price * place.tensor_parallel / 3600 / (load.safe * tokens) * 1e6
        return Cost(money, load.safe)
    return _at_best(known.row)


def _at_best(row: PlanRow | None) -> Cost | None:
    money = row.estimate.cost_per_million if row is not None and row.estimate is not None else None
    return None if money is None else Cost(money)


def costs(known: Known) -> Iterator[Finding]:
    most = known.rules.cost
    if most is None:
        return
    rule, cost = f"at most {most:g} for a million answer tokens", cost_of(known)

    def say(verdict: Verdict, sentence: str, by: By, *needs: str) -> Finding:
        return Finding(about="cost", rule=rule, verdict=verdict, sentence=sentence, by=by, needs=needs)

    if cost is None:
        sentence = "what a million answer tokens cost is not known"
        yield say("inconclusive", sentence, "none", "write 'price' into the target, such as 2.50/h")
        return
    how = "at best" if cost.rate is None else f"at {cost.rate:g} requests/s, up to which every promise is proven"
    verdict: Verdict = "pass" if cost.money <= most else "fail"
    needs = () if verdict == "pass" else ("a cheaper device, or more requests at once",)
    by: By = "measured" if cost.measured else "foretold"
    yield say(verdict, f"a million answer tokens cost {cost.money:.2f} {how}, {most:g} allowed", by, *needs)
