"""Two models on the same cases, without a release: what ``quantgate compare`` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from quantgate import decide
from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import Stopped, UsageError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison, NoiseFloor, Pace
from quantgate.evaluate.noise import noise_floor, pace_of
from quantgate.models import OpenedModel, open_model
from quantgate.models.locate import locate
from quantgate.pipeline.cases import Cases, cases_of
from quantgate.pipeline.endpoints import OPENAI, Servers, endpoint_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.runtimes import TORCH, check_drafts, engine_for, runtime_of
from quantgate.pipeline.stacks import StackResult, compare_stacks, stacks_of
from quantgate.pipeline.variants import open_variant
from quantgate.records import Record, parse
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.engines import Engine
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]
DRIFT_CASES = 160  # held-out conversations for the drift of every stack


class CompareResult(Record):
    """Two models on the same cases."""

    baseline: str
    variant: str
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[decide.CapabilityVerdict, ...]
    runtime: tuple[str, ...] = ()  # the variant's engine and its settings: "engine=llamacpp", "kv_cache=q8_0"
    noise: tuple[NoiseFloor, ...] = ()
    pace: Pace | None = None
    stacks: tuple[StackResult, ...] = ()  # each setting of the runtime alone, and all together
    served: dict[str, str] = Field(default={}, exclude_if=lambda served: not served)
    """Who answered for a side that is a server, and what is known of its bytes."""


def compare_models(
    baseline: str,
    variant: str,
    suite: Sequence[str],
    *,
    margin: str | float = 0.03,
    cases: int = 400,
    alpha: float = 0.05,
    seed: int = 0,
    engine: str = TORCH,
    runtime: RuntimeConfig | None = None,
    each: bool = False,
    noise: int = 50,
    endpoint: EndpointConfig | None = None,
    baseline_endpoint: EndpointConfig | None = None,
    secrets: Mapping[str, str] = {},
    out: Path = Path("runs/compare"),
    progress: Progress | None = None,
) -> CompareResult:
    """Ask two models the same cases; ``suite`` names capabilities or JSONL files, ``variant`` a model or an artifact.

    ``engine`` "llamacpp" runs a GGUF file in llama.cpp, once it is proven, as ``runtime`` sets it; ``each`` judges
    every setting of it by itself, too. ``noise`` cases of every suite are asked the baseline twice. A side may be a
    server: an address such as ``http://127.0.0.1:8000/v1#model``, or what ``endpoint`` and ``baseline_endpoint`` say;
    ``secrets`` holds their keys by the variables' names. Every suite is judged at ``alpha`` on its own; ``out`` keeps
    the answers, so a stopped comparison goes on. Raises UsageError, DataError and ModelError before anything slow,
    EngineError for a server that cannot be asked, Stopped on Ctrl-C.
    """
    found = _cases(suite, {"margin": margin, "cases": cases}, {"alpha": alpha, "seed": seed}, DRIFT_CASES * each)
    servers = Servers(
        baseline_endpoint or endpoint_of(baseline, None, {}), endpoint or endpoint_of(variant, None, {}), out, secrets,
        progress or (lambda *_: None),
    )  # fmt: skip
    servers.check(engine, runtime, each=each)
    if each:
        stacks_of(runtime or RuntimeConfig())  # refuses settings of which none is set
    try:
        with alone_in(out), servers:
            asked = _Asked(found, noise, progress or (lambda *_: None))
            result = asked.compare(_Pair(baseline, variant, engine, runtime, out, servers), each=each)
    except KeyboardInterrupt:
        sentence = f"stopped; the answers so far are kept in {out}, and the same command goes on from there"
        raise Stopped(sentence) from None
    result.save(out / "compare.json")
    return result


def _cases(suite: Sequence[str], rules: dict[str, Any], judge: dict[str, Any], drift_cases: int) -> Cases:
    """The gates and cases of every named suite, as a release with one variant would have them."""
    capabilities: dict[str, dict[str, Any]] = {}
    for one in suite:
        name = Path(one).stem if one.endswith(".jsonl") else one
        if name in capabilities:
            raise UsageError(f"suite '{one}': a suite called '{name}' is named already; keep one, or rename the file")
        capabilities[name] = rules | ({"suite": one} if one.endswith(".jsonl") else {})
    data = {"capabilities": capabilities, "variants": ["BF16"], "judge": judge, "drift_cases": drift_cases}
    found = cases_of(parse(ReleaseConfig, data, where="compare"), 1)
    decide.refuse_hopeless(found.gates, {name: len(group) for name, group in found.gate.items()})
    return found


class _Pair:
    """Both models, opened once, and their engines in any stack."""

    def __init__(
        self, baseline: str, variant: str, engine: str, runtime: RuntimeConfig | None, out: Path, servers: Servers
    ) -> None:
        self.names, self.engine, self.runtime, self.out = (baseline, variant), engine, runtime, out
        self.model = None if servers.baseline else open_model(baseline)
        if self.model is not None:
            check_drafts(self.model, [runtime])
        self.opened = None if servers.variant else open_pair(variant, self.model)
        self.servers = servers

    def baseline(self) -> Side:
        from quantgate.quantize import baseline

        if self.model is None:
            return self._kept(self.servers.open("baseline", self.names[0]))
        return self._side(self.model, baseline(self.model), TORCH, None)

    def variant(self, runtime: RuntimeConfig | None) -> Side:
        if self.opened is None:
            return self._kept(self.servers.open("variant", self.names[1]))
        return self._side(*self.opened, self.engine, runtime)

    def _kept(self, engine: Engine) -> Side:
        return Side(engine, Answers(self.out / "answers", engine.identity))

    def _side(self, model: OpenedModel, artifact: Artifact, name: str, runtime: RuntimeConfig | None) -> Side:
        engine, _ = engine_for(model, artifact, name, self.out, runtime)
        return self._kept(engine)


@dataclass(frozen=True)
class _Asked:
    """What both sides are asked, and who is told how far it is."""

    cases: Cases
    noise: int
    progress: Progress

    def compare(self, pair: _Pair, *, each: bool) -> CompareResult:
        tasks = [Task(gate, self.cases.gate[gate.capability]) for gate in self.cases.gates]
        base, stacks = pair.baseline(), list[StackResult]()
        if each:
            wanted = pair.runtime or RuntimeConfig()
            stacks = compare_stacks(tasks, base, pair.variant, wanted, self.cases.drift, self._tell)
            comparisons, pace = stacks[-1].comparisons, stacks[-1].pace
        else:
            side = pair.variant(pair.runtime)
            comparisons = tuple(compare_all(tasks, base, side, progress=lambda *seen: self._tell("comparing", *seen)))
            pace = pace_of(side.answers.held.values())
        return CompareResult(
            baseline=pair.names[0],
            variant=pair.names[1],
            comparisons=comparisons,
            verdicts=tuple(decide.judge_capability(one.gate, one) for one in comparisons),
            runtime=runtime_of(OPENAI if pair.opened is None else pair.engine, pair.runtime),
            noise=tuple(noise_floor(tasks, base, pair.out / "answers", self.noise, self._tell_noise)),
            pace=pace,
            stacks=tuple(stacks),
            served=pair.servers.told,
        )

    def _tell(self, stage: str, done: int, total: int, undecided: list[str]) -> None:
        self.progress(stage, done, total, ", ".join(undecided))

    def _tell_noise(self, done: int, total: int) -> None:
        self.progress("the baseline again", done, total, "")


def open_pair(ref: str, model: OpenedModel | None) -> tuple[OpenedModel, Artifact]:
    """An artifact made from ``model``, by quantgate or another program, or another full model."""
    from quantgate.quantize import baseline as as_baseline
    from quantgate.quantize.foreign import is_foreign

    file = ref.lower().endswith(".gguf")
    folder = Path(ref) if file else locate(ref)
    if file or (folder / "manifest.json").is_file() or is_foreign(folder):
        if model is None:
            raise UsageError(f"{ref}: is read by the model it was made from, and the baseline is a server; serve both")
        return model, open_variant(ref, model)
    other = open_model(ref)
    return other, as_baseline(other)
