"""The release run: one function per arrow, each resumable, from release.yaml to a decision and a report.

    cases -> calibration -> artifacts, training -> evidence -> decision -> report

Artifacts are resumed by the sweep's journal, training by its checkpoints, answers by theirs, drift by a digest of
everything it depends on: a killed run, started again, ends in the identical verdict. What can be refused is refused
first, the cheapest check before the dearer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.calibrate import Chosen
from quantgate.errors import Stopped
from quantgate.evaluate.evidence import Evidence, NoiseFloor
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import auto, budgets, deciding, load_plan, overlaps, planning, probing, targets, training
from quantgate.pipeline import training_plan as trainings
from quantgate.pipeline.budgets import Tables
from quantgate.pipeline.cases import Cases, calibration_of, cases_of
from quantgate.pipeline.endpoints import check_keys
from quantgate.pipeline.evaluating import baseline_side, evaluate, noise_of
from quantgate.pipeline.executor import executor_for
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.measuring import load_targets
from quantgate.pipeline.planning import Plan
from quantgate.pipeline.runtimes import check_drafts
from quantgate.pipeline.sharing import bring, folder_of, send, send_reports
from quantgate.pipeline.students import Given, joined, make_students, open_students
from quantgate.pipeline.training import Prepared
from quantgate.pipeline.training_plan import Asked
from quantgate.pipeline.two_models import CompareResult, Progress, compare_models
from quantgate.pipeline.under_way import Run
from quantgate.pipeline.variants import Import, Mixture, Student, open_variant, trains, variants_of
from quantgate.pipeline.walk import Walk
from quantgate.quantize.manifest import Recipe
from quantgate.quantize.reuse import Reuse
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport
from quantgate.report.environment import environment

if TYPE_CHECKING:
    from quantgate.quantize import Artifact


def run(
    config: ReleaseConfig | Path | str,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    planned: Callable[[Plan], None] | None = None,
    secrets: Mapping[str, str] = {},
    here: Path | None = None,
    reuse: Reuse | None = None,
) -> RunReport:
    """Make and judge every variant of ``config``, or of the release.yaml of that path.

    Writes report.json, report.html and junit.xml into the release's folder, or into ``out``, in which one run works at
    a time. ``planned`` is given what it is expected to take, before anything slow; plan.json holds it. ``secrets`` are
    the keys of servers, by the variables that the configuration names; ``here`` is where doctor saved this machine's
    profile, for targets that name it. ``reuse`` holds finished blocks of earlier sweeps, and is told what was taken
    over.

    Raises UsageError, ModelError, DataError ... before anything slow; DiskFull and Stopped keep what is finished.
    """
    if not isinstance(config, ReleaseConfig):
        config = load_config(Path(config))
    tell, told = progress or (lambda *_: None), planned or (lambda _: None)
    this = Run(config, folder_of(out or config.out), tell, told, secrets=secrets, here=here, reuse=reuse)
    check_keys(config.endpoints, secrets)
    try:
        with this.servers, this.server:
            return _run(this)
    except KeyboardInterrupt:
        sentence = f"stopped; what is finished is kept in {this.out}, and the same command goes on from there"
        raise Stopped(sentence) from None


def _run(this: Run) -> RunReport:
    config = this.config
    variants = variants_of(config.variants)
    recipes = [one for one in variants if isinstance(one, Recipe) and not trains(one)]
    asked = trainings.asked_of(variants)
    with this.stage("draw the cases"):
        cases = cases_of(config, len(variants))
        decide.refuse_hopeless([*cases.gates, *cases.extra], {name: len(group) for name, group in cases.gate.items()})
        mixed = [one for one in variants if isinstance(one, Mixture)]
        if mixed:
            probing.check(config)
    with this.stage("open the model"):
        model = open_model(config.model)
        devices = targets.devices_of(config, this.out, this.here)
        outlines = trainings.check(model, asked, this.out)
        targets.preflight(config, model, devices)
        load_plan.check(config, model)
        check_drafts(model, [one.runtime for one in config.variants if one.model is None])
    if any(isinstance(one, Student) for one in variants):
        with this.stage("open the other models"):
            this.students = open_students(config, model, this.out)
    imports = [one for one in variants if isinstance(one, Import)]
    with this.stage("open the artifacts of others") if imports else nullcontext():
        made = {one.name: open_variant(one.ref, model, one.name) for one in imports} | this.students.as_they_are()
    chosen, overlap, data = None, None, Prepared()
    gate = [case for group in cases.gate.values() for case in group]
    if recipes or mixed or this.students.recipes or asked:
        with this.stage("choose the calibration set"):
            chosen = calibration_of(config, model, lambda what, done, total: this.progress(what, done, total, ""))
            overlap = overlaps.check(config, chosen.turns, gate, this.out)
    if asked and chosen is not None:
        with this.stage("draw the training data"):
            data = training.prepare(Given(config, chosen, gate, model), asked, this.students.models, this.out)
    with alone_in(this.out), executor_for(config.executor, this.out, reuse=this.reuse) as this.executor:
        beside = (this.students.foretold(), trainings.foretold(model, asked, outlines, this.students.models))
        planned = planning.plan_of(config, cases, model, this.out, *beside, probe=config.price is not None)
        this.planned(planned)
        address = "" if this.out != folder_of(config.out) else config.out
        if chosen is not None:
            bring(address, this.out, recipes, model.weights_digest, this.progress)
            given = Given(config, chosen, gate, model)
            with this.stage("quantize"):
                made |= {one.name: one for one in _quantize(this, model, chosen, recipes, mixed)}
            made |= _train(this, given, asked, data, address)
            with this.stage("quantize other models") if this.students.recipes else nullcontext():
                made |= make_students(this.students, given, this.executor, this.out, address, this.progress)
        artifacts = [made[one.name] for one in variants]
        planned.save(this.out / planning.FILE)
        send(address, artifacts, this.out, this.progress)
        with this.stage("evaluate"):
            base = baseline_side(this, model)
            placed = targets.place(config, model, artifacts, devices, this.students)
            rules = deciding.rules_of(config, cases.targets)
            evidence = evaluate(this, model, base, artifacts, cases, Walk(cases.gates, rules, placed))
        with this.stage("ask the baseline again") if config.judge.noise else nullcontext():
            noise = noise_of(this, base, cases)
        with this.stage("load") if load_plan.asked_of(config) else nullcontext():
            more = (this.out, this.progress, this.students)
            loads = load_targets(config, model, artifacts, rules, evidence, placed, *more)
        report = _report(this, model, chosen, cases, artifacts, evidence, noise)
        seen = {"overlap": overlap, "training_overlaps": data.overlaps, "placed": placed, "loads": loads}
        report = report.model_copy(update=seen)
        decided = deciding.decide_targets(rules, report.candidates, evidence, placed, report.loads, config)
        report = report.model_copy(update={"targets": decided})
        write_reports(report, this.out)
        send_reports(address, this.out)
    return report


def _report(
    this: Run,
    model: OpenedModel,
    chosen: Chosen | None,
    cases: Cases,
    artifacts: Sequence[Artifact],
    evidence: Sequence[Evidence],
    noise: Sequence[NoiseFloor],
) -> RunReport:
    config = this.config
    candidates = [this.students.candidate(artifact, model) for artifact in artifacts]
    judge = config.judge
    decision = decide.decide(
        cases.gates, candidates, evidence, alpha=judge.alpha, order=judge.order, ledger=judge.ledger
    )
    return RunReport(
        title=f"release of {model.path.resolve().name if Path(config.model).is_dir() else config.model}",
        model=config.model,
        baseline=model.weights_digest,
        parameters=model.parameters,
        baseline_bytes=model.weights_bytes,
        config=config.content,
        gates=tuple(cases.gates),
        calibration=None if chosen is None else chosen.record,
        candidates=tuple(candidates),
        variants=tuple(
            this.students.summary(one, this.out, model, budgets.lines_of(one.name, this.out)) for one in artifacts
        ),
        evidence=tuple(evidence),
        decision=decision,
        environment=environment(),
        noise=tuple(noise),
        paces=this.paces,
        stages=tuple(this.stages),
    )


def _quantize(
    this: Run, model: OpenedModel, chosen: Chosen, recipes: Sequence[Recipe], mixed: Sequence[Mixture]
) -> list[Artifact]:
    """The variants' artifacts: those with recipes, then the mixtures."""
    if not recipes and not mixed:
        return []

    def tell(stage: str, done: int, total: int) -> None:
        this.progress("quantize", done, total, stage)

    lending = auto.ingredients(model, mixed, recipes)
    tables = Tables(model, lending, mixed) if mixed else None
    every = [*recipes, *(one for one in lending if one not in recipes)]
    seed = this.config.calibration.seed
    made = this.executor.sweep(model, chosen.ids, every, this.out / "artifacts", tell, seed)
    lent = {one.name: next(found for found in made if found.name == one.name) for one in lending}
    if tables is None:
        return made
    return made[: len(recipes)] + auto.mixtures(this.config, model, mixed, lent, this.out, this.progress, tables)


