"""Repair: give precision back where a failing capability lives, and send the result to the gate again.

    failed variant -> sensitivity on the tune split -> mixtures from small to large -> the first that keeps the
    capability on the tune split -> the gate, on cases that nobody has asked before

Every layer's bytes come from an artifact of the same run, so nothing is quantized anew. The gate's cases have no part
in choosing the mixture; those that judged the failed variant are left out, since its failure is why we are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.engines import Engine
from quantgate.errors import DataError, FormatError, Stopped, UsageError, hint
from quantgate.evaluate import scorers, suites
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Pairs, Side, Task, compare_all, mean, visiting_order
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.evaluate.lock import Terms, agreed, comparable, terms_of
from quantgate.evaluate.suites import Case
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import auto, deciding, made_suites, overlaps, probing, published_suites, targets
from quantgate.pipeline.cases import calibration_of, gate_cases
from quantgate.pipeline.lock import alone_in
from quantgate.pipeline.runtimes import TORCH
from quantgate.pipeline.sharing import folder_of
from quantgate.pipeline.two_models import Progress
from quantgate.pipeline.variants import candidate_of, sentences_of, summary_of
from quantgate.quantize.manifest import BASELINE, SAFE_NAME
from quantgate.records import digest_of, folder_aside
from quantgate.release_config import ReleaseConfig, load_config
from quantgate.report import RunReport
from quantgate.report.environment import environment
from quantgate.report.repairs import Lift, Repair, Trial

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.sensitivity import Sensitivity

SHARES = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)  # of the failed variant's foreseen drift, tried in this order
TUNE_CASES = 150  # per capability, that a mixture must keep before it may go to the gate
SPARE = 0.5  # share of the margin that may be lost on the tune split


@dataclass
class Bench:
    """What a repair works on."""

    config: ReleaseConfig
    out: Path
    report: RunReport
    model: OpenedModel
    name: str  # of the failed variant
    label: str  # of the repaired one
    number: int  # the first repair of this run, the second ...
    targets: tuple[str, ...]  # capabilities that it did not keep
    sources: dict[str, Artifact]  # the failed variant first
    progress: Progress


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
            return _repair(_bench(config, folder, variant, label or f"{variant}+repair", progress))
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the answers so far are kept in {folder}, and the same command uses them") from None


def _bench(config: ReleaseConfig, out: Path, variant: str, label: str, progress: Progress | None) -> Bench:
    from quantgate.quantize import open_artifact
    from quantgate.quantize.artifact import MANIFEST
    from quantgate.quantize.mix import mixable

    report = _finished(config, out)
    names = [one.name for one in report.variants]
    if variant not in names:
        raise UsageError(f"repair: '{variant}' is no variant of {out / 'report.json'}; {hint(variant, names)}")
    verdict = next(one for one in report.decision.verdicts if one.variant == variant)
    targets = tuple(one.capability for one in verdict.capabilities if one.verdict != "pass")
    if not targets:
        raise UsageError(f"repair: {variant} passed on every capability; there is nothing to repair")
    if not SAFE_NAME.fullmatch(label) or label in names:
        raise UsageError(f"repair: '{label}' cannot name the repaired variant; give another name")
    if next(one.kin for one in report.variants if one.name == variant) is not None:
        raise UsageError(
            f"repair: '{variant}' is a model of its own, and no layer of the baseline fits it; repair it in a release "
            "that has it as 'model' above its variants"
        )
    model = open_model(config.model)
    ours = [one for one in report.variants if (out / one.path / MANIFEST).is_file()]
    if variant not in [one.name for one in ours]:
        raise FormatError(f"repair: '{variant}' is another program's artifact; only quantgate's own can be mixed")
    found = {one.name: open_artifact(out / one.path) for one in ours}
    for one in ours:
        if found[one.name].manifest.digest != one.artifact:
            raise UsageError(f"repair: {out / one.path} is not what {out / 'report.json'} judged; run it again")
    if found[variant].rounds_inputs:
        raise FormatError(f"repair: {variant} rounds activations too, which gradients by weights do not foresee")
    if reason := mixable(model, variant, found[variant]):
        raise FormatError(f"repair: {reason}; repair another variant")
    others = {
        name: one
        for name, one in found.items()
        if name != variant and not mixable(model, name, one) and not one.rounds_inputs
    }
    sources = {variant: found[variant], **others}
    number = _number(out, label)
    return Bench(config, out, report, model, variant, label, number, targets, sources, progress or (lambda *_: None))


def _finished(config: ReleaseConfig, out: Path) -> RunReport:
    file = out / "report.json"
    if not file.is_file():
        raise UsageError(f"repair: no {file}; finish the run first, with: quantgate run")
    report = RunReport.load(file)
    if report.config != config.content:
        raise UsageError(f"repair: {file} is of another configuration; run it again, with: quantgate run")
    for row in report.evidence[0].comparisons:
        made_suites.refuse(config.capabilities[row.gate.capability], row.gate.capability, "a repair")
        cases, _ = gate_cases(row.gate.capability, config.capabilities[row.gate.capability], row.gate.seed)
        if row.suite_digest != digest_of([case.digest for case in visiting_order(cases, row.gate.seed)]):
            raise UsageError(
                f"repair: the cases of {row.gate.capability} are no longer those of the run, so nobody can tell which "
                "ones it asked; run it again, with: quantgate run"
            )
    return report


def _number(out: Path, label: str) -> int:
    """The how-many-th repair of the run this is; made once more, it keeps its number."""
    known = {file.parent.name: Repair.load(file).number for file in sorted((out / "repairs").glob("*/repair.json"))}
    return known.get(label, max(known.values(), default=0) + 1)


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
    result = _record(bench, found, choice, made, trials, evidence)
    _write(bench, result, made)
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


def _record(
    bench: Bench,
    found: Sensitivity,
    choice: dict[str, str],
    made: Artifact,
    trials: Sequence[Trial],
    evidence: Evidence,
) -> Repair:
    judge = bench.config.judge
    candidate = candidate_of(made)
    gates = [one.gate for one in evidence.comparisons]
    failed = next(one for one in bench.report.candidates if one.name == bench.name)
    return Repair(
        variant=bench.name,
        repaired=made.name,
        number=bench.number,
        targets=bench.targets,
        lifts=tuple(_lifts(bench, found, choice)),
        trials=tuple(trials),
        bytes_before=failed.stored_bytes,
        bytes_after=candidate.stored_bytes,
        chosen=bench.report.decision.chosen,
        chosen_bytes=next(
            (one.stored_bytes for one in bench.report.candidates if one.name == bench.report.decision.chosen), None
        ),
        report=deciding.of_repair(
            bench.report,
            bench.report.model_copy(
                update={
                    "title": f"repair of {bench.name}",
                    "gates": tuple(gates),
                    "candidates": (candidate,),
                    "variants": (summary_of(made, bench.out, bench.model),),
                    "evidence": (evidence,),
                    "decision": decide.decide(
                        gates, [candidate], [evidence], alpha=judge.alpha, order=judge.order, ledger=judge.ledger
                    ),
                    "placed": targets.place_again(bench.report.placed, bench.model, [made]),
                    "loads": (),
                    "targets": (),
                    "environment": environment(),
                    "stages": (),
                }
            ),
        ),
    )


def _lifts(bench: Bench, found: Sensitivity, choice: dict[str, str]) -> Iterator[Lift]:
    """The groups that no longer come from the failed variant, those that gain most per byte first."""
    from quantgate.quantize.mix import cost

    made = list[Lift]()
    for at, group in enumerate(found.groups):
        name = choice[group[0]]
        if name == bench.name:
            continue
        lent = bench.sources.get(name)
        added = sum(
            cost(bench.model, lent, layer) - cost(bench.model, bench.sources[bench.name], layer) for layer in group
        )
        column = None if lent is None else found.sources.index(name)
        drop = {
            capability: float(kl[at, 0] - (0 if column is None else kl[at, column]))
            for capability in bench.targets
            for kl in (found.kl(capability),)
        }
        made.append(Lift(layers=group, source=name, bytes_added=added, drift_removed=drop))
    return iter(sorted(made, key=lambda one: -sum(one.drift_removed.values()) / max(one.bytes_added, 1)))


def _write(bench: Bench, result: Repair, made: Artifact) -> None:
    from quantgate.pipeline import write_reports

    with folder_aside(bench.out / "repairs" / made.name) as folder:
        write_reports(result.report, folder)
        result.save(folder / "repair.json")
