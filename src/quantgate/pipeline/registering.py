"""From the folder of a finished run to the registry: its variants, their evidence, and the decision of each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantgate.decide import Decision
from quantgate.decide.targets import NOBODY, TargetDecision
from quantgate.errors import ArtifactError, ReleaseError, UsageError
from quantgate.evaluate.evidence import Evidence
from quantgate.quantize.manifest import BASELINE, Manifest
from quantgate.release import Variant
from quantgate.release.lifecycle import rebase
from quantgate.release.store import Registered, Registry
from quantgate.report import RunReport

TARGET = "default"  # of a run whose release.yaml names none
REPORT = "report.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a run's folder has for the registry."""

    baseline: Variant
    variants: tuple[Variant, ...]
    evidence: tuple[Evidence, ...]
    decisions: Mapping[str, Decision | TargetDecision]  # by target
    notes: tuple[str, ...]  # what could not be found in the folder


def read_run(folder: Path, *, target: str | None = None) -> FinishedRun:
    """Read a run's folder; ``target`` names the one target of a run whose release.yaml names none.

    Raises RecordError for a folder without a whole report, ArtifactError for an artifact that was changed since,
    UsageError for a target that a run with targets does not have a use for.
    """
    report = RunReport.load(folder / REPORT)
    if report.targets and target is not None:
        names = ", ".join(one.target for one in report.targets)
        raise UsageError(f"{folder}: the run decided for its own targets ({names}); leave --target out")
    engines = {one.variant: one for one in report.evidence}
    variants, notes = list[Variant](), list[str]()
    for one in report.candidates:
        known = engines.get(one.name)
        engine = known.engine if known is not None and known.artifact == one.artifact else NOBODY
        location, note = _location(folder, report, one.name, one.artifact)
        variants.append(Variant(name=one.name, artifact=one.artifact, engine=engine, location=location))
        notes += [note] if note else []
    decided: dict[str, Decision | TargetDecision] = {one.target: one for one in report.targets}
    return FinishedRun(
        baseline=Variant(
            name=BASELINE,
            artifact=report.baseline,
            engine=report.evidence[0].baseline_engine if report.evidence else NOBODY,
            location=str(Path(report.model).resolve()) if Path(report.model).exists() else report.model,
            is_baseline=True,
        ),
        variants=tuple(variants),
        evidence=report.evidence,
        decisions=decided or {target or TARGET: report.decision},
        notes=tuple(notes),
    )


def register_run(registry: Registry, run: FinishedRun, *, new_baseline: bool = False) -> Registered:
    """Add a run to the registry. ``new_baseline``: targets that serve another baseline take the run's at once.

    Raises ReleaseError where a target serves another baseline and nobody said that it may be replaced.
    """
    if not new_baseline:
        for target in run.decisions:
            _refuse_stranger(registry, target, run.baseline)
    found = registry.register(run.variants, run.evidence, run.decisions, baseline=run.baseline)
    for target in run.decisions if new_baseline else ():
        rebase(registry, target, run.baseline, why="registered with --new-baseline")
    return found


def _refuse_stranger(registry: Registry, target: str, baseline: Variant) -> None:
    if registry.revision(target) and (live := registry.live(target)).baseline.artifact != baseline.artifact:
        raise ReleaseError(
            f"{target}: it serves the baseline {live.baseline.artifact[:19]} and the run compared with "
            f"{baseline.artifact[:19]}; to serve that one from now on, say --new-baseline"
        )


def _location(folder: Path, report: RunReport, name: str, artifact: str) -> tuple[str, str]:
    """Where a variant's files lie, and a note where they do not."""
    path = next((one.path for one in report.variants if one.name == name), None)
    place = None if path is None else (folder / path).resolve()
    if place is None or not place.exists():
        return "", f"{name}: its files are not in the run's folder any more; register where they lie before it serves"
    manifest = (place if place.is_dir() else place.parent) / MANIFEST
    if manifest.is_file() and (found := Manifest.load(manifest).digest) != artifact:
        raise ArtifactError(
            f"{manifest}: is of {found[:19]}, and the run judged {artifact[:19]}; run it again, so that what is "
            "registered is what was judged"
        )
    return str(place), ""
