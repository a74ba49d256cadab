"""Variants that are models of their own: a distilled student, a fine-tune, another model, judged beside the others.

Each of those that are there already is opened once, however many variants are made of it, and held to the baseline
before anything slow: it is no artifact and not the baseline itself, and it has the same tokenizer, chat template and
end of answers, or ``allow`` says otherwise. What is made of it is swept with statistics of its own, on the
conversations that calibrate the baseline. Students that the run distils itself join them once they are there
(``joined``), and are held to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.calibrate import Chosen
from quantgate.errors import ComparabilityError, RecordError, UsageError
from quantgate.evaluate.lock import Terms, agreed
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.models.kinship import Kinship, is_same, kinship
from quantgate.models.locate import locate
from quantgate.models.outline import open_or_outline
from quantgate.pipeline import overlaps
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.endpoints import OPENAI
from quantgate.pipeline.executor import Executor
from quantgate.pipeline.runtimes import check_drafts
from quantgate.pipeline.sharing import bring
from quantgate.pipeline.variants import (
    Import,
    Mixture,
    Student,
    candidate_of,
    engines_of,
    rounded,
    runtimes_of,
    summary_of,
    trains,
    variants_of,
)
from quantgate.quantize.journal import refuse_strangers
from quantgate.quantize.manifest import Recipe, Training
from quantgate.release_config import ReleaseConfig
from quantgate.report import VariantSummary

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

TRAINING = "training.json"  # beside a model that quantgate distilled
Tell = Callable[[str, int, int, str], None]  # stage, done, total, what is being worked on


@dataclass(frozen=True)
class Students:
    """The other models of a release, by the names of the variants."""

    asked: dict[str, Student] = field(default_factory=dict)
    models: dict[str, OpenedModel] = field(default_factory=dict)  # variants of one folder share one
    kin: dict[str, Kinship] = field(default_factory=dict)
    templates: frozenset[str] = frozenset()  # the variants whose chat template is the baseline's

    @property
    def recipes(self) -> list[Recipe]:
        return [one.recipe for one in self.asked.values() if one.made]

    def model_of(self, name: str, baseline: OpenedModel) -> OpenedModel:
        """The model that a variant was made of."""
        return self.models.get(name, baseline)

    def no_drift(self, name: str) -> str:
        """Why the drift of a variant would mean nothing; empty where it can be measured."""
        if name not in self.kin:
            return ""
        if not self.kin[name].same_vocabulary:
            return "its tokens are not the baseline's, so their probabilities cannot be laid side by side"
        if name not in self.templates:
            return "its chat template is another, so the baseline's conversations are not what it is asked"
        return ""

    def candidate(self, artifact: Artifact, baseline: OpenedModel) -> decide.Candidate:
        """What the decision needs; an artifact that says it was made from other weights is marked as well."""
        found = candidate_of(artifact)
        if artifact.name not in self.kin:
            stranger = artifact.manifest.model.weights != baseline.weights_digest
            return found.model_copy(update={"relation": "other model"}) if stranger else found
        kin, manifest = self.kin[artifact.name], artifact.manifest
        bits = found.bits_per_weight or manifest.bits_per_weight_whole
        more = {"relation": kin.relation, "parameters": kin.parameters, "bits_per_weight": bits}
        return found.model_copy(update=more)

    def summary(
        self, artifact: Artifact, out: Path, baseline: OpenedModel, budgets: Sequence[str] = ()
    ) -> VariantSummary:
        name = artifact.name
        found = summary_of(artifact, out, self.model_of(name, baseline), budgets)
        if name not in self.kin:
            return found
        learned = _distilled(self.models[name].path)
        training = (*([learned] if learned else []), *found.training)
        update: dict[str, object] = {"kin": self.kin[name], "repairable": False, "training": training}
        if artifact.is_baseline:
            types = sorted({entry.dtype for entry in self.models[name].files.entries.values()})
            update |= {"scheme": " and ".join(types), "bits_per_weight": artifact.manifest.bits_per_weight_whole}
        return found.model_copy(update=update)

    def foretold(self) -> list[str]:
        """Before anything is made, a sentence on each variant: its bytes as they are or will be, and what it is."""
        from quantgate.quantize.predict import predict

        told = []
        for name, one in self.asked.items():
            model, size = self.models[name], self.kin[name].bytes
            if one.made:
                (will_be,) = predict(model, [rounded(one.recipe)], calibrated=True)
                size = will_be.tensor_bytes
            how = f"{one.ref} as it is"
            if one.made:
                how = f"made of {one.ref} by {'training' if trains(one.recipe) else 'a sweep of its own'}"
            told.append(f"{name}: {size / 1e6:.1f} MB, {how}; {self.kin[name].sentence}")
        return told

    def as_they_are(self) -> dict[str, Artifact]:
        """The variants that are models of 16 bits, or what their files hold: nothing is written."""
        return {name: _as_it_is(self.models[name], one) for name, one in self.asked.items() if not one.made}


def _distilled(folder: Path) -> Training | None:
    """How a student was distilled, by the record that quantgate writes beside it, if there is one."""
    try:
        return Training.load(folder / TRAINING)
    except (RecordError, OSError):
        return None


def _as_it_is(model: OpenedModel, one: Student) -> Artifact:
    """Its digest is that of its bytes and its name, wherever the folder lies."""
    from quantgate.quantize import baseline

    artifact = baseline(model, one.recipe)
    nameless = artifact.manifest.model.model_copy(update={"ref": ""})
    return replace(artifact, manifest=artifact.manifest.model_copy(update={"model": nameless}), seal=model.seal)


def students_of(variants: Sequence[Recipe | Import | Mixture | Student]) -> list[Student]:
    return [one for one in variants if isinstance(one, Student)]


def open_student(one: Student, *, weights: bool = True) -> OpenedModel:
    """The model of a variant; without ``weights`` a configuration will do, as ``quantgate plan`` takes it.

    Raises UsageError for an artifact, ModelError for what cannot be opened.
    """
    if weights:
        _refuse_artifact(one.ref, one.name)
        return open_model(one.ref)
    if not Path(one.ref).expanduser().is_file() or one.ref.lower().endswith(".gguf"):
        _refuse_artifact(one.ref, one.name)
    return open_or_outline(one.ref)


def _refuse_artifact(ref: str, name: str) -> None:
    from quantgate.quantize.artifact import MANIFEST
    from quantgate.quantize.foreign import is_foreign

    file = ref.lower().endswith(".gguf")
    folder = Path(ref) if file else locate(ref)
    if file or (folder / MANIFEST).is_file() or is_foreign(folder):
        raise UsageError(
            f"variants: '{name}': {ref} is an artifact, and 'model' takes a model in full precision; if it was made "
            "from the baseline, name it under 'artifact'"
        )


def open_students(config: ReleaseConfig, model: OpenedModel, out: Path) -> Students:
    """Open the other models of a release and hold each to the baseline ``model``; ``out`` is the run's folder.

    Students that the run distils are not there yet, and are left out. Raises UsageError for an artifact and for the
    baseline itself, ComparabilityError for another tokenizer, chat template or end of answers that ``allow`` does not
    name, ModelError for what cannot be opened, ArtifactError where something else lies in an artifact's place.
    """
    every = students_of(variants_of(config.variants))
    refuse_strangers(out / "artifacts", [one.name for one in every if one.made])
    return _opened(config, model, {one.name: one for one in every if one.shape is None})


def joined(students: Students, config: ReleaseConfig, model: OpenedModel, folders: Mapping[str, Path]) -> Students:
    """With the students that the run has distilled: ``folders`` are theirs, by the digest of their shape's options.

    Raises what ``open_students`` raises.
    """
    every = students_of(variants_of(config.variants))
    asked = {one.name: replace(one, ref=str(folders[one.shape.digest])) for one in every if one.shape is not None}
    found = _opened(config, model, asked)
    return Students(
        {one.name: students.asked.get(one.name) or found.asked[one.name] for one in every},
        students.models | found.models,
        students.kin | found.kin,
        students.templates | found.templates,
    )


def _opened(config: ReleaseConfig, model: OpenedModel, asked: dict[str, Student]) -> Students:
    opened: dict[str, OpenedModel] = {}
    for one in asked.values():
        opened[one.ref] = opened.get(one.ref) or open_student(one)
    known = {ref: _beside(model, other, ref) for ref, other in opened.items()}
    engines, runtimes = engines_of(config.variants), runtimes_of(config.variants)
    for name, one in asked.items():
        here = config.baseline is None and engines[name] != OPENAI
        _lock(model, opened[one.ref], name, config.allow, stops=here)
        check_drafts(opened[one.ref], [runtimes.get(name)])
    return Students(
        asked,
        {name: opened[one.ref] for name, one in asked.items()},
        {name: known[one.ref] for name, one in asked.items()},
        frozenset(name for name, one in asked.items() if opened[one.ref].template_digest == model.template_digest),
    )


def _beside(model: OpenedModel, other: OpenedModel, ref: str) -> Kinship:
    if is_same(model, other):
        raise UsageError(
            f"variants: {ref} is the baseline itself, number for number; name another model, or leave 'model' out to "
            "make a variant of the baseline"
        )
    return kinship(model, other)


def _lock(model: OpenedModel, other: OpenedModel, name: str, allow: Sequence[str], *, stops: bool) -> None:
    """What can be told apart before an engine is opened; the evidence's own lock looks again, at all of it."""
    try:
        agreed(_terms(model, stops=stops), _terms(other, stops=stops), allow=allow)
    except ComparabilityError as refused:
        raise ComparabilityError(f"variants: '{name}': {other.ref}: {refused}") from None


