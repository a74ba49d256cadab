"""Compare a variant with its baseline on one capability, case by case, and stop as soon as the test has decided.

Cases are visited in an order fixed by the seed before anything runs, in batches. After each batch the registered test
looks at all pairs so far; the e-process keeps its error rate however often it is looked at, the fixed-n tests look
once, at the end. Answers come from the journal where it has them, so a killed run ends in the identical verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quantgate import stats
from quantgate.engines import Completion, Engine, Failure
from quantgate.errors import DataError
from quantgate.evaluate import scorers
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.evidence import Comparison, Flip, Gate, SliceResult, gaps
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.suites import Case
from quantgate.records import digest_of

BATCH = 50  # cases between two looks
MAX_FLIPS = 40  # kept per capability with their full texts


@dataclass(frozen=True)
class Side:
    """An engine and the journal of its answers."""

    engine: Engine
    answers: Answers


@dataclass
class Pair:
    case: Case
    baseline: Score
    variant: Score
    baseline_text: str
    variant_text: str


@dataclass
class Pairs:
    """What has been seen so far of one capability."""

    scored: list[Pair] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)

    def add(self, case: Case, base: Completion | Failure, other: Completion | Failure) -> None:
        """A failure of the baseline voids the case; a failure of the variant counts as a loss, and is named."""
        baseline, variant = judge(case, base), judge(case, other)
        if isinstance(baseline, Unscored):
            self.unscored.append(f"{case.id}: baseline: {baseline.reason}")
            return
        if isinstance(variant, Unscored):
            self.unscored.append(f"{case.id}: variant: {variant.reason}")
            variant = Score(value=0.0, because=f"not scored: {variant.reason}")
        texts = [one.text if isinstance(one, Completion) else "" for one in (base, other)]
        self.scored.append(Pair(case, baseline, variant, *texts))

    def scores(self) -> tuple[list[float], list[float]]:
        return [pair.baseline.value for pair in self.scored], [pair.variant.value for pair in self.scored]


def judge(case: Case, answer: Completion | Failure) -> Score | Unscored:
    """Score one answer; what the engine could not answer is unscored, an empty answer is wrong."""
    if isinstance(answer, Failure):
        return Unscored(reason=answer.reason)
    return scorers.get(case.scorer)(answer.text, case.reference)


def visiting_order(cases: Sequence[Case], seed: int) -> list[Case]:
    """The seeded order, independent of how the cases were listed and of which others are among them."""
    return sorted(cases, key=lambda case: digest_of(["visit", seed, case.digest]))


def compare(
    gate: Gate,
    cases: Sequence[Case],
    baseline: Side,
    variant: Side,
    *,
    hard: Sequence[Case] = (),
    progress: Callable[[int, int], None] | None = None,
    exhaustive: bool = False,
) -> Comparison:
    """Judge one variant on one capability. ``progress(done, available)`` is called after every batch.

    ``exhaustive`` asks every case whatever the test says meanwhile. Raises DataError when there is no case, UsageError
    when a test for scores of 0 and 1 meets another score (after asking; the answers are kept).
    """
    if not cases:
        raise DataError(f"{gate.capability}: the suite is empty, so there is nothing to compare; give it cases")
    order, pairs, asked = visiting_order(cases, gate.seed), Pairs(), 0
    finding = look(gate, pairs)
    while asked < len(order):
        batch = order[asked : asked + BATCH]
        _answer(batch, baseline, variant, pairs)
        asked += len(batch)
        if progress:
            progress(asked, len(order))
        if gate.test == "eprocess":
            finding = look(gate, pairs)
            if not exhaustive and decided(finding, pairs, asked):
                break
    if gate.test != "eprocess":
        finding = look(gate, pairs)
    harder = Pairs()
    for start in range(0, len(hard), BATCH):
        _answer(hard[start : start + BATCH], baseline, variant, harder)
    base, other = pairs.scores()
    return Comparison(
        gate=gate,
        suite_digest=digest_of([case.digest for case in order]),
        n=len(base),
        asked=asked,
        available=len(order),
        unscored=tuple(pairs.unscored),
        baseline_score=mean(base),
        variant_score=mean(other),
        finding=finding,
        slices=tuple(slices_of(pairs.scored)),
        flips=tuple(flips_of(pairs.scored)),
        hard=tuple(slices_of(harder.scored)),
    )


def decided(finding: stats.Finding, pairs: Pairs, asked: int) -> bool:
    """Whether more cases cannot be needed; a pass waits while too many of its cases are unscored."""
    if finding.verdict == "pass":
        return not gaps(len(pairs.unscored), asked)
    return finding.verdict == "fail"


def _answer(batch: Sequence[Case], baseline: Side, variant: Side, pairs: Pairs) -> None:
    first = baseline.answers.of(baseline.engine, batch)
    second = variant.answers.of(variant.engine, batch)
    for case, base, other in zip(batch, first, second, strict=True):
        pairs.add(case, base, other)


def look(gate: Gate, pairs: Pairs) -> stats.Finding:
    base, other = pairs.scores()
    return stats.judge(
        base,
        other,
        gate.margin,
        relative=gate.relative,
        test=gate.test,
        alpha=gate.alpha,
        pass_alpha=gate.pass_alpha,
    )


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
