"""The release run: one function per arrow, each resumable, from release.yaml to a decision and a report.

    cases -> calibration -> artifacts -> evidence -> decision -> report

Artifacts are resumed by the sweep's journal, answers by theirs, drift by a digest of everything it depends on: a killed
run, started again, ends in the identical verdict. What can be refused is refused first, the cheapest check before the
dearer one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.calibrate import Chosen
from quantgate.engines import Engine
from quantgate.errors import EngineError, RecordError, Stopped
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison, Drift, Evidence, NoiseFloor, Pace
from quantgate.evaluate.files import check_overlap
from quantgate.evaluate.noise import noise_floor, pace_of
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import auto, budgets, probing
from quantgate.pipeline.budgets import Tables
from quantgate.pipeline.cases import Cases, calibration_of, cases_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.planning import preflight
from quantgate.pipeline.runtimes import TORCH, check_drafts, engine_for, runtime_of
from quantgate.pipeline.two_models import CompareResult, compare_models
from quantgate.pipeline.variants import (
    Import,
    Mixture,
    candidate_of,
    engines_of,
    open_variant,
    runtimes_of,
    sentences_of,
    summary_of,
    variants_of,
)
from quantgate.quantize.manifest import Recipe
from quantgate.records import digest_of
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport, Stage
from quantgate.report.environment import environment

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]  # stage, done, total, what is being worked on


@dataclass
class Run:
    """A run under way: its configuration, folder, and what it tells the user."""

    config: ReleaseConfig
    out: Path
    progress: Progress
    stages: list[Stage] = field(default_factory=list)
    paces: dict[str, Pace] = field(default_factory=dict)  # of the variants' engines

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.stages.append(Stage(name=name, seconds=round(time.monotonic() - began, 3)))


def run(config: ReleaseConfig | Path | str, *, out: Path | None = None, progress: Progress | None = None) -> RunReport:
    """Make and judge every variant of ``config``, or of the release.yaml of that path.

    Writes report.json, report.html and junit.xml into the release's folder, or into ``out``, in which one run works at
    a time.

    Raises UsageError, ModelError, DataError ... before anything slow; DiskFull and Stopped keep what is finished.
    """
    if not isinstance(config, ReleaseConfig):
        config = load_config(Path(config))
    this = Run(config, Path(out or config.out), progress or (lambda *_: None))
    try:
        return _run(this)
    except KeyboardInterrupt:
        sentence = f"stopped; what is finished is kept in {this.out}, and the same command goes on from there"
        raise Stopped(sentence) from None


def _run(this: Run) -> RunReport:
    config = this.config
    variants = variants_of(config.variants)
    recipes = [one for one in variants if isinstance(one, Recipe)]
    with this.stage("draw the cases"):
        cases = cases_of(config, len(variants))
        decide.refuse_hopeless(cases.gates, {name: len(group) for name, group in cases.gate.items()})
        mixed = [one for one in variants if isinstance(one, Mixture)]
        if mixed:
            probing.check(config)
    with this.stage("open the model"):
        model = open_model(config.model)
        preflight(config, model)
        check_drafts(model, [one.runtime for one in config.variants])
    imports = [one for one in variants if isinstance(one, Import)]
    with this.stage("open the artifacts of others") if imports else nullcontext():
        made = {one.name: open_variant(one.ref, model, one.name) for one in imports}
    chosen = None
    if recipes or mixed:
        with this.stage("choose the calibration set"):
            chosen = calibration_of(config, model)
            check_overlap(chosen.turns, [case for group in cases.gate.values() for case in group])
    with alone_in(this.out):
        if chosen is not None:
            with this.stage("quantize"):
                made |= {one.name: one for one in _quantize(this, model, chosen, recipes, mixed)}
        artifacts = [made[one.name] for one in variants]
        with this.stage("evaluate"):
            base = _baseline_side(this, model)
            evidence = _evaluate(this, model, base, artifacts, cases)
        with this.stage("ask the baseline again") if config.judge.noise else nullcontext():
            noise = _noise(this, base, cases)
        report = _report(this, model, chosen, cases, artifacts, evidence, noise)
        write_reports(report, this.out)
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
    candidates = [candidate_of(artifact) for artifact in artifacts]
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
        config=config.model_copy(update={"out": ""}).digest,
        gates=tuple(cases.gates),
        calibration=None if chosen is None else chosen.record,
        candidates=tuple(candidates),
        variants=tuple(summary_of(one, this.out, model, budgets.lines_of(one.name, this.out)) for one in artifacts),
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
    from quantgate.quantize.sweep import sweep

    def tell(stage: str, done: int, total: int) -> None:
        this.progress("quantize", done, total, stage)

    lending = auto.ingredients(model, mixed, recipes)
    tables = Tables(model, lending, mixed) if mixed else None
    every = [*recipes, *(one for one in lending if one not in recipes)]
    made = sweep(model, chosen.ids, every, this.out / "artifacts", progress=tell, seed=this.config.calibration.seed)
    lent = {one.name: next(found for found in made if found.name == one.name) for one in lending}
    if tables is None:
        return made
    return made[: len(recipes)] + auto.mixtures(this.config, model, mixed, lent, this.out, this.progress, tables)


def _baseline_side(this: Run, model: OpenedModel) -> Side:
    from quantgate.quantize import baseline

    return _side(engine_for(model, baseline(model), TORCH, this.out)[0], this.out)


def _noise(this: Run, base: Side, cases: Cases) -> list[NoiseFloor]:
    """How often the baseline contradicts itself; nothing where no case is to be asked twice."""
    tasks = [Task(gate, cases.gate[gate.capability]) for gate in cases.gates]

    def tell(done: int, total: int) -> None:
        this.progress("the baseline again", done, total, "")

    return noise_floor(tasks, base, this.out / "answers", this.config.judge.noise, tell)


def _evaluate(this: Run, model: OpenedModel, base: Side, artifacts: Sequence[Artifact], cases: Cases) -> list[Evidence]:
    """Evidence of every variant, each in its own engine; the baseline's engine and answers serve them all."""
    engines, runtimes = engines_of(this.config.variants), runtimes_of(this.config.variants)
    total = sum(map(len, cases.gate.values())) * len(artifacts)
    found: list[Evidence] = []
    for index, artifact in enumerate(artifacts):
        named = artifact.name
        engine, proof = engine_for(model, artifact, engines.get(named, TORCH), this.out, runtimes.get(named))
        side = _side(engine, this.out)
        done = total // len(artifacts) * index
        comparisons = _compare_all(this, base, side, cases, artifact.name, (done, total))
        if pace := pace_of(side.answers.held.values()):
            this.paces[named] = pace
        drift, no_drift = _drift(this, base.engine, side.engine, cases.drift)
        found.append(
            Evidence(
                variant=artifact.name,
                artifact=artifact.manifest.digest,
                baseline=model.weights_digest,
                engine=side.engine.identity.key,
                baseline_engine=base.engine.identity.key,
                kernels=(*sentences_of(side.engine.kernels), *([proof] if proof else [])),
                comparisons=tuple(comparisons),
                drift=drift,
                no_drift=no_drift,
                runtime=runtime_of(engines.get(named, TORCH), runtimes.get(named)),
            )
        )
    return found


