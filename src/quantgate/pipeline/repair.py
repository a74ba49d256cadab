"""Repair: give precision back where a failing capability lives, and send the result to the gate again.

    failed variant -> sensitivity on the tune split -> mixtures from small to large -> the first that keeps the
    capability on the tune split -> the gate, on cases that nobody has asked before

Every layer's bytes come from an artifact of the same run, so nothing is quantized anew. The gate's cases have no part
in choosing the mixture; those that judged the failed variant are left out, since its failure is why we are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.engines import Engine
from quantgate.errors import DataError, Stopped, UsageError
from quantgate.evaluate import scorers, suites
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Pairs, Side, Task, compare_all, mean
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.evaluate.lock import Terms, agreed, comparable, terms_of
from quantgate.evaluate.suites import Case
from quantgate.pipeline import auto, overlaps, probing, published_suites
from quantgate.pipeline.cases import calibration_of
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.repair_bench import Bench, bench_of
from quantgate.pipeline.repair_record import record_of, write
from quantgate.pipeline.runtimes import TORCH
from quantgate.pipeline.sharing import folder_of
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import sentences_of
from quantgate.quantize.manifest import BASELINE
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report.repairs import Repair, Trial

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.sensitivity import Sensitivity

SHARES = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)  # of the failed variant's foreseen drift, tried in this order
TUNE_CASES = 150  # per capability, that a mixture must keep before it may go to the gate
SPARE = 0.5  # share of the margin that may be lost on the tune split


def repair(
    config: ReleaseConfig | Path | str,
    variant: str,
    *,
    out: Path | None = None,
    label: str = "",
    progress: Progress | None = None,
) -> Repair:
    """Lift the cheapest set of ``variant``'s layers that brings back what it lost in the finished run of ``config``.

    ``label`` names the repaired artifact (default ``<variant>+repair``), which lands beside the others; the record and
    a report page land in ``repairs/<label>``.

    Raises UsageError when the run is not finished, the variant is unknown or lost nothing, FormatError when it cannot
    be mixed, DataError when the suites have no unseen cases left, Stopped on Ctrl-C.
    """
    if not isinstance(config, ReleaseConfig):
        config = load_config(Path(config))
    folder = folder_of(out or config.out)
    try:
        with alone_in(folder):
            return _repair(bench_of(config, folder, variant, label or f"{variant}+repair", progress))
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the answers so far are kept in {folder}, and the same command uses them") from None


def _repair(bench: Bench) -> Repair:
    from quantgate.engines.torch import open_engine
    from quantgate.quantize import baseline

    rules = _rules(bench)
    fresh = {gate.capability: _fresh(bench, gate) for gate in rules}  # all that can be refused, before anything slow
    decide.refuse_hopeless(rules, {name: len(cases) for name, cases in fresh.items()})
    chosen = calibration_of(bench.config, bench.model)
    overlaps.check(bench.config, chosen.turns, [case for cases in fresh.values() for case in cases], bench.out)
    for name in bench.targets:
        probing.tune_cases(bench.config, name, TUNE_CASES)
    base = Side(engine := open_engine(bench.model, baseline(bench.model)), _answers(bench, engine))
    _as_the_run(bench, terms_of(engine.identity, fresh))
    found = probing.probe(bench.config, bench.model, bench.sources, base, bench.out, bench.progress)
    trials = list[Trial]()
    for choice, foreseen in _mixtures(bench, found):
        made = _mixed(bench, choice)
        side = Side(engine := open_engine(bench.model, made), _answers(bench, engine))
        scores = {name: _tune_scores(bench, name, base, side) for name in bench.targets}
        kept = all(_kept(bench, name, *scores[name]) for name in bench.targets)
        trials.append(Trial(share=foreseen, bytes=made.manifest.tensor_bytes, scores=scores, kept=kept))
        if kept:
            break
    if not trials:
        raise UsageError(
            f"repair: only the model itself drifts less than {bench.name}; there is nothing to lift it with"
        )
    evidence = _gate(bench, rules, fresh, base, side, made)
    result = record_of(bench, found, choice, made, trials, evidence)
    write(bench, result, made)
    return result


def _as_the_run(bench: Bench, now: Terms) -> None:
    """Raises ComparabilityError when the run was judged on other terms: its failure would not be this one."""
    recorded = [one.lock for one in bench.report.evidence if one.variant == bench.name]
    for one in recorded:
        if one is not None:
            agreed(one.baseline, now, since=True)


def _answers(bench: Bench, engine: Engine) -> Answers:
    return Answers(bench.out / "answers", engine.identity)


def _rules(bench: Bench) -> list[Gate]:
    """The run's gates at alpha / 2 for its first repair, alpha / 4 for the second ...: alpha for all of them together.

    The run has spent an alpha of its own, whatever its order: a repair is a decision of its own.
    """
    level = bench.config.judge.alpha / 2**bench.number
    return [gate.model_copy(update={"pass_alpha": level, "hard": 0}) for gate in bench.report.gates]


def _fresh(bench: Bench, gate: Gate) -> list[Case]:
    """Gate cases that nothing of the run, nor an earlier repair, has been asked.

    Twice as many as a variant of the run could be asked, since a repair loses a little.
    """
    wanted, name = bench.config.capabilities[gate.capability], gate.capability
    count = 2 * wanted.cases
    start = (bench.number - 1) * count
    if (known := published_suites.suite_name(name, wanted)) is not None:
        return published_suites.fresh_cases(name, known, wanted, gate, bench.number, count)
    if wanted.suite is not None:
        return probing.unasked(wanted, name, gate.seed)[1::2][start : start + count]
    return suites.cases(name, "gate", wanted.cases + start + count, seed=gate.seed)[wanted.cases + start :]


def _mixtures(bench: Bench, found: Sensitivity) -> Iterator[tuple[dict[str, str], float]]:
    """Choices of ever less foreseen drift on the targets, and its share of the failed variant's; the last is the best.

    A source may only lend a group that it stores in more bytes than the failed variant does.
    """
    import numpy as np

    from quantgate.quantize.allocate import fewest_bytes

    names = [*bench.sources, BASELINE]
    sizes, drift = auto.sizes_of(bench.model, bench.sources, found), auto.drift_of(found)
    lends = sizes > sizes[:, :1]
    lends[:, 0] = True
    lends[:, -1] = True
    closed = np.where(lends, sizes, sizes.max() * 1e3)
    before = {name: float(one[:, 0].sum()) for name, one in drift.items()}
    seen = set[tuple[int, ...]]()
    for share in SHARES:
        ceilings = {name: before[name] * (share if name in bench.targets else 1.0) for name in drift}
        made = fewest_bytes(drift, closed, ceilings)
        if made.choice not in seen:
            seen.add(made.choice)
            choice = {
                layer: names[source] for group, source in zip(found.groups, made.choice, strict=True) for layer in group
            }
            if set(choice.values()) != {BASELINE}:
                yield choice, share


def _mixed(bench: Bench, choice: dict[str, str]) -> Artifact:
    from quantgate.quantize.mix import mix

    lost = " and ".join(bench.targets)
    because = {layer: f"lifted for {lost}" for layer, name in choice.items() if name != bench.name}
    return mix(bench.model, bench.sources, choice, bench.out / "artifacts" / bench.label, because=because)


def _tune_scores(bench: Bench, name: str, base: Side, side: Side) -> tuple[float, float]:
    """Mean scores of baseline and mixture on tune-split cases."""
    cases, pairs = probing.tune_cases(bench.config, name, TUNE_CASES), Pairs()
    bench.progress(f"trying on {name}", 0, len(cases), "")
    first, second = (one.answers.of(one.engine, cases) for one in (base, side))
    for case, answer, other in zip(cases, first, second, strict=True):
        pairs.add(case, answer, other)
    bench.progress(f"trying on {name}", len(cases), len(cases), "")
    before, after = (mean(scores) for scores in pairs.scores())
    if before is None or after is None:
        raise DataError(f"repair: none of the {len(cases)} tune-split cases of {name} could be scored")
    return before, after


def _kept(bench: Bench, name: str, before: float, after: float) -> bool:
    gate = next(one for one in bench.report.gates if one.capability == name)
    return before - after <= SPARE * gate.margin * (before if gate.relative else 1.0)


def _gate(
    bench: Bench, rules: Sequence[Gate], fresh: dict[str, list[Case]], base: Side, side: Side, made: Artifact
) -> Evidence:
    def tell(done: int, available: int, undecided: list[str]) -> None:
        bench.progress("evaluate", done, available, ", ".join(undecided))

    locked = comparable(base.engine.identity, side.engine.identity, fresh, allow=bench.config.allow)
    rows = compare_all([Task(gate, fresh[gate.capability]) for gate in rules], base, side, progress=tell)
    return Evidence(
        variant=made.name,
        artifact=made.manifest.digest,
        baseline=bench.model.weights_digest,
        engine=side.engine.identity.key,
        baseline_engine=base.engine.identity.key,
        kernels=sentences_of(side.engine.kernels),
        comparisons=tuple(rows),
        runtime=(f"engine={TORCH}",),
        drift=None,
        no_drift="a repair is not screened, it is judged",
        sandbox=scorers.ready(case.scorer for gate in rules for case in fresh[gate.capability]),
        lock=locked,
    )
