"""The record of a repair: what was lifted and what it cost, what was tried, and the report of its gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from quantgate import decide
from quantgate.evaluate.evidence import Evidence
from quantgate.pipeline import deciding, targets
from quantgate.pipeline.repair_bench import Bench
from quantgate.pipeline.variants import candidate_of, summary_of
from quantgate.records import folder_aside
from quantgate.report.environment import environment
from quantgate.report.repairs import Lift, Repair, Trial

if TYPE_CHECKING:
    from quantgate.quantize import Artifact
    from quantgate.quantize.sensitivity import Sensitivity


def record_of(
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


def write(bench: Bench, result: Repair, made: Artifact) -> None:
    from quantgate.pipeline import write_reports

    with folder_aside(bench.out / "repairs" / made.name) as folder:
        write_reports(result.report, folder)
        result.save(folder / "repair.json")
