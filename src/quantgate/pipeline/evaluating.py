"""The questions of a run: baseline and variants are asked the same cases, each by its own engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from quantgate.engines import Engine
from quantgate.evaluate import scorers
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison, Evidence, NoiseFloor
from quantgate.evaluate.lock import comparable
from quantgate.evaluate.noise import noise_floor, pace_of
from quantgate.models import OpenedModel
from quantgate.pipeline.cases import Cases
from quantgate.pipeline.drifting import drift_in, screened
from quantgate.pipeline.endpoints import Served, served
from quantgate.pipeline.executor import Local
from quantgate.pipeline.runtimes import TORCH, runtime_of
from quantgate.pipeline.under_way import Run
from quantgate.pipeline.variants import endpoints_of, engines_of, runtimes_of, sentences_of
from quantgate.pipeline.walk import Walk
from quantgate.target_config import FIXED_SEQUENCE

if TYPE_CHECKING:
    from quantgate.quantize import Artifact


def baseline_side(this: Run, model: OpenedModel) -> Side:
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


def noise_of(this: Run, base: Side, cases: Cases) -> list[NoiseFloor]:
    """How often the baseline contradicts itself; nothing where no case is to be asked twice."""
    tasks = [Task(gate, cases.gate[gate.capability]) for gate in cases.gates]

    def tell(done: int, total: int) -> None:
        this.progress("the baseline again", done, total, "")

    return noise_floor(tasks, base, this.out / "answers", this.config.judge.noise, tell)


def evaluate(
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
