"""The stage "load" of a run: on targets that are this machine, what keeps every other rule is asked under load.

The smallest variant first (or the cheapest), and no further than the answer needs. Baseline and variant answer the same
requests in turns, in the target's runtime, with prompts and answers as long as the target says. Every load test has a
folder, ``loads/<target>-<variant>``, with its journal, from which a killed run goes on, its result and its page.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.decide import Candidate
from quantgate.decide.load_evidence import load_evidence
from quantgate.decide.load_order import next_to_load
from quantgate.decide.planning import Plan
from quantgate.decide.rules import LoadEvidence, TargetRules
from quantgate.decide.targets import TargetDecision
from quantgate.evaluate.evidence import Evidence
from quantgate.models import OpenedModel
from quantgate.pipeline import deciding
from quantgate.pipeline.load_plan import Asked, asked_of
from quantgate.pipeline.loading import Progress, Side, in_process, load_sides, schedules_of, sources_of
from quantgate.pipeline.runtimes import TORCH
from quantgate.pipeline.students import Students
from quantgate.pipeline.variants import engines_of, runtimes_of
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

FOLDER = "loads"
BASELINE_FILE = "baseline.gguf"
Decide = Callable[[TargetRules, Sequence[LoadEvidence]], TargetDecision]


def load_targets(
    config: ReleaseConfig,
    model: OpenedModel,
    artifacts: Sequence[Artifact],
    rules: Sequence[TargetRules],
    evidence: Sequence[Evidence],
    placed: Plan | None,
    out: Path,
    progress: Progress,
    students: Students,
) -> tuple[LoadEvidence, ...]:
    """Load evidence of the variants of a run, as much of it as the choice for each target needs."""
    candidates = [students.candidate(one, model) for one in artifacts]

    def decide(rule: TargetRules, loads: Sequence[LoadEvidence]) -> TargetDecision:
        return deciding.decide_targets([rule], candidates, evidence, placed, loads, config)[0]

    stage = LoadStage(
        model=model,
        students=students,
        artifacts={one.name: one for one in artifacts},
        engines=engines_of(config.variants),
        runtimes=runtimes_of(config.variants),
        candidates={one.name: one for one in candidates},
        evidence={one.variant: one for one in evidence},
        decide=decide,
        out=out,
        progress=progress,
    )
    return tuple(stage.of(rules, asked_of(config)))


@dataclass(frozen=True)
class LoadStage:
    """What every load test of a run needs."""

    model: OpenedModel
    students: Students  # variants that are models of their own
    artifacts: Mapping[str, Artifact]  # by the variants' names
    engines: Mapping[str, str]  # that answered for the variants
    runtimes: Mapping[str, RuntimeConfig]  # how these are set
    candidates: Mapping[str, Candidate]
    evidence: Mapping[str, Evidence]
    decide: Decide
    out: Path
    progress: Progress

    def of(self, rules: Sequence[TargetRules], asked: Sequence[Asked]) -> list[LoadEvidence]:
        """Evidence of the variants that had to be tested, target by target."""
        by_name = {one.name: one for one in rules}
        return [found for one in asked for found in self._target(by_name[one.target], one)]

    def _target(self, rules: TargetRules, asked: Asked) -> list[LoadEvidence]:
        found = list[LoadEvidence]()
        base: Side | None = None
        while name := next_to_load(self.decide(rules, found), {one.variant for one in found}):
            base = base or self._baseline(asked)
            found.append(self._variant(rules, asked, base, name))
        return found

    def _variant(self, rules: TargetRules, asked: Asked, base: Side, name: str) -> LoadEvidence:
        """A load test; where the machine was too busy to hold the rate, a second one, and a later run makes a third."""
        found = self._once(rules, asked, base, name)
        return found if found.measured.validity.valid or found.partial else self._once(rules, asked, base, name)

    def _once(self, rules: TargetRules, asked: Asked, base: Side, name: str) -> LoadEvidence:
        """One load test, or what the journal holds of it. Raises Stopped on Ctrl-C, with a partial result on disk.

        The journal of a run that is not valid is not kept: validity says nothing of fast or slow.
        """
        wanted, folder = asked.wanted, self.out / FOLDER / f"{asked.target}-{name}"
        model, artifact = self.students.model_of(name, self.model), self.artifacts[name]
        side = in_process(model, artifact, name, asked.engine, wanted.rows, self._settings(asked, name))
        side = replace(side, arm=side.arm.model_copy(update={"weights": self.candidates[name].artifact}))
        result = load_sides(
            [base, side],
            wanted,
            schedules_of(wanted),
            sources_of(wanted),
            out=folder,
            progress=lambda _stage, done, total, note: self.progress(f"load {asked.target}: {name}", done, total, note),
        )
        evidence = load_evidence(
            result, rules, self.candidates[name], self.evidence.get(name), where=str(folder / "load.json")
        )
        if not evidence.measured.validity.valid and not evidence.partial:
            shutil.rmtree(folder / "journal")
        return evidence

    def _settings(self, asked: Asked, name: str) -> dict[str, Any]:
        """The stack that was judged, where it is the target's engine; the target's word on the cache goes before it."""
        runtime = self.runtimes.get(name) if self.engines.get(name) == asked.engine else None
        return (runtime or RuntimeConfig()).settings(asked.engine) | _cache(asked)

    def _baseline(self, asked: Asked) -> Side:
        """The model itself in the target's runtime; for llama.cpp as a file in the type of its weights."""
        from quantgate.quantize import baseline

        made: Any = baseline(self.model) if asked.engine == TORCH else self._baseline_file()
        return in_process(self.model, made, "baseline", asked.engine, asked.place.concurrency, _cache(asked))

    def _baseline_file(self) -> Artifact:
        from quantgate.quantize.foreign.gguf import open_gguf_artifact
        from quantgate.quantize.gguf import make_gguf

        path = self.out / FOLDER / BASELINE_FILE
        if not path.is_file():
            stored = next(iter(self.model.files.entries.values())).dtype
            make_gguf(
                self.model,
                path,
                stored if stored in ("F16", "F32") else "BF16",
                progress=lambda done, total: self.progress("baseline as GGUF", done, total, ""),
            )
        return open_gguf_artifact(path, self.model, "baseline", plain=True)


def _cache(asked: Asked) -> dict[str, Any]:
    """The type of cached keys and values, where the target names one and the engine can be told."""
    return {"kv_cache": asked.place.kv_cache} if asked.engine != TORCH and asked.place.kv_cache != "auto" else {}
