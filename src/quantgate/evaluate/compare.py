"""Compare a variant with its baseline, capability by capability, and stop each as soon as the test has decided.

Cases are visited in an order fixed by the seed before anything runs, in batches. After each batch the registered test
looks at all pairs so far; the e-process keeps its error rate however often it is looked at, the fixed-n tests look
once, at the end. A slice that is judged by itself visits its own cases in the same order until it is decided, too;
once the whole capability has failed nothing more is asked for it.

Answers come from the journal where it has them, so a killed run ends in the identical verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quantgate import stats
from quantgate.engines import Completion, Engine, Failure
from quantgate.errors import DataError
from quantgate.evaluate import scorers
from quantgate.evaluate.answers import Answers, prompt_of
from quantgate.evaluate.degenerate import Controls, judge_scores
from quantgate.evaluate.evidence import Comparison, Flip, Gate, SliceResult, gaps
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.suites import Case
from quantgate.records import digest_of

EARLY = (10, 20, 40)  # the first looks, after so many cases: a collapse is seen at once
BATCH = 50  # cases of a capability between two looks from then on
PIECE = 128  # cases that an engine is asked together, and that a killed run may have to ask again
MAX_FLIPS = 40  # kept per capability with their full texts
Answer = Completion | Failure
Answered = dict[str, list[Answer]]  # case digest -> baseline's and variant's answers
Progress = Callable[[int, int, list[str]], None]  # cases done, of how many, capabilities that are undecided


@dataclass(frozen=True)
class Side:
    """An engine and the journal of its answers."""

    engine: Engine
    answers: Answers

    def ahead(self, pieces: Sequence[Sequence[Case]]) -> None:
        """Let an engine that works elsewhere begin on all that it is about to be asked."""
        begin = getattr(self.engine, "begin", None)
        if begin is None:
            return
        for piece in pieces:
            if missing := self.answers.missing(piece):
                begin([prompt_of(case) for case in missing])


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


def visiting_order(cases: Sequence[Case], seed: int) -> list[Case]:
    """The seeded order, independent of how the cases were listed and of which others are among them."""
    return sorted(cases, key=lambda case: digest_of(["visit", seed, case.digest]))


@dataclass(frozen=True)
class Task:
    """One capability: how it is judged, on which cases; ``hard`` ones are asked and not judged."""

    gate: Gate
    cases: Sequence[Case]
    hard: Sequence[Case] = ()


def compare(
    gate: Gate,
    cases: Sequence[Case],
    baseline: Side,
    variant: Side,
    *,
    hard: Sequence[Case] = (),
    progress: Progress | None = None,
    exhaustive: bool = False,
) -> Comparison:
    """``compare_all`` of one capability."""
    task = Task(gate, cases, hard)
    return compare_all([task], baseline, variant, progress=progress, exhaustive=exhaustive)[0]


def compare_all(
    tasks: Sequence[Task],
    baseline: Side,
    variant: Side,
    *,
    progress: Progress | None = None,
    exhaustive: bool = False,
) -> list[Comparison]:
    """Judge one variant on several capabilities. ``progress(done, available, undecided)`` is called after every piece.

    In each round the next cases of every undecided capability are asked together, the short prompts first and PIECE at
    a time: an engine is given long batches of like prompts, and each capability stops as if it were alone.
    ``exhaustive`` asks every case whatever the test says meanwhile. Raises DataError when there is no case, UsageError
    when a test for scores of 0 and 1 meets another score (after asking; the answers are kept).
    """
    trials = [_Trial(task, exhaustive=exhaustive) for task in tasks]
    available = sum(len(trial.whole.order) for trial in trials)
    while running := [trial for trial in trials if trial.running]:
        settled = sum(len(trial.seen) if trial in running else len(trial.whole.order) for trial in trials)

        def tell(answered: int, settled: int = settled, running: Sequence[_Trial] = running) -> None:
            if progress:
                done = min(settled + answered, available)
                progress(done, available, [trial.whole.gate.capability for trial in running])

        found = _answers([case for trial in running for case in trial.batch], baseline, variant, tell)
        for trial in running:
            trial.take(found)
    if progress:
        progress(available, available, [])
    harder = _answers([case for trial in trials for case in trial.hard], baseline, variant)
    return [trial.comparison(harder) for trial in trials]


class _Course:
    """A gate on its way: its cases in their order, and what has been seen so far."""

    def __init__(self, gate: Gate, cases: Sequence[Case], *, exhaustive: bool) -> None:
        if not cases:
            raise DataError(f"{gate.capability}: the suite is empty, so there is nothing to compare; give it cases")
        self.gate, self.exhaustive = gate, exhaustive
        self.order, self.pairs, self.asked = visiting_order(cases, gate.seed), Pairs(), 0
        self.finding = look(gate, self.pairs)
        self.batch = self._next()  # what is to be asked next; nothing once it is decided

    def _next(self) -> list[Case]:
        """The cases up to the next look."""
        looks = EARLY if self.gate.test == "eprocess" and not self.exhaustive else ()
        later = BATCH * (self.asked // BATCH + 1)
        return self.order[self.asked : min([later, *(look for look in looks if look > self.asked)])]

    def take(self, answers: Answered) -> None:
        """Look at the answers to the batch, and choose the next one."""
        for case in self.batch:
            self.pairs.add(case, *answers[case.digest])
        self.asked += len(self.batch)
        self.batch = self._next()
        if self.gate.test == "eprocess":
            self.finding = look(self.gate, self.pairs)
            if not self.exhaustive and decided(self.finding, self.pairs, self.asked):
                self.batch = []
        elif not self.batch:
            self.finding = look(self.gate, self.pairs)

    def go_on(self) -> None:
        """Ask more of what is decided, where there is more."""
        self.batch = [] if self.exhaustive else self._next()

    def comparison(self) -> Comparison:
        base, other = self.pairs.scores()
        return Comparison(
            gate=self.gate,
            suite_digest=digest_of([case.digest for case in self.order]),
            n=len(base),
            asked=self.asked,
            available=len(self.order),
            unscored=tuple(self.pairs.unscored),
            baseline_score=mean(base),
            variant_score=mean(other),
            finding=self.finding,
            slices=tuple(slices_of(self.pairs.scored)),
            flips=(),
        )


class _Trial:
    """One capability: the course of the whole, and one for each of its slices that is judged by itself."""

    def __init__(self, task: Task, *, exhaustive: bool) -> None:
        self.hard, self.seen = task.hard, set[str]()
        self.whole = _Course(task.gate, task.cases, exhaustive=exhaustive)
        self.slices = [
            _Course(
                task.gate.of_slice(one), [case for case in task.cases if one.name in case.slices], exhaustive=exhaustive
            )
            for one in task.gate.slices
            if one.judged
        ]
        self.controls, self.blind = Controls(task.gate), tuple[str, ...]()

    @property
    def running(self) -> list[_Course]:
        return [course for course in (self.whole, *self.slices) if course.batch]

    @property
    def batch(self) -> list[Case]:
        return [case for course in self.running for case in course.batch]

    def take(self, answers: Answered) -> None:
        self.seen |= {case.digest for case in self.batch}
        for course in self.running:
            course.take(answers)
        if self.whole.finding.verdict == "fail" and not self.whole.batch:
            for course in self.slices:
                course.batch = []  # what has failed is not saved by a slice
        if not self.running:
            self._control()

    def _control(self) -> None:
        """Whether a degenerate model would have failed on what has been seen: while it would not, no pass counts.

        Asked of the capability and its slices together: what always refuses keeps a slice that asks to abstain.
        """
        courses = (self.whole, *self.slices)
        if any(course.finding.verdict == "fail" for course in courses):
            return
        pairs = self.pairs
        self.blind = self.controls.blind([pair.case for pair in pairs], [pair.baseline.value for pair in pairs])
        if self.blind and all(course.finding.verdict == "pass" for course in courses):
            self.whole.go_on()

    @property
    def pairs(self) -> list[Pair]:
        """What was seen by the whole and by its slices, each once, in the order of the whole."""
        found = {pair.case.digest: pair for course in (self.whole, *self.slices) for pair in course.pairs.scored}
        return [found[case.digest] for case in self.whole.order if case.digest in found]

    def comparison(self, answers: Answered) -> Comparison:
        """``answers`` are those to the hard cases."""
        harder = Pairs()
        for case in self.hard:
            harder.add(case, *answers[case.digest])
        update = {
            "flips": tuple(flips_of(self.pairs)),
            "hard": tuple(slices_of(harder.scored)),
            "judged": tuple(course.comparison() for course in self.slices),
            "asked_for_slices": len(self.seen) - self.whole.asked,
            "blind": self.blind,
        }
        return self.whole.comparison().model_copy(update=update)


def _answers(
    cases: Sequence[Case], baseline: Side, variant: Side, tell: Callable[[int], None] = lambda _answered: None
) -> Answered:
    """What both sides answer, by the digest of the case; ``tell`` is told how many have been answered.

    Pieces are cut before anyone looks at what the journals hold, so a run that goes on sees those of an unbroken one.
    """
    once = {case.digest: case for case in cases}.values()  # two capabilities may share one
    by_length = sorted(once, key=lambda case: sum(len(message.content) for message in case.messages))
    found, pieces = Answered(), [by_length[start : start + PIECE] for start in range(0, len(by_length), PIECE)]
    for side in (baseline, variant):
        side.ahead(pieces)
    for piece in pieces:
        first = baseline.answers.of(baseline.engine, piece)
        second = variant.answers.of(variant.engine, piece)
        found |= {case.digest: both for case, *both in zip(piece, first, second, strict=True)}
        tell(len(found))
    return found


def decided(finding: stats.Finding, pairs: Pairs, asked: int) -> bool:
    """Whether more cases cannot be needed; a pass waits while too many of its cases are unscored."""
    if finding.verdict == "pass":
        return not gaps(len(pairs.unscored), asked)
    return finding.verdict == "fail"


def look(gate: Gate, pairs: Pairs) -> stats.Finding:
    """What the test says; a loss that only lost answers would prove is not proven."""
    found = judge_scores(gate, *pairs.scores())
    if found.verdict == "fail" and any(pair.lost for pair in pairs.scored):
        without = judge_scores(gate, *pairs.scores(lost=False))
        if without.verdict != "fail":
            return found.model_copy(update={"verdict": "inconclusive"})
    return found


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
