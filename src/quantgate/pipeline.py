"""The release run: one function per arrow, each resumable, from release.yaml to a decision and a report.

    cases -> calibration -> artifacts -> evidence -> decision -> report

Artifacts are resumed by the sweep's journal, answers by theirs, comparisons by a digest of everything they depend on: a
killed run, started again, ends in the identical verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate import calibrate, decide, formats
from quantgate.calibrate import Chosen, Turns
from quantgate.engines import Engine
from quantgate.errors import RecordError, Stopped, UsageError, UnknownName
from quantgate.evaluate import suites
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, compare
from quantgate.evaluate.evidence import Comparison, Drift, Evidence, Gate
from quantgate.evaluate.files import check_cases, check_overlap, read_suite
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.quantize.manifest import Recipe
from quantgate.records import Record, digest_of, parse
from quantgate.release_config import CapabilityConfig, ReleaseConfig, VariantConfig
from quantgate.report import RunReport, Stage, VariantSummary
from quantgate.report.environment import environment

Progress = Callable[[str, int, int, str], None]  # stage, done, total, what is being worked on


@dataclass
class Cases:
    """What will be asked, fixed before anything runs."""

    gates: list[Gate]
    gate: dict[str, list[Case]]
    hard: dict[str, list[Case]]
    drift: list[Case]


@dataclass
class Run:
    """A run under way: its configuration, folder, and what it tells the user."""

    config: ReleaseConfig
    out: Path
    progress: Progress
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.stages.append(Stage(name=name, seconds=round(time.monotonic() - began, 3)))


def run(config: ReleaseConfig, *, out: Path | None = None, progress: Progress | None = None) -> RunReport:
    """Make and judge every variant of ``config``; writes report.json, report.html and junit.xml into its folder.

    Raises UsageError, ModelError, DataError ... before anything slow; DiskFull and Stopped keep what is finished.
    """
    this = Run(config, Path(out or config.out), progress or (lambda *_: None))
    try:
        return _run(this)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what is finished is kept in {this.out}, and the same command goes on from there") from None


def _run(this: Run) -> RunReport:
    config = this.config
    recipes = recipes_of(config.variants)
    with this.stage("open the model"):
        model = open_model(config.model)
    with this.stage("draw the cases"):
        cases = cases_of(config, len(recipes))
        chosen = calibration_of(config, model)
        check_overlap(chosen.turns, [case for group in cases.gate.values() for case in group])
    with this.stage("quantize"):
        artifacts = _quantize(this, model, chosen, recipes)
    with this.stage("evaluate"):
        evidence = _evaluate(this, model, artifacts, cases)
    candidates = [candidate_of(artifact) for artifact in artifacts]
    decision = decide.decide(
        cases.gates, candidates, evidence, alpha=config.judge.alpha, order=config.judge.order
    )
    report = RunReport(
        title="release of " + Path(config.model).name if Path(config.model).is_dir() else f"release of {config.model}",
        model=config.model,
        baseline=model.weights_digest,
        parameters=model.parameters,
        baseline_bytes=model.weights_bytes,
        config=config.model_copy(update={"out": ""}).digest,
        gates=tuple(cases.gates),
        calibration=chosen.record,
        candidates=tuple(candidates),
        variants=tuple(summary_of(artifact, this.out) for artifact in artifacts),
        evidence=tuple(evidence),
        decision=decision,
        environment=environment(),
        stages=tuple(this.stages),
    )
    write_reports(report, this.out)
    return report


def recipes_of(variants: Sequence[VariantConfig]) -> list[Recipe]:
    """One recipe per variant; the baseline's own name is no variant. Raises UsageError for two of one name."""
    recipes = []
    for one in variants:
        if one.scheme.upper() in ("BF16", "BASELINE"):
            continue
        scheme = formats.scheme(one.scheme, group_size=one.group_size, symmetric=one.symmetric, where="variants")
        grid = scheme.weights
        recipes.append(
            Recipe(
                scheme=scheme.name,
                method=one.method or "",
                group_size=(grid.group_size or -1) if scheme.packed and grid else None,
                symmetric=False if grid is not None and not grid.symmetric else None,
                options=one.options,
                keep=one.keep,
                label=one.name or "-".join([scheme.label, *([one.method] if one.method else [])]),
            )
        )
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"variants: two are called '{name}'; give one of them another 'name'")
    if not recipes:
        raise UsageError("variants: names no variant besides the baseline; add one, such as W4A16")
    return recipes


