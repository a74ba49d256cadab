"""Compare a variant with its baseline, capability by capability, and stop each as soon as the test has decided.

    trial.py    the way of one capability through its cases
    pairs.py    both sides' answers to them, scored

Answers come from the journal where it has them, so a killed run ends in the identical verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantgate.engines import Engine
from quantgate.evaluate.answers import Answers, prompt_of
from quantgate.evaluate.evidence import Comparison, Gate
from quantgate.evaluate.pairs import MAX_FLIPS, Pair, Pairs, flips_of, judge, mean, slices_of
from quantgate.evaluate.suites import Case
from quantgate.evaluate.trial import BATCH, Answered, Task, Trial, decided, look, visiting_order

PIECE = 128  # cases that an engine is asked together, and that a killed run may have to ask again
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
    trials = [Trial(task, exhaustive=exhaustive) for task in tasks]
    available = sum(len(trial.whole.order) for trial in trials)
    while running := [trial for trial in trials if trial.running]:
        settled = sum(len(trial.seen) if trial in running else len(trial.whole.order) for trial in trials)

        def tell(answered: int, settled: int = settled, running: Sequence[Trial] = running) -> None:
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


__all__ = [
    "BATCH",
    "MAX_FLIPS",
    "PIECE",
    "Pair",
    "Pairs",
    "Side",
    "Task",
    "compare",
    "compare_all",
    "decided",
    "flips_of",
    "judge",
    "look",
    "mean",
    "slices_of",
    "visiting_order",
]
