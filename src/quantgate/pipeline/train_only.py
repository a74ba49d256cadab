"""One model trained, without judging it: what ``quantgate train qat`` and ``quantgate train distill`` run.

    options, scheme, shape -> calibration set -> training set, held against the gates' cases -> training -> a page

Everything that can be refused is refused before training starts. A stopped or killed call goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.calibrate import Chosen
from quantgate.capability_config import CapabilityConfig
from quantgate.errors import Stopped, UsageError
from quantgate.evaluate import suites
from quantgate.evaluate.overlap import Overlaps
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline.cases import calibration_of, gate_cases
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.training_data import held_against, training_data
from quantgate.pipeline.training_report import Watched, distilled_report, qat_report
from quantgate.pipeline.two_models import named
from quantgate.pipeline.variants import called, recipe_of
from quantgate.quantize.manifest import QAT
from quantgate.quantize.reuse import Reuse
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig
from quantgate.report.training import TrainingReport
from quantgate.train import Tell, TrainingSet, data
from quantgate.train.launch import follows, launched
from quantgate.train.options import DistillOptions, QatOptions, TrainOptions
from quantgate.variant_config import VariantConfig

CASES = 400  # of every suite that training is held against: what quantgate compare asks, by its defaults
OURS = ("manifest.json", "training.json")  # a folder with one of them is an artifact or a student
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What both commands are given beside the model and what is to become of it."""

    out: Path
    suite: Sequence[str] = ()  # as quantgate compare names them; none: all built-in ones, or beside traffic none
    traffic: Path | None = None
    samples: int = 256  # conversations of the calibration set
    max_tokens: int = 512  # of each
    seed: int = 0  # fixes which
    teacher: str | None = None
    device: str = "auto"
    fresh: bool = False
    reuse: Reuse | None = None  # finished blocks of earlier sweeps, for the start


def train_qat(
    model: str,
    scheme: str,
    asked: Asked,
    *,
    options: Mapping[str, Any] = {},
    tell: Tell | None = None,
    say: Say = lambda _: None,
    **variant: Any,
) -> TrainingReport:
    """Train ``model`` with its weights, inputs and cache rounded as ``scheme`` says; an artifact and its page.

    ``options`` are of ``QatOptions``; ``variant`` is what release.yaml has beside a scheme (group_size, kv_cache,
    container, keep ...). ``asked.out`` gets the artifact's folder, NAME.json and NAME.html. Raises UsageError,
    FormatError, ModelError, DataError, Overlap, ComparabilityError and ArtifactError before training starts, then
    TrainingError, DiskFull, and Stopped on Ctrl-C.
    """
    from quantgate.quantize.journal import refuse_strangers
    from quantgate.train.qat import qat, work_of
    from quantgate.train.start import start_recipe

    _refuse_fresh(asked)
    wanted = parse(QatOptions, dict(options), where="train qat")
    variant = {"scheme": scheme, "method": QAT, "options": dict(options), **variant}
    recipe = recipe_of(parse(VariantConfig, variant, where="train qat"), "train qat")
    opened = open_model(model)
    start_recipe(opened, recipe, wanted, calibrated=True)
    with _alone(asked.out):
        refuse_strangers(asked.out, [recipe.name])
        given = _given(opened, wanted, asked, say)
        told: dict[str, Any] = {"samples": given.chosen.ids, "teacher": given.teacher, "device": asked.device}
        if asked.fresh:
            work = work_of(opened, recipe, wanted, given.data, asked.out, **told)
            _throw_away(asked.out, recipe.name, work, say)
        watched = Watched(asked.out, recipe.name, tell)
        artifact = qat(opened, recipe, wanted, given.data, asked.out, tell=watched, reuse=asked.reuse, **told)
        if asked.reuse is not None and asked.reuse.sentence:
            watched(f"re-used: {asked.reuse.sentence}", asked.reuse.taken, asked.reuse.blocks)
        return qat_report(opened, wanted, artifact, given.data, given.held, watched)


