"""What a repair works on: a finished run, the variant that failed in it, and the artifacts that may lend it layers.

What cannot be repaired is refused here, before anything slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.errors import FormatError, UsageError, hint
from quantgate.evaluate.compare import visiting_order
from quantgate.models import OpenedModel, open_model
from quantgate.pipeline import made_suites
from quantgate.pipeline.cases import gate_cases
from quantgate.pipeline.two_models import Progress
from quantgate.quantize.manifest import SAFE_NAME
from quantgate.records import digest_of
from quantgate.release_config import ReleaseConfig
from quantgate.report import RunReport
from quantgate.report.repairs import Repair

if TYPE_CHECKING:
    from quantgate.quantize import Artifact


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


def bench_of(config: ReleaseConfig, out: Path, variant: str, label: str, progress: Progress | None) -> Bench:
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
