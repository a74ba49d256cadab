"""Quantize or distil? A student at 8 bits against the whole model at 4 bits, at equal bytes, capability by capability.

    python -m benchmarks students [--quick] [--write]

The student is cut out of the built-in model by measured importance and trained against it; both are then quantized
after training, and asked the same cases of the gate split, which neither training nor calibration draws from. Bytes are
those of all tensors, embeddings and scales included: the whole model has groups of 128, and of the student's group
sizes the one nearest in bytes is taken. A killed run goes on in ``runs/bench-students``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.tables import Table
from quantgate.calibrate import choose
from quantgate.evaluate import suites
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, compare_all
from quantgate.evaluate.evidence import Comparison, Gate
from quantgate.evaluate.trial import Task
from quantgate.models import REFERENCE, OpenedModel, open_model
from quantgate.pipeline.runtimes import TORCH, engine_for
from quantgate.quantize import Artifact, Recipe, baseline
from quantgate.quantize.manifest import Training
from quantgate.quantize.sweep import sweep
from quantgate.stats.intervals import clopper_pearson
from quantgate.stats.paired import PairedCounts, limits
from quantgate.train import Row
from quantgate.train.data import training_set
from quantgate.train.distill import distill
from quantgate.train.options import DistillOptions

CACHE = Path(__file__).parents[1] / "runs" / "bench-students"
DEPTH = 3  # of the built-in model's 6 blocks
FULL = DistillOptions(layers=DEPTH, steps=900, documents=6000, max_tokens=1024, batch_tokens=2048, evaluate_every=100)
QUICK = FULL.model_copy(update={"steps": 4, "documents": 100, "tune": 16, "max_tokens": 512})
CASES = 200  # of every capability
SAMPLES = 128  # of calibration
WHOLE, SMALL = Recipe(scheme="W4A16", method="gptq"), Recipe(scheme="W8A16", method="gptq")
SIZES: tuple[Any, ...] = ("channel", 256, 128, 64, 32)  # of the student's groups
COLUMNS = ("capability", "cases", "baseline", "whole model", "student", "student minus whole", "wins")


def run(*, quick: bool = False, threads: int = 2, say: Callable[[str], None] = print) -> list[Table]:
    """One table; ``threads`` are torch's."""
    import torch

    torch.set_num_threads(threads)
    return [Match(quick, say).table()]