def _train(this: Run, given: Given, asked: Asked, data: Prepared, address: str) -> dict[str, Artifact]:
    """Students, which join the run's other models, and all codes that are trained."""
    if not asked:
        return {}
    with this.stage("train"):
        folders = training.distilled(this, given, asked, data)
        this.students = joined(this.students, this.config, given.model, folders)
        bring(address, this.out, asked.recipes, given.model.weights_digest, this.progress)
        return training.trained(this, given, asked, data, this.students) | this.students.as_they_are()


def write_reports(report: RunReport, out: Path) -> None:
    """report.json, report.html, a page for each target and junit.xml, each whole or not at all."""
    from quantgate.records import write_whole
    from quantgate.report.html import html_page
    from quantgate.report.junit import junit_xml
    from quantgate.report.target_page import FOLDER, target_pages

    report.save(out / "report.json")
    pages = {"report.html": html_page(report), **target_pages(report)}
    for name, page in pages.items():
        write_whole(out / name, page.encode())
    for old in (out / FOLDER).glob("*.html"):  # of targets that are none any more
        if f"{FOLDER}/{old.name}" not in pages:
            old.unlink()
    write_whole(out / "junit.xml", junit_xml(report))


__all__ = ["CompareResult", "Progress", "compare_models", "run", "write_reports"]