def _terms(model: OpenedModel, *, stops: bool) -> Terms:
    from quantgate.engines.torch import stop_ids

    return Terms(
        template=model.template_digest,
        tokenizer=model.tokenizer_digest,
        bos="",
        sampling="",
        stop_tokens=tuple(sorted(stop_ids(model))) if stops else (),
        stop_strings={},
        max_tokens={},
        suites={},
        scorers={},
    )


@dataclass(frozen=True)
class Given:
    """What calibrates the baseline, and students with it."""

    config: ReleaseConfig
    chosen: Chosen
    cases: Sequence[Case]  # the gate's, which calibration must not see
    model: OpenedModel  # the baseline


def make_students(
    this: Students, given: Given, executor: Executor, out: Path, address: str, tell: Tell
) -> dict[str, Artifact]:
    """The artifacts that are made of other models, each model swept once for all of its variants."""
    made: dict[str, Artifact] = {}
    swept = [one for one in this.asked.values() if one.made and not trains(one.recipe)]
    for ref in dict.fromkeys(one.ref for one in swept):
        mine = [one for one in swept if one.ref == ref]
        other, recipes = this.models[mine[0].name], [one.recipe for one in mine]
        bring(address, out, recipes, other.weights_digest, tell)
        ids = samples_of(given, other, out)

        def told(stage: str, done: int, total: int, ref: str = ref) -> None:
            tell("quantize", done, total, f"{Path(ref).name}: {stage}")

        found = executor.sweep(other, ids, recipes, out / "artifacts", told, given.config.calibration.seed)
        made |= {one.name: artifact for one, artifact in zip(mine, found, strict=True)}
    return made


def samples_of(given: Given, other: OpenedModel, out: Path) -> list[list[int]]:
    """The calibration set in the tokens of ``other``, no sample longer than its context.

    With another tokenizer other conversations may be chosen; they are held against the cases as the baseline's were.
    """
    model, chosen = given.model, given.chosen
    alike = (model.tokenizer_digest, model.template_digest) == (other.tokenizer_digest, other.template_digest)
    if alike and other.context <= model.context:
        return [one[: other.context] for one in chosen.ids]
    own = calibration_of(given.config, other)
    if own.record.samples != chosen.record.samples:
        overlaps.check(given.config, own.turns, given.cases, out)
    return own.ids
