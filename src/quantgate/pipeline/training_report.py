"""What a training run tells while it runs, gathered into its report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import RecordError
from quantgate.evaluate.overlap import Overlaps
from quantgate.models import OpenedModel
from quantgate.quantize.manifest import Training
from quantgate.report.training import BlockRow, CurveRow, Held, Rebuilt, SourceRow, TrainingReport, said, write
from quantgate.train import Row, Tell, TrainingSet, tokens_of
from quantgate.train.launch import follows
from quantgate.train.options import DistillOptions, QatOptions

if TYPE_CHECKING:
    from quantgate.quantize import Artifact

CURVE = "curve.jsonl"
ALL = "the finished result of the same inputs: nothing was trained anew"


class Watched:
    """A ``Tell`` that passes on what it is told; it keeps the curve, each stage's seconds, and what was re-used."""

    def __init__(self, out: Path, name: str, tell: Tell | None) -> None:
        self.out, self.name, self._tell = out, name, tell
        self.rows: dict[int, Row] = {}
        self.stages: dict[str, float] = {}
        self.reused: list[str] = []
        self.said: list[str] = []
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, row: Row | None = None) -> None:
        now = time.monotonic()
        if stage.startswith(("resumed", "re-used")):
            self.reused.append(f"{stage} at step {row.step:,}" if row is not None else stage)
        elif said(stage, done, total):
            self.said.append(stage)
        else:
            self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now
        if row is not None:
            self.rows[row.step] = row
        if self._tell is not None:
            self._tell(stage, done, total, row)

    def curve(self, file: Path) -> tuple[CurveRow, ...]:
        """Of all calls that trained this: as ``file`` has it, as an earlier report does, and what was told now."""
        found = {one.step: one for one in self._earlier()}
        found |= {row.step: _row(row) for row in _read(file)}
        found |= {step: _row(row) for step, row in self.rows.items()}
        return tuple(found[step] for step in sorted(found))

    def _earlier(self) -> tuple[CurveRow, ...]:
        """Where nothing was trained now, the earlier report is of the same run."""
        if self.rows:
            return ()
        try:
            return TrainingReport.load(self.out / f"{self.name}.json").curve
        except RecordError:
            return ()


def qat_report(
    model: OpenedModel, options: QatOptions, artifact: Artifact, data: TrainingSet, held: Overlaps, watched: Watched
) -> TrainingReport:
    """Written beside the artifact."""
    from quantgate.train.qat import SUMMARY, work_folder

    manifest = artifact.manifest
    assert manifest.training is not None
    work = work_folder(watched.out, manifest.inputs)
    return _written(
        watched, work / CURVE, data, held, manifest.training, rebuilt=_rebuilt(work / SUMMARY),
        method="qat", name=artifact.name, model=model.ref, path=str(artifact.path), digest_made=manifest.digest,
        scheme=artifact.label, start=options.start,
        stored_bytes=manifest.tensor_bytes, baseline_bytes=model.weights_bytes,
    )  # fmt: skip


def distilled_report(
    model: OpenedModel, options: DistillOptions, folder: Path, data: TrainingSet, held: Overlaps, watched: Watched
) -> TrainingReport:
    """Written beside the student's folder."""
    from quantgate.models import open_model

    training, student = Training.load(folder / "training.json"), open_model(folder)
    return _written(
        watched, folder / CURVE, data, held, training,
        method="distill", name=folder.name, model=model.ref, path=str(folder), digest_made=training.digest,
        start=f"{student.depth} of {model.depth} blocks, {student.parameters:,} of {model.parameters:,} parameters",
        stored_bytes=student.weights_bytes, baseline_bytes=model.weights_bytes,
    )  # fmt: skip


def _written(
    watched: Watched, curve: Path, data: TrainingSet, held: Overlaps, training: Training, **more: Any
) -> TrainingReport:
    report = TrainingReport(
        training=training,
        data=data.summary,
        sources=_sources(data),
        notes=data.notes,
        said=tuple(watched.said),
        held=Held(samples=held.samples, cases=held.cases, suites=held.suites, sources=held.sources),
        curve=watched.curve(curve),
        stages={name: round(spent, 3) for name, spent in watched.stages.items() if spent >= 0.05},
        reused=tuple(watched.reused) if watched.rows else (*watched.reused, ALL),
        **more,
    )
    if not follows():
        write(report, watched.out)
    return report


def _sources(data: TrainingSet) -> tuple[SourceRow, ...]:
    names = dict.fromkeys(one.source for one in (*data.documents, *data.tune))
    found = []
    for name in names:
        trained = [one for one in data.documents if one.source == name]
        tune = sum(one.source == name for one in data.tune)
        found.append(SourceRow(name=name, documents=len(trained), tokens=tokens_of(trained), tune=tune))
    return tuple(found)


def _rebuilt(path: Path) -> Rebuilt | None:
    """What came of the blocks, where they were reconstructed."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if told.get("rebuilt") is None:
        return None
    blocks = tuple(BlockRow(**{key: one[key] for key in BlockRow.model_fields}) for one in told["blocks"])
    return Rebuilt(start=told["start"], after=told["rebuilt"], kept=told["kept_blocks"], blocks=blocks)


def _read(path: Path) -> list[Row]:
    try:
        return [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError, TypeError):
        return []


def _row(row: Row) -> CurveRow:
    more: Mapping[str, float] = row.more
    told = {key: value for key, value in asdict(row).items() if key in CurveRow.model_fields}
    return CurveRow(**told, answers=more.get("kl_answers"), agree=more.get("agree"))
