"""From a load test to evidence for one variant on one target, or a refusal that says what does not fit.

    read_load("laptop:Q4_K_M=runs/load/load.json", rules, candidates, evidence)

The target's own promises are judged, at its rate, under its limit of requests in flight. Where several limits were
tried, the intervals are so wide that all of them hold at once (``LoadResult.alpha``), so the best one may be taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.decide import Candidate
from quantgate.decide.rules import LoadAt, LoadEvidence, TargetRules
from quantgate.decide.speed import SAME_RATE
from quantgate.errors import UnknownName, UsageError
from quantgate.evaluate.evidence import Evidence
from quantgate.loadtest.knee import Knee, LimitPoint, policy_of
from quantgate.loadtest.measure import BatchTimes, Measured
from quantgate.loadtest.objectives import judge, shown
from quantgate.loadtest.result import ArmResult, LoadResult, kept_of, knee_among, watched

LIGHTER = 0.8  # of the target's lengths; requests that are shorter in the mean prove no promise kept
FORM = "expected TARGET:VARIANT=path/load.json, such as laptop:Q4_K_M=runs/load/load.json"


def read_load(
    told: str, rules: Sequence[TargetRules], candidates: Sequence[Candidate], evidence: Sequence[Evidence] = ()
) -> LoadEvidence:
    """``TARGET:VARIANT=path/load.json``. Raises UsageError, UnknownName, and RecordError for a file that is none."""
    named, found, path = told.partition("=")
    target, colon, variant = named.partition(":")
    if not (found and colon and target and variant and path):
        raise UsageError(f"--load {told}: {FORM}")
    rule = next((one for one in rules if one.name == target), None)
    if rule is None:
        raise UnknownName("target", target, [one.name for one in rules], where=f"--load {told}")
    candidate = next((one for one in candidates if one.name == variant), None)
    if candidate is None:
        raise UnknownName("variant", variant, [one.name for one in candidates], where=f"--load {told}")
    file = Path(path) / "load.json" if Path(path).is_dir() else Path(path)
    own = next((one for one in evidence if one.variant == variant and one.artifact == candidate.artifact), None)
    return load_evidence(LoadResult.load(file), rule, candidate, own, where=str(file))


def load_evidence(
    result: LoadResult, rules: TargetRules, candidate: Candidate, evidence: Evidence | None = None, *, where: str
) -> LoadEvidence:
    """What ``result`` says of ``candidate`` on the target of ``rules``; ``evidence`` is that of the same bytes.

    Raises UsageError for a result without the variant's arm, of other bytes, at another rate, with more in flight than
    the target has room for, or without a percentile that the target promises.
    """
    at = _arm(result, candidate, evidence, where)
    pick = _Pick(result, rules, result.arms[at], where)
    best = pick.best()
    knee = pick.knee()
    return LoadEvidence(
        target=rules.name,
        variant=candidate.name,
        artifact=candidate.artifact,
        result=result.digest,
        what=result.whats[at],
        declared=not _is_digest(result.whats[at]),
        rate=best.rate,
        limit=best.limit,
        measured=best.measured,
        baseline=_baseline(result, best) if at == 1 else None,
        pairs=tuple(one for one in result.pairs if (one.rate, one.limit) == (best.rate, best.limit)) if at == 1 else (),
        knee=knee.knee if knee else None,
        safe=knee.safe if knee else None,
        keeps_up_to=knee.keeps_up if knee else None,
        rates=tuple(sorted({one.rate for one in pick.own})),
        curve=tuple(
            LoadAt(rate=one.rate, measured=one.measured, baseline=_baseline(result, one) if at == 1 else None)
            for one in pick.swept
            if one.rate != best.rate
        ),
        policy=pick.policy(best),
        at_most=pick.at_most,
        answer_tokens=_each(best.measured.token_rate, best.measured),
        lighter=_lighter(best.measured, rules),
        partial=result.partial,
        notes=tuple(one for one in result.notes if one.startswith((f"{result.arms[at]} ", "at "))),
    )


def _is_digest(what: str) -> bool:
    return what.startswith("sha256:")


def _arm(result: LoadResult, candidate: Candidate, evidence: Evidence | None, where: str) -> int:
    """The arm of these bytes; of addresses, whose bytes nobody knows, the one of its name, else the last."""
    name = candidate.name
    if any(result.weights):
        if candidate.artifact in result.weights:
            return result.weights.index(candidate.artifact)
        seen = " and ".join(f"{arm} ({one[:19]})" for arm, one in zip(result.arms, result.weights, strict=True))
        raise UsageError(
            f"{where}: is of {seen}, and {name} is {candidate.artifact[:19]}; load-test the bytes that were judged"
        )
    engines = [at for at, one in enumerate(result.whats) if _is_digest(one)]
    if engines:
        known = [at for at in engines if evidence is not None and result.whats[at] == evidence.engine]
        if not known:
            raise UsageError(f"{where}: does not say which bytes its engine ran; load-test {name} again")
        return known[0]
    if not result.arms:
        raise UsageError(f"{where}: holds no arm; load-test {name} again")
    named = [at for at, arm in enumerate(result.arms) if arm in (name, f"{name} (variant)")]
    return named[0] if named else len(result.arms) - 1


@dataclass(frozen=True)
class _Pick:
    """The runs of one arm, and which of them a target asks for."""

    result: LoadResult
    rules: TargetRules
    arm: str
    where: str

    @property
    def own(self) -> list[ArmResult]:
        """Every rate and limit, judged by the target's promises."""
        return [
            one.model_copy(update={"measured": self._judged(one.measured)})
            for one in self.result.results
            if one.arm == self.arm
        ]

    def _judged(self, measured: Measured) -> Measured:
        doubt = self.result.partial or measured.validity.because
        limits = {one.limit for one in self.result.results}
        kept = tuple(
            judge(one, measured.at(one.latency, one.q), doubt, self.result.alpha / max(1, len(limits)))
            for one in self.rules.objectives
        )
        return measured.model_copy(update={"kept": kept})

    @property
    def rate(self) -> float:
        """Requests a second that the target asks; where it asks none, what the test was made for."""
        return self.rules.place.rate or self.result.asked[0].rate

    def at_rate(self) -> list[ArmResult]:
        """Under every limit that the target has room for, the largest first."""
        own, rate, most = self.own, self.rate, self.rules.place.concurrency
        if not own:
            raise UsageError(f"{self.where}: holds no request of {self.arm}; run the same load test to its end")
        found = [one for one in own if abs(one.rate - rate) <= SAME_RATE * rate]
        if not found:
            rates = ", ".join(f"{one:g}" for one in sorted({one.rate for one in own}))
            raise UsageError(
                f"{self.where}: was made at {rates} requests/s, and {self.rules.name} asks {rate:g}; "
                f"test it with --rate {rate:g}/s"
            )
        fits = [one for one in found if one.limit is None or one.limit <= most]
        if not fits:
            limits = ", ".join(str(one.limit) for one in found)
            raise UsageError(
                f"{self.where}: had up to {limits} requests in flight, and {self.rules.name} has room for {most}; "
                f"test it with --limit {most}, or raise 'concurrency'"
            )
        self._computable(fits[0].measured)
        return sorted(fits, key=lambda one: -(one.limit or 0))

    def _computable(self, measured: Measured) -> None:
        for one in self.rules.objectives:
            held = measured.quantiles.get(one.latency, ())
            if held and measured.at(one.latency, one.q) is None:
                asked = ", ".join(f"p{100 * each.q:g}" for each in held)
                raise UsageError(
                    f"{self.where}: holds {asked} of {one.latency}, and {self.rules.name} promises p{100 * one.q:g}; "
                    f"test it with --objective '{one.latency}-p{100 * one.q:g}={shown(one.most_s).replace(' ', '')}'"
                )

    def best(self) -> ArmResult:
        """Under the target's own limit; where that does not keep every promise, under the largest one that does."""
        found = self.at_rate()
        return next((one for one in found if kept_of(one.measured) == "pass"), found[0])

    @property
    def at_most(self) -> int | None:
        proven = [one.limit for one in self.at_rate() if one.limit is not None and kept_of(one.measured) == "pass"]
        return max(proven, default=None)

    @property
    def swept(self) -> list[ArmResult]:
        """Every rate, under the limit that the first one was asked with."""
        own = self.own
        return [one for one in own if one.limit == own[0].limit]

    def knee(self) -> Knee | None:
        """Of the rates under the limit that the sweep was made with; None where one rate alone was asked."""
        swept = self.swept
        if len({one.rate for one in swept}) < 2 or self.result.partial:
            return None
        return knee_among(swept, self.rules.objectives)

    def policy(self, best: ArmResult) -> str:
        """How many may be in flight, and what more of them at a time do to an answer."""
        effect = batching(best.measured)
        if not self.rules.objectives or self.result.partial:
            return ""
        latency, q = watched(self.rules.objectives)
        tried = [one for one in self.at_rate() if one.limit is not None]
        points = []
        for one in tried:
            value = one.measured.at(latency, q)
            kept, limit = kept_of(one.measured), one.limit or 0
            points.append(LimitPoint(limit=limit, kept=kept, latency_s=value.value if value else None))
        if not points:
            return effect
        told = policy_of(self.arm, points, f"{latency} p{100 * q:g}")
        if told.limit is None:
            return ""
        beyond = told.sentence.partition("(")[2].removesuffix(")")
        return f"run it with at most {told.limit} in flight ({beyond})" + (f"; {effect}" if effect else "")


