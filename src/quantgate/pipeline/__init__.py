"""The release run: one function per arrow, each resumable, from release.yaml to a decision and a report.

    cases -> calibration -> artifacts -> evidence -> decision -> report

Artifacts are resumed by the sweep's journal, answers by theirs, drift by a digest of everything it depends on: a killed
run, started again, ends in the identical verdict. What can be refused is refused first, the cheapest check before the
dearer one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.calibrate import Chosen
from quantgate.engines import Engine
from quantgate.errors import Stopped
from quantgate.evaluate import scorers
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison, Evidence, NoiseFloor, Pace
from quantgate.evaluate.lock import comparable
from quantgate.evaluate.noise import noise_floor, pace_of
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import auto, budgets, deciding, load_plan, overlaps, planning, probing, targets
from quantgate.pipeline.budgets import Tables
from quantgate.pipeline.cases import Cases, calibration_of, cases_of
from quantgate.pipeline.drifting import drift_in, screened
from quantgate.pipeline.endpoints import Served, check_keys, served
from quantgate.pipeline.executor import Executor, Local, executor_for
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.measuring import load_targets
from quantgate.pipeline.planning import Plan
from quantgate.pipeline.runtimes import TORCH, check_drafts, runtime_of
from quantgate.pipeline.sharing import bring, folder_of, send, send_reports
from quantgate.pipeline.students import Given, Students, make_students, open_students, students_of
from quantgate.pipeline.two_models import CompareResult, compare_models
from quantgate.pipeline.variants import (
    Import,
    Mixture,
    endpoints_of,
    engines_of,
    open_variant,
    runtimes_of,
    sentences_of,
    variants_of,
)
from quantgate.pipeline.walk import Walk
from quantgate.quantize.manifest import Recipe
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport, Stage
from quantgate.report.environment import environment
from quantgate.target_config import FIXED_SEQUENCE

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]  # stage, done, total, what is being worked on


@dataclass
class Run:
    """A run under way: its configuration, folder, and what it tells the user."""

    config: ReleaseConfig
    out: Path
    progress: Progress
    planned: Callable[[Plan], None] = lambda _: None
    stages: list[Stage] = field(default_factory=list)
    paces: dict[str, Pace] = field(default_factory=dict)  # of the variants' engines
    here: Path | None = None  # where doctor saved this machine's profile
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys of servers, by the variables' names
    servers: ExitStack = field(default_factory=ExitStack)  # launched for the whole run: the baseline's
    server: ExitStack = field(default_factory=ExitStack)  # launched for the variant that is being asked
    executor: Executor = field(default_factory=Local)
    journals: dict[str, Answers] = field(default_factory=dict)  # by the key of the engine's identity
    asked: dict[str, int] = field(default_factory=dict)  # cases that each variant is done with
    students: Students = field(default_factory=Students)  # variants that are models of their own

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.stages.append(Stage(name=name, seconds=round(time.monotonic() - began, 3)))


def run(
    config: ReleaseConfig | Path | str,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    planned: Callable[[Plan], None] | None = None,
    secrets: Mapping[str, str] = {},
    here: Path | None = None,
) -> RunReport:
    """Make and judge every variant of ``config``, or of the release.yaml of that path.

    Writes report.json, report.html and junit.xml into the release's folder, or into ``out``, in which one run works at
    a time. ``planned`` is given what it is expected to take, before anything slow; plan.json holds it. ``secrets`` are
    the keys of servers, by the variables that the configuration names; ``here`` is where doctor saved this machine's
    profile, for targets that name it.

    Raises UsageError, ModelError, DataError ... before anything slow; DiskFull and Stopped keep what is finished.
    """
    if not isinstance(config, ReleaseConfig):
        config = load_config(Path(config))
    tell, told = progress or (lambda *_: None), planned or (lambda _: None)
    this = Run(config, folder_of(out or config.out), tell, told, secrets=secrets, here=here)
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
    recipes = [one for one in variants if isinstance(one, Recipe)]
    with this.stage("draw the cases"):
        cases = cases_of(config, len(variants))
        decide.refuse_hopeless([*cases.gates, *cases.extra], {name: len(group) for name, group in cases.gate.items()})
        mixed = [one for one in variants if isinstance(one, Mixture)]
        if mixed:
            probing.check(config)
    with this.stage("open the model"):
        model = open_model(config.model)
        devices = targets.devices_of(config, this.out, this.here)
        targets.preflight(config, model, devices)
        load_plan.check(config, model)
        check_drafts(model, [one.runtime for one in config.variants if one.model is None])
    if students_of(variants):
        with this.stage("open the other models"):
            this.students = open_students(config, model, this.out)
    imports = [one for one in variants if isinstance(one, Import)]
    with this.stage("open the artifacts of others") if imports else nullcontext():
        made = {one.name: open_variant(one.ref, model, one.name) for one in imports} | this.students.as_they_are()
    chosen, overlap = None, None
    gate = [case for group in cases.gate.values() for case in group]
    if recipes or mixed or this.students.recipes:
        with this.stage("choose the calibration set"):
            chosen = calibration_of(config, model, lambda what, done, total: this.progress(what, done, total, ""))
            overlap = overlaps.check(config, chosen.turns, gate, this.out)
    with alone_in(this.out), executor_for(config.executor, this.out) as this.executor:
        others = this.students.foretold()
        planned = planning.plan_of(config, cases, model, this.out, probe=config.price is not None, others=others)
        this.planned(planned)
        address = "" if this.out != folder_of(config.out) else config.out
        if chosen is not None:
            bring(address, this.out, recipes, model.weights_digest, this.progress)
            with this.stage("quantize"):
                made |= {one.name: one for one in _quantize(this, model, chosen, recipes, mixed)}
                given = Given(config, chosen, gate, model)
                made |= make_students(this.students, given, this.executor, this.out, address, this.progress)
        artifacts = [made[one.name] for one in variants]
        planned.save(this.out / planning.FILE)
        send(address, artifacts, this.out, this.progress)
        with this.stage("evaluate"):
            base = _baseline_side(this, model)
            placed = targets.place(config, model, artifacts, devices, this.students)
            rules = deciding.rules_of(config, cases.targets)
            evidence = _evaluate(this, model, base, artifacts, cases, Walk(cases.gates, rules, placed))
        with this.stage("ask the baseline again") if config.judge.noise else nullcontext():
            noise = _noise(this, base, cases)
        with this.stage("load") if load_plan.asked_of(config) else nullcontext():
            beside = (this.out, this.progress, this.students)
            loads = load_targets(config, model, artifacts, rules, evidence, placed, *beside)
        report = _report(this, model, chosen, cases, artifacts, evidence, noise)
        report = report.model_copy(update={"overlap": overlap, "placed": placed, "loads": loads})
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


def _baseline_side(this: Run, model: OpenedModel) -> Side:
    from quantgate.quantize import baseline

    own = this.config.baseline
    if own is not None and own.endpoint is not None:
        what = Served.artifact(baseline(model), model)
        opened = served(own.endpoint, what, "baseline", this.out, this.secrets, this.progress)
        return _side(this, this.servers.enter_context(opened))
    return _side(this, this.executor.open(model, baseline(model), TORCH, this.out, None)[0])


def _engine(this: Run, model: OpenedModel, artifact: Artifact) -> tuple[Engine, str]:
    """The engine of a variant, and what is to be said of it; the server of the variant before is ended."""
    engines, runtimes = engines_of(this.config.variants), runtimes_of(this.config.variants)
    this.server.close()
    model = this.students.model_of(artifact.name, model)
    if endpoint := endpoints_of(this.config.variants).get(artifact.name):
        what = Served.artifact(artifact, model)
        opened = served(endpoint, what, artifact.name, this.out, this.secrets, this.progress)
        engine = this.server.enter_context(opened)
        return engine, engine.sentence
    return this.executor.open(model, artifact, engines.get(artifact.name, TORCH), this.out, runtimes.get(artifact.name))


def _noise(this: Run, base: Side, cases: Cases) -> list[NoiseFloor]:
    """How often the baseline contradicts itself; nothing where no case is to be asked twice."""
    tasks = [Task(gate, cases.gate[gate.capability]) for gate in cases.gates]

    def tell(done: int, total: int) -> None:
        this.progress("the baseline again", done, total, "")

    return noise_floor(tasks, base, this.out / "answers", this.config.judge.noise, tell)


def _evaluate(
    this: Run, model: OpenedModel, base: Side, artifacts: Sequence[Artifact], cases: Cases, walk: Walk
) -> list[Evidence]:
    """Evidence of every variant that has to be asked, each in its own engine; the baseline's answers serve them all."""
    engines, runtimes = engines_of(this.config.variants), runtimes_of(this.config.variants)
    total = sum(map(len, cases.gate.values())) * len(artifacts)

    def of(artifact: Artifact, base: Side) -> Evidence:
        named = artifact.name
        engine, proof = _engine(this, model, artifact)
        locked = comparable(base.engine.identity, engine.identity, cases.gate, allow=this.config.allow)
        side = _side(this, engine)
        drift, no_drift = None, this.students.no_drift(named)
        if not no_drift:
            drift, no_drift = drift_in(this.out, base.engine, engine, cases.drift, _measuring(this, named, total))
        stop = screened(drift, this.config.screen)
        comparisons = [] if stop else _compare_all(this, base, side, cases, named, total)
        own = len(cases.gates)
        if pace := pace_of(side.answers.held.values()):
            this.paces[named] = pace
        return Evidence(
            variant=artifact.name,
            artifact=artifact.manifest.digest,
            baseline=model.weights_digest,
            engine=side.engine.identity.key,
            baseline_engine=base.engine.identity.key,
            kernels=(*sentences_of(side.engine.kernels), *([proof] if proof else [])),
            comparisons=tuple(comparisons[:own]),
            for_targets=tuple(comparisons[own:]),
            drift=drift,
            no_drift=no_drift,
            runtime=runtime_of(engines.get(named, TORCH), runtimes.get(named)),
            sandbox=scorers.ready(case.scorer for group in cases.gate.values() for case in group),
            declared=getattr(engine, "declared", False),
            screened=stop,
            lock=locked,
        )

    one_by_one = Local() if this.config.endpoints else this.executor  # one launched server at a time
    if this.config.judge.order == FIXED_SEQUENCE:
        candidates = [this.students.candidate(artifact, model) for artifact in artifacts]
        return walk.down(candidates, lambda at: one_by_one.gather([partial(of, artifacts[at])], base)[0])
    return one_by_one.gather([partial(of, artifact) for artifact in artifacts], base)


