"""Both sides' answers to the same cases: their scores, slices, and the cases whose score changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from quantgate.engines import Completion, Failure
from quantgate.evaluate import scorers
from quantgate.evaluate.evidence import Flip, SliceResult
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.suites import Case

MAX_FLIPS = 40  # kept per capability with their full texts


@dataclass
class Pair:
    case: Case
    baseline: Score
    variant: Score
    baseline_text: str
    variant_text: str
    lost: bool = False  # the variant's answer was lost on its way: it counts against a pass, and never for a loss


@dataclass
class Pairs:
    """What has been seen so far of one capability."""

    scored: list[Pair] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)

    def add(self, case: Case, base: Completion | Failure, other: Completion | Failure) -> None:
        """A failure of the baseline voids the case; a failure of the variant counts as a loss, and is named.

        An answer that was lost on its way may stand for a pass no more than a loss may, and for a loss no more than a
        case that was never asked.
        """
        baseline, variant = judge(case, base), judge(case, other)
        if isinstance(baseline, Unscored):
            self.unscored.append(f"{case.id}: baseline: {baseline.reason}")
            return
        if isinstance(variant, Unscored):
            self.unscored.append(f"{case.id}: variant: {variant.reason}")
            variant = Score(value=0.0, because=f"not scored: {variant.reason}")
        texts = [one.text if isinstance(one, Completion) else "" for one in (base, other)]
        lost = isinstance(other, Failure) and other.lost
        self.scored.append(Pair(case, baseline, variant, texts[0], texts[1], lost))

    def scores(self, *, lost: bool = True) -> tuple[list[float], list[float]]:
        """Both sides' scores; without ``lost``, only those of answers that came."""
        seen = [pair for pair in self.scored if lost or not pair.lost]
        return [pair.baseline.value for pair in seen], [pair.variant.value for pair in seen]


def judge(case: Case, answer: Completion | Failure) -> Score | Unscored:
    """Score one answer; what the engine could not answer is unscored, an empty answer is wrong."""
    if isinstance(answer, Failure):
        return Unscored(reason=answer.reason)
    return scorers.get(case.scorer)(answer.text, case.reference)


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def slices_of(pairs: Sequence[Pair]) -> list[SliceResult]:
    """Paired results of every declared slice, in name order; and of all cases together first."""
    groups: dict[str, list[Pair]] = {"all": list(pairs)} if pairs else {}
    for pair in pairs:
        for name in pair.case.slices:
            groups.setdefault(name, []).append(pair)
    ordered = sorted(groups, key=lambda name: (name != "all", name))
    return [_slice(name, groups[name]) for name in ordered]


def _slice(name: str, pairs: Sequence[Pair]) -> SliceResult:
    moves = [pair.variant.value - pair.baseline.value for pair in pairs]
    return SliceResult(
        name=name,
        n=len(pairs),
        baseline=sum(pair.baseline.value for pair in pairs) / len(pairs),
        variant=sum(pair.variant.value for pair in pairs) / len(pairs),
        gains=sum(move > 0 for move in moves),
        losses=sum(move < 0 for move in moves),
    )


def flips_of(pairs: Sequence[Pair]) -> list[Flip]:
    """The cases whose score changed, losses first, at most MAX_FLIPS."""
    moved = [pair for pair in pairs if pair.variant.value != pair.baseline.value]
    moved.sort(key=lambda pair: pair.variant.value - pair.baseline.value)
    return [_flip(pair) for pair in moved[:MAX_FLIPS]]


def _flip(pair: Pair) -> Flip:
    case = pair.case
    worse = pair.variant if pair.variant.value < pair.baseline.value else pair.baseline
    return Flip(
        case=case.id,
        case_digest=case.digest,
        prompt="\n".join(f"{message.role}: {message.content}" for message in case.messages),
        reference=case.answer if case.answer is not None else json.dumps(case.reference, ensure_ascii=False),
        baseline_answer=pair.baseline_text,
        variant_answer=pair.variant_text,
        baseline_score=pair.baseline.value,
        variant_score=pair.variant.value,
        because=worse.because,
        slices=case.slices,
    )
