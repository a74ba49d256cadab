"""The training of a run: codes of variants (method qat) and students, made before anything is judged.

    training data, held against the cases -> students -> codes of the baseline's variants -> codes of the students'

Two variants of one student train it once. Everything is kept in the run's folder: a killed run goes on inside the
training, and a finished one is taken as it is. Training runs in this process, also where a cluster answers the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.evaluate.overlap import Overlaps
from quantgate.models import OpenedModel
from quantgate.pipeline.students import Given, Students, samples_of
from quantgate.pipeline.training_data import held_against, training_data
from quantgate.pipeline.training_plan import Asked
from quantgate.pipeline.variants import Student, called, training_of, trains
from quantgate.quantize.manifest import Recipe
from quantgate.train.options import TrainOptions

if TYPE_CHECKING:
    from quantgate.pipeline.under_way import Run
    from quantgate.quantize import Artifact
    from quantgate.train import Row, Tell, TrainingSet

FOLDER = "students"  # of the run's
DATA = ("documents", "max_tokens", "prompts", "tune", "seed")  # the options that a training set depends on
Key = tuple[object, ...]


@dataclass(frozen=True)
class Prepared:
    """The training sets of a run, and how each stands to the cases of the gates."""

    sets: dict[Key, TrainingSet] = field(default_factory=dict)
    overlaps: tuple[Overlaps, ...] = ()

    def of(self, model: OpenedModel, options: TrainOptions) -> TrainingSet:
        return self.sets[_key(model, options)]


def prepare(given: Given, asked: Asked, others: Mapping[str, OpenedModel], out: Path) -> Prepared:
    """Draw what every training needs, in the tokens of its model, and hold it against the cases.

    ``others`` are the models of variants that are there already. Raises Overlap, DataError, ModelError.
    """
    wanted = [(given.model, options) for options in [*map(training_of, asked.recipes), *asked.shapes.values()]]
    wanted += [(others.get(one.name, given.model), training_of(one.recipe)) for one in asked.students]
    sets, found = dict[Key, "TrainingSet"](), dict[str, Overlaps]()
    for model, options in wanted:
        key = _key(model, options)
        if key not in sets:
            sets[key] = training_data(given.config, model, given.chosen, options)
            content = sets[key].summary.content
            found[content] = found.get(content) or held_against(given.config, sets[key], given.cases, out)
    return Prepared(sets, tuple(found.values()))


def _key(model: OpenedModel, options: TrainOptions) -> Key:
    return (
        model.tokenizer_digest,
        model.template_digest,
        model.context,
        *(getattr(options, name) for name in DATA),
    )


def distilled(this: Run, given: Given, asked: Asked, prepared: Prepared) -> dict[str, Path]:
    """The students' folders, by the digests of their shapes; those that are there already are taken as they are."""
    from quantgate.train.distill import distill

    folders = dict[str, Path]()
    for digest, shape in asked.shapes.items():
        name, data = called(shape), prepared.of(given.model, shape)
        folder = this.out / FOLDER / f"{name}-{digest[7:15]}"
        folders[digest] = distill(given.model, shape, data, folder, samples=given.chosen.ids, tell=_told(this, name))
    return folders


def trained(this: Run, given: Given, asked: Asked, prepared: Prepared, students: Students) -> dict[str, Artifact]:
    """The artifacts of all variants whose codes are trained, by their names."""
    made = {}
    for recipe in asked.recipes:
        made[recipe.name] = _trained(this, given.model, recipe, prepared, given.chosen.ids)
    for one in students.asked.values():
        if trains(one.recipe):
            model = students.models[one.name]
            samples = samples_of(given, model, this.out)
            made[one.name] = _trained(this, model, one.recipe, prepared, samples, teacher=_teacher(given, one, model))
    return made


def _teacher(given: Given, one: Student, model: OpenedModel) -> OpenedModel | None:
    """A student that the run distils goes on learning from the baseline; a model of the user's is its own teacher."""
    return None if one.shape is None else given.model


def _trained(
    this: Run,
    model: OpenedModel,
    recipe: Recipe,
    prepared: Prepared,
    samples: list[list[int]],
    teacher: OpenedModel | None = None,
) -> Artifact:
    from quantgate.train.qat import qat

    options = training_of(recipe)
    return qat(
        model,
        recipe,
        options,
        prepared.of(model, options),
        this.out / "artifacts",
        samples=samples,
        tell=_told(this, recipe.name),
        reuse=this.reuse,
        teacher=teacher,
    )


def _told(this: Run, name: str) -> Tell:
    """The training's progress as the run's: what is trained, the stage, and the newest figures of the curve."""

    def tell(stage: str, done: int, total: int, row: Row | None = None) -> None:
        figures = "" if row is None else f", loss {row.loss:.4f}"
        if row is not None and row.kl is not None:
            figures += f", KL {row.kl:.4f}"
        this.progress("train", done, total, f"{name}: {stage}{figures}")

    return tell
