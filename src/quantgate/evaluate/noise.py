"""The noise floor (A/A): the baseline asked the same cases again, so that a flip can be told from what always flips.

Sums in floating point depend on what else stands in a batch, and a serving runtime batches as requests come. The
second time the same prompts are asked one after another from the back, a few together, so other rows stand beside
each: what changes then is not the variant's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.engines import Completion, Engine, Failure, Identity, KernelPath, Prompt
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Pairs, Side, Task, visiting_order
from quantgate.evaluate.evidence import NoiseFloor, Pace
from quantgate.stats.intervals import clopper_pearson

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = 17  # prompts of the second asking that go to the engine at a time
HOW = f"asked from the back, {TOGETHER} at a time"
CONFIDENCE = 0.95


class Again:
    """An engine asked under other circumstances: the same in everything but its batches. See ``engines.Engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kernels: tuple[KernelPath, ...] = engine.kernels
        runtime = (*engine.identity.runtime, f"again={HOW}")
        self.identity: Identity = engine.identity.model_copy(update={"runtime": runtime})

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        backwards = list(reversed(prompts))
        made = [
            answer
            for start in range(0, len(backwards), TOGETHER)
            for answer in self.engine.generate(backwards[start : start + TOGETHER])
        ]
        return list(reversed(made))

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        return self.engine.logits(ids, at)

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self.engine.encode(turns)


def noise_floor(
    tasks: Sequence[Task],
    baseline: Side,
    folder: Path,
    cases: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[NoiseFloor]:
    """The baseline against itself on the first ``cases`` of every capability in the order of its seed.

    Both sets of answers are kept in ``folder``, so a run that goes on asks nothing twice. A case that either asking
    left without a score is left out; a capability of which none is left has no row. 0 cases: no rows.
    """
    if not cases:
        return []
    again = Side(Again(baseline.engine), Answers(folder, Again(baseline.engine).identity))
    found, done, total = list[NoiseFloor](), 0, sum(min(cases, len(task.cases)) for task in tasks)
    for task in tasks:
        chosen = visiting_order(task.cases, task.gate.seed)[:cases]
        first = baseline.answers.of(baseline.engine, chosen)
        second = again.answers.of(again.engine, chosen)
        pairs = Pairs()
        for case, one, other in zip(chosen, first, second, strict=True):
            if isinstance(one, Completion) and isinstance(other, Completion):
                pairs.add(case, one, other)
        done += len(chosen)
        progress(done, total)
        if pairs.scored:
            found.append(_floor(task.gate.capability, pairs))
    return found


def _floor(capability: str, pairs: Pairs) -> NoiseFloor:
    seen = pairs.scored
    flips = sum(pair.baseline.value != pair.variant.value for pair in seen)
    low, high = clopper_pearson(flips, len(seen), 1 - CONFIDENCE)
    return NoiseFloor(
        capability=capability,
        n=len(seen),
        flips=flips,
        differ=sum(pair.baseline_text != pair.variant_text for pair in seen),
        low=low,
        high=high,
        how=HOW,
    )


def pace_of(answers: Iterable[Completion]) -> Pace | None:
    """What the engine's clock said over ``answers``; None where it told no time."""
    held = list(answers)
    if not any(one.decode_s for one in held):
        return None
    return Pace(
        cases=len(held),
        tokens=sum(one.tokens for one in held),
        prefill_s=round(sum(one.prefill_s for one in held), 6),
        decode_s=round(sum(one.decode_s for one in held), 6),
        drafted=sum(one.drafted for one in held),
        accepted=sum(one.accepted for one in held),
    )
