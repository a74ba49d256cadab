"""What a run will train, told before anything is spent: shapes, bytes, and about how long.

Nothing here trains. A student's bytes follow from its shape and those of trained codes from rounding alone, to the
byte; seconds are an estimate, from operations and the rate at which this machine multiplies matrices.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.models import OpenedModel
from quantgate.pipeline.students import students_of
from quantgate.pipeline.variants import Import, Mixture, Student, called, rounded, training_of, trains
from quantgate.quantize.manifest import Recipe
from quantgate.records import Record
from quantgate.train.options import DistillOptions, QatOptions, TrainOptions

FORWARD, BACKWARD = 2, 4  # operations a weight and token
SQUARE, MEASURED_S = 1024, 0.3  # of the product whose rate is measured
SLOWER = 2.0  # times as long as plain products: attention, norms, rounding, optimizer; assumed, not measured


class PlannedTraining(Record):
    """One training of a run."""

    name: str  # of the variant, or of the student
    what: str  # in words
    steps: int
    tokens: int  # that those steps see
    operations: float
    seconds: float | None  # an estimate
    bytes: int  # of all tensors that it writes


@dataclass(frozen=True)
class Asked:
    """What the variants of a release train; students once each."""

    recipes: list[Recipe]  # of the baseline, method qat
    shapes: dict[str, DistillOptions]  # by their digests
    students: list[Student]  # whose codes are trained
    rounded: list[Student]  # that are distilled here, and rounded after it

    def __bool__(self) -> bool:
        return bool(self.recipes or self.shapes or self.students)

    @property
    def options(self) -> list[TrainOptions]:
        """Of every training."""
        return [*map(training_of, [*self.recipes, *(one.recipe for one in self.students)]), *self.shapes.values()]


def asked_of(variants: Sequence[Recipe | Import | Mixture | Student]) -> Asked:
    students = students_of(variants)
    return Asked(
        [one for one in variants if isinstance(one, Recipe) and trains(one)],
        {one.shape.digest: one.shape for one in students if one.shape is not None},
        [one for one in students if trains(one.recipe)],
        [one for one in students if one.shape is not None and one.made and not trains(one.recipe)],
    )


def outline_of(model: OpenedModel, shape: DistillOptions) -> OpenedModel:
    """The student that ``model`` would have, without weights. Raises UsageError for a shape that cannot be cut."""
    from quantgate.models.outline import outline
    from quantgate.train._shapes import configured
    from quantgate.train.prune import wanted_shape

    wanted = wanted_shape(model, shape)
    types = {entry.dtype for entry in model.files.entries.values()}
    made = configured(model.config, wanted, tuple(range(wanted.layers))).to_dict()
    made["dtype"] = {"F16": "float16", "F32": "float32"}.get(next(iter(types)), "bfloat16")
    with tempfile.TemporaryDirectory(prefix="quantgate-") as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(made))
        found = outline(file)
    found.ref = called(shape)
    return found


def check(model: OpenedModel, asked: Asked, out: Path) -> dict[str, OpenedModel]:
    """Refuse what cannot be trained: a scheme, container or keep list that does not fit, a shape that cannot be cut.

    Returns the outlines of the students, by the digests of their shapes. ``out`` is the run's folder. Raises
    UsageError, FormatError, ArtifactError where something else lies in an artifact's place.
    """
    from quantgate.quantize.journal import refuse_strangers
    from quantgate.quantize.plan import plan
    from quantgate.train.start import start_recipe

    names = [*(one.name for one in asked.recipes), *(one.name for one in asked.students)]
    refuse_strangers(out / "artifacts", names)
    for recipe in asked.recipes:
        start_recipe(model, recipe, training_of(recipe), calibrated=True)
    outlines = {digest: outline_of(model, shape) for digest, shape in asked.shapes.items()}
    for one in asked.rounded:
        plan(outlines[one.shape.digest], [one.recipe], calibrated=True)  # type: ignore[union-attr]
    for one in asked.students:
        if one.shape is not None:
            start_recipe(outlines[one.shape.digest], one.recipe, training_of(one.recipe), calibrated=True)
    return outlines


def foretold(
    model: OpenedModel, asked: Asked, outlines: Mapping[str, OpenedModel], others: Mapping[str, OpenedModel]
) -> list[PlannedTraining]:
    """Every training, in the order in which they run; ``others`` are the models of variants that are there already."""
    if not asked:
        return []
    rate = products_per_second()
    found = [_distilled(called(shape), model, outlines[digest], shape, rate) for digest, shape in asked.shapes.items()]
    found += [_trained(recipe, model, rate) for recipe in asked.recipes]
    for one in asked.students:
        own = outlines[one.shape.digest] if one.shape is not None else others[one.name]
        found.append(_trained(one.recipe, own, rate))
    return found


def _distilled(
    name: str, model: OpenedModel, student: OpenedModel, shape: DistillOptions, rate: float | None
) -> PlannedTraining:
    what = f"a student of {student.depth} of {model.depth} blocks, {student.parameters:,} parameters, distilled"
    operations = _steps(student, shape) + _teacher(model, shape)
    return _planned(name, what, shape, operations, rate, student.weights_bytes)


def _trained(recipe: Recipe, model: OpenedModel, rate: float | None) -> PlannedTraining:
    from quantgate.quantize.predict import predict

    options: QatOptions = training_of(recipe)
    (will_be,) = predict(model, [rounded(recipe)], calibrated=True)
    first = options.reconstruct * options.batch_tokens * (FORWARD + BACKWARD) * model.parameters
    what = f"codes of {will_be.format} trained, from those of {options.start}"
    operations = first + _steps(model, options) + _teacher(model, options)
    return _planned(recipe.name, what, options, operations, rate, will_be.tensor_bytes)


def _planned(
    name: str, what: str, options: TrainOptions, operations: float, rate: float | None, size: int
) -> PlannedTraining:
    return PlannedTraining(
        name=name,
        what=what,
        steps=options.steps,
        tokens=options.steps * options.batch_tokens,
        operations=operations,
        seconds=None if rate is None else SLOWER * operations / rate,
        bytes=size,
    )


def _steps(model: OpenedModel, options: TrainOptions) -> float:
    return float(options.steps * options.batch_tokens * (FORWARD + BACKWARD) * model.parameters)


def _teacher(model: OpenedModel, options: TrainOptions) -> float:
    """Asked once for every document, and for none more often than it is seen."""
    tokens = min(options.documents * options.max_tokens, options.steps * options.batch_tokens)
    return float(tokens * FORWARD * model.parameters)


def products_per_second() -> float | None:
    """Operations of matrix products that this process does in a second where it would train; None: not measured.

    On a GPU half precision is multiplied, elsewhere float32.
    """
    import torch

    where = "cuda" if torch.cuda.is_available() else "cpu"
    square = torch.ones(SQUARE, SQUARE, device=where, dtype=torch.bfloat16 if where == "cuda" else torch.float32)
    product = square @ square
    _settle(where)
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < MEASURED_S or not count:
        torch.mm(square, square, out=product)
        _settle(where)
        count += 1
    return 2 * SQUARE**3 * count / spent if spent > 0 else None


def _settle(where: str) -> None:
    import torch

    if where == "cuda":
        torch.cuda.synchronize()
