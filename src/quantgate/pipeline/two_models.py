"""Two models on the same cases, without a release: what ``quantgate compare`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from quantgate import decide
from quantgate.errors import Stopped, UsageError
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, Task, compare_all
from quantgate.evaluate.evidence import Comparison
from quantgate.evaluate.lock import Lock, comparable
from quantgate.models import OpenedModel, open_model
from quantgate.models.locate import locate
from quantgate.pipeline.cases import Cases, cases_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.runtimes import TORCH, check_drafts, engine_for
from quantgate.pipeline.variants import open_variant
from quantgate.records import Record, parse
from quantgate.release_config import ReleaseConfig
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

Progress = Callable[[str, int, int, str], None]


class CompareResult(Record):
    """Two models on the same cases."""

    baseline: str
    variant: str
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[decide.CapabilityVerdict, ...]
    lock: Lock | None = Field(default=None, exclude_if=lambda lock: lock is None)  # what both sides have in common


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
    allow: Sequence[str] = (),
    out: Path = Path("runs/compare"),
    progress: Progress | None = None,
) -> CompareResult:
    """Ask two models the same cases; ``suite`` names capabilities or JSONL files, ``variant`` a model or an artifact.

    ``engine`` "llamacpp" runs a GGUF file in llama.cpp, once it is proven, as ``runtime`` sets it. Every suite is
    judged at ``alpha`` on its own, and both sides must be asked alike but for what ``allow`` names. ``out`` keeps the
    answers, so a stopped comparison goes on. Raises UsageError, DataError, ModelError and ComparabilityError before
    anything slow, Stopped on Ctrl-C.
    """
    found = _cases(suite, {"margin": margin, "cases": cases}, {"alpha": alpha, "seed": seed})
    try:
        with alone_in(out):
            comparisons, locked = _compare(baseline, variant, found, (engine, runtime), allow, out, progress)
    except KeyboardInterrupt:
        sentence = f"stopped; the answers so far are kept in {out}, and the same command goes on from there"
        raise Stopped(sentence) from None
    verdicts = tuple(decide.judge_capability(one.gate, one) for one in comparisons)
    result = CompareResult(
        baseline=baseline, variant=variant, comparisons=tuple(comparisons), verdicts=verdicts, lock=locked
    )
    result.save(out / "compare.json")
    return result


def _cases(suite: Sequence[str], rules: dict[str, Any], judge: dict[str, Any]) -> Cases:
    """The gates and cases of every named suite, as a release with one variant would have them."""
    capabilities: dict[str, dict[str, Any]] = {}
    for one in suite:
        name = Path(one).stem if one.endswith(".jsonl") else one
        if name in capabilities:
            raise UsageError(f"suite '{one}': a suite called '{name}' is named already; keep one, or rename the file")
        capabilities[name] = rules | ({"suite": one} if one.endswith(".jsonl") else {})
    data = {"capabilities": capabilities, "variants": ["BF16"], "judge": judge, "drift_cases": 0}
    found = cases_of(parse(ReleaseConfig, data, where="compare"), 1)
    decide.refuse_hopeless(found.gates, {name: len(group) for name, group in found.gate.items()})
    return found


def _compare(
    baseline: str,
    variant: str,
    found: Cases,
    engine: tuple[str, RuntimeConfig | None],
    allow: Sequence[str],
    out: Path,
    progress: Progress | None,
) -> tuple[list[Comparison], Lock]:
    from quantgate.quantize import baseline as as_baseline

    model = open_model(baseline)
    check_drafts(model, [engine[1]])
    other_model, artifact = _open_variant(variant, model)
    engines = [
        engine_for(opened, what, name, out, runtime)[0]
        for opened, what, (name, runtime) in (
            (model, as_baseline(model), (TORCH, None)),
            (other_model, artifact, engine),
        )
    ]
    locked = comparable(engines[0].identity, engines[1].identity, found.gate, allow=allow)
    sides = [Side(one, Answers(out / "answers", one.identity)) for one in engines]

    def tell(done: int, available: int, undecided: list[str]) -> None:
        if progress:
            progress("comparing", done, available, ", ".join(undecided))

    tasks = [Task(gate, found.gate[gate.capability]) for gate in found.gates]
    return compare_all(tasks, *sides, progress=tell), locked


def _open_variant(ref: str, model: OpenedModel) -> tuple[OpenedModel, Artifact]:
    """An artifact made from ``model``, by quantgate or another program, or another full model."""
    from quantgate.quantize import baseline as as_baseline
    from quantgate.quantize.foreign import is_foreign

    if ref.lower().endswith(".gguf"):
        return model, open_variant(ref, model)
    folder = locate(ref)
    if (folder / "manifest.json").is_file() or is_foreign(folder):
        return model, open_variant(ref, model)
    other = open_model(ref)
    return other, as_baseline(other)