def _side(engine: Engine, out: Path) -> Side:
    return Side(engine, Answers(out / "answers", engine.identity))


def _compare_all(
    this: Run, base: Side, side: Side, cases: Cases, variant: str, progress: tuple[int, int]
) -> list[Comparison]:
    """Every capability of one variant; cases that an early verdict saves count as done."""
    before, total = progress

    def tell(done: int, _available: int, undecided: list[str]) -> None:
        left = f"{len(undecided)} of {len(cases.gates)} undecided" if undecided else "decided"
        this.progress("evaluate", before + done, total, f"{variant}: {left}")

    tasks = [Task(gate, cases.gate[gate.capability], cases.hard[gate.capability]) for gate in cases.gates]
    return compare_all(tasks, base, side, progress=tell)


def _drift(this: Run, base: Engine, engine: Engine, cases: Sequence[Case]) -> tuple[Drift | None, str]:
    """The drift of one variant, or why there is none; a variant too broken to measure must not stop the others."""
    from quantgate.evaluate.drift import drift

    if not cases:
        return None, "no held-out conversations were asked for"
    key = digest_of([engine.identity.key, base.identity.key, [case.digest for case in cases]])
    path = this.out / "drift" / f"{key[7:39]}.json"
    if path.exists():
        try:
            return Drift.load(path), ""
        except RecordError:
            path.unlink()  # an older version wrote it
    try:
        (found,) = drift(base, [engine], cases)
    except EngineError as problem:
        return None, str(problem)
    found.save(path)
    return found, ""


def write_reports(report: RunReport, out: Path) -> None:
    """report.json, report.html and junit.xml, each whole or not at all."""
    from quantgate.records import write_whole
    from quantgate.report.html import html_page
    from quantgate.report.junit import junit_xml

    report.save(out / "report.json")
    write_whole(out / "report.html", html_page(report).encode())
    write_whole(out / "junit.xml", junit_xml(report))


__all__ = ["CompareResult", "Progress", "compare_models", "run", "write_reports"]
