"""Reports: one record of a whole run, and the pages made from it: terminal table, HTML, JUnit XML."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from quantgate.calibrate import CalibrationSet
from quantgate.decide import Candidate, Decision
from quantgate.decide.planning import Plan
from quantgate.decide.rules import LoadEvidence
from quantgate.decide.targets import TargetDecision
from quantgate.evaluate.evidence import Evidence, Gate, NoiseFloor, Pace
from quantgate.evaluate.overlap import Overlaps
from quantgate.models.kinship import Kinship
from quantgate.quantize.manifest import Training
from quantgate.records import Record


class Environment(Record):
    """Where a run ran: enough to know whether two runs can be compared."""

    quantgate: str
    python: str
    torch: str
    transformers: str
    platform: str
    cpu: str
    cores: int
    gpu: str | None
    date: str  # ISO 8601, UTC


class VariantSummary(Record):
    """What quantization did to one variant; the full fates are in its manifest."""

    name: str
    artifact: str  # digest of the manifest
    path: str  # relative to the run's folder
    scheme: str
    method: str
    stored_bytes: int  # all tensors of the container
    bits_per_weight: float  # over the quantized layers, scales included
    bits_per_weight_whole: float  # over the whole model
    quantized: int  # how many layers were quantized
    kept: int  # how many tensors were left alone
    fallbacks: tuple[str, ...]  # fates where asked and got differ, as sentences
    notes: tuple[str, ...]  # the ledger
    mean_error: float | None  # mean share of a layer's output energy lost on calibration data
    ends: tuple[str, ...] = ()  # what became of the embedding table and the output layer, by which rule, as sentences
    repairable: bool  # whether its layers can be mixed with those of other variants
    kin: Kinship | None = Field(default=None, exclude_if=lambda kin: kin is None)
    """Of a model of its own: what it is beside the baseline. None: made of the baseline's weights."""
    training: tuple[Training, ...] = Field(default=(), exclude_if=lambda training: not training)
    """How its weights were distilled, and its codes trained; empty where nothing was, as far as its files say."""


class Stage(Record):
    """One arrow of the pipeline and how long it took in this process; 0 when it was taken from an earlier one."""

    name: str
    seconds: float
    reused: str = Field(default="", exclude_if=lambda told: not told)  # what earlier sweeps had finished already


class RunReport(Record):
    """Everything a report shows. ``report.json`` is this record."""

    written_by: ClassVar[str] = ": quantgate run"

    title: str
    model: str
    baseline: str  # digest of the weights
    parameters: int
    baseline_bytes: int
    config: str  # digest of the release.yaml's content
    gates: tuple[Gate, ...]
    calibration: CalibrationSet | None
    candidates: tuple[Candidate, ...]
    variants: tuple[VariantSummary, ...]
    evidence: tuple[Evidence, ...]
    decision: Decision
    environment: Environment
    noise: tuple[NoiseFloor, ...] = ()
    paces: dict[str, Pace] = {}  # variant -> what its engine's clock said
    stages: tuple[Stage, ...]
    placed: Plan | None = Field(default=None, exclude_if=lambda placed: placed is None)  # every variant on every target
    loads: tuple[LoadEvidence, ...] = Field(default=(), exclude_if=lambda loads: not loads)
    targets: tuple[TargetDecision, ...] = Field(default=(), exclude_if=lambda targets: not targets)
    overlap: Overlaps | None = Field(
        default=None, exclude_if=lambda found: found is None
    )  # of calibration, with the gate
    training_overlaps: tuple[Overlaps, ...] = Field(default=(), exclude_if=lambda found: not found)
    """Of each training set, with the gate."""