def cases_of(config: ReleaseConfig, variants: int) -> Cases:
    """Gate, hard and drift cases of every capability, and the rules they are judged by."""
    judge, found = config.judge, Cases([], {}, {}, [])
    for name, wanted in config.capabilities.items():
        cases, hard = gate_cases(name, wanted, judge.seed)
        found.gate[name], found.hard[name] = cases, hard
        found.gates.append(
            Gate(
                capability=name,
                suite=wanted.suite or name,
                margin=wanted.margin,
                relative=wanted.relative,
                cases=wanted.cases,
                alpha=judge.alpha,
                pass_alpha=decide.pass_alpha(judge.alpha, variants, judge.order),
                test=judge.test,
                seed=judge.seed,
                hard=wanted.hard,
            )
        )
    built_in = [name for name, wanted in config.capabilities.items() if wanted.suite is None]
    for name in built_in if config.drift_cases else []:
        found.drift += suites.cases(name, "tune", max(1, config.drift_cases // len(built_in)), seed=judge.seed)
    return found


def gate_cases(name: str, wanted: CapabilityConfig, seed: int) -> tuple[list[Case], list[Case]]:
    """The cases that judge a capability, and the hard ones beside them. Raises DataError, UnknownName."""
    if wanted.suite is not None:
        cases = read_suite(Path(wanted.suite), name)[: wanted.cases]
        return cases, []
    if name not in suites.names():
        raise UnknownName("capability", name, suites.names(), where="capabilities (or name a file under 'suite')")
    cases = suites.cases(name, "gate", wanted.cases, seed=seed)
    check_cases(cases, f"suite '{name}'")
    hard = suites.cases(name, "gate", wanted.hard, seed=seed, difficulty="hard") if wanted.hard else []
    return cases, hard


def calibration_of(config: ReleaseConfig, model: OpenedModel) -> Chosen:
    """The calibration set: the user's traffic, or the calibrate split of the built-in suites."""
    wanted = config.calibration
    if wanted.traffic is not None:
        conversations, source = calibrate.read_traffic(Path(wanted.traffic)), Path(wanted.traffic).name
    else:
        conversations, source = suite_conversations(wanted.samples, wanted.seed), "suites' calibrate split"
    return calibrate.choose(
        model, conversations, source=source, samples=wanted.samples, max_tokens=wanted.max_tokens, seed=wanted.seed
    )


def suite_conversations(count: int, seed: int) -> list[Turns]:
    """The same number of calibrate-split conversations, answers included, from every built-in suite."""
    each = -(-count // len(suites.names()))
    return [
        (*((message.role, message.content) for message in case.messages), ("assistant", case.answer or ""))
        for name in suites.names()
        for case in suites.cases(name, "calibrate", each, seed=seed)
    ]


def _quantize(this: Run, model: OpenedModel, chosen: Chosen, recipes: Sequence[Recipe]) -> list[Any]:
    from quantgate.quantize.sweep import sweep

    def tell(stage: str, done: int, total: int) -> None:
        this.progress("quantize", done, total, stage)

    return sweep(
        model, chosen.ids, recipes, this.out / "artifacts", progress=tell, seed=this.config.calibration.seed
    )


def _evaluate(this: Run, model: OpenedModel, artifacts: Sequence[Any], cases: Cases) -> list[Evidence]:
    """Evidence of every variant; the baseline's engine and answers serve them all."""
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline

    answers = this.out / "answers"
    base = open_engine(model, baseline(model))
    base_side = Side(base, Answers(answers, base.identity))
    total = sum(map(len, cases.gate.values())) * len(artifacts)
    found, done = [], 0
    for artifact in artifacts:
        engine = open_engine(model, artifact)
        side = Side(engine, Answers(answers, engine.identity))
        comparisons = []
        for gate in cases.gates:
            group = cases.gate[gate.capability]

            def tell(asked: int, _available: int, at: int = done, name: str = f"{artifact.name}: {gate.capability}") -> None:
                this.progress("evaluate", at + asked, total, name)

            comparisons.append(
                compare(gate, group, base_side, side, hard=cases.hard[gate.capability], progress=tell)
            )
            done += len(group)
            this.progress("evaluate", done, total, f"{artifact.name}: {gate.capability}")
        found.append(
            Evidence(
                variant=artifact.name,
                artifact=artifact.manifest.digest,
                baseline=model.weights_digest,
                engine=engine.identity.key,
                baseline_engine=base.identity.key,
                kernels=tuple(sentence_of(path) for path in engine.kernels),
                comparisons=tuple(comparisons),
                drift=_drift(this, base, engine, cases.drift, artifact.name),
            )
        )
    return found


def _drift(this: Run, base: Engine, engine: Engine, cases: Sequence[Case], name: str) -> Drift | None:
    from quantgate.evaluate.drift import drift

    if not cases:
        return None
    path = this.out / "drift" / f"{digest_of([engine.identity.key, base.identity.key, [c.digest for c in cases]])[7:39]}.json"
    if path.exists():
        try:
            return Drift.load(path)
        except RecordError:
            path.unlink()  # an older version wrote it
    found = drift(base, [engine], cases)[0]
    found.save(path)
    return found


class CompareResult(Record):
    """Two models on the same cases."""

    baseline: str
    variant: str
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[decide.CapabilityVerdict, ...]


def compare_models(
    baseline: str,
    variant: str,
    suite: Sequence[str],
    *,
    margin: str | float = 0.03,
    cases: int = 400,
    alpha: float = 0.05,
    seed: int = 0,
    out: Path = Path("runs/compare"),
    progress: Progress | None = None,
) -> CompareResult:
    """Ask two models the same cases; ``suite`` names capabilities or JSONL files, ``variant`` may be an artifact folder.

    Every suite is judged at ``alpha`` on its own; ``out`` keeps the answers, so a stopped comparison goes on.
    """
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline as as_baseline

    capabilities = {Path(one).stem: {"margin": margin, "cases": cases, **_file(one)} for one in suite}
    data = {"capabilities": capabilities, "variants": ["BF16"], "judge": {"alpha": alpha, "seed": seed}, "drift_cases": 0}
    found = cases_of(parse(ReleaseConfig, data, where="compare"), 1)
    model = open_model(baseline)
    other_model, artifact = _open_variant(variant, model)
    sides = []
    for opened, what in ((model, as_baseline(model)), (other_model, artifact)):
        engine = open_engine(opened, what)
        sides.append(Side(engine, Answers(out / "answers", engine.identity)))
    comparisons = []
    for gate in found.gates:

        def tell(asked: int, available: int, name: str = gate.capability) -> None:
            if progress:
                progress(f"comparing on {name}", asked, available, "")

        comparisons.append(compare(gate, found.gate[gate.capability], *sides, progress=tell))
    verdicts = tuple(decide.judge_capability(one.gate, one) for one in comparisons)
    result = CompareResult(baseline=baseline, variant=variant, comparisons=tuple(comparisons), verdicts=verdicts)
    result.save(out / "compare.json")
    return result


def _file(suite: str) -> dict[str, str]:
    return {"suite": suite} if suite.endswith(".jsonl") else {}


def _open_variant(ref: str, model: OpenedModel) -> tuple[OpenedModel, Any]:
    """An artifact made from ``model``, or another full model."""
    from quantgate.quantize import baseline as as_baseline
    from quantgate.quantize import open_artifact

    if not (Path(ref) / "manifest.json").is_file():
        other = open_model(ref)
        return other, as_baseline(other)
    artifact = open_artifact(ref)
    made_from = artifact.manifest.model
    if (made_from.tokenizer, made_from.template) != (model.tokenizer_digest, model.template_digest):
        raise UsageError(f"{ref}: was made from {made_from.ref}, whose tokenizer or chat template differs from {model.ref}'s")
    return model, artifact


def sentence_of(path: Any) -> str:
    """A kernel path in words."""
    what = f"{path.linears} linears of {path.shape[0]} x {path.shape[1]}: {path.got}"
    return what if not path.because else f"{what} instead of {path.asked} ({path.because})"


def candidate_of(artifact: Any) -> decide.Candidate:
    manifest = artifact.manifest
    return decide.Candidate(
        name=artifact.name,
        artifact=manifest.digest,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
    )


def summary_of(artifact: Any, out: Path) -> VariantSummary:
    manifest = artifact.manifest
    kept = [fate for fate in manifest.fates if fate.asked == "keep"]
    missed = [fate for fate in manifest.fates if fate.asked != fate.got and fate.asked != "keep"]
    return VariantSummary(
        name=artifact.name,
        artifact=manifest.digest,
        path=str(artifact.path.relative_to(out)),
        scheme=artifact.scheme.label,
        method=manifest.method,
        stored_bytes=manifest.tensor_bytes,
        bits_per_weight=manifest.bits_per_weight,
        bits_per_weight_whole=manifest.bits_per_weight_whole,
        quantized=len(manifest.quantized),
        kept=len(kept),
        fallbacks=tuple(f"{fate.name}: asked {fate.asked}, got {fate.got}: {fate.because}" for fate in missed),
        notes=tuple(f"{note.tensor}: {note.kind}: {note.detail}" for note in manifest.ledger),
        mean_error=manifest.mean_error,
    )


def write_reports(report: RunReport, out: Path) -> None:
    """report.json, report.html and junit.xml, each whole or not at all."""
    from quantgate.report.html import html_page
    from quantgate.report.junit import junit_xml
    from quantgate.records import write_whole

    report.save(out / "report.json")
    write_whole(out / "report.html", html_page(report).encode())
    write_whole(out / "junit.xml", junit_xml(report))