@dataclass(frozen=True)
class Match:
    """The student against the whole model."""

    quick: bool
    say: Callable[[str], None]

    @property
    def out(self) -> Path:
        return CACHE / "quick" if self.quick else CACHE

    @cached_property
    def model(self) -> OpenedModel:
        return open_model(REFERENCE)

    @cached_property
    def student(self) -> OpenedModel:
        options, folder = QUICK if self.quick else FULL, self.out / "students" / f"student-l{DEPTH}"
        data = training_set(self.model, suites=suites.names(), options=options)
        return open_model(distill(self.model, options, data, folder, tell=self._told, device="cpu"))

    def _told(self, stage: str, done: int, total: int, row: Row | None = None) -> None:
        if row is None or row.kl is not None:
            figures = "" if row is None else f", loss {row.loss:.4f}, tune KL {row.kl:.4f}, {row.seconds:.0f} s"
            self.say(f"student: {stage} {done}/{total}{figures}")

    @cached_property
    def whole(self) -> Artifact:
        """The whole model at 4 bits."""
        return sweep(self.model, _samples(self.model), [WHOLE], self.out / "artifacts")[0]

    @cached_property
    def small(self) -> Artifact:
        """The student at 8 bits, of all group sizes the one nearest in bytes."""
        recipes = [SMALL.model_copy(update={"group_size": size}) for size in SIZES]
        made = sweep(self.student, _samples(self.model), recipes, self.out / "artifacts" / f"l{DEPTH}")
        return min(made, key=lambda one: abs(one.manifest.tensor_bytes - self.whole.manifest.tensor_bytes))

    def compared(self, first: Side, second: Side, what: str) -> list[Comparison]:
        """All capabilities, on every case."""
        began = time.monotonic()
        tasks = [_task(name, 20 if self.quick else CASES) for name in suites.names()]
        found = compare_all(tasks, first, second, exhaustive=True)
        self.say(f"{what}: {time.monotonic() - began:.0f} s")
        return found

    def side(self, model: OpenedModel, artifact: Artifact) -> Side:
        engine, _ = engine_for(model, artifact, TORCH, self.out)
        return Side(engine, Answers(self.out / "answers", engine.identity))

    def table(self) -> Table:
        base, whole = self.side(self.model, baseline(self.model)), self.side(self.model, self.whole)
        alone = self.compared(base, whole, "whole model with the baseline")
        against = self.compared(whole, self.side(self.student, self.small), "student with the whole model")
        rows = tuple(_row(one, other) for one, other in zip(alone, against, strict=True))
        wins = [row[-1] for row in rows]
        learned = Training.load(self.student.path / "training.json")
        sizes = self.whole.manifest.tensor_bytes, self.small.manifest.tensor_bytes
        notes = (
            f"Whole model: {self.whole.name}, {sizes[0]:,} bytes of tensors; student of {DEPTH} of {self.model.depth} "
            f"blocks: {self.small.name}, {sizes[1]:,} bytes ({sizes[1] / sizes[0] - 1:+.1%}). Scores and differences "
            "in percent, with exact 95 % intervals, each by itself; a win is a difference whose interval leaves out 0.",
            f"The student: {learned.steps} steps, {learned.tokens:,} tokens, the state of step {learned.best} kept; KL "
            f"on the tune split {learned.before:.3f} before and {learned.after:.4f} after. {_gone(self.student.path)}",
            f"Student {wins.count('student')}, whole model {wins.count('whole')}, undecided {wins.count('neither')}.",
        )
        title = f"A student of {DEPTH} of {self.model.depth} blocks at 8 bits, the whole model at 4, at equal bytes"
        return Table(COLUMNS, rows, title=title, notes=notes)


def _gone(folder: Path) -> str:
    removed = json.loads((folder / "importance.json").read_bytes())["body"]["removed"]
    each = ", ".join(f"{one['block']} ({one['kl'][str(one['block'])]:.2g})" for one in removed)
    return f"Blocks taken out, in order, with the KL without them before training: {each}."


def _task(name: str, count: int) -> Task:
    gate = Gate(capability=name, suite=name, margin=0.03, relative=False, cases=count)
    return Task(gate, suites.cases(name, "gate", count, seed=0))


def _row(with_whole: Comparison, against: Comparison) -> tuple[str, ...]:
    found = against.finding
    counts = PairedCounts(found.n, found.gains, found.losses)
    low, high = limits(counts, exact=True, pass_alpha=0.025, fail_alpha=0.025)
    assert high is not None  # an absolute change is bounded
    wins = "student" if low > 0 else "whole" if high < 0 else "neither"
    change = f"{100 * counts.change:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    shown = [
        _score(one, against.n) for one in (with_whole.baseline_score, against.baseline_score, against.variant_score)
    ]
    return (against.gate.capability, str(against.n), *shown, change, wins)


def _score(score: float | None, n: int) -> str:
    if score is None:
        return "none"
    low, high = clopper_pearson(round(score * n), n, 0.05)
    return f"{100 * score:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _samples(model: OpenedModel) -> list[list[int]]:
    """Conversations of the suites' calibrate split, in turn."""
    found: list[Sequence[int]] = []
    each = -(-SAMPLES // len(suites.names()))
    for name in suites.names():
        for case in suites.cases(name, "calibrate", each, seed=0):
            turns = (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
            found += choose(model, [turns], source="calibrate", samples=1, max_tokens=512, seed=0).ids
    return [list(one) for one in found]