def train_student(
    model: str,
    asked: Asked,
    *,
    options: Mapping[str, Any],
    tell: Tell | None = None,
    say: Say = lambda _: None,
) -> TrainingReport:
    """Cut a student from ``model``, train it to say what ``model`` says; a Hugging Face folder and its page.

    ``options`` are of ``DistillOptions``. ``asked.out`` gets the student's folder, NAME.json and NAME.html. Raises what
    ``train_qat`` raises.
    """
    from quantgate.train.distill import distill, work_of
    from quantgate.train.prune import wanted_shape

    _refuse_fresh(asked)
    wanted = parse(DistillOptions, dict(options), where="train distill")
    opened, name = open_model(model), called(wanted)
    wanted_shape(opened, wanted)
    with _alone(asked.out):
        given = _given(opened, wanted, asked, say)
        told: dict[str, Any] = {"samples": given.chosen.ids, "teacher": given.teacher, "device": asked.device}
        if asked.fresh:
            _throw_away(asked.out, name, work_of(opened, wanted, given.data, asked.out / name, **told), say)
        watched = Watched(asked.out, name, tell)
        folder = distill(opened, wanted, given.data, asked.out / name, tell=watched, **told)
        return distilled_report(opened, wanted, folder, given.data, given.held, watched)


def _refuse_fresh(asked: Asked) -> None:
    if asked.fresh and launched():
        raise UsageError(
            f"--fresh: one process cannot throw away what another reads; remove {asked.out} yourself, or begin anew "
            "with one process"
        )


@dataclass(frozen=True)
class _Given:
    """All that training is handed, checked."""

    chosen: Chosen
    data: TrainingSet
    held: Overlaps
    teacher: OpenedModel | None


def _given(model: OpenedModel, options: TrainOptions, asked: Asked, say: Say) -> _Given:
    """Calibration set and training set; the latter is no gate's case. The teacher, where it is another model."""
    teacher = None if asked.teacher is None else data.check_teacher(model, open_model(asked.teacher))
    config = _config(model, asked)
    cases = [case for name, one in config.capabilities.items() for case in gate_cases(name, one, config.judge.seed)[0]]
    chosen = calibration_of(config, model)
    if asked.traffic is not None and not asked.suite:
        found = data.training_set(model, turns=chosen.conversations, options=options)
    else:
        found = training_data(config, model, chosen, options)
    say(f"holding {len(found.documents) + len(found.tune):,} conversations against {len(cases):,} cases of the gates")
    return _Given(chosen, found, held_against(config, found, cases, asked.out), teacher)


def _config(model: OpenedModel, asked: Asked) -> ReleaseConfig:
    """A release of one variant that asks the suites: what names calibration set, training data and cases."""
    capabilities: dict[str, dict[str, Any]] = {}
    for one in asked.suite or suites.names():
        name, more = named(one)
        if name in capabilities:
            raise UsageError(f"suite '{one}': a suite called '{name}' is named already; keep one, or rename the file")
        parse(CapabilityConfig, more, where=f"suite '{one}'")
        capabilities[name] = {"cases": CASES, **more}
    calibration: dict[str, Any] = {"samples": asked.samples, "max_tokens": asked.max_tokens, "seed": asked.seed}
    calibration |= {} if asked.traffic is None else {"traffic": str(asked.traffic)}
    data = {"model": model.ref, "variants": ["BF16"], "capabilities": capabilities, "calibration": calibration}
    return parse(ReleaseConfig, data, where="train")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Of several processes that a launcher started, the first holds the folder for all."""
    try:
        with nullcontext() if follows() else alone_in(out):
            yield
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is finished is kept in {out}, and the same command goes on from it") from None


def _throw_away(out: Path, name: str, work: Path, say: Say) -> None:
    """What earlier calls left, finished or not; said before it goes. What a teacher said is kept: it would be the same.

    Folders that are neither an artifact nor a student stay.
    """
    made = out / name
    for folder in (made, work):
        if folder.is_dir() and (folder == work or any((made / file).is_file() for file in OURS)):
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            say(f"throwing away {folder}, {size / 1e6:.1f} MB")
            shutil.rmtree(folder)
    for file in (out / f"{name}.json", out / f"{name}.html"):
        file.unlink(missing_ok=True)
