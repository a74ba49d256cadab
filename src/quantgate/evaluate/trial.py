"""The way of one capability through its cases: which are asked next, and when the test has decided.

Cases are visited in an order fixed by the seed before anything runs, in batches. After each batch the registered test
looks at all pairs so far; the e-process keeps its error rate however often it is looked at, the fixed-n tests look
once, at the end. A slice that is judged by itself visits its own cases in the same order until it is decided, too;
once the whole capability has failed nothing more is asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantgate import stats
from quantgate.engines import Completion, Failure
from quantgate.errors import DataError
from quantgate.evaluate.degenerate import Controls, judge_scores
from quantgate.evaluate.evidence import Comparison, Gate, gaps
from quantgate.evaluate.pairs import Pair, Pairs, flips_of, mean, slices_of
from quantgate.evaluate.suites import Case
from quantgate.records import digest_of

EARLY = (10, 20, 40)  # the first looks, after so many cases: a collapse is seen at once
BATCH = 50  # cases of a capability between two looks from then on
Answer = Completion | Failure
Answered = dict[str, list[Answer]]  # case digest -> baseline's and variant's answers


@dataclass(frozen=True)
class Task:
    """One capability: how it is judged, on which cases; ``hard`` ones are asked and not judged."""

    gate: Gate
    cases: Sequence[Case]
    hard: Sequence[Case] = ()


def visiting_order(cases: Sequence[Case], seed: int) -> list[Case]:
    """The seeded order, independent of how the cases were listed and of which others are among them."""
    return sorted(cases, key=lambda case: digest_of(["visit", seed, case.digest]))


class Course:
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


class Trial:
    """One capability: the course of the whole, and one for each of its slices that is judged by itself."""

    def __init__(self, task: Task, *, exhaustive: bool) -> None:
        self.hard, self.seen = task.hard, set[str]()
        self.whole = Course(task.gate, task.cases, exhaustive=exhaustive)
        self.slices = [
            Course(
                task.gate.of_slice(one), [case for case in task.cases if one.name in case.slices], exhaustive=exhaustive
            )
            for one in task.gate.slices
            if one.judged
        ]
        self.controls, self.blind = Controls(task.gate), tuple[str, ...]()

    @property
    def running(self) -> list[Course]:
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