def batching(measured: Measured) -> str:
    """How much longer a token takes in the largest batches than in the smallest; empty where that is not known.

    A request's own time, from its sending on: what the batch does to it, not the queue.
    """
    held = [one for one in measured.batches if one.tpot is not None and one.tpot.value is not None]
    if len(held) < 2:
        return ""
    small, large = held[0], held[-1]
    return f"a token (p95) takes {_token(small)} {_beside(small)}, {_token(large)} {_beside(large)}"


def _token(one: BatchTimes) -> str:
    return shown(one.tpot.value if one.tpot else None)


def _beside(one: BatchTimes) -> str:
    return "alone" if one.high == 1 else f"with {one.high if one.low == one.high else f'{one.low}-{one.high}'} together"


def _baseline(result: LoadResult, best: ArmResult) -> Measured | None:
    """The first arm on the same requests."""
    beside = (result.arms[0], best.rate, best.limit)
    return next((one.measured for one in result.results if (one.arm, one.rate, one.limit) == beside), None)


def _each(rate: float | None, measured: Measured) -> float | None:
    """Tokens of one request in the mean; None where they are not counted."""
    return None if rate is None or not measured.request_rate else rate / measured.request_rate


def _lighter(measured: Measured, rules: TargetRules) -> str:
    """Which requests were much shorter than the target's, if any were."""
    place = rules.place
    asked = {"prompts": (measured.prompt_rate, place.prompt), "answers": (measured.token_rate, place.answer)}
    found = [
        f"{what} had {each:.0f} tokens, and the target says {wanted}"
        for what, (rate, wanted) in asked.items()
        if (each := _each(rate, measured)) is not None and each < LIGHTER * wanted
    ]
    return " and ".join(found)