def _measuring(this: Run, variant: str, total: int) -> Callable[[int, int], None]:
    return lambda done, parts: this.progress(
        "evaluate", sum(this.asked.values()), total, f"{variant}: drift, part {done} of {parts}"
    )


def _side(this: Run, engine: Engine) -> Side:
    """An engine and its journal, which variants of the same bytes share."""
    key = engine.identity.key
    if key not in this.journals:
        this.journals[key] = Answers(this.out / "answers", engine.identity)
    return Side(engine, this.journals[key])


def _compare_all(this: Run, base: Side, side: Side, cases: Cases, variant: str, total: int) -> list[Comparison]:
    """Every capability, then those with targets' own margins; cases that an early verdict saves count as done."""

    def tell(done: int, _available: int, undecided: list[str]) -> None:
        left = f"{len(undecided)} of {len(cases.gates) + len(cases.extra)} undecided" if undecided else "decided"
        this.asked[variant] = done
        this.progress("evaluate", sum(this.asked.values()), total, f"{variant}: {left}")

    tasks = [Task(gate, cases.gate[gate.capability], cases.hard[gate.capability]) for gate in cases.gates]
    tasks += [Task(gate, cases.gate[gate.capability], []) for gate in cases.extra]
    return compare_all(tasks, base, side, progress=tell)


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
